"""What the trainer tells: events for programs, lines in train.log for people; by the main process only."""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path
from typing import Any

from dreamctl.domain.run import State
from dreamctl.http import redact
from dreamctl.runfolder import EventWriter

INTERVAL = 0.05  # seconds between two step events
PHASE_INTERVAL = 1.0  # seconds between two reports of one phase's progress
LINE_INTERVAL = 2.0  # seconds between two lines about steps


class Reporter:
    """Writes events; without a writer (the other processes) it is silent."""

    def __init__(self, writer: EventWriter | None) -> None:
        self._writer = writer
        self._losses: list[float] = []
        self._step = self._steps = 0
        self._since = self._phase_since = time.monotonic()
        self._line_since = 0.0

    def say(self, line: str) -> None:
        """A line of train.log, which is what stderr is in this process."""
        if self._writer:
            print(f"{datetime.datetime.now():%H:%M:%S} {redact(line)}", file=sys.stderr, flush=True)

    def write(self, type_: str, **fields: Any) -> None:
        if self._writer:
            self._writer.write(type_, **fields)

    def state(self, state: State, **fields: Any) -> None:
        if self._writer:
            self._writer.state(state, **fields)
            self.say(state.value + (f": {fields['message']}" if "message" in fields else ""))

    def note(self, message: str) -> None:
        """Something that the user should know, but that stops nothing."""
        self.write("note", message=redact(message))
        self.say(message)

    def phase(self, name: str, total: int | None = None) -> None:
        self._phase_since = time.monotonic()
        self.write("phase", name=name, **({} if total is None else {"total": total}))
        self.say(name if total is None else f"{name}: {total}")

    def phase_progress(self, name: str, total: int, done: int) -> None:
        """How far a long phase is; at most once a second."""
        now = time.monotonic()
        if now - self._phase_since >= PHASE_INTERVAL or done == total:
            self._phase_since = now
            self.write("phase", name=name, total=total, done=done)

    def clock(self) -> None:
        """From now on the time belongs to the steps, after whatever else took time."""
        self.flush()
        self._since = time.monotonic()

    def step(self, step: int, steps: int, loss: float) -> None:
        """A finished optimiser step. The event tells the mean loss and seconds per step since the last event."""
        self._losses.append(loss)
        self._step, self._steps = step, steps
        if time.monotonic() - self._since >= INTERVAL or step == steps:
            self.flush()

    def flush(self) -> None:
        """Tell the steps that have not been told yet."""
        count = len(self._losses)
        if not count:
            return
        now = time.monotonic()
        loss, seconds = round(sum(self._losses) / count, 6), round((now - self._since) / count, 4)
        self.write("step", step=self._step, steps=self._steps, loss=loss, seconds=seconds)
        if now - self._line_since >= LINE_INTERVAL or self._step == self._steps:
            self._line_since = now
            self.say(f"step {self._step}/{self._steps}, loss {loss:.4f}, {seconds:.2f} s a step")
        self._since = now
        self._losses = []

    def checkpoint(self, step: int, folder: Path) -> None:
        self.write("checkpoint", step=step, file=f"checkpoints/{folder.name}")
        self.say(f"checkpoint {folder.name}")

    def sample(self, step: int, file: Path) -> None:
        self.write("sample", step=step, file=f"samples/{file.name}")
