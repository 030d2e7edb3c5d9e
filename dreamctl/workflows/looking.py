"""Ask providers how runs are, and bring home what they made; what cannot be found out hides nothing else."""

from __future__ import annotations

from dreamctl.backends.base import Unknowable, as_remote
from dreamctl.context import Context
from dreamctl.domain.run import State
from dreamctl.errors import CredentialsError, DreamctlError, ProviderError
from dreamctl.runfolder import RunFolder
from dreamctl.workflows import shared_runs
from dreamctl.workflows.follow import keep_home, look
from dreamctl.workflows.harvest import record_run


def look_at(context: Context, run: RunFolder) -> None:
    """Ask a run's provider how it is, and bring home what it made. What cannot be found out is told, not raised."""
    try:
        look_again(context, run)
    except DreamctlError as error:
        context.reporter.warn(error.message + (f" ({error.hint})" if error.hint else ""))


def look_again(context: Context, run: RunFolder) -> bool:
    """Ask a run's provider how it is, and bring home what it made; whether it is still at work.

    Raises ProviderError where the provider cannot be asked, NotFound where what a run made is gone.
    """
    remote = as_remote(context.backend(run.record().backend)) if run.remote_file.exists() else None
    if remote is None:
        return run.at_work()
    try:
        if run.state() is State.succeeded and run.model_file() is None:
            if not shared_runs.bring_outcome(context, run):
                remote.fetch(run)
        elif run.at_work():
            look(context, remote, run)
            _tell_retention(context, run)
            shared_runs.publish(context, run)
        else:
            keep_home(context, run)
    finally:
        record_run(context, run)
    return run.at_work()


def look_at_all(context: Context) -> None:
    """Ask about every run that is at work at a provider, and bring home what they made.

    A provider that cannot be asked about one is not asked about the others: each would wait as long.
    """
    away: dict[str, int] = {}
    for row in context.registry.runs_at_work():
        run = RunFolder(context.runs / row.id)
        if row.backend == "local" or not run.path.is_dir():
            continue
        if row.backend in away:
            away[row.backend] += 1
            continue
        try:
            look_again(context, run)
        except DreamctlError as error:
            context.reporter.warn(f"run {run.id}: {error.message}" + (f" ({error.hint})" if error.hint else ""))
            if isinstance(error, (ProviderError, CredentialsError)) and not isinstance(error, Unknowable):
                away[row.backend] = 0
    for name, count in away.items():
        if count:
            context.reporter.warn(f"{count} more runs at {name} were not asked about")


def _tell_retention(context: Context, run: RunFolder) -> None:
    """Say until when a provider keeps what a run made, where it could not be brought home yet."""
    job = run.remote()
    if job and job.keep_until and run.at_work():
        context.reporter.warn(f"what run {run.id} made is deleted by its provider at {job.keep_until}")
