"""Objects of a storage into a folder: several at a time, only those that changed, and nothing else stays there.

`fetched.jsonl` says what each file was when it came; it is written line by line, so that a kill costs what was under
way, and of that the storage goes on with what it had received.
"""

from __future__ import annotations

import contextlib
import json
import queue
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dreamctl.domain.quantities import bytes_text
from dreamctl.errors import DiskFull
from dreamctl.files import free_bytes, sha256_file, write_bytes
from dreamctl.storage.base import Progress, Storage, StoredObject

AT_ONCE = 4
_JOURNAL = "fetched.jsonl"
_TELL_SECONDS = 0.2
_LEAVE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Kept:
    """An object as it was listed when it was fetched, and the digest of its file."""

    version: str
    bytes: int
    sha256: str

    def is_of(self, stored: StoredObject) -> bool:
        return (self.version, self.bytes) == (stored.version, stored.bytes)


class _Stopped(Exception):
    """Ends a download whose result nobody waits for any more."""


def bring(storage: Storage, folder: Path, wanted: Mapping[str, StoredObject], progress: Progress) -> None:
    """Make the folder hold these objects, by file, and none besides; a file's name is `folder/name`.

    Raises DiskFull before anything is fetched where there is no room, what the storage raises, and OSError.
    """
    journal = folder / _JOURNAL
    known = {file: kept for file, kept in _read(journal).items() if file in wanted and kept.is_of(wanted[file])}
    _remove_others(folder, wanted)
    missing = sum(stored.bytes for file, stored in wanted.items() if file not in known)
    _check_room(folder, missing)
    lines = b"".join(_line(file, kept) for file, kept in known.items())
    if not journal.is_file() or journal.read_bytes() != lines:
        write_bytes(journal, lines)
    crew = _Crew(storage, folder, wanted, known)
    try:
        with open(journal, "ab") as notes:
            for file, kept in crew.fetched(missing, progress):
                notes.write(_line(file, kept))
                notes.flush()
    finally:
        crew.dismiss()


def _remove_others(folder: Path, wanted: Mapping[str, StoredObject]) -> None:
    """Remove what is none of the files; what was received of those that are wanted stays (its name is hidden)."""
    names: dict[str, set[str]] = {}
    for item in wanted:
        place, _, name = item.partition("/")
        names.setdefault(place, set()).add(name)
    for path in folder.iterdir():
        if path.is_dir() and path.name not in names:
            shutil.rmtree(path)
        elif path.is_dir():
            for file in path.iterdir():
                if file.name not in names[path.name] and not file.name.startswith("."):
                    file.unlink()


def _check_room(folder: Path, missing: int) -> None:
    if not missing:
        return
    needed = missing - sum(part.stat().st_size for part in folder.glob("*/.*.part"))
    if (free := free_bytes(folder)) < needed:
        raise DiskFull(
            f"{folder}: {bytes_text(needed)} are needed and {bytes_text(free)} are free",
            hint="free some space, or put the cache elsewhere (DREAMCTL_HOME), then run the same command again",
        )


class _Crew:
    """Threads that fetch what is not as it was. They are daemons: none holds up a program that is told to end."""

    def __init__(
        self, storage: Storage, folder: Path, wanted: Mapping[str, StoredObject], known: Mapping[str, _Kept]
    ) -> None:
        self._storage, self._folder, self._wanted, self._known = storage, folder, wanted, known
        self._todo: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[str, _Kept | Exception | None]] = queue.SimpleQueue()
        self._received: dict[str, int] = {}
        self._stop = threading.Event()
        for file in wanted:
            self._todo.put(file)
        count = min(AT_ONCE, len(wanted))
        self._threads = [threading.Thread(target=self._work, daemon=True, name="fetch") for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def fetched(self, total: int, progress: Progress) -> Iterator[tuple[str, _Kept]]:
        """Each file that was fetched, as soon as it is there; `total` bytes are expected. Raises what was raised."""
        left, told = len(self._wanted), 0.0
        while left:
            with contextlib.suppress(queue.Empty):
                file, result = self._results.get(timeout=_TELL_SECONDS)
                left -= 1
                if isinstance(result, Exception):
                    raise result
                if result:
                    yield file, result
            if total and time.monotonic() - told > _TELL_SECONDS:
                told = time.monotonic()
                progress(min(sum(tuple(self._received.values())), total - 1), total)
        if total:
            progress(total, total)

    def dismiss(self) -> None:
        """Stop fetching; a thread that hangs in the network is left behind."""
        self._stop.set()
        until = time.monotonic() + _LEAVE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                file = self._todo.get_nowait()
            except queue.Empty:
                return
            try:
                result: _Kept | Exception | None = self._one(file)
            except Exception as error:  # raised again by the thread that waits
                result = error
            self._results.put((file, result))

    def _one(self, file: str) -> _Kept | None:
        """Fetch the file, unless it is as it was."""

        def count(done: int, _: int) -> None:
            self._received[file] = done
            if self._stop.is_set():
                raise _Stopped

        path, stored = self._folder / file, self._wanted[file]
        if file in self._known and path.is_file() and sha256_file(path) == self._known[file].sha256:
            return None
        got = self._storage.get(stored.key, path, count)
        return _Kept(stored.version, stored.bytes, got.sha256)


def _read(journal: Path) -> dict[str, _Kept]:
    """What the journal says of each file last; a line that a kill cut off says nothing."""
    known: dict[str, _Kept] = {}
    for line in journal.read_bytes().splitlines() if journal.is_file() else ():
        with contextlib.suppress(ValueError, TypeError):
            file, version, size, sha256 = json.loads(line)
            known[file] = _Kept(version, size, sha256)
    return known


def _line(file: str, kept: _Kept) -> bytes:
    return json.dumps([file, kept.version, kept.bytes, kept.sha256]).encode() + b"\n"
