"""A resumable session of Google Cloud Storage: one file sent in chunks, and gone on with after every cut.

https://cloud.google.com/storage/docs/performing-resumable-uploads
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import time
from dataclasses import dataclass
from typing import Any

from dreamctl.errors import ProviderError
from dreamctl.storage.base import Passing, Progress
from dreamctl.storage.gcs_errors import refusal, told
from dreamctl.storage.patience import Patience, patiently
from dreamctl.storage.slices import Source

UNIT = 256 * 1024  # chunks are multiples of it, except the last one
FIRST = 1024 * 1024
MOST = 8 * 1024 * 1024
TIMEOUTS = (5.0, 60.0)  # to connect (and for each block that is sent), to be answered
_CANCEL_TIMEOUTS = (3.0, 5.0)  # somebody who pressed Ctrl-C waits for it
_GROW_AFTER = 4  # quick chunks in a row
_QUICK, _SLOW = 2.0, 10.0  # seconds for a chunk
_GONE = (404, 410, 499)
_INCOMPLETE = 308
_ACTION = "write into it"


class Gone(Exception):
    """The server does not know the session any more."""


class Hashed:
    """The file that is sent: read at any place, hashed once from its beginning to its end. Methods raise Unreadable."""

    def __init__(self, source: Source) -> None:
        self.sha256, self.size = source.sha256, source.size
        self._source = source
        self._digest = hashlib.sha256()
        self._crc = 0
        self.hashed = 0  # bytes from the beginning that went into both

    def read(self, start: int, count: int) -> bytes:
        """So many bytes from `start` on; what lies before them goes into the hashes too."""
        while self.hashed < start:
            self._hash(self._source.read(self.hashed, min(MOST, start - self.hashed)))
        data = self._source.read(start, count)
        if (fresh := start + count - self.hashed) > 0:
            self._hash(data[-fresh:] if fresh < count else data)
        return data

    def crc32c(self) -> str:
        """The checksum of the whole file as Google writes it, when the file is what the caller said it is."""
        self.read(self.size, 0)
        self._source.check()
        if self._digest.hexdigest() != self.sha256:
            raise self._source.changed()
        return base64.b64encode(self._crc.to_bytes(4, "big")).decode()

    def _hash(self, data: bytes) -> None:
        import google_crc32c

        self._digest.update(data)
        self._crc = google_crc32c.extend(self._crc, data)
        self.hashed += len(data)


@dataclass(frozen=True)
class Session:
    """One session, known by its URI, which is as good as a password and needs no other one."""

    http: Any  # requests.Session
    uri: str
    size: int
    bucket: str

    def ask(self, crc32c: str = "") -> int | dict[str, Any]:
        """How many bytes the server has kept, or the object where it has all. Raises Gone and Passing.

        Once it may have all, the question is asked with the checksum: it could make the object of them.
        """
        return self._put(b"", f"bytes */{self.size}", crc32c, (400, 401, 403, 412, *_GONE))

    def send(self, start: int, data: bytes, crc32c: str = "") -> int | dict[str, Any]:
        """As `ask`, after sending `data`; the last piece goes with the checksum of the whole file.

        Raises Changed where the condition of the session does not hold.
        """
        span = f"{start}-{start + len(data) - 1}" if data else "*"
        return self._put(data, f"bytes {span}/{self.size}", crc32c, _GONE)

    def cancel(self) -> bool:
        """End the session; False where the server did not know it, or cannot end one (the emulator)."""
        with told(self.bucket, _ACTION):
            answer = self.http.delete(self.uri, timeout=_CANCEL_TIMEOUTS)
        if answer.status_code in (404, 410, 501):
            return False
        if answer.status_code == 499 or answer.ok:
            return True
        raise refusal(answer, self.bucket, _ACTION)

    def _put(self, data: bytes, span: str, crc32c: str, gone: tuple[int, ...]) -> int | dict[str, Any]:
        # As a file: of a file each block has the timeout for itself, and bytes would have to pass within it as a whole.
        body: Any = io.BytesIO(data) if data else b""
        headers = {"Content-Range": span, **({"X-Goog-Hash": f"crc32c={crc32c}"} if crc32c else {})}
        with told(self.bucket, _ACTION):
            answer = self.http.put(self.uri, data=body, headers=headers, timeout=TIMEOUTS, allow_redirects=False)
            if answer.status_code == _INCOMPLETE:
                last = answer.headers.get("Range", "").rpartition("-")[2]
                # The emulator says 0-0 where it has nothing; sending a byte again does no harm.
                return int(last) + 1 if last.isdigit() and last != "0" else 0
            if answer.status_code in (200, 201):
                return dict(answer.json())
        if answer.status_code in gone:
            raise Gone
        raise refusal(answer, self.bucket, _ACTION)


class _Pace:
    """How much is sent at once: little over slow and bad lines, so that progress shows and little is sent twice."""

    def __init__(self) -> None:
        self.chunk = FIRST
        self._quick = 0

    def sent(self, seconds: float) -> None:
        """A chunk went through."""
        if seconds > _SLOW:
            self.failed()
        elif seconds < _QUICK:
            self._quick += 1
            if self._quick % _GROW_AFTER == 0:
                self.chunk = min(self.chunk * 2, MOST)

    def failed(self) -> None:
        """A chunk did not, or took long."""
        self.chunk, self._quick = max(self.chunk // 2, UNIT), 0


def send_file(
    session: Session, source: Hashed, resumed: bool, patience: Patience, progress: Progress | None
) -> dict[str, Any]:
    """Send what the session lacks of the file; returns the object as Google describes it.

    The last piece goes only when the whole file was what it should be. Raises Gone, Changed, ProviderError, and
    Unreadable for the file.
    """
    pace, attempt, most = _Pace(), 0, 0
    answer = patiently(session.ask, patience) if resumed else 0
    while isinstance(answer, int):
        at, hashed = answer, source.hashed
        if progress:
            progress(at, source.size)
        data = source.read(at, min(pace.chunk, source.size - at))
        crc32c = source.crc32c() if at + len(data) == source.size else ""
        if at > most or source.hashed > hashed:  # to hash what another process sent may take a while, too
            most, attempt = max(at, most), 0
            patience.progressed()
        began = time.monotonic()
        try:
            answer = session.send(at, data, crc32c)
            if answer == at:
                raise Passing(f"gs://{session.bucket}: Google Cloud Storage keeps nothing of what it is sent")
            pace.sent(time.monotonic() - began)
        except ProviderError as trouble:
            # A cut connection may have brought more or less than this side knows, and so may a refusal.
            patience.wait(attempt, trouble if isinstance(trouble, Passing) else Passing(trouble.message))
            attempt += 1
            pace.failed()
            answer = patiently(functools.partial(session.ask, crc32c), patience)
            if answer == at and not isinstance(trouble, Passing):
                raise
    if progress:
        progress(source.size, source.size)
    return answer
