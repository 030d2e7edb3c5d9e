"""`dreamctl caption`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dreamctl.cli.command import Session, command
from dreamctl.cli.output import Table

if TYPE_CHECKING:
    from dreamctl.workflows.caption import CaptionReport

Captioner = Annotated[str | None, typer.Option(metavar="NAME", help="Who writes: builtin, template, none.")]
Trigger = Annotated[str | None, typer.Option(metavar="WORD", help='First word of every caption; "" takes it out.')]


def register(app: typer.Typer) -> None:
    command(app, "caption")(caption)


def caption(
    session: Session,
    dataset: Annotated[Path | None, typer.Argument(help="Dataset folder; the project's when not given.")] = None,
    captioner: Captioner = None,
    trigger: Trigger = None,
    prefix: Annotated[str, typer.Option(help="Words before each new caption.")] = "",
    suffix: Annotated[str, typer.Option(help="Words after each new caption.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace captions that are there.")] = False,
) -> None:
    """Describe what else is in the pictures.

    The caption, a .txt file beside each picture, names everything but the subject.

    Captions that are there stay. The subject's identifier is not written: training adds it.
    """
    from dreamctl.workflows.caption import caption

    report = caption(session.context(), dataset, captioner, overwrite, trigger, prefix, suffix)
    session.output.emit(_data(report), _text(report), [str(report.dataset)])


def _data(report: CaptionReport) -> dict[str, Any]:
    written = [item.file for item in report.captions if item.written]
    return {
        "dataset": str(report.dataset),
        "captioner": report.captioner,
        "trigger": report.trigger,
        "digest": report.digest,
        "captions": {item.file: item.caption for item in report.captions},
        "written": written,
        "kept": [item.file for item in report.captions if not item.written],
        "next": report.next,
    }


def _text(report: CaptionReport) -> list[str | Table]:
    rows = [(item.file, item.caption, "written" if item.written else "kept") for item in report.captions]
    written = sum(item.written for item in report.captions)
    trigger = f", trigger {report.trigger!r}" if report.trigger else ""
    return [
        Table(("picture", "caption", ""), rows),
        f"{report.dataset}: {written} written, {len(rows) - written} kept (captioner {report.captioner}{trigger})",
        f"next: {report.next}",
    ]
