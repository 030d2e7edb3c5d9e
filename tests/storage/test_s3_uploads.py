"""Uploads in parts: nothing is visible before the end, another process goes on, and whoever stops leaves nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("boto3")

from dreamctl.errors import CredentialsError, DreamctlError, ProviderError, Signalled
from dreamctl.storage import patience, s3_client, s3_crew, s3_parts
from dreamctl.storage.s3 import S3Storage
from tests.servers.base import S3Server
from tests.servers.ceph import Ceph
from tests.servers.proxy import Proxy, proxy
from tests.storage.stores import Answers, Memory, client_of, new_bucket, random_file, s3_storage, unfinished

PART = 5 << 20
SIZE = 2 * PART + (1 << 20)
KEY = "a prefix/key"


@dataclass
class Place:
    """A bucket on a server, and the way there by a proxy; `storage()` is another process's."""

    server: S3Server
    between: Proxy
    bucket: str
    monkeypatch: pytest.MonkeyPatch

    def storage(self) -> S3Storage:
        return s3_storage(self.server.at(self.between.url), self.monkeypatch, self.bucket)

    def after_part(self, storage: S3Storage, number: int, act: Callable[[], object]) -> None:
        """Do something as soon as so many parts have been sent."""
        sent = []

        def look(**_: Any) -> None:
            sent.append(1)
            if len(sent) == number:
                act()

        storage._bucket.service.client.meta.events.register("after-call.s3.UploadPart", look)

    def cut_off(self) -> None:
        """Nothing gets through any more."""
        self.between.cut_each, self.between.refuse = 1, 10**9

    def repair(self) -> None:
        self.between.cut_each, self.between.refuse, self.between.stalled = None, 0, False

    def content(self) -> bytes:
        return bytes(client_of(self.server).get_object(Bucket=self.bucket, Key=KEY)["Body"].read())


