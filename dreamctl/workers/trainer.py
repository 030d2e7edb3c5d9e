"""The trainer as a worker's child: started in a session of its own, listened to, and ended when somebody asks."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from dreamctl.domain.errand import MOST_EVENTS, News
from dreamctl.domain.run import Event, State, newest
from dreamctl.errors import DreamctlError
from dreamctl.http import printable
from dreamctl.runfolder import EventTail, LineTail, RunFolder

Tell = Callable[[News], None]

LOG_LINES = 20
"""Lines of the trainer's log in the news: the newest."""
_NEWS_SECONDS = 2.0
_LOOK_SECONDS = 0.1
_GRACE_SECONDS = 1.5  # nobody waits for what it could save
_LONGEST_LINE = 400
_NOT_FOR_IT = ("AWS_", "GOOGLE_", "RUNPOD_", "REPLICATE_", "COG_", "WEBHOOK_")  # it reads a folder and a hub

log = logging.getLogger(__name__)


class Cancelled(DreamctlError):
    """Whoever asked for the training does not want it any more."""

    code = "cancelled"


def train(run: RunFolder, tell: Tell, stop: threading.Event) -> None:
    """Train the run in its folder, and tell news of it now and then; they are told before this returns.

    Raises Cancelled once `stop` is set, and DreamctlError with the trainer's own sentence where it fails. No process
    of the trainer is left, however this ends.
    """
    with open(run.log_file, "ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "dreamctl.training", str(run.path)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(run.path.parent),
            start_new_session=True,
        )
    listener = _Listener(run, tell)
    try:
        while child.poll() is None and not stop.wait(_LOOK_SECONDS):
            listener.listen()
    finally:
        _end(child, run)
    listener.listen(last=True)
    if stop.is_set():
        raise Cancelled(f"the training of run {run.id} was cancelled")
    _check(run, child.returncode)


class _Listener:
    """Reads the trainer's events and log as they grow, and tells of them every two seconds at most."""

    def __init__(self, run: RunFolder, tell: Tell) -> None:
        self._events, self._lines = EventTail(run.events_file), LineTail(run.log_file)
        self._tell = tell
        self._steps: list[Event] = []
        self._others: list[Event] = []
        self._log: list[str] = []
        self._fresh = False
        self._told = 0.0

    def listen(self, last: bool = False) -> None:
        for event in self._events.new():
            (self._steps if event.type == "step" else self._others).append(event)
            self._fresh = True
        for line in self._lines.new(torn=last):
            text = printable(line.decode(errors="replace"))[:_LONGEST_LINE]
            print(text, file=sys.stderr, flush=True)  # the provider keeps what a worker prints
            self._log.append(text)
            self._fresh = True
        if self._fresh and (last or time.monotonic() - self._told >= _NEWS_SECONDS):
            self._say()
            self._told, self._fresh = time.monotonic(), False

    def _say(self) -> None:
        """The newest events, steps and others apart: many steps must not push the rare ones out.

        Those that were told before are told again: a provider may show no more than the last news.
        """
        half = MOST_EVENTS // 2
        self._steps, self._others, self._log = self._steps[-half:], self._others[-half:], self._log[-LOG_LINES:]
        shown = sorted([*self._steps, *self._others], key=lambda event: event.seq)
        try:
            self._tell(News(events=tuple(plain(event) for event in shown), log=tuple(self._log)))
        except Exception as error:  # whatever an SDK raises: a training does not fail of what is not heard
            log.warning("news could not be told: %s", printable(f"{type(error).__name__}: {error}"))


def plain(event: Event) -> dict[str, object]:
    """An event as its line of `events.jsonl` has it."""
    head = {"v": event.v, "seq": event.seq, "attempt": event.attempt, "time": event.time, "type": event.type}
    return {**head, **event.fields}


def _check(run: RunFolder, code: int) -> None:
    """Raises DreamctlError unless the trainer says that it has succeeded."""
    told = newest(run.last_events(), "state")
    state = told.fields.get("state") if told else None
    if code == 0 and state == State.succeeded:
        return
    if told and state == State.failed:
        raise DreamctlError(str(told.fields.get("message") or "the trainer failed"), hint=told.fields.get("hint"))
    if told and state in (State.interrupted, State.cancelled):
        raise DreamctlError("the trainer was stopped by the computer that it ran on", hint="train it again")
    if code == -signal.SIGKILL:
        raise DreamctlError(
            "the trainer was killed, most likely since main memory did not suffice",
            hint="choose a worker with more memory, or method.name = lora and training.precision = bf16",
        )
    last = (run.log_tail(1) or [""])[0]
    how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    raise DreamctlError(f"the trainer ended {how}" + (f": {printable(last)[:_LONGEST_LINE]}" if last else ""))


def _end(child: subprocess.Popen[bytes], run: RunFolder) -> None:
    """End the trainer's whole session: it is asked first, and killed when it does not hear."""
    if child.poll() is None:
        with contextlib.suppress(OSError):  # on a full disk the signal alone must do
            (run.path / "cancel").touch()  # so it does not write a checkpoint that nobody would read
        _signal(child, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_SECONDS)
    _signal(child, signal.SIGKILL)
    child.wait()


def _signal(child: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        os.killpg(child.pid, number)


def _environment(folder: Path) -> dict[str, str]:
    """This process's without keys that the trainer does not need; it is this very dreamctl, and litters in `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_FOR_IT)}
    source, before = str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")
    path = f"{source}{os.pathsep}{before}" if before else source
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path, "TMPDIR": str(folder)}
