"""Watch a run until it settles and tell the reporter; stop it, or stop watching, when the user asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from dreamctl.backends.base import Backend, NotYetKnown, Unknowable, as_remote
from dreamctl.context import Context
from dreamctl.domain.run import Event, State, last_step, newest
from dreamctl.errors import DreamctlError, ProviderError, RunFailed, signalled_error
from dreamctl.reporter import Reporter
from dreamctl.runfolder import EventTail, RunFolder
from dreamctl.workflows import shared_runs
from dreamctl.workflows.harvest import record_run

POLL_SECONDS = 0.2
_SAVE_SECONDS = 120.0
_PATIENCE_SECONDS = 1800.0
_PUBLISH_SECONDS = 30.0
_CANCEL_SECONDS = 30.0

Wait = Callable[[float], object]


def follow(context: Context, backend: Backend, run: RunFolder, tail: EventTail, wait: Wait = time.sleep) -> None:
    """Return when the run has succeeded; `tail` says which events are news. Raises RunFailed with the reason.

    `wait` passes so many seconds, or less where there is news. Trouble on the way to a provider is borne for half an
    hour: the run itself is none the worse for it.
    """
    for _ in watched(context, backend, run, tail, wait):
        pass
    record_run(context, run)
    require_success(run)


def watched(
    context: Context, backend: Backend, run: RunFolder, tail: EventTail, wait: Wait = time.sleep
) -> Iterator[list[Event]]:
    """Follow a run and yield its news each time that there are some, until it has settled."""
    at_work, trouble, published = True, _Trouble(context, run), _Published(context, run)
    while at_work:
        at_work = run.at_work()
        with trouble:
            look(context, backend, run)
        news = tail.new()
        for event in news:
            report(context.reporter, event)
        published.keep_up(bool(news))
        if news:
            yield news
        if at_work and run.at_work():
            wait(backend.pause(run))


def look(context: Context, backend: Backend, run: RunFolder) -> None:
    """Ask once how a run is, and bring home what it made, if it is there.

    Raises Unknowable where nobody knows whether it was submitted; NotYetKnown where that will be known soon.
    """
    remote, job = as_remote(backend), run.remote()
    if remote and job and job.id is None and run.at_work():
        shared_runs.refresh(context, run)
        job = run.remote()
        if job and job.id is None:
            if not shared_runs.may_be_under_way(context, run):
                remote.reconcile(run, resubmit=False)
            return
    if backend.poll(run):
        backend.fetch(run)
        keep_home(context, run)


def keep_home(context: Context, run: RunFolder) -> None:
    """Keep what a run made where other computers find it, unless that was done."""
    if (job := run.remote()) and run.model_file() and run.state() is State.succeeded:
        shared_runs.keep_outcome(context, run, job)


class _Published:
    """Keeps the run's object up to date while it is followed: at each change of state, else now and then."""

    def __init__(self, context: Context, run: RunFolder) -> None:
        self._context, self._run = context, run
        self._state, self._when, self._dirty = run.state(), time.monotonic(), False

    def keep_up(self, news: bool) -> None:
        self._dirty |= news
        state = self._run.state()
        due = state is not self._state or time.monotonic() - self._when > _PUBLISH_SECONDS
        if self._dirty and due:
            self._dirty = not shared_runs.publish(self._context, self._run)
            self._when = time.monotonic()
            if not self._dirty:
                self._state = state


class _Trouble:
    """Bears a provider that cannot be asked, as long as that does not last; tells it once."""

    def __init__(self, context: Context, run: RunFolder) -> None:
        self._context, self._run = context, run
        self._since: float | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        lasting = isinstance(error, Unknowable) and not isinstance(error, NotYetKnown)
        if not isinstance(error, ProviderError) or lasting:
            if error is None:
                self._since = None
            return False
        if self._since is None:
            self._since = time.monotonic()
            self._context.reporter.warn(f"{error.message}: run {self._run.id} is asked about again soon")
        if time.monotonic() - self._since > _PATIENCE_SECONDS:
            error.hint = f"the run goes on: `dreamctl status {self._run.id}` asks again"
            return False
        return True


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
    if run.remote_file.exists() and change:
        raise RunFailed(
            f"run {run.id} is not at its provider: {change.fields.get('message') or state}",
            hint=f"send it again: dreamctl train --resume {run.id}",
        )
    raise RunFailed(
        f"run {run.id} stopped at step {last_step(events)} before it was done",
        hint=f"go on from its last checkpoint: dreamctl train --resume {run.id}",
    )


def stop(
    context: Context, backend: Backend, run: RunFolder, signalled: BaseException, cancel_remote: bool = False
) -> NoReturn:
    """Let the trainer save; then end this command: raises Interrupted (Ctrl-C) or Terminated (SIGTERM).

    A run at a provider goes on, unless `cancel_remote`.
    """
    if as_remote(backend):
        _leave(context, backend, run, signalled, cancel_remote)
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


def _leave(
    context: Context, backend: Backend, run: RunFolder, signalled: BaseException, cancel_remote: bool
) -> NoReturn:
    """End this command; the run at the provider goes on, or is cancelled."""
    remote = as_remote(backend)
    title = remote.title if remote else backend.name
    job = run.remote()
    record_run(context, run)
    shared_runs.publish(context, run)
    if job is None or run.state() in (State.created, State.interrupted):
        raise signalled_error(
            signalled, f"run {run.id} was not sent to {title}", f"send it with: dreamctl train --resume {run.id}"
        )
    if job.id is None:
        raise signalled_error(
            signalled,
            f"whether run {run.id} arrived at {title} is not known",
            f"`dreamctl status {run.id}` finds out; it is not sent again blindly",
        )
    if cancel_remote:
        try:
            end(context, backend, run)
        except DreamctlError as error:
            raise signalled_error(
                signalled,
                f"run {run.id} goes on at {title}, and costs: it could not be cancelled ({error.message})",
                f"dreamctl cancel {run.id}",
            ) from error
        raise signalled_error(signalled, f"run {run.id} at {title} is {run.state()}", f"dreamctl status {run.id}")
    raise signalled_error(
        signalled,
        f"no longer following run {run.id}, which goes on at {title}",
        f"`dreamctl status {run.id} --follow` follows it again, `dreamctl cancel {run.id}` ends it",
    )


def end(context: Context, backend: Backend, run: RunFolder) -> None:
    """Cancel a run, and wait a little for what the provider says: one that was done before keeps what it made."""
    backend.cancel(run)
    if as_remote(backend) is None:
        return
    deadline = time.monotonic() + _CANCEL_SECONDS
    while run.at_work() and time.monotonic() < deadline:
        try:
            look(context, backend, run)
        except ProviderError as error:
            context.reporter.warn(f"{error.message}: whether run {run.id} has ended is not known yet")
            break
        if run.at_work():
            time.sleep(min(1.0, backend.pause(run)))
    record_run(context, run)
    shared_runs.publish(context, run)
