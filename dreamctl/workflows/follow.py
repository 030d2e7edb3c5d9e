"""Watch a run until it settles and tell the reporter; stop it when the user asks."""

from __future__ import annotations

import time
from typing import NoReturn

from dreamctl.backends.base import Backend
from dreamctl.context import Context
from dreamctl.domain.run import Event, State
from dreamctl.errors import DreamctlError, Interrupted, RunFailed, Terminated
from dreamctl.reporter import Reporter
from dreamctl.runfolder import EventTail, RunFolder
from dreamctl.workflows.harvest import record_run

POLL_SECONDS = 0.2
_SAVE_SECONDS = 120.0


def follow(context: Context, backend: Backend, run: RunFolder, tail: EventTail) -> None:
    """Return when the run has succeeded; `tail` says which events are news. Raises RunFailed with the reason."""
    while run.alive():
        backend.poll(run)
        for event in tail.new():
            report(context.reporter, event)
        time.sleep(POLL_SECONDS)
    for event in tail.new():
        report(context.reporter, event)
    record_run(context, run)
    require_success(run)


def report(reporter: Reporter, event: Event) -> None:
    """Tell one event to a person."""
    fields = event.fields
    if event.type == "step":
        reporter.progress("training", fields["step"], fields["steps"], f"loss {fields['loss']:.4f}")
    elif event.type == "phase" and fields.get("total"):
        reporter.progress(fields["name"], fields.get("done", 0), fields["total"])
    elif event.type == "note":
        reporter.note(fields["message"])


def require_success(run: RunFolder) -> None:
    """Raise RunFailed unless the run succeeded, saying why and what to do."""
    state = run.state()
    if state is State.succeeded:
        return
    message = next((event.fields.get("message") for event in reversed(run.events()) if event.type == "state"), None)
    if state is State.cancelled:
        raise RunFailed(f"run {run.id} was cancelled")
    if state is State.failed:
        raise RunFailed(f"run {run.id} failed: {message}", hint=f"see `dreamctl logs {run.id}`")
    raise RunFailed(
        f"run {run.id} stopped at step {last_step(run.events())} before it was done",
        hint=f"go on from its last checkpoint: dreamctl train --resume {run.id}",
    )


def last_step(events: list[Event]) -> int:
    """The newest optimiser step that the events tell, 0 before the first."""
    return next((int(event.fields["step"]) for event in reversed(events) if event.type == "step"), 0)


def stop(context: Context, backend: Backend, run: RunFolder, signalled: BaseException) -> NoReturn:
    """Let the trainer save; then end this command: raises Interrupted (Ctrl-C) or Terminated (SIGTERM)."""
    kind: type[DreamctlError] = Terminated if isinstance(signalled, Terminated) else Interrupted
    again = f"dreamctl train --resume {run.id}"
    if not backend.interrupt(run):
        raise kind(f"no longer following run {run.id}, which goes on", hint=f"look at it: dreamctl status {run.id}")
    context.reporter.note("saving a checkpoint …")
    deadline = time.monotonic() + _SAVE_SECONDS
    while run.alive() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    record_run(context, run)
    raise kind(f"stopped run {run.id} at step {last_step(run.events())}", hint=f"go on with: {again}")
