"""Listen for providers' webhooks, so that runs are looked at as soon as there is news; polling alone suffices."""

from __future__ import annotations

import contextlib
import hashlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dreamctl import credentials, http, paths
from dreamctl.backends.base import Backend
from dreamctl.context import Context
from dreamctl.domain.remote import RemoteJob
from dreamctl.domain.run import State
from dreamctl.errors import DreamctlError, ProviderError
from dreamctl.runfolder import RunFolder
from dreamctl.webhooks import (
    Hint,
    Receiver,
    Rejected,
    keep_private,
    key_bytes,
    path_secret,
    read_private,
    receiver_paths,
)
from dreamctl.workflows.harvest import run_folders

EVERYTHING = ""
"""In what `Wakeups.wait` returns: there is news of some job, and nobody knows of which."""
_MOST_HINTS = 1000
_KEY_SECONDS = 60.0  # between two requests for the signing key
_KEY_TIMEOUT = 5.0  # a sender waits meanwhile
_SLICE = 0.25  # seconds: a signal that another thread gets does not end the main thread's wait

Look = Callable[[RunFolder], bool]
Pace = Callable[[RunFolder], float]


@dataclass(frozen=True)
class Rhythm:
    """Seconds between two looks at a run at least, however often its provider tells of it; and until runs are looked
    for that were not there before."""

    shortest: float = 1.0
    rescan: float = 5.0


class Wakeups:
    """What providers tell meanwhile."""

    def __init__(self, hints: queue.Queue[Hint]) -> None:
        self._hints = hints

    def wait(self, seconds: float) -> frozenset[str]:
        """Sleep, but return at once when there is news: the ids of the jobs in question, perhaps EVERYTHING."""
        until, told = time.monotonic() + seconds, set[str]()
        while not told:
            left = until - time.monotonic()
            with contextlib.suppress(queue.Empty):
                told.add(self._hints.get(timeout=min(max(0.0, left), _SLICE)).remote_id)
                while True:
                    told.add(self._hints.get_nowait().remote_id)
            if left <= 0:
                break
        return frozenset(told)


@contextlib.contextmanager
def wakeups(context: Context, address: tuple[str, int], replicate: bool) -> Iterator[Wakeups]:
    """Listen on (host, port) as long as the block lasts, and tell which paths a public URL must lead to.

    `replicate`: a job runs there, whose webhooks are signed. Raises DreamctlError where nobody can listen there.
    """
    hints = queue.Queue[Hint](_MOST_HINTS)
    key = SigningKey(context.settings.replicate_url, context.project)
    with Receiver(address, hints, path_secret=path_secret(), signing_key=key) as receiver:
        host = f"[{address[0]}]" if ":" in address[0] else address[0] or "0.0.0.0"
        context.reporter.note(
            f"listening on http://{host}:{receiver.port}; of a public https URL that leads there, the webhooks are"
        )
        for sender, path in receiver_paths().items():
            context.reporter.note(f"  {sender:<10} {path}")
        if replicate and key(False) is None:
            context.reporter.warn(f"Replicate's webhooks cannot be checked, and are refused: {key.problem}")
        yield Wakeups(hints)


def listen(
    context: Context,
    runs: Sequence[RunFolder] | None,
    address: tuple[str, int],
    look: Look,
    pace: Pace | None = None,
    rhythm: Rhythm | None = None,
) -> None:
    """Look at each run at its pace, and at once when its provider tells; return when none is left.

    `look` brings a run's news home and says whether there is more to come. `pace`: seconds until the next look, as the
    run's backend says where it is not given. Without `runs`: all that are at work at a provider, also those that come
    to be meanwhile; that has no end but Ctrl-C, and a run that is damaged is let go of with a warning. A provider that
    cannot be asked is told once, and asked again.
    """
    rhythm = rhythm or Rhythm()
    watch = _Watch(context, look, pace or _backend_pace(context), rhythm.shortest, all_runs=runs is None)
    if runs is None:
        watch.find()
    else:
        watch.watched.update((run.id, _Watched(run)) for run in runs)
    with wakeups(context, address, watch.replicate()) as woken:
        rescan = time.monotonic() + rhythm.rescan
        while watch.watched or runs is None:
            watch.look_at_due()
            if runs is None and time.monotonic() >= rescan:
                watch.find()
                rescan = time.monotonic() + rhythm.rescan
            moments = [item.due for item in watch.watched.values()] + ([rescan] if runs is None else [])
            if moments:
                watch.hear(woken.wait(min(moments) - time.monotonic()))


@dataclass
class _Watched:
    run: RunFolder
    due: float = 0.0
    looked: float = float("-inf")
    told: str = ""


