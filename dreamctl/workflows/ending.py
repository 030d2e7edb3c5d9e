"""Stop runs for good, and remove runs and model versions with their files."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from dreamctl.backends.base import as_remote
from dreamctl.context import Context
from dreamctl.domain.run import FINAL
from dreamctl.domain.versions import find_version
from dreamctl.errors import ConsentRequired, DreamctlError, InvalidInput
from dreamctl.runfolder import RunFolder
from dreamctl.workflows import shared_runs
from dreamctl.workflows.follow import end
from dreamctl.workflows.harvest import harvest, record_run
from dreamctl.workflows.runs import find_run


def cancel(context: Context, wanted: str) -> RunFolder:
    """Stop a run for good; its folder stays. Raises InvalidInput where it has ended already."""
    shared_runs.pull(context)
    harvest(context)
    run = find_run(context, wanted)
    state = run.state()
    if state in FINAL:
        raise InvalidInput(f"run {run.id} is {state} already", field="RUN")
    backend = context.backend(run.record().backend)
    job, remote = run.remote(), as_remote(backend)
    if remote and job and job.id is None and run.at_work():
        shared_runs.await_submission(context, run)
        remote.reconcile(run, resubmit=False)
    end(context, backend, run)
    record_run(context, run)
    return run


@dataclass(frozen=True)
class Removed:
    """What `rm` took away."""

    name: str
    versions: list[str]


def remove(context: Context, wanted: str, yes: bool) -> Removed:
    """Delete a run (`20261120-…`, `last`) or a model version (`sks@2`) with its files.

    Raises ConsentRequired where nobody said yes, InvalidInput while a trainer works on it.
    """
    harvest(context)
    version = find_version(context.registry.versions(), wanted) if "@" in wanted else None
    run = RunFolder(context.runs / version.run_id) if version else find_run(context, wanted)
    at_work = _at_work(run)
    if at_work and not _lost(run):
        raise InvalidInput(f"run {run.id} is at work", field="RUN", hint=f"stop it first: dreamctl cancel {run.id}")
    lost = [item.name for item in context.registry.versions_of_run(run.id)]
    what = f"run {run.id}" + (f" and its model version {', '.join(lost)}" if lost else "")
    if at_work:
        what += ", which may be at work at its provider"
    if not yes and context.reporter.confirm(f"Delete {what}?") is not True:
        raise ConsentRequired(f"{what} not deleted", hint="say --yes to delete it")
    if run.path.exists():
        _forget_elsewhere(context, run)
    context.registry.remove_run(run.id)
    if run.path.exists():
        # The folder leaves the list of runs in one step, so that a deletion cut short leaves no half run behind.
        doomed = run.path.with_name(f".{run.id}.removed")
        run.path.rename(doomed)
        shutil.rmtree(doomed)
    return Removed(run.id, lost)


def _at_work(run: RunFolder) -> bool:
    """Whether the run goes on; not where its folder is too damaged to tell: it may be removed all the same."""
    try:
        return run.at_work()
    except DreamctlError:
        return False


def _lost(run: RunFolder) -> bool:
    """Whether the answer to the run's submission was lost: nobody can cancel it, so it may be removed all the same."""
    job = run.remote()
    return job is not None and job.id is None


def _forget_elsewhere(context: Context, run: RunFolder) -> None:
    """Remove what the storage of shared runs holds of a run; of one that is too damaged to be read nothing is there."""
    try:
        run.record()
    except DreamctlError as error:
        context.reporter.warn(f"{error.message}: what other computers see of it stays")
        return
    shared_runs.forget(context, run)
