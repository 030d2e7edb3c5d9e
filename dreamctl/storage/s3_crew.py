"""The threads that send the parts of one upload to S3, and go on where the line is cut."""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from dreamctl.storage.base import Passing, Progress
from dreamctl.storage.patience import Patience, cut_pause, patiently
from dreamctl.storage.s3_client import THREADS
from dreamctl.storage.s3_errors import NoAnswer
from dreamctl.storage.slices import Slice, Source, Stopped

_TELL_SECONDS = 0.2
_LEAVE_SECONDS = 2.0
_BORNE_CUTS = 40  # of one part, while bytes pass at all; then they count as trouble


class Ask(Protocol):
    """Calls one operation of the service on the one object: `ask("upload_part", PartNumber=1, …)`.

    Raises our errors, Passing among them; it does not try again.
    """

    def __call__(self, operation: str, **parameters: Any) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Part:
    number: int
    start: int
    size: int


@dataclass(eq=False)
class _Job:
    """A part to send. `over`: it is there, or nobody wants it any more."""

    part: Part
    over: threading.Event = field(default_factory=threading.Event)
    senders: int = 0
    cuts: int = 0


class Crew:
    """Threads that send parts. They are daemons: none of them holds up a program that is told to end.

    Where a line is cut each time that so much has passed, whoever sends alone is always the one that is cut; so the
    last parts, where they were cut, are sent by all threads at once, and the first that gets through is enough.
    """

    def __init__(self, ask: Ask, upload: str, source: Source, progress: Progress | None) -> None:
        self._stop = threading.Event()
        self._ask, self._upload, self._source, self._progress = ask, upload, source, progress
        self._patience = Patience(stop=self._stop)
        self._handed: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[_Job, str | Exception]] = queue.SimpleQueue()
        self._open: list[_Job] = []
        self._etags: dict[int, str] = {}
        self._bodies: dict[int, tuple[_Job, Slice]] = {}
        self._busy, self._done, self._shown, self._told = 0, 0, 0, 0.0
        self._threads: list[threading.Thread] = []

    def had(self, part: Part, etag: str) -> None:
        """A part that needs no sending."""
        self._etags[part.number] = etag
        self._done += part.size
        self._tell()

    def give(self, part: Part) -> None:
        """Have a part sent, as soon as a thread is free. Raises what sending an earlier one raised."""
        while self._busy > THREADS:  # one waits, so that no thread does
            self._collect()
        self._open.append(_Job(part))
        self._hand(self._open[-1])
        self._tell()

    def finish(self) -> dict[int, str]:
        """Wait for all; the ETags by number."""
        while self._open:
            self._collect()
            while self._busy < THREADS and (cut := [job for job in self._open if job.cuts]):
                self._hand(min(cut, key=lambda job: job.senders))
        return self._etags

    def dismiss(self) -> None:
        """Stop sending; a thread that hangs in the network is left behind."""
        self._stop.set()
        for job in self._open:
            job.over.set()
        for _ in self._threads:
            self._handed.put(None)
        until = time.monotonic() + _LEAVE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _hand(self, job: _Job) -> None:
        if len(self._threads) < THREADS:
            self._threads.append(threading.Thread(target=self._work, daemon=True, name="upload"))
            self._threads[-1].start()
        job.senders += 1
        self._busy += 1
        self._handed.put(job)

    def _collect(self) -> None:
        """Take a result, or wait for one a moment, and tell how far it is. An error ends everything."""
        with contextlib.suppress(queue.Empty):
            job, result = self._results.get(timeout=_TELL_SECONDS)
            job.senders -= 1
            self._busy -= 1
            if result and job in self._open:
                if isinstance(result, Exception):
                    raise result
                self._open.remove(job)
                self._etags[job.part.number] = result
                self._done += job.part.size
        self._tell()

    def _tell(self) -> None:
        if time.monotonic() - self._told < _TELL_SECONDS:
            return
        self._told = time.monotonic()
        sending: dict[_Job, int] = {}
        for job, body in tuple(self._bodies.values()):
            sending[job] = max(sending.get(job, 0), body.sent)
        shown = min(self._done + sum(sending.values()), self._source.size - 1)
        if shown > self._shown:  # what is sent again after a cut is nothing new
            self._shown = shown
            self._patience.progressed()
        if self._progress:
            self._progress(self._shown, self._source.size)

    def _work(self) -> None:
        while job := self._handed.get():
            try:
                result: str | Exception = patiently(functools.partial(self._send, job), self._patience)
                self._patience.progressed()
            except Exception as error:  # told by the thread that gave the part
                result = error
            self._results.put((job, result))

    def _send(self, job: _Job) -> str:
        """Try once; the ETag, or "" where another thread was quicker."""
        part, began = job.part, time.monotonic()
        if job.over.is_set():
            return ""
        body = Slice(self._source, part.start, part.size, job.over)
        self._bodies[threading.get_ident()] = job, body
        try:
            answer = self._ask("upload_part", UploadId=self._upload, PartNumber=part.number, Body=body)
        except Stopped:  # while it was read to be signed
            return ""
        except Passing as trouble:
            if body.failure:  # the file's trouble, not the line's
                raise body.failure from None
            if job.over.is_set() and not self._stop.is_set():
                return ""
            if isinstance(trouble, NoAnswer) and body.sent:
                job.cuts += 1
                if job.cuts <= _BORNE_CUTS:
                    self._patience.progressed()  # the line lives
                trouble.wait = cut_pause(began)
            raise
        finally:
            del self._bodies[threading.get_ident()]
        job.over.set()
        return str(answer["ETag"]).strip('"')
