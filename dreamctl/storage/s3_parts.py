"""A large file to S3 in parts, several at a time: begun, gone on with after a kill, ended as a whole or removed.

Every part is signed with its own digest or carries a checksum, so that the service refuses a damaged one; the digest of
the whole is computed on the way, and nothing becomes visible where it is not the expected one.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dreamctl.errors import DreamctlError
from dreamctl.storage.base import Passing, Progress, Ticket
from dreamctl.storage.patience import Patience, patiently
from dreamctl.storage.s3_client import THREADS
from dreamctl.storage.s3_errors import NoSuchUpload
from dreamctl.storage.slices import Slice, Source, Unreadable

LEAST_PART = 5 << 20  # what S3 allows
_USUAL_PARTS, _MOST_PART = 64, 16 << 20
_MOST_PARTS = 10_000  # what S3 allows
_TELL_SECONDS = 0.2
_MIB = 1 << 20
_ABORT_SECONDS, _LEAVE_SECONDS = 20.0, 3.0
_CUT_PAUSE = 0.2


class Ask(Protocol):
    """Calls one operation of the service on the one object: `ask("upload_part", PartNumber=1, …)`.

    Raises our errors, Passing among them; it does not try again.
    """

    def __call__(self, operation: str, **parameters: Any) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class _Part:
    number: int
    start: int
    size: int


def part_bytes(size: int) -> int:
    """How large the parts of a file are: about 64 of them, between 5 and 16 MiB, larger where they would be too many.

    A cut connection costs a part, so those of small files are small.
    """
    wanted = min(max(-(-size // _USUAL_PARTS), LEAST_PART), _MOST_PART)
    wanted = max(wanted, -(-size // _MOST_PARTS))
    return -(-wanted // _MIB) * _MIB


def send(
    ask: Ask,
    source: Source,
    about: Mapping[str, Any],
    is_stored: Callable[[], bool],
    ticket: Ticket | None,
    progress: Progress | None,
) -> None:
    """Upload `source`, whose digest must be its `sha256`; `about`: headers and metadata of the object.

    `is_stored` looks whether the object is there: the answer that the upload has ended may have been lost. Raises
    Unreadable where the file is another; then, and on Ctrl-C and SIGTERM, nothing is left at the service. After other
    errors the ticket's state can go on.
    """
    for _ in range(2):
        upload, size, there = _taken_up(ask, source, ticket) or _begun(ask, source, about, ticket)
        try:
            parts = _send_parts(ask, upload, list(_parts(source.size, size)), there, source, progress)
            _complete(ask, upload, parts)
        except NoSuchUpload:  # somebody cleaned up meanwhile, or it has ended already
            if is_stored():
                return
            if ticket:
                ticket.keep({})
            continue
        except (KeyboardInterrupt, Unreadable):
            abort(ask, upload)
            raise
        return
    raise DreamctlError("the upload was removed by somebody else, twice", hint="run the same command again")


def abort(ask: Ask, upload: str) -> bool:
    """Remove the parts; False where there was no such upload. A part in flight may land afterwards: looked at again."""
    found = False
    patience = Patience(_ABORT_SECONDS)
    try:
        for _ in range(5):
            patiently(lambda: ask("abort_multipart_upload", UploadId=upload), patience)
            found = True
            patiently(lambda: ask("list_parts", UploadId=upload, MaxParts=1), patience)
    except NoSuchUpload:
        pass
    return found


def of_key(ask: Ask) -> list[str]:
    """The ids of the object's unfinished uploads, oldest first."""
    found = patiently(lambda: ask("list_multipart_uploads"), Patience()).get("Uploads", ())
    return [str(item["UploadId"]) for item in sorted(found, key=lambda item: str(item["Initiated"]))]


def _begun(
    ask: Ask, source: Source, about: Mapping[str, Any], ticket: Ticket | None
) -> tuple[str, int, dict[int, str]]:
    size = part_bytes(source.size)
    state = {"bytes": source.size, "sha256": source.sha256, "part_bytes": size}
    if ticket:
        ticket.keep(state)  # a kill between the next two lines leaves an upload that is found by its key
    upload = str(patiently(lambda: ask("create_multipart_upload", **about), Patience())["UploadId"])
    if ticket:
        ticket.keep({**state, "upload_id": upload})
    return upload, size, {}


def _taken_up(ask: Ask, source: Source, ticket: Ticket | None) -> tuple[str, int, dict[int, str]] | None:
    """The upload that the ticket remembers, its part size, and the ETags of the parts that are there."""
    state = (ticket.state if ticket else None) or {}
    if (state.get("bytes"), state.get("sha256")) != (source.size, source.sha256):
        return None
    upload = state.get("upload_id")
    if not upload:
        left = of_key(ask)
        if not left:
            return None
        upload = left[-1]
    try:
        there = dict(_listed(ask, str(upload)))
    except NoSuchUpload:
        return None
    return str(upload), int(state["part_bytes"]), there


