"""`dreamctl upload`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dreamctl.cli.command import Session, command


def register(app: typer.Typer) -> None:
    command(app, "upload")(upload)


def upload(
    session: Session,
    dataset: Annotated[Path | None, typer.Argument(help="Dataset folder; the project's when not given.")] = None,
    to: Annotated[str | None, typer.Option(metavar="URL", help="Storage, such as file:///srv/datasets.")] = None,
) -> None:
    """Put a dataset into a storage.

    Prints its URL. The same content is not sent twice.
    """
    from dreamctl.workflows.upload import upload

    report = upload(session.context(), dataset, to)
    value = {
        "dataset": str(report.dataset),
        "url": report.url,
        "key": report.key,
        "sha256": report.sha256,
        "bytes": report.bytes,
        "already_there": report.already_there,
    }
    state = "already there" if report.already_there else "uploaded"
    session.output.note(f"{state}: {report.bytes} bytes, sha256 {report.sha256}")
    session.output.emit(value, report.url, [report.url])
