"""Google Cloud Storage: uploads that survive, conditions, downloads and what goes wrong."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("google.cloud.storage")

from dreamctl.errors import CredentialsError, DreamctlError, NotFound, ProviderError, Signalled
from dreamctl.files import sha256_file
from dreamctl.storage import gcs_session, patience
from dreamctl.storage.base import Changed, Passing
from dreamctl.storage.gcs import GcsStorage
from dreamctl.storage.gcs_errors import refusal
from tests.servers.proxy import proxy
from tests.storage.fake_gcs import FakeGcs, Fault, Stored

UNIT = 256 * 1024
SESSION = "upload_id="


class Kept:
    """A ticket in memory."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.state = state
        self.kept: list[dict[str, Any]] = []
        self.then: Callable[[], None] = lambda: None

    def keep(self, state: dict[str, Any]) -> None:
        self.state = json.loads(json.dumps(state))
        self.kept.append(self.state or {})
        self.then()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks, short pauses."""
    monkeypatch.setattr(gcs_session, "FIRST", 2 * UNIT)
    monkeypatch.setattr(gcs_session, "MOST", 2 * UNIT)
    monkeypatch.setattr(gcs_session, "_QUICK", 60.0)  # the cores are shared
    monkeypatch.setattr(patience, "backoff", lambda attempt: 0.005)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trouble is borne for the twinkling of an eye."""
    monkeypatch.setattr(patience.Patience.__init__, "__defaults__", (0.1, None))
    monkeypatch.setattr(patience, "FIRST_PATIENCE", 0.1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Five chunks and a bit, each byte of them another one's neighbour."""
    path = tmp_path / "x.zip"
    path.write_bytes(os.urandom(11 * UNIT + 77))
    return path


def put(storage: GcsStorage, file: Path, **options: Any) -> Any:
    return storage.put("x.zip", file, sha256_file(file), **options)


def arrived(fake: FakeGcs) -> Stored:
    return fake.objects["some/prefix/x.zip"]


# uploads


def test_a_file_goes_in_chunks_of_one_session(gcs: GcsStorage, fake: FakeGcs, file: Path) -> None:
    ticket, told = Kept(), []
    ticket.then = lambda: told.append(fake.count("PUT"))
    stored = put(gcs, file, ticket=ticket, progress=lambda done, size: told.append(done))
    assert told[:4] == [0, 0, 2 * UNIT, 4 * UNIT], "the session was kept before the first byte"
    assert told[-1] == stored.bytes == file.stat().st_size
    assert arrived(fake).data == file.read_bytes() and fake.count("PUT") == 6 and fake.count("POST") == 1
    assert arrived(fake).metadata["sha256"] == stored.sha256
    assert stored.version == str(arrived(fake).generation)


@pytest.mark.parametrize("kept", [0, UNIT, 2 * UNIT])
@pytest.mark.parametrize("status", [0, 503, 429])
def test_trouble_with_a_chunk_is_gone_on_from_what_was_kept(
    gcs: GcsStorage, fake: FakeGcs, file: Path, status: int, kept: int
) -> None:
    fake.faults = [Fault("GET", "/b/bucket", 503), Fault("POST", "/o", 503), Fault("PUT", SESSION, status, kept=kept)]
    assert put(gcs, file).bytes == file.stat().st_size
    assert arrived(fake).data == file.read_bytes() and len(fake.uploads) == 1


def test_chunks_shrink_under_cuts_and_grow_again(gcs: GcsStorage, fake: FakeGcs, tmp_path: Path) -> None:
    file, sizes, before = tmp_path / "x.zip", [], 0
    file.write_bytes(os.urandom(24 * UNIT))
    fake.faults = [Fault("PUT", SESSION, 0, times=3)]  # the first chunk, the question, the question again

    def told(done: int, size: int) -> None:
        nonlocal before
        sizes.append((done - before) // UNIT)
        before = done

    put(gcs, file, progress=told)
    assert sizes[:6] == [0, 0, 1, 1, 1, 1] and sizes[6] == 2
    assert arrived(fake).data == file.read_bytes()


def test_chunks_grow_over_quick_lines_and_shrink_over_slow_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs_session, "MOST", 4 * UNIT)
    monkeypatch.setattr(gcs_session, "_QUICK", 2.0)
    pace, seen = gcs_session._Pace(), []
    for seconds in (0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 5, 11, 11, 11):
        pace.sent(seconds)
        seen.append(pace.chunk // UNIT)
    assert seen == [2, 2, 2, 4, 4, 4, 4, 4, 4, 2, 1, 1]


def test_kinds_are_known_by_their_names(gcs: GcsStorage, fake: FakeGcs, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    for key in ("x.zip", "x.tar.gz", "x.safetensors"):
        gcs.put(key, tmp_path / "x", sha256_file(tmp_path / "x"))
    kinds = [fake.objects[f"some/prefix/{key}"].kind for key in ("x.zip", "x.tar.gz", "x.safetensors")]
    assert kinds == ["application/zip", "application/octet-stream", "application/octet-stream"]


def test_the_lost_answer_to_the_last_chunk(gcs: GcsStorage, fake: FakeGcs, file: Path) -> None:
    fake.faults = [Fault("PUT", SESSION, 0, times=0, after=True)]

    def told(done: int, size: int) -> None:
        if size - done < 2 * UNIT:
            fake.faults[0].times = 1

    stored = put(gcs, file, create_only=True, progress=told)
    assert stored.version == str(arrived(fake).generation) and len(fake.uploads) == 1


def test_a_lost_answer_and_a_session_that_is_forgotten_at_once(gcs: GcsStorage, fake: FakeGcs, file: Path) -> None:
    def told(done: int, size: int) -> None:
        if size - done < 2 * UNIT:
            fake.faults = [Fault("PUT", SESSION, 0, after=True), Fault("PUT", "o?uploadType", 404, times=0)]

            def forget(method: str, target: str, after: bool) -> Fault | None:
                found = original(method, target, after)
                if found and after:
                    fake.uploads.clear()
                return found

            original, fake.fault = fake.fault, forget  # type: ignore[method-assign]

    stored = put(gcs, file, create_only=True, progress=told)
    assert stored.version == str(arrived(fake).generation) and fake.count("POST") == 1


@pytest.mark.parametrize("status", [404, 410, 499])
def test_a_session_that_is_gone_is_begun_anew(gcs: GcsStorage, fake: FakeGcs, file: Path, status: int) -> None:
    ticket = Kept()
    fake.faults = [Fault("PUT", SESSION, status, times=0)]

    def told(done: int, size: int) -> None:
        fake.faults[0].times = int(done == 4 * UNIT and fake.count("POST") == 1)

    put(gcs, file, ticket=ticket, progress=told)
    assert arrived(fake).data == file.read_bytes()
    assert len({state["session"] for state in ticket.kept}) == len(ticket.kept) == 2


def test_sessions_that_die_again_and_again_are_told(gcs: GcsStorage, fake: FakeGcs, file: Path) -> None:
    fake.faults = [Fault("PUT", SESSION, 410, times=99)]
    with pytest.raises(ProviderError, match="ended each upload"):
        put(gcs, file)


def test_another_process_goes_on(gcs: GcsStorage, fake: FakeGcs, file: Path, impatient: None) -> None:
    ticket, options = Kept(), {"create_only": True}
    fake.faults = [Fault("PUT", SESSION, 503, times=0)]

    def fail(done: int, size: int) -> None:
        fake.faults[0].times = 1000 * (done == 4 * UNIT)

    with pytest.raises(Passing, match="503"):
        put(gcs, file, ticket=ticket, progress=fail, **options)
    fake.faults, fake.seen[:] = [], []
    told: list[int] = []
    gcs = GcsStorage("gs://bucket/some/prefix")
    stored = put(gcs, file, ticket=ticket, progress=lambda done, size: told.append(done), **options)
    assert told[0] == 4 * UNIT and fake.count("POST") == 0
    assert arrived(fake).data == file.read_bytes() and stored.sha256 == sha256_file(file)


def test_a_session_of_other_bytes_or_of_another_condition_is_not_gone_on_with(
    gcs: GcsStorage, fake: FakeGcs, file: Path, impatient: None
) -> None:
    ticket = Kept()
    fake.faults = [Fault("PUT", SESSION, 503, times=1000)]
    with pytest.raises(Passing):
        put(gcs, file, ticket=ticket)
    fake.faults = []
    put(gcs, file, ticket=Kept(ticket.state), create_only=True)
    assert len(fake.uploads) == 2
    file.write_bytes(os.urandom(3 * UNIT))
    put(gcs, file, ticket=Kept(ticket.state))
    assert len(fake.uploads) == 3 and arrived(fake).data == file.read_bytes()


def test_what_was_done_when_its_process_died_is_found(gcs: GcsStorage, fake: FakeGcs, file: Path) -> None:
    ticket = Kept()
    first = put(gcs, file, ticket=ticket, create_only=True)
    assert put(gcs, file, ticket=ticket, create_only=True) == first
    fake.uploads.clear()
    assert put(gcs, file, ticket=Kept({**(ticket.state or {}), "match": None})) == first


def test_a_file_that_changes_is_not_stored(gcs: GcsStorage, fake: FakeGcs, file: Path) -> None:
    digest = sha256_file(file)

    def change(done: int, size: int) -> None:
        if done == 4 * UNIT:
            with open(file, "r+b") as writing:
                writing.write(b"other")

    with pytest.raises(DreamctlError, match="changed while it was stored"):
        gcs.put("x.zip", file, digest, progress=change)
    assert not fake.objects and not fake.uploads, "and the session was ended"
    with pytest.raises(DreamctlError, match="changed while it was stored"):
        gcs.put("x.zip", file, digest, progress=lambda done, size: os.truncate(file, 10))
    with pytest.raises(DreamctlError, match="nowhere"):
        gcs.put("x.zip", file.with_name("nowhere"), digest)
    assert not fake.objects and not fake.uploads


@pytest.mark.parametrize("signalled", [KeyboardInterrupt, Signalled])
@pytest.mark.parametrize("knows", [True, False])
def test_ctrl_c_ends_the_session(
    gcs: GcsStorage, fake: FakeGcs, file: Path, signalled: type[BaseException], knows: bool
) -> None:
    fake.faults = [] if knows else [Fault("DELETE", SESSION, 501)]

    def stop(done: int, size: int) -> None:
        if done:
            raise signalled

    with pytest.raises(signalled):
        put(gcs, file, progress=stop)
    assert fake.count("DELETE") == 1 and bool(fake.uploads) != knows and not fake.objects


def test_abandon(gcs: GcsStorage, fake: FakeGcs, file: Path, impatient: None) -> None:
    ticket = Kept()
    fake.faults = [Fault("PUT", SESSION, 503, times=1000)]
    with pytest.raises(Passing):
        put(gcs, file, ticket=ticket)
    assert ticket.state and gcs.abandon("x.zip", ticket.state) and not fake.uploads
    assert not gcs.abandon("x.zip", ticket.state) and not gcs.abandon("x.zip", {})
    assert not list(gcs.unfinished())


def test_a_refused_checksum_is_told_and_nothing_is_stored(
    gcs: GcsStorage, fake: FakeGcs, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs_session.Hashed, "crc32c", lambda self: "AAAAAA==")
    with pytest.raises(ProviderError, match="ended each upload"):
        put(gcs, file)
    assert not fake.objects


def test_what_arrived_damaged_is_removed(gcs: GcsStorage, fake: FakeGcs, file: Path) -> None:
    wrong = {"size": str(file.stat().st_size), "crc32c": "AAAAAA==", "generation": "2", "metadata": {}}

    def told(done: int, size: int) -> None:
        if size - done < 2 * UNIT:
            fake.faults = [Fault("PUT", SESSION, 200, after=True, body=json.dumps(wrong).encode())]

    with pytest.raises(ProviderError, match="arrived damaged"):
        put(gcs, file, progress=told)
    assert not fake.objects


# conditions


def test_a_race_that_is_lost_at_the_end(gcs: GcsStorage, fake: FakeGcs, file: Path) -> None:
    def interfere(done: int, size: int) -> None:
        fake.store("some/prefix/x.zip", b"theirs")

    with pytest.raises(Changed, match="is there already"):
        put(gcs, file, create_only=True, progress=interfere)
    theirs = gcs.head("x.zip")
    assert theirs and theirs.bytes == 6
    with pytest.raises(Changed, match="changed by somebody else"):
        put(gcs, file, if_version=theirs.version, progress=interfere)
    assert arrived(fake).data == b"theirs"


def test_a_condition_that_fails_over_ones_own_object_is_a_success(gcs: GcsStorage, fake: FakeGcs, file: Path) -> None:
    def told(done: int, size: int) -> None:
        if size - done < 2 * UNIT:
            fake.faults = [Fault("PUT", SESSION, 412, after=True)]

    assert put(gcs, file, create_only=True, progress=told).version == str(arrived(fake).generation)


# downloads and lists


def test_a_download_that_is_cut_goes_on(gcs: GcsStorage, fake: FakeGcs, file: Path, tmp_path: Path) -> None:
    stored = put(gcs, file)
    half = file.read_bytes()[: 3 * UNIT]
    more = {"Content-Length": str(file.stat().st_size)}
    fake.faults = [Fault("GET", "alt=media", 503), Fault("GET", "alt=media", 200, body=half, headers=more)]
    assert gcs.get("x.zip", tmp_path / "back") == stored
    assert (tmp_path / "back").read_bytes() == file.read_bytes()


def test_an_object_that_is_replaced_under_the_download(
    gcs: GcsStorage, fake: FakeGcs, file: Path, tmp_path: Path
) -> None:
    put(gcs, file)
    fake.faults = [Fault("GET", "alt=media", 412)]
    with pytest.raises(Changed):
        gcs.get("x.zip", tmp_path / "back")
    fake.faults = [Fault("GET", "alt=media", 404)]
    with pytest.raises(NotFound, match=r"gs://bucket/some/prefix/x\.zip is not there"):
        gcs.get("x.zip", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_without_a_recorded_digest_the_checksum_is_compared(gcs: GcsStorage, fake: FakeGcs, tmp_path: Path) -> None:
    fake.store("some/prefix/x.zip", b"of others", {"sha256": "not a digest"})
    stored = gcs.get("x.zip", tmp_path / "back")
    assert stored.sha256 == sha256_file(tmp_path / "back")
    fake.faults = [Fault("GET", "alt=media", 200, body=b"0f others")]
    with pytest.raises(ProviderError, match="CRC32C"):
        gcs.get("x.zip", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_lists_have_pages(gcs: GcsStorage, fake: FakeGcs) -> None:
    fake.page = 2
    for name in ("a", "b/", "b/1", "b/2", "c"):
        fake.store(f"some/prefix/{name}", b"x")
    fake.store("some/other", b"x")
    fake.faults = [Fault("GET", "pageToken=2", 503)]
    assert [stored.key for stored in gcs.list()] == ["a", "b/1", "b/2", "c"]
    assert [stored.key for stored in gcs.list("b/")] == ["b/1", "b/2"]
    assert [stored.key for stored in gcs.list(recursive=False)] == ["a", "c"]
    assert next(gcs.list("a")).version == gcs.head("a").version  # type: ignore[union-attr]


# what goes wrong


def test_a_bucket_that_is_not_there(fake: FakeGcs, file: Path) -> None:
    for action in (lambda s: s.head("x"), lambda s: put(s, file), lambda s: list(s.list()), lambda s: s.delete("x")):
        with pytest.raises(NotFound, match="no bucket 'nowhere'") as raised:
            action(GcsStorage("gs://nowhere"))
        assert "gcloud storage buckets create gs://nowhere" in (raised.value.hint or "")


def test_an_account_that_may_not_look_at_the_bucket_may_use_it(gcs: GcsStorage, fake: FakeGcs, file: Path) -> None:
    fake.faults = [Fault("GET", "fields=name", 403)]
    put(gcs, file)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, CredentialsError, "credentials"),
        (403, CredentialsError, "may not (read|write|delete|list)"),
        (400, ProviderError, "answered 400: because"),
    ],
)
def test_refusals_are_told_at_once(
    gcs: GcsStorage, fake: FakeGcs, file: Path, status: int, kind: type[DreamctlError], words: str
) -> None:
    body = json.dumps({"error": {"message": "because \x1b[31m"}}).encode()
    for method, where, action in (
        ("GET", "/o/", lambda: gcs.get("x.zip", file.with_name("back"))),
        ("POST", "/o", lambda: put(gcs, file)),
        ("GET", "/o?", lambda: list(gcs.list())),
        ("DELETE", "/o/", lambda: gcs.delete("x.zip")),
    ):
        fake.faults = [Fault(method, where, status, body=body)]
        with pytest.raises(kind, match=words) as raised:
            action()
        assert "\x1b" not in str(raised.value) and not isinstance(raised.value, Passing)


def test_where_listing_is_not_allowed_an_absent_object_is_none(gcs: GcsStorage, fake: FakeGcs, file: Path) -> None:
    fake.faults = [Fault("GET", "/o/", 403)]
    assert gcs.head("x.zip") is None
    assert put(gcs, file).bytes == file.stat().st_size


def test_a_server_that_asks_to_wait_is_heard() -> None:
    import requests

    answer = requests.Response()
    answer.status_code = 429
    answer.headers["Retry-After"] = "7"
    problem = refusal(answer, "bucket", "read objects")
    assert isinstance(problem, Passing) and problem.wait == 7


def test_a_dead_endpoint_is_told_soon(monkeypatch: pytest.MonkeyPatch, impatient: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.setattr(patience, "FIRST_SECONDS", 0.3)
        storage = GcsStorage("gs://bucket")
        assert storage._bucket.endpoint, "the client is made before the clock runs"
        with pytest.raises(ProviderError, match=r"127\.0\.0\.1 did not answer within"):
            storage.head("x")
    monkeypatch.setattr(patience, "FIRST_SECONDS", 14.0)
    with pytest.raises(ProviderError, match="Connection refused"):
        GcsStorage("gs://bucket").head("x")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:1")
    with pytest.raises(ProviderError, match="InvalidSchema"):
        GcsStorage("gs://bucket").head("x")


def test_no_session_is_ever_told(
    gcs: GcsStorage, fake: FakeGcs, file: Path, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fake.faults = [Fault("PUT", SESSION, 0, times=1000)]
    with pytest.raises(ProviderError) as raised:
        put(gcs, file)
    for text in (str(raised.value), raised.value.hint or "", caplog.text):
        assert "session" not in text and "upload_id" not in text
    assert raised.value.__cause__ is None and raised.value.__suppress_context__


# against the emulator


def test_a_killed_process_is_gone_on_with(emulated_bucket: str, file: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    program = f"""
import json, os, signal
from pathlib import Path
from dreamctl.storage import gcs, gcs_session

gcs_session.FIRST = {2 * UNIT}

class Ticket:
    state = None
    def keep(self, state):
        Path({str(kept)!r}).write_text(json.dumps(state))

def die(done, size):
    if done >= 4 * {UNIT}:
        os.kill(os.getpid(), signal.SIGKILL)

storage = gcs.GcsStorage({emulated_bucket!r})
storage.put("x.zip", Path({str(file)!r}), {sha256_file(file)!r}, ticket=Ticket(), progress=die)
"""
    root = Path(__file__).parents[2]
    died = subprocess.run([sys.executable, "-c", program], cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    assert died.returncode == -signal.SIGKILL
    storage, ticket, told = GcsStorage(emulated_bucket), Kept(json.loads(kept.read_text())), []
    stored = put(storage, file, ticket=ticket, progress=lambda done, size: told.append(done))
    assert told[0] == 4 * UNIT
    assert storage.get("x.zip", tmp_path / "back") == stored
    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    assert not storage.abandon("x.zip", json.loads(kept.read_text()))


def test_connections_that_are_cut_every_three_megabytes(
    emulated_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs_session, "FIRST", 32 * UNIT)
    monkeypatch.setattr(gcs_session, "MOST", 32 * UNIT)
    file = tmp_path / "big.zip"
    file.write_bytes(os.urandom(14_000_001))
    with proxy(os.environ["STORAGE_EMULATOR_HOST"]) as line:
        line.cut_each = 3_000_000
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", line.url)
        storage = GcsStorage(emulated_bucket)
        stored = put(storage, file)
        assert storage.get("x.zip", tmp_path / "back") == stored
    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    assert line.cuts >= 5
