"""Runs are looked at as soon as a provider tells of them, and at their own pace where none does."""

from __future__ import annotations

import base64
import hmac
import json
import queue
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from dreamctl import paths, plugins
from dreamctl.context import Context
from dreamctl.domain.remote import RemoteJob
from dreamctl.domain.run import RunRecord, State, Target
from dreamctl.errors import CredentialsError, DreamctlError, ProviderError
from dreamctl.files import write_json
from dreamctl.runfolder import EventWriter, RunFolder, new_run_id, now
from dreamctl.webhooks import Hint, receiver_paths
from dreamctl.workflows.listen import EVERYTHING, Rhythm, SigningKey, Wakeups, listen, wakeups
from tests.fakes import InstantBackend, Recorder
from tests.website import Answer, Site, serving

HERE = ("127.0.0.1", 0)
KEY, OTHER = ("whsec_" + base64.b64encode(bytes([number] * 32)).decode() for number in (1, 2))
TOKEN = "r8_abcdefgh12345678"
QUICK = Rhythm(shortest=0.01, rescan=0.05)


def remote_run(
    context: Context, remote_id: str | None, backend: str = "runpod", state: State = State.queued
) -> RunFolder:
    """As much of a run at a provider as is looked at here."""
    record = RunRecord(
        id=new_run_id(), project="project", target=Target.private, backend=backend, key="k", pictures="p", created=now()
    )  # fmt: skip
    run = RunFolder(context.runs / record.id)
    write_json(run.path / "run.json", record.plain())
    job = RemoteJob(backend=backend, place="here", contract="dreamctl", began=now(), id=remote_id)
    write_json(run.remote_file, job.plain())
    tell(run, state)
    return run


def tell(run: RunFolder, state: State) -> None:
    events = EventWriter(run.events_file)
    events.state(state)
    events.close()


class Ears(Recorder):
    """A reporter who knows the port that is listened on."""

    @property
    def port(self) -> int:
        found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", "\n".join(self.notes))
        assert found
        return int(found[1])

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> int:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST", path, body=body, headers=headers or {})
            return connection.getresponse().status
        finally:
            connection.close()

    def runpod(self, body: bytes) -> int:
        return self.post(receiver_paths()["runpod"], body)


def signed(body: bytes, key: str = KEY, identity: str = "msg_1") -> dict[str, str]:
    stamp = str(int(time.time()))
    content = f"{identity}.{stamp}.".encode() + body
    made = hmac.new(base64.b64decode(key.removeprefix("whsec_")), content, "sha256").digest()
    signature = f"v1,{base64.b64encode(made).decode()}"
    return {"webhook-id": identity, "webhook-timestamp": stamp, "webhook-signature": signature}


def slowly(run: RunFolder) -> float:
    return 60.0


@pytest.fixture
def ears() -> Ears:
    return Ears()


def opened(ears: Ears) -> Context:
    return Context.open(None, {}, ears)


@pytest.fixture
def context(ears: Ears) -> Context:
    return opened(ears)


