"""Bringing an object into a file: a partial file that others go on with, a digest, a rename."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol

from dreamctl import paths
from dreamctl.domain.quantities import bytes_text
from dreamctl.errors import DiskFull, ProviderError
from dreamctl.files import explained, free_bytes, locked, sync_folder
from dreamctl.storage.base import Passing, Progress, StoredObject
from dreamctl.storage.patience import Patience, cut_pause

_PIECE = 1 << 20
_TELL_SECONDS = 0.2


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


def receive(
    stored: StoredObject,
    target: Path,
    pieces_from: Callable[[int], Iterator[bytes]],
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> StoredObject:
    """Write the object to `target`, atomically and synced; returns it with the digest of what was written.

    `pieces_from(start)` yields its bytes from `start` on: it raises Passing for trouble that may pass, and Changed
    where the object is of another version by now. What was received stays beside `target` when this is interrupted,
    under a name made of key and version, and is gone on with. Raises DiskFull, before anything is written, where there
    is no room, and ProviderError where the digest is not the one recorded.
    """
    part = _part(stored, target)
    # One of 256: locks stay, and a bucket may hold many thousand objects.
    lock = paths.locks_dir() / f"download-{hashlib.sha256(os.fsencode(target.absolute())).hexdigest()[:2]}.lock"
    try:
        with locked(lock, f"another download to {target}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = _received(stored, part, pieces_from, progress, patience or Patience())
            os.replace(part, target)
            sync_folder(target.parent)
            for other in target.parent.glob(_part_pattern(target)):  # of versions that nobody will ask for again
                other.unlink(missing_ok=True)
    except OSError as error:
        problem = explained(error, target)
        if isinstance(problem, DiskFull):  # it is what filled the disk
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        raise problem from error
    return StoredObject(stored.key, stored.bytes, digest, stored.version)


def _received(
    stored: StoredObject,
    part: Path,
    pieces_from: Callable[[int], Iterator[bytes]],
    progress: Progress | None,
    patience: Patience,
) -> str:
    """Fill the partial file, and return its digest, which is the recorded one where one was."""
    digest = hashlib.sha256()
    with open(part, "a+b") as file:
        have = taken = _taken_up(file, stored.bytes, digest)
        if (free := free_bytes(part.parent)) < stored.bytes - have:
            if not have:
                part.unlink()
            raise DiskFull(
                f"{part.parent}: {bytes_text(stored.bytes - have)} are needed and {bytes_text(free)} are free",
                hint="free some space, then run the same command again",
            )
        attempt, told = 0, 0.0
        while have < stored.bytes:
            start, began = have, time.monotonic()
            try:
                for piece in pieces_from(start):
                    file.write(piece)
                    digest.update(piece)
                    have += len(piece)
                    attempt = 0
                    patience.progressed()
                    if progress and time.monotonic() - told > _TELL_SECONDS:
                        told = time.monotonic()
                        progress(min(have, stored.bytes), stored.bytes)
                    if have > stored.bytes:
                        break
                if have < stored.bytes:
                    raise Passing(f"{stored.key} came cut off", hint="try again later")
            except Passing as trouble:
                if have > start and trouble.wait is None:
                    trouble.wait = cut_pause(began)
                patience.wait(attempt, trouble)
                attempt += 1
        file.flush()
        os.fsync(file.fileno())
    if progress:
        progress(stored.bytes, stored.bytes)
    if have != stored.bytes or (stored.sha256 and digest.hexdigest() != stored.sha256):
        part.unlink()
        if taken:  # perhaps it was damaged by what ended the earlier try, such as a power failure
            return _received(stored, part, pieces_from, progress, patience)
        raise ProviderError(
            f"{stored.key} is not what was stored: its SHA-256 is not the recorded one",
            hint="upload it again, or delete it",
        )
    return digest.hexdigest()


def _taken_up(file: IO[bytes], most: int, digest: _Hash) -> int:
    """How many bytes an earlier try left in the file, opened for reading and appending; they go into the digest."""
    size = file.seek(0, os.SEEK_END)
    if size > most:
        file.truncate(0)
        return 0
    file.seek(0)
    while piece := file.read(_PIECE):
        digest.update(piece)
    return size


def _part(stored: StoredObject, target: Path) -> Path:
    of = hashlib.sha256(f"{stored.key}\n{stored.version}\n{stored.bytes}".encode()).hexdigest()[:16]
    return target.with_name(f".{target.name[:80]}.{of}.part")


def _part_pattern(target: Path) -> str:
    name = "".join(f"[{char}]" if char in "*?[" else char for char in target.name[:80])
    return f".{name}.????????????????.part"