@pytest.fixture
def place(ceph_servers: Ceph, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """With one part under way at a time, and little patience."""
    monkeypatch.setattr(s3_crew, "THREADS", 1)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(patience, "backoff", lambda attempt: 0.02)
    with proxy(ceph_servers.plain.endpoint) as between:
        yield Place(ceph_servers.plain, between, new_bucket(ceph_servers.plain), monkeypatch)


@pytest.fixture
def file(tmp_path: Path) -> tuple[Path, str]:
    return random_file(tmp_path / "file.bin", SIZE)


@pytest.fixture
def interrupted(place: Place, file: tuple[Path, str]) -> Memory:
    """The ticket of an upload that ended after two of three parts."""
    ticket, storage = Memory(), place.storage()
    place.after_part(storage, 2, place.cut_off)
    with pytest.raises(ProviderError, match="cannot reach 127"):
        storage.put("key", *file, ticket=ticket)
    place.repair()
    return ticket


# going on


def test_what_was_interrupted_is_not_visible_and_its_ticket_was_kept_before_the_first_part(
    place: Place, file: tuple[Path, str]
) -> None:
    class Watch(Memory):
        def keep(self, state: dict[str, Any]) -> None:
            super().keep(state)
            there.append((place.between.passed, len(unfinished(place.server, place.bucket))))

    there: list[tuple[int, int]] = []
    ticket, storage = Watch(), place.storage()
    place.after_part(storage, 2, place.cut_off)
    with pytest.raises(ProviderError):
        storage.put("key", *file, ticket=ticket)
    assert [uploads for _, uploads in there] == [0, 1]  # before it is begun, and when its id is known
    assert all(passed < 10_000 for passed, _ in there)
    assert [ticket.state and ticket.state["upload_id"]] == unfinished(place.server, place.bucket)
    place.repair()
    assert place.storage().head("key") is None


def test_another_process_sends_only_what_is_missing(place: Place, file: tuple[Path, str], interrupted: Memory) -> None:
    before, told = place.between.passed, list[int]()
    stored = place.storage().put("key", *file, ticket=interrupted, progress=lambda done, total: told.append(done))
    assert place.between.passed - before < SIZE - 2 * PART + 50_000
    assert min(told) >= PART and told[-1] == SIZE  # it begins with what is there
    assert place.content() == file[0].read_bytes() and stored.sha256 == file[1]
    assert not unfinished(place.server, place.bucket)


def test_an_upload_whose_id_was_never_learnt_is_found_by_its_key(place: Place, file: tuple[Path, str]) -> None:
    class Killed(BaseException): ...

    class Ticket(Memory):
        def keep(self, state: dict[str, Any]) -> None:
            if "upload_id" in state:
                raise Killed
            super().keep(state)

    ticket = Ticket()
    with pytest.raises(Killed):
        place.storage().put("key", *file, ticket=ticket)
    assert ticket.state and len(unfinished(place.server, place.bucket)) == 1
    place.storage().put("key", *file, ticket=Memory(ticket.state))
    assert place.content() == file[0].read_bytes() and not unfinished(place.server, place.bucket)
    with pytest.raises(Killed):
        place.storage().put("key", *file, ticket=ticket)
    assert place.storage().abandon("key", ticket.state) and not unfinished(place.server, place.bucket)


def test_an_upload_that_somebody_removed_begins_anew(place: Place, file: tuple[Path, str], interrupted: Memory) -> None:
    state = interrupted.state or {}
    assert place.storage().abandon("key", state) and not place.storage().abandon("key", state)
    place.storage().put("key", *file, ticket=interrupted)
    assert place.content() == file[0].read_bytes() and interrupted.state != state


def test_an_upload_that_somebody_removes_meanwhile_begins_anew_once(place: Place, file: tuple[Path, str]) -> None:
    def remove() -> None:
        for upload in unfinished(place.server, place.bucket):
            client_of(place.server).abort_multipart_upload(Bucket=place.bucket, Key=KEY, UploadId=upload)

    storage = place.storage()
    place.after_part(storage, 2, remove)
    storage.put("key", *file)
    assert place.content() == file[0].read_bytes() and not unfinished(place.server, place.bucket)
    storage = place.storage()
    for part in range(1, 9):
        place.after_part(storage, part, remove)
    with pytest.raises(DreamctlError, match="removed by somebody else, twice"):
        storage.put("other", *file, ticket=Memory())


def test_a_part_that_is_another_at_the_server_is_sent_again(
    place: Place, file: tuple[Path, str], interrupted: Memory
) -> None:
    upload = {"Bucket": place.bucket, "Key": KEY, "UploadId": (interrupted.state or {})["upload_id"]}
    client_of(place.server).upload_part(**upload, PartNumber=1, Body=os.urandom(PART))
    before = place.between.passed
    place.storage().put("key", *file, ticket=interrupted)
    assert place.content() == file[0].read_bytes()
    assert SIZE - PART < place.between.passed - before < SIZE - PART + 50_000


def test_another_file_begins_anew_and_what_was_sent_of_the_first_is_removed(
    place: Place, interrupted: Memory, tmp_path: Path
) -> None:
    other = random_file(tmp_path / "other.bin", SIZE)
    place.storage().put("key", *other, ticket=interrupted)
    assert place.content() == other[0].read_bytes() and not unfinished(place.server, place.bucket)


# ending for good


@pytest.mark.parametrize("signal", [KeyboardInterrupt, Signalled])
@pytest.mark.parametrize("delay", [0, 0.03])
def test_whoever_stops_leaves_nothing(
    place: Place, file: tuple[Path, str], delay: float, signal: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with all threads sending, and parts on their way through a slow line."""
    monkeypatch.setattr(s3_crew, "THREADS", 8)
    monkeypatch.setattr(s3_crew, "_TELL_SECONDS", 0.02)
    place.between.delay = delay

    def stop(done: int, total: int) -> None:
        if done > 1 << 20:
            raise signal

    start = time.monotonic()
    with pytest.raises(signal):
        place.storage().put("key", *file, ticket=Memory(), progress=stop)
    assert time.monotonic() - start < 20
    assert not unfinished(place.server, place.bucket)
    place.between.close()  # whatever was on its way has landed or is lost
    assert not unfinished(place.server, place.bucket)
    assert not client_of(place.server).list_objects_v2(Bucket=place.bucket)["KeyCount"]


def test_whoever_stops_while_the_line_is_dead_need_not_wait_and_can_clean_up_later(
    place: Place, file: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_crew, "_LEAVE_SECONDS", 0.1)
    monkeypatch.setattr(s3_parts, "_REMOVE_SECONDS", 0.3)
    ticket, storage = Memory(), place.storage()

    def stop(done: int, total: int) -> None:
        if done > PART:
            place.between.stalled = True
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        storage.put("key", *file, ticket=ticket, progress=stop)
    assert time.monotonic() - start < 10 < s3_client.READ_SECONDS
    with pytest.raises(ProviderError, match="could not be removed: there was no answer"):
        storage.abandon("key", ticket.state or {})
    place.repair()
    storage.abandon("key", ticket.state or {})  # unless what was asked before has arrived by now
    assert not unfinished(place.server, place.bucket)


@pytest.mark.parametrize("change", [lambda path: os.truncate(path, PART), lambda path: os.utime(path, (1, 1))])
def test_a_file_that_changes_meanwhile_is_not_stored(
    place: Place, file: tuple[Path, str], change: Callable[[Path], None]
) -> None:
    storage = place.storage()
    place.after_part(storage, 2, lambda: change(file[0]))
    with pytest.raises(DreamctlError, match="changed while it was stored"):
        storage.put("key", *file, ticket=Memory())
    assert storage.head("key") is None and not unfinished(place.server, place.bucket)


def test_without_a_ticket_nobody_could_go_on_so_nothing_is_left(place: Place, file: tuple[Path, str]) -> None:
    storage = place.storage()
    Answers(storage).give("CompleteMultipartUpload", 403, "AccessDenied")
    with pytest.raises(CredentialsError, match="no permission to write"):
        storage.put("key", *file)
    assert not unfinished(place.server, place.bucket)