@pytest.fixture
def replicate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Where the signing key is, for whoever has the token."""
    monkeypatch.setenv("REPLICATE_API_TOKEN", TOKEN)
    with serving() as site:
        site.put("/v1/webhooks/default/secret", key_page(KEY))
        monkeypatch.setenv("DREAMCTL_REPLICATE_URL", f"{site.url}/v1")
        yield site


def key_page(key: object) -> Answer:
    return Answer(json.dumps({"key": key}).encode())


# waiting


def test_waiting_ends_with_a_hint_or_with_the_time() -> None:
    hints = queue.Queue[Hint]()
    woken = Wakeups(hints)
    assert woken.wait(0) == woken.wait(-1) == woken.wait(0.01) == frozenset()
    threading.Timer(0.05, hints.put, [Hint("runpod", "a")]).start()
    began = time.monotonic()
    assert woken.wait(float("inf")) == {"a"}
    assert time.monotonic() - began < 5
    for remote in ("a", "b", EVERYTHING):
        hints.put(Hint("runpod", remote))
    assert woken.wait(60) == {"a", "b", EVERYTHING}


def test_the_paths_are_told(context: Context, ears: Ears) -> None:
    with wakeups(context, HERE, replicate=False) as woken:
        for sender, path in receiver_paths().items():
            assert any(note.split() == [sender, path] for note in ears.notes)
        assert ears.runpod(b'{"id":"abc"}') == 200
        assert woken.wait(10) == {"abc"}
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", ears.port), timeout=2)


# looking


def test_polling_alone_suffices(context: Context) -> None:
    runs = [remote_run(context, "a"), remote_run(context, None)]
    looks: list[str] = []

    def look(run: RunFolder) -> bool:
        looks.append(run.id)
        return looks.count(run.id) < 3

    listen(context, runs, HERE, look, lambda run: 0.01)
    assert sorted(looks) == sorted([run.id for run in runs] * 3)


def test_the_backend_s_own_pace_is_kept(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plugins.BUILT_IN["backends"], "instant", f"{InstantBackend.__module__}:InstantBackend")
    run = remote_run(context, "a", backend="instant")
    looks: list[float] = []

    def look(run: RunFolder) -> bool:
        looks.append(time.monotonic())
        return len(looks) < 3

    listen(context, [run], HERE, look)
    assert looks[2] - looks[0] < 5


@pytest.mark.parametrize("body", [b'{"id":"b","status":"COMPLETED"}', b""])
def test_a_hint_makes_it_sooner_for_the_run_that_it_names(context: Context, ears: Ears, body: bytes) -> None:
    runs = [remote_run(context, "a"), remote_run(context, "b")]
    looks: list[str] = []

    def look(run: RunFolder) -> bool:
        looks.append(run.id)
        if looks == [runs[0].id, runs[1].id]:
            assert ears.runpod(body) == 200
        elif run is runs[1]:
            assert ears.runpod(b'{"id":"a"}') == 200
        return len(looks) == 2 or (run is runs[0] and looks.count(run.id) < 2)

    began = time.monotonic()
    listen(context, runs, HERE, look, slowly, QUICK)
    assert time.monotonic() - began < 10
    a, b = (run.id for run in runs)
    assert looks in ([a, b, b, a], [a, b, a, b])


def test_however_often_it_is_told_of_a_run_is_not_looked_at_all_the_time(context: Context, ears: Ears) -> None:
    run = remote_run(context, "a")
    looks: list[float] = []

    def look(run: RunFolder) -> bool:
        looks.append(time.monotonic())
        for _ in range(3):
            ears.runpod(b'{"id":"a"}')
        return len(looks) < 3

    listen(context, [run], HERE, look, slowly, Rhythm(shortest=0.3))
    assert looks[1] - looks[0] >= 0.3 and looks[2] - looks[1] >= 0.3


def test_a_provider_that_cannot_be_asked_is_told_once_and_asked_again(context: Context, ears: Ears) -> None:
    run = remote_run(context, "a")
    troubles = [ProviderError("the cloud is away"), ProviderError("the cloud is away"), ProviderError("it is odd")]

    def look(run: RunFolder) -> bool:
        if troubles:
            raise troubles.pop(0)
        return False

    listen(context, [run], HERE, look, lambda run: 0.01)
    assert ears.warnings == [f"run {run.id}: {why}; asking again" for why in ("the cloud is away", "it is odd")]


def test_what_asking_again_does_not_help_is_raised_and_the_port_closed(context: Context, ears: Ears) -> None:
    def look(run: RunFolder) -> bool:
        raise CredentialsError("no token")

    with pytest.raises(CredentialsError):
        listen(context, [remote_run(context, "a")], HERE, look, slowly)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", ears.port), timeout=2)


def test_without_runs_all_at_work_are_followed_and_those_that_come(context: Context, ears: Ears) -> None:
    first, damaged = remote_run(context, "a"), remote_run(context, "x")
    remote_run(context, "b", state=State.cancelled)
    left_there = remote_run(context, "c", state=State.succeeded)
    later: list[RunFolder] = []
    looks: list[str] = []

    def look(run: RunFolder) -> bool:
        looks.append(run.id)
        if run.id == damaged.id:
            raise DreamctlError("it is damaged")
        if run.id == first.id and not later:
            later.append(remote_run(context, "d"))
        if later and run.id == later[0].id:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        listen(context, None, HERE, look, slowly, QUICK)
    assert sorted(looks) == sorted([first.id, damaged.id, left_there.id, later[0].id])
    assert ears.warnings == [f"run {damaged.id} is passed over: it is damaged"]
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", ears.port), timeout=2)


def test_a_port_that_is_taken(context: Context) -> None:
    with socket.create_server(HERE) as taken, pytest.raises(DreamctlError, match="address already in use") as raised:
        listen(context, [], ("127.0.0.1", taken.getsockname()[1]), lambda run: False)
    assert "another port" in str(raised.value.hint)


# Replicate's signatures


def test_the_signing_key_is_asked_for_once_and_kept(replicate: Site, ears: Ears) -> None:
    body = b'{"id":"r1","status":"succeeded"}'
    for identity in ("msg_1", "msg_2"):
        ears.notes.clear()
        context = opened(ears)
        with wakeups(context, HERE, replicate=True) as woken:
            assert ears.post("/replicate", body, signed(body, identity=identity)) == 200
            assert woken.wait(10) == {"r1"}
            assert ears.post("/replicate", body, signed(body, OTHER)) == 401
    assert [headers["authorization"] for _, headers in replicate.seen[:1]] == [f"Bearer {TOKEN}"]
    kept = paths.data_dir() / "replicate-signing-key.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600 and TOKEN not in kept.read_text()
    # The first time it had just been asked for; the second time the wrong signature is worth one question.
    assert replicate.count("/v1/webhooks/default/secret") == 2
    assert ears.warnings == []


def test_a_run_at_replicate_makes_the_key_known_before_anything_comes(replicate: Site, ears: Ears) -> None:
    context = opened(ears)
    listen(context, [remote_run(context, "a", "runpod")], HERE, lambda run: False)
    assert replicate.seen == []
    listen(context, [remote_run(context, "a", "replicate")], HERE, lambda run: False)
    assert replicate.count("/v1/webhooks/default/secret") == 1


def test_a_key_that_was_changed_is_asked_for_anew_once_a_minute(replicate: Site, user: Path) -> None:
    moment = [0.0]
    key = SigningKey(f"{replicate.url}/v1", user, lambda: moment[0])
    assert key(False) == KEY
    replicate.put("/v1/webhooks/default/secret", key_page(OTHER))
    moment[0] = 59.0
    assert [key(True), key(False)] == [KEY, KEY]
    moment[0] = 60.0
    assert [key(True), key(True), key(False)] == [OTHER, OTHER, OTHER]
    assert replicate.count("/v1/webhooks/default/secret") == 2
    assert SigningKey(f"{replicate.url}/v1", user)(False) == OTHER


def test_another_account_has_another_key(replicate: Site, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{replicate.url}/v1"
    assert SigningKey(url, user)(False) == KEY
    replicate.put("/v1/webhooks/default/secret", key_page(OTHER))
    assert SigningKey(url, user)(False) == KEY
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_another12345678")
    assert SigningKey(url, user)(False) == OTHER
    (paths.data_dir() / "replicate-signing-key.json").write_text("[")
    assert SigningKey(url, user)(False) == OTHER


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b"{}", 500), Answer(b"no", 401), Answer(b"<html>"), Answer(b"[]"), Answer(b'"x"'),
        key_page(None), key_page("whsec_"), key_page("whsec_?"), key_page([KEY]),
    ],
)  # fmt: skip
def test_without_a_key_polling_goes_on(replicate: Site, ears: Ears, answer: Answer) -> None:
    replicate.put("/v1/webhooks/default/secret", answer)
    context = opened(ears)
    looks: list[int] = []

    def look(run: RunFolder) -> bool:
        looks.append(ears.post("/replicate", b"{}", signed(b"{}")))
        return len(looks) < 2

    listen(context, [remote_run(context, "a", "replicate")], HERE, look, lambda run: 0.01)
    assert looks == [401, 401]
    [warning] = ears.warnings
    assert warning.startswith("Replicate's webhooks cannot be checked, and are refused: ") and TOKEN not in warning


def test_without_a_token_it_says_so(ears: Ears) -> None:
    context = opened(ears)
    listen(context, [remote_run(context, "a", "replicate")], HERE, lambda run: False)
    assert "there is no token for replicate" in ears.warnings[0]


# the end


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_at_once_and_closes_the_port(number: int, code: int) -> None:
    program = [sys.executable, "-m", "dreamctl", "status", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        program,
        stderr=subprocess.PIPE,
        text=True,
        # tests may run in the background, where Ctrl-C is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    ) as listening:
        assert listening.stderr
        heard = Ears()
        heard.notes = [listening.stderr.readline() for _ in range(3)]
        slow = socket.create_connection(("127.0.0.1", heard.port))
        slow.sendall(b"POST / HTTP/1.1\r\n")
        began = time.monotonic()
        listening.send_signal(number)
        assert listening.wait(20) == code
        assert time.monotonic() - began < 3
        assert "Traceback" not in listening.stderr.read()
    slow.close()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", heard.port), timeout=2)
