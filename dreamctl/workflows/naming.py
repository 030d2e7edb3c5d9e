"""Runs found again by the name that `train --name` gave them, or by the id that a provider gave their job."""

from __future__ import annotations

from dreamctl import plugins
from dreamctl.context import Context
from dreamctl.domain.run import State
from dreamctl.errors import InvalidInput, did_you_mean
from dreamctl.runfolder import RunFolder
from dreamctl.workflows import shared_runs
from dreamctl.workflows.harvest import record_run
from dreamctl.workflows.lesson import Wish


def named_run(context: Context, wish: Wish, key: str) -> RunFolder | None:
    """The run that has the name of the line, here or in the storage of shared runs.

    With `--again` none: the name goes to a new run. A cancelled run has lost it. Raises InvalidInput where the run was
    made of other data, recipe or concept.
    """
    if wish.name is None or wish.again:
        return None
    run = _holder(context, wish.name)
    if run is None:
        return None
    check_same_lesson(wish.name, run, key)
    record_run(context, run)
    context.reporter.note(f"{wish.name!r} is run {run.id}, which is {run.state()}")
    return run


def check_same_lesson(name: str, run: RunFolder, key: str) -> None:
    """Raises InvalidInput where the run that has the name was made of something else than `key` says."""
    if run.record().key != key:
        raise InvalidInput(
            f"the name {name!r} belongs to run {run.id}, which is of other pictures, recipe or concept",
            field="--name",
            hint="choose another --name, or give it to a new run with --again",
        )


def _holder(context: Context, name: str) -> RunFolder | None:
    """The run that has the name; one that was cancelled does not keep it."""
    if run_id := shared_runs.claimed(context, name):
        run = RunFolder(context.runs / run_id)
        return None if run.state() is State.cancelled else run
    for row in context.registry.runs_named(name):
        run = RunFolder(context.runs / row.id)
        if run.path.is_dir() and row.state is not State.cancelled:
            return run
    return None


def provider_of(word: str) -> str:
    """The backend of `runpod:ID`. Raises InvalidInput."""
    provider, separator, remote_id = word.partition(":")
    known = [name for name in plugins.names("backends") if name != "local"]
    if not separator or not remote_id or provider not in known:
        raise InvalidInput(
            f"--attach {word!r} is not PROVIDER:ID", field="--attach", hint=did_you_mean(provider, known)
        )
    return provider


def attached(context: Context, word: str) -> RunFolder | None:
    """The run that a provider's job belongs to, where it is known here already."""
    provider, _, remote_id = word.partition(":")
    for row in context.registry.runs_of_job(provider, remote_id):
        if (context.runs / row.id).is_dir():
            return RunFolder(context.runs / row.id)
    return None
