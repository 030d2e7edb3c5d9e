"""What is known of a run's job at a provider, on disk before and after each step, and told as the run's events.

Knows no provider, and trusts none: whatever comes from elsewhere is checked here before it becomes an event. An event
of our own trainer that was taken over has one field more, `origin`, its number there: so that a kill between the events
and the journal doubles none. Whoever writes here holds the run's `remote.lock`.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dreamctl.domain.remote import RemoteJob, Report
from dreamctl.domain.run import WORKING, Event, State, newest
from dreamctl.files import locked, write_json
from dreamctl.http import printable
from dreamctl.runfolder import EventWriter, RunFolder, now

_LOG_LINES = 2000
_LONGEST_LINE = 2000
_LONGEST_TEXT = 500
_MOST = 1 << 53  # what every reader of JSON can count to
_CLOCK_SLACK = datetime.timedelta(minutes=10)
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


def change(run: RunFolder, job: RemoteJob, state: State, **fields: str | None) -> None:
    """Write a change of state, unless it is the run's state already."""
    if run.state() is not state:
        with events(run, job) as writer:
            writer.state(state, **{name: _text(value) for name, value in fields.items() if value})


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


def arrived(run: RunFolder, job: RemoteJob, told: Sequence[Mapping[str, Any]] = ()) -> RemoteJob:
    """The model is here: take over the trainer's last events, if any came along, and let the run have succeeded.

    Does so again after a kill, and changes nothing where the run has ended.
    """
    if settled(run):
        return job
    if told:
        job = keep(run, job.model_copy(update={"seen": adopt_events(run, job, told)}))
    change(run, job, State.succeeded)
    return job


def adopt_events(run: RunFolder, job: RemoteJob, told: Sequence[Mapping[str, Any]]) -> int:
    """Take over our own trainer's events that are news; returns the number of the last."""
    numbered = [(number, event) for event in told if (number := _count(event.get("seq"))) is not None]
    if not numbered:
        return job.seen
    last = max(number for number, _ in numbered)
    # a kill after the events were written, and before the journal was, leaves the journal behind
    written = next((event for event in reversed(_of_attempt(run, job)) if "origin" in event.fields), None)
    seen = max(job.seen, written.fields["origin"]) if written else job.seen
    if last < seen:  # the provider began the job anew
        seen = 0
        keep(run, job.model_copy(update={"seen": last}))
    with events(run, job) as writer:
        for number, event in numbered:
            kind = event.get("type")
            if number > seen and isinstance(kind, str) and (fields := _checked(kind, event)):
                writer.write(kind, **fields, origin=number)
    return last


def add_log(run: RunFolder, lines: Sequence[str]) -> None:
    """Add the newest lines of a log, of which some may be known, to `train.log`."""
    known = run.log_tail(_LOG_LINES)
    fresh = [printable(line)[:_LONGEST_LINE] for line in lines]
    overlap = next((size for size in range(min(len(known), len(fresh)), 0, -1) if known[-size:] == fresh[:size]), 0)
    if fresh[overlap:]:
        with open(run.log_file, "ab") as file:
            file.write("".join(f"{line}\n" for line in fresh[overlap:]).encode())


# what comes from elsewhere


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -_MOST <= value <= _MOST else None  # NaN is not


def _duration(value: object) -> float | None:
    number = _number(value)
    return number if number is not None and number >= 0 else None


def _text(value: object) -> str | None:
    return printable(value)[:_LONGEST_TEXT] if isinstance(value, str) else None


_FIELDS: Mapping[str, Mapping[str, Callable[[object], Any]]] = {
    "step": {"step": _count, "steps": _count, "loss": _number, "seconds": _duration},
    "phase": {"name": _text, "total": _count, "done": _count},
    "note": {"message": _text},
    "checkpoint": {"step": _count, "file": _text},
    "sample": {"step": _count, "file": _text},
}
_OPTIONAL = frozenset({"total", "done"})
_PARTS = (("step", "steps"), ("done", "total"))


def _checked(kind: str, event: Mapping[str, Any]) -> dict[str, Any] | None:
    """The known fields of an event that came over the net, as readers may count on them; None where they are not so."""
    fields = {name: check(event[name]) for name, check in _FIELDS.get(kind, {}).items() if name in event}
    missing = _FIELDS.get(kind, {}).keys() - fields.keys() - _OPTIONAL
    if not fields or missing or None in fields.values():
        return None
    if any(part in fields and whole in fields and fields[part] > fields[whole] for part, whole in _PARTS):
        return None
    return fields


def _moment(text: object) -> datetime.datetime | None:
    """An ISO time as UTC; None where it is none."""
    try:
        moment = datetime.datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    if moment is None or moment.tzinfo:
        return moment
    return moment.replace(tzinfo=datetime.UTC)


def _learnt(job: RemoteJob, report: Report) -> RemoteJob:
    """The journal with what the report says of times and ends."""
    learnt: dict[str, Any] = {}
    if report.told != "queued":
        learnt["seen_running"] = job.seen_running or now()
        learnt["started"] = job.started or (_text(report.started) if _moment(report.started) else now())
    if report.told not in ("queued", "running"):
        learnt |= {"told": report.told, "ended": job.ended or now()}
    if job.keep_until is None and _moment(report.keep_until):
        learnt["keep_until"] = _text(report.keep_until)
    return job.model_copy(update=learnt)


def _of_attempt(run: RunFolder, job: RemoteJob) -> list[Event]:
    """The newest events of the run's present attempt."""
    return [event for event in run.last_events() if event.attempt == job.attempt]


def _taken_over(run: RunFolder, job: RemoteJob, report: Report) -> RemoteJob:
    """Write the progress that a report tells."""
    if report.events:
        return job.model_copy(update={"seen": adopt_events(run, job, report.events)})
    if report.step is None:
        return job
    step, steps, loss = report.step
    last = newest(_of_attempt(run, job), "step")
    if loss is None:  # a foreign trainer may not print it; readers of a step count on a number
        loss = last.fields["loss"] if last else 0.0
    told = _checked("step", {"step": step, "steps": steps, "loss": loss, "seconds": 0.0})
    if told and (last is None or last.fields["step"] < step):
        told["seconds"] = round(elapsed(job) / step, 3) if step else 0.0
        with events(run, job) as writer:
            writer.write("step", **told)
    return job


def elapsed(job: RemoteJob) -> float:
    """Seconds since the job began to run; 0 before.

    The provider's word counts where it can be true. Its clock may be hours off, and then the job runs since this
    computer first saw it run: it cannot have begun later than that, nor long before it was submitted.
    """
    told, seen, began = _moment(job.started), _moment(job.seen_running), _moment(job.began)
    if told and ((seen and told > seen) or (began and began - told > _CLOCK_SLACK)):
        told = seen
    start = told or seen
    return max(0.0, (datetime.datetime.now(datetime.UTC) - start).total_seconds()) if start else 0.0
