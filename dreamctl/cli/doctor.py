"""`dreamctl doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from dreamctl.cli.command import Session, command
from dreamctl.cli.output import Table


def register(app: typer.Typer) -> None:
    command(app, "doctor")(doctor)


def doctor(
    session: Session,
    backend: Annotated[
        str | None, typer.Option(help="Look at a place where runs are trained: runpod, replicate.")
    ] = None,
    ask_worker: Annotated[
        bool, typer.Option("--ask-worker", help="Start its worker for a moment, which costs that.")
    ] = False,
) -> None:
    """Say what works on this computer, or at a provider, and what does not."""
    from dreamctl import paths
    from dreamctl.workflows.doctor import examine, examine_backend

    if backend and backend != "local":
        report = examine_backend(session.context(), backend, ask_worker)
    else:
        report = examine(paths.project_dir(), session.profile)
    cells = [(one.state, one.name, one.value, one.advice or "") for one in report.findings]
    wrong = [one.name for one in report.findings if one.state != "ok"]
    session.output.emit(report.data(), Table(("", "what", "found", "advice"), cells), wrong)
