"""What is known of a run's job at a provider, on disk before and after each step, and told as the run's events.

Knows no provider. Whoever writes here holds the run's `remote.lock`.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dreamctl.domain.remote import RemoteJob, Report
from dreamctl.domain.run import WORKING, State, newest
from dreamctl.files import locked, write_json
from dreamctl.http import printable
from dreamctl.runfolder import EventWriter, RunFolder, now

_LOG_LINES = 2000
_TAKEN_OVER = frozenset({"step", "phase", "note", "checkpoint", "sample"})
_STATES: Mapping[str, State] = {
    "queued": State.queued,
    "running": State.running,
    "failed": State.failed,
    "timed_out": State.failed,
    "expired": State.failed,
    "cancelled": State.cancelled,
}


@contextlib.contextmanager
def held(run: RunFolder) -> Iterator[None]:
    """Speak with the provider about this run alone: others wait."""
    with locked(run.remote_lock, f"following run {run.id}"):
        yield


def keep(run: RunFolder, job: RemoteJob) -> RemoteJob:
    """Write the journal, durably; returns it."""
    write_json(run.remote_file, job.plain())
    return job


@contextlib.contextmanager
def events(run: RunFolder, job: RemoteJob) -> Iterator[EventWriter]:
    """The writer of the run's events, for as long as the block lasts."""
    writer = EventWriter(run.events_file, attempt=job.attempt)
    try:
        yield writer
    finally:
        writer.close()


def change(run: RunFolder, job: RemoteJob, state: State, **fields: Any) -> None:
    """Write a change of state, unless it is the run's state already."""
    if run.state() is not state:
        with events(run, job) as writer:
            writer.state(state, **{name: value for name, value in fields.items() if value})


def settled(run: RunFolder) -> bool:
    """Whether the run has ended, so that nothing that a provider says later changes it."""
    return run.state() not in WORKING


def apply(run: RunFolder, job: RemoteJob, report: Report) -> RemoteJob:
    """Write what a report says that is news; returns the journal as it is now. What is settled stays as it is."""
    if settled(run):
        return job
    job = _learnt(job, report)
    job = _taken_over(run, job, report)
    if report.log:
        add_log(run, report.log)
    if report.told == "succeeded":
        if report.result is None:
            report = Report("failed", report.message or "it ended without weights that can be used", report.hint)
            job = job.model_copy(update={"told": "failed"})
        else:  # the run has succeeded when its model is here
            return keep(run, job)
    job = keep(run, job)
    cause = report.told if report.told in ("timed_out", "expired") else ""
    change(run, job, _STATES[report.told], message=report.message, hint=report.hint, cause=cause)
    return job


def adopt_events(run: RunFolder, job: RemoteJob, told: Sequence[Mapping[str, Any]]) -> int:
    """Take over our own trainer's events that are news; returns the number of the last."""
    numbers: list[int] = [event["seq"] for event in told if isinstance(event.get("seq"), int)]
    if not numbers:
        return job.seen
    seen = job.seen if max(numbers) >= job.seen else 0  # the provider began the job anew
    fresh = [event for event in told if isinstance(event.get("seq"), int) and event["seq"] > seen]
    with events(run, job) as writer:
        for event in fresh:
            kind = event.get("type")
            fields = {name: value for name, value in event.items() if name not in _HEAD}
            if kind in _TAKEN_OVER and _whole(str(kind), fields):
                writer.write(str(kind), **fields)
    return max(seen, *numbers)


def add_log(run: RunFolder, lines: Sequence[str]) -> None:
    """Add the newest lines of a log, of which some may be known, to `train.log`."""
    known = run.log_tail(_LOG_LINES)
    fresh = [printable(line) for line in lines]
    overlap = next((size for size in range(min(len(known), len(fresh)), 0, -1) if known[-size:] == fresh[:size]), 0)
    if fresh[overlap:]:
        with open(run.log_file, "ab") as file:
            file.write("".join(f"{line}\n" for line in fresh[overlap:]).encode())


_HEAD = frozenset({"v", "seq", "attempt", "time", "type"})
_FIELDS: Mapping[str, Mapping[str, type | tuple[type, ...]]] = {
    "step": {"step": int, "steps": int, "loss": (int, float), "seconds": (int, float)},
    "phase": {"name": str},
    "note": {"message": str},
    "checkpoint": {"step": int, "file": str},
    "sample": {"step": int, "file": str},
}


def _whole(kind: str, fields: Mapping[str, Any]) -> bool:
    """Whether an event that came over the net has the fields that readers count on."""
    numbers = all(isinstance(fields.get(name), int) for name in ("total", "done") if name in fields)
    return numbers and all(isinstance(fields.get(name), of) for name, of in _FIELDS[kind].items())


def _learnt(job: RemoteJob, report: Report) -> RemoteJob:
    """The journal with what the report says of times and ends."""
    learnt: dict[str, Any] = {}
    if report.told != "queued" and job.started is None:
        learnt["started"] = report.started or now()
    if report.told not in ("queued", "running"):
        learnt |= {"told": report.told, "ended": job.ended or now()}
    if report.keep_until and job.keep_until is None:
        learnt["keep_until"] = report.keep_until
    return job.model_copy(update=learnt)


def _taken_over(run: RunFolder, job: RemoteJob, report: Report) -> RemoteJob:
    """Write the progress that a report tells."""
    if report.events:
        return job.model_copy(update={"seen": adopt_events(run, job, report.events)})
    if report.step is None:
        return job
    step, steps, loss = report.step
    last = newest(run.last_events(), "step")
    if last is None or last.fields["step"] < step:
        seconds = elapsed(job) / step if step else 0.0
        with events(run, job) as writer:
            # a foreign trainer may not print its loss; readers of a step count on a number
            known = last.fields["loss"] if last else 0.0
            writer.write(
                "step", step=step, steps=steps, loss=known if loss is None else loss, seconds=round(seconds, 3)
            )
    return job


def elapsed(job: RemoteJob) -> float:
    """Seconds since the job began to run; 0 before."""
    return seconds_since(job.started) if job.started else 0.0


def seconds_since(moment: str) -> float:
    """Seconds from an ISO time to now."""
    then = datetime.datetime.fromisoformat(moment)
    return (datetime.datetime.now(datetime.UTC) - then).total_seconds()