@dataclass
class _Watch:
    """The runs that are followed, and when each is looked at next."""

    context: Context
    look: Look
    pace: Pace
    shortest: float
    all_runs: bool
    watched: dict[str, _Watched] = field(default_factory=dict)
    _stamps: dict[str, int] = field(default_factory=dict)

    def find(self) -> None:
        """Follow the runs too that are at work at a provider, or whose model is still there.

        Those that were not are read again when their journal has changed.
        """
        for run in run_folders(self.context):
            with contextlib.suppress(OSError, DreamctlError):  # it trains here, or is damaged: `status` says so
                stamp = run.remote_file.stat().st_mtime_ns
                if run.id not in self.watched and self._stamps.get(run.id) != stamp:
                    self._stamps[run.id] = stamp
                    if run.at_work() or (run.state() is State.succeeded and run.model_file() is None):
                        self.watched[run.id] = _Watched(run)

    def replicate(self) -> bool:
        """Whether a job is at Replicate, by the API that signs its webhooks."""
        jobs = [_journal(item.run) for item in self.watched.values()]
        return any(job and job.backend == "replicate" and job.contract != "dreambooth" for job in jobs)

    def look_at_due(self) -> None:
        for item in list(self.watched.values()):
            if item.due <= time.monotonic():
                if self._looked(item):
                    item.looked = time.monotonic()
                    item.due = item.looked + self.pace(item.run)
                else:
                    del self.watched[item.run.id]

    def _looked(self, item: _Watched) -> bool:
        try:
            more = self.look(item.run)
        except ProviderError as error:
            if error.message != item.told:
                self.context.reporter.warn(f"run {item.run.id}: {error.message}; asking again")
            item.told = error.message
            return True
        except DreamctlError as error:
            if not self.all_runs:
                raise
            self.context.reporter.warn(f"run {item.run.id} is passed over: {error.message}")
            return False
        item.told = ""
        return more

    def hear(self, told: frozenset[str]) -> None:
        """Make due what is told of, though not sooner than a moment after it was last looked at."""
        for item in self.watched.values() if told else ():
            job = _journal(item.run)
            if EVERYTHING in told or (job and job.id in told):
                item.due = min(item.due, item.looked + self.shortest)


def _journal(run: RunFolder) -> RemoteJob | None:
    with contextlib.suppress(DreamctlError):
        return run.remote()
    return None


def _backend_pace(context: Context) -> Pace:
    backends: dict[str, Backend] = {}

    def pace(run: RunFolder) -> float:
        name = run.record().backend
        if name not in backends:
            backends[name] = context.backend(name)
        return backends[name].pause(run)

    return pace


class SigningKey:
    """The key that Replicate signs this account's webhooks with: asked for once, kept, and asked for anew where it
    does not fit, at most once a minute. `problem`: why there is none."""

    def __init__(self, url: str, project: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._url, self._project, self._clock = url, project, clock
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._key: str | None = None
        self.problem = ""

    def __call__(self, again: bool) -> str | None:
        """The key, or None; `again`: that one does not fit. Never raises, and is called from several threads."""
        if self._key and not again:
            return self._key
        if not self._lock.acquire(blocking=False):
            return self._key
        try:
            token = credentials.required("replicate", self._project)
            kept = None if again else self._kept(token)
            if kept is None and self._clock() - self._asked >= _KEY_SECONDS:
                self._asked = self._clock()
                kept = self._fetched(token)
            self._key = kept or self._key
        except DreamctlError as error:
            self.problem = error.message
        finally:
            self._lock.release()
        return self._key

    @property
    def _file(self) -> Path:
        return paths.data_dir() / "replicate-signing-key.json"

    def _account(self, token: str) -> str:
        """What the key belongs to: another account, or another server, has another."""
        return hashlib.sha256(f"{self._url}\n{token}".encode()).hexdigest()

    def _kept(self, token: str) -> str | None:
        try:
            kept = json.loads(read_private(self._file) or "{}")
            return _checked(kept["key"]) if kept["account"] == self._account(token) else None
        except (ValueError, KeyError, TypeError, Rejected):
            return None

    def _fetched(self, token: str) -> str:
        url = f"{self._url}/webhooks/default/secret"
        answer = http.request("GET", url, token=token, timeout=_KEY_TIMEOUT, retries=1)
        try:
            key = _checked(answer.json()["key"])
        except (ValueError, KeyError, TypeError, Rejected):
            raise ProviderError("Replicate gave no signing key for webhooks") from None
        keep_private(self._file, json.dumps({"schema": 1, "account": self._account(token), "key": key}) + "\n")
        return key


def _checked(key: object) -> str:
    """A signing key. Raises Rejected or TypeError, without showing it."""
    if not isinstance(key, str):
        raise TypeError
    key_bytes(key)
    http.remember_secret(key)
    return key
