"""A file that is sent in parts: its slices as bodies of requests, and whether it stayed as it was."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from dreamctl.errors import DreamctlError
from dreamctl.files import Stamp, explained, sha256_file, stamp_of


class Stopped(Exception):
    """Raised out of a body that nobody wants sent any more."""


class Unreadable(DreamctlError):
    """The file cannot be read to its end, or is another than it was."""


class Source:
    """An open file to send, whose SHA-256 is to be `sha256`. Several threads read its slices at once.

    `trusted`: it is as it was when that was computed, which a `stamp` of then proves; else it must be computed again.
    """

    def __init__(self, path: Path, sha256: str, stamp: Stamp | None = None) -> None:
        self.path, self.sha256 = path, sha256
        try:
            self.descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise explained(error, path) from error
        self._status = os.fstat(self.descriptor)
        self.size = self._status.st_size
        self.trusted = stamp is not None and stamp == stamp_of(self._status)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *raised: object) -> None:
        os.close(self.descriptor)

    def read(self, start: int, count: int) -> bytes:
        """Exactly so many bytes. Raises Unreadable."""
        pieces = []
        while count:
            try:
                piece = os.pread(self.descriptor, count, start)
            except OSError as error:
                problem = explained(error, self.path)
                raise Unreadable(problem.message, hint=problem.hint) from error
            if not piece:  # shorter than it was
                raise self.changed()
            pieces.append(piece)
            start, count = start + len(piece), count - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def check(self) -> None:
        """Raises Unreadable where the file is another than when it was opened.

        Times can be put back, all but one: that of a change to the file or to what is known of it, such as a new link.
        """
        now = os.fstat(self.descriptor)
        if (now.st_size, now.st_mtime_ns) != (self._status.st_size, self._status.st_mtime_ns):
            raise self.changed()
        if now.st_ctime_ns != self._status.st_ctime_ns and sha256_file(self.path) != self.sha256:
            raise self.changed()

    def changed(self) -> Unreadable:
        return Unreadable(f"{self.path} changed while it was stored", hint="run the same command again")


class Slice:
    """A part of a source as a body that HTTP clients read, rewind and read again. `sent`: bytes of the last reading.

    Reading ends with Stopped as soon as `stop` is set, so that a slow line does not hold up Ctrl-C.
    """

    def __init__(self, source: Source, start: int, size: int, stop: threading.Event) -> None:
        self._source, self._start, self._size, self._stop = source, start, size, stop
        self._place = 0
        self.sending = False  # clients read a body once to sign it, and again to send it
        self.failure: Unreadable | None = None

    def __len__(self) -> int:
        return self._size

    @property
    def sent(self) -> int:
        return self._place if self.sending else 0

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def read(self, count: int | None = -1) -> bytes:
        """Up to so many bytes; all that are left for None and -1."""
        if self._stop.is_set():
            raise Stopped
        left = max(0, self._size - self._place)
        wanted = left if count is None or count < 0 else min(count, left)
        try:
            data = self._source.read(self._start + self._place, wanted) if wanted else b""
        except Unreadable as error:
            self.failure = error  # clients wrap what a body raises
            raise
        self._place += len(data)
        return data
