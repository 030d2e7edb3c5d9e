"""Watch a run until it settles and tell the reporter; stop it when the user asks."""

from __future__ import annotations

import time
from typing import NoReturn

from dreamctl.backends.base import Backend
from dreamctl.context import Context
from dreamctl.domain.run import Event, State, last_step, newest
from dreamctl.errors import RunFailed, signalled_error
from dreamctl.reporter import Reporter
from dreamctl.runfolder import EventTail, RunFolder
from dreamctl.workflows.harvest import record_run

POLL_SECONDS = 0.2
_SAVE_SECONDS = 120.0


def follow(context: Context, backend: Backend, run: RunFolder, tail: EventTail) -> None:
    """Return when the run has succeeded; `tail` says which events are news. Raises RunFailed with the reason."""
    alive = True
    while alive:
        alive = run.alive()
        backend.poll(run)
        for event in tail.new():
            report(context.reporter, event)
        if alive:
            time.sleep(POLL_SECONDS)
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
    events = run.events()
    state, change = run.state(events), newest(events, "state")
    if state is State.succeeded:
        return
    if state is State.cancelled:
        raise RunFailed(f"run {run.id} was cancelled")
    if state is State.failed and change:
        hint = change.fields.get("hint") or f"see `dreamctl logs {run.id}`"
        raise RunFailed(f"run {run.id} failed: {change.fields.get('message')}", hint=hint)
    raise RunFailed(
        f"run {run.id} stopped at step {last_step(events)} before it was done",
        hint=f"go on from its last checkpoint: dreamctl train --resume {run.id}",
    )


def stop(context: Context, backend: Backend, run: RunFolder, signalled: BaseException) -> NoReturn:
    """Let the trainer save; then end this command: raises Interrupted (Ctrl-C) or Terminated (SIGTERM)."""
    asked = backend.interrupt(run)
    if asked:
        context.reporter.note("saving a checkpoint …")
        deadline = time.monotonic() + _SAVE_SECONDS
        while run.alive() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    record_run(context, run)
    if run.alive():
        still = "still saving" if asked else "which goes on"
        raise signalled_error(signalled, f"no longer following run {run.id}, {still}", f"dreamctl status {run.id}")
    step = last_step(run.events())
    raise signalled_error(
        signalled, f"stopped run {run.id} at step {step}", f"go on with: dreamctl train --resume {run.id}"
    )
