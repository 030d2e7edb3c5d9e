"""`dreamctl rm`."""

from __future__ import annotations

from typing import Annotated

import typer

from dreamctl.cli.command import Session, command


def register(app: typer.Typer) -> None:
    command(app, "rm")(remove)


def remove(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="RUN|VERSION", help="A run's id, or a version such as sks@2.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a run or a model version, with its files."""
    from dreamctl.workflows.ending import remove

    removed = remove(session.context(), name, yes)
    model = f" and its model version {', '.join(removed.versions)}" if removed.versions else ""
    session.output.emit(
        {"run": removed.name, "versions": removed.versions}, f"deleted run {removed.name}{model}", [removed.name]
    )
