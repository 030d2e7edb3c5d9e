"""`dreamctl doctor`."""

from __future__ import annotations

import typer

from dreamctl.cli.command import Session, command
from dreamctl.cli.output import Table


def register(app: typer.Typer) -> None:
    command(app, "doctor")(doctor)


def doctor(session: Session) -> None:
    """Say what works on this computer, and what does not."""
    from dreamctl import paths
    from dreamctl.workflows.doctor import examine

    report = examine(paths.project_dir(), session.profile)
    cells = [(one.state, one.name, one.value, one.advice or "") for one in report.findings]
    wrong = [one.name for one in report.findings if one.state != "ok"]
    session.output.emit(report.data(), Table(("", "what", "found", "advice"), cells), wrong)