def _listed(ask: Ask, upload: str) -> Iterator[tuple[int, str]]:
    parameters: dict[str, Any] = {"UploadId": upload}
    while True:
        page = patiently(lambda: ask("list_parts", **parameters), Patience())
        for part in page.get("Parts", ()):
            yield int(part["PartNumber"]), str(part["ETag"]).strip('"')
        if not page.get("IsTruncated"):
            return
        parameters["PartNumberMarker"] = int(page["NextPartNumberMarker"])


def _parts(total: int, size: int) -> Iterator[_Part]:
    for number, start in enumerate(range(0, total, size), 1):
        yield _Part(number, start, min(size, total - start))


def _send_parts(
    ask: Ask,
    upload: str,
    parts: list[_Part],
    there: Mapping[int, str],
    source: Source,
    progress: Progress | None,
) -> dict[int, str]:
    """Send what is not there; the ETag of every part."""
    crew = _Crew(ask, upload, source, progress)
    digest = hashlib.sha256()
    try:
        for part in parts:
            etag = hashlib.md5(usedforsecurity=False)
            hashes = ([] if source.trusted else [digest]) + ([etag] if part.number in there else [])
            for start in range(part.start, part.start + part.size, _MIB) if hashes else ():
                piece = source.read(start, min(_MIB, part.start + part.size - start))
                for each in hashes:
                    each.update(piece)
            if etag.hexdigest() == there.get(part.number):
                crew.had(part, there[part.number])
            else:
                crew.give(part)
        etags = crew.finish()
    finally:
        crew.dismiss()
    source.check()
    if not source.trusted and digest.hexdigest() != source.sha256:
        raise source.changed()
    return etags


class _Crew:
    """Threads that send parts. They are daemons: none of them holds up a program that is told to end."""

    def __init__(self, ask: Ask, upload: str, source: Source, progress: Progress | None) -> None:
        self.stop = threading.Event()
        self._ask, self._upload, self._source, self._progress = ask, upload, source, progress
        self._patience = Patience(stop=self.stop)
        self._given: queue.Queue[_Part] = queue.Queue(1)
        self._results: queue.Queue[tuple[_Part, str | Exception]] = queue.Queue()
        self._etags: dict[int, str] = {}
        self._bodies: dict[int, Slice] = {}
        self._done, self._told, self._out = 0, 0.0, 0
        self._threads: list[threading.Thread] = []

    def had(self, part: _Part, etag: str) -> None:
        """A part that needs no sending."""
        self._etags[part.number] = etag
        self._done += part.size
        self._tell()

    def give(self, part: _Part) -> None:
        """Have a part sent, as soon as a thread is free. Raises what sending an earlier one raised."""
        if len(self._threads) < THREADS:
            self._threads.append(threading.Thread(target=self._work, daemon=True, name="upload"))
            self._threads[-1].start()
        self._out += 1
        while True:
            try:
                self._given.put(part, timeout=_TELL_SECONDS)
                break
            except queue.Full:
                self._collect(block=False)
        self._collect(block=False)

    def finish(self) -> dict[int, str]:
        """Wait for all; the ETags by number."""
        while self._out:
            self._collect(block=True)
        return self._etags

    def dismiss(self) -> None:
        """Stop sending; a thread that hangs in the network is left behind."""
        self.stop.set()
        until = time.monotonic() + _LEAVE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _collect(self, block: bool) -> None:
        """Take results, and tell how far it is. An error ends everything."""
        try:
            while True:
                part, result = self._results.get(block, _TELL_SECONDS if block else None)
                block = False
                if isinstance(result, Exception):
                    raise result
                self._out -= 1
                self._etags[part.number] = result
                self._done += part.size
        except queue.Empty:
            pass
        self._tell()

    def _tell(self) -> None:
        if self._progress and time.monotonic() - self._told > _TELL_SECONDS:
            self._told = time.monotonic()
            sending = sum(body.sent for body in tuple(self._bodies.values()))
            self._progress(min(self._done + sending, self._source.size - 1), self._source.size)

    def _work(self) -> None:
        while not self.stop.is_set():
            try:
                part = self._given.get(timeout=_TELL_SECONDS)
            except queue.Empty:
                continue
            try:
                result: str | Exception = self._send(part)
                self._patience.progressed()
            except Exception as error:  # told by the thread that gave the part
                result = error
            self._results.put((part, result))

    def _send(self, part: _Part) -> str:
        def once() -> str:
            body = self._bodies[part.number] = Slice(self._source, part.start, part.size, self.stop)
            try:
                answer = self._ask("upload_part", UploadId=self._upload, PartNumber=part.number, Body=body)
            except Passing as trouble:
                if body.failure:  # the file's trouble, not the line's
                    raise body.failure from None
                if body.sent and trouble.wait is None:  # it was cut while it ran: whoever cuts answers again at once
                    trouble.wait = _CUT_PAUSE
                raise
            finally:
                self._bodies.pop(part.number, None)
            return str(answer["ETag"]).strip('"')

        return patiently(once, self._patience)


def _complete(ask: Ask, upload: str, etags: Mapping[int, str]) -> None:
    listed = [{"PartNumber": number, "ETag": f'"{etags[number]}"'} for number in sorted(etags)]

    def once() -> object:
        return ask("complete_multipart_upload", UploadId=upload, MultipartUpload={"Parts": listed})

    patiently(once, Patience())
