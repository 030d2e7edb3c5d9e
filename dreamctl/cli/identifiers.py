"""`dreamctl identifiers`."""

from __future__ import annotations

import typer

from dreamctl.cli.command import Session, command
from dreamctl.cli.output import Table


def register(app: typer.Typer) -> None:
    command(app, "identifiers")(identifiers)


def identifiers(session: Session) -> None:
    """List what has been taught, and by which versions."""
    from dreamctl.workflows.identifiers import identifiers

    known = identifiers(session.context())
    rows = [
        (
            item.concept.identifier, item.concept.name or "-", item.concept.category, item.concept.kind.value,
            ", ".join(item.targets) or "-", ", ".join(item.bases) or "-",
            ", ".join(version.name for version in item.versions) or "-",
        )
        for item in known
    ]  # fmt: skip
    columns = ("identifier", "name", "category", "kind", "target", "base", "versions")
    table = Table(columns, rows, empty="nothing taught yet; start with `dreamctl train`")
    session.output.emit(
        {"identifiers": [item.data() for item in known]}, table, [item.concept.identifier for item in known]
    )
