"""An object becomes a file as a whole or not at all, and what was received once is not asked for again."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dreamctl.errors import DiskFull, DreamctlError, ProviderError
from dreamctl.storage import patience, receiving
from dreamctl.storage.base import Changed, Passing, StoredObject
from dreamctl.storage.local import LocalStorage
from dreamctl.storage.receiving import receive
from tests.storage.stores import random_file

DATA = bytes(range(256)) * 40
STORED = StoredObject("a/key", len(DATA), hashlib.sha256(DATA).hexdigest(), '"v1"')


class Server:
    """Gives pieces of 1000 bytes; before byte `fails_at` it raises what `trouble` gives, so many times."""

    def __init__(self, data: bytes = DATA, fails_at: int = -1, times: int = 1) -> None:
        self.data, self.fails_at, self.times = data, fails_at, times
        self.starts: list[int] = []
        self.trouble: Callable[[], Exception | None] = lambda: Passing("cut")

    def __call__(self, start: int) -> Iterator[bytes]:
        self.starts.append(start)
        for at in range(start, len(self.data), 1000):
            if at <= self.fails_at < at + 1000 and self.times:
                self.times -= 1
                if trouble := self.trouble():
                    raise trouble
                return
            yield self.data[at : at + 1000]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between tries, and no patience to speak of."""
    monkeypatch.setattr(patience, "backoff", lambda attempt: 0.001)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.2)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "file [1]*?.bin"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def interrupted(target: Path, stored: StoredObject = STORED, at: int = 5000) -> None:
    """Leave what a download leaves that was ended after `at` bytes."""
    server = Server(fails_at=at)
    server.trouble = KeyboardInterrupt  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        receive(stored, target, server)


def test_the_file_is_there_alone_in_a_new_folder_and_its_digest_is_told(target: Path) -> None:
    assert receive(replace(STORED, sha256=""), target, Server()) == STORED
    assert target.read_bytes() == DATA and names(target.parent) == [target.name]


def test_of_an_empty_object_no_bytes_are_asked_for(target: Path) -> None:
    empty = StoredObject("k", 0, hashlib.sha256().hexdigest(), "v")
    assert receive(empty, target, lambda start: pytest.fail("asked")) == empty
    assert target.read_bytes() == b""


@pytest.mark.parametrize("told", [True, False])
def test_what_is_cut_is_gone_on_with_where_it_ended(target: Path, told: bool) -> None:
    server = Server(fails_at=5000, times=3)
    server.trouble = lambda: Passing("cut") if told else None
    receive(STORED, target, server)
    assert target.read_bytes() == DATA and server.starts == [0, 5000, 5000, 5000]


def test_an_interrupted_download_is_gone_on_with_by_the_next_call(target: Path) -> None:
    interrupted(target)
    assert not target.exists()
    server = Server()
    receive(STORED, target, server)
    assert server.starts == [5000] and target.read_bytes() == DATA and names(target.parent) == [target.name]


def test_trouble_that_stays_is_told_and_what_came_is_kept(target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"old")
    with pytest.raises(Passing, match="cut"):
        receive(STORED, target, Server(fails_at=5000, times=10**6))
    assert target.read_bytes() == b"old"
    server = Server()
    receive(STORED, target, server)
    assert server.starts == [5000] and target.read_bytes() == DATA


@pytest.mark.parametrize("other", [replace(STORED, version='"v0"'), replace(STORED, key="b/key")])
def test_what_came_of_another_version_is_not_used_and_removed_in_the_end(target: Path, other: StoredObject) -> None:
    interrupted(target, other)
    server = Server()
    receive(STORED, target, server)
    assert server.starts == [0] and target.read_bytes() == DATA and names(target.parent) == [target.name]


def test_what_an_earlier_try_left_damaged_is_fetched_anew(target: Path) -> None:
    interrupted(target)
    (part,) = target.parent.iterdir()
    part.write_bytes(b"\0" * 5000)
    server = Server()
    assert receive(STORED, target, server) == STORED
    assert server.starts == [5000, 0] and target.read_bytes() == DATA
    interrupted(target)
    part.write_bytes(b"\0" * (len(DATA) + 1))
    server = Server()
    receive(STORED, target, server)
    assert server.starts == [0] and target.read_bytes() == DATA


@pytest.mark.parametrize("data", [DATA[:-1] + b"?", DATA + b"more than was said"])
def test_what_is_not_the_recorded_object_never_becomes_a_file(target: Path, data: bytes) -> None:
    target.parent.mkdir()
    target.write_bytes(b"old")
    with pytest.raises(ProviderError, match="SHA-256 is not the recorded one"):
        receive(STORED, target, Server(data))
    assert target.read_bytes() == b"old" and names(target.parent) == [target.name]


def test_an_object_that_is_replaced_meanwhile_leaves_the_file_as_it_was(target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"old")
    server = Server(fails_at=5000)
    server.trouble = lambda: Changed("replaced")
    with pytest.raises(Changed):
        receive(STORED, target, server)
    assert target.read_bytes() == b"old"


def test_how_far_it_is_grows_and_ends_with_all(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "_TELL_SECONDS", 0)
    told: list[tuple[int, int]] = []
    receive(STORED, target, Server(fails_at=5000), lambda *how_far: told.append(how_far))
    assert told == sorted(told) and told[-1] == (len(DATA), len(DATA)) and len(told) > 5


def test_a_full_disk_is_told_before_anything_is_fetched(small_disk: Path) -> None:
    large = StoredObject("k", 1 << 20, "", "v")
    with pytest.raises(DiskFull, match=r"1\.0 MB are needed and .* are free"):
        receive(large, small_disk / "file", lambda start: pytest.fail("asked"))
    assert not names(small_disk)


def test_a_disk_that_fills_meanwhile_is_left_as_it_was(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "free_bytes", lambda path: 1 << 40)
    large = StoredObject("k", 1 << 20, "", "v")
    with pytest.raises(DiskFull):
        receive(large, small_disk / "file", lambda start: iter([bytes(1 << 20)]))
    assert not names(small_disk)


def test_a_place_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DreamctlError, match="is a file, not a folder"):
        receive(STORED, tmp_path / "file" / "below", Server())


def test_two_processes_that_fetch_to_one_place_follow_each_other(tmp_path: Path, target: Path) -> None:
    store = LocalStorage((tmp_path / "store").as_uri())
    file, digest = random_file(tmp_path / "large.bin", 8 << 20)
    store.put("large.bin", file, digest)
    code = """
import sys
from pathlib import Path
from dreamctl.storage.local import LocalStorage
print("ready", flush=True)
sys.stdin.readline()
print(LocalStorage(sys.argv[1]).get("large.bin", Path(sys.argv[2])).sha256)
"""
    command = [sys.executable, "-c", code, store.root.as_uri(), str(target)]
    running = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        for _ in range(3)
    ]
    for process in running:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate()[0].strip() for process in running] == [digest] * 3
    assert target.read_bytes() == file.read_bytes() and names(target.parent) == [target.name]
