"""`dreamctl prepare`."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dreamctl.cli.command import Session, command
from dreamctl.cli.output import Table
from dreamctl.cli.upload import data, tell
from dreamctl.errors import InvalidInput

if TYPE_CHECKING:
    from dreamctl.workflows.prepare import PrepareReport
    from dreamctl.workflows.upload import UploadReport

_ROWS = 100  # of the table; `dataset.json` has them all


def register(app: typer.Typer) -> None:
    command(app, "prepare")(prepare)


def prepare(
    session: Session,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Folders, pictures, zip archives, here or at s3:// or gs://; URLs, .txt or .csv lists of URLs.",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Dataset folder; the project's, processed, when not given.")] = None,
    size: Annotated[int | None, typer.Option(help="Side in pixels; the recipe's resolution, else 512.")] = None,
    fit: Annotated[str, typer.Option(help="pad: whole, with margins; crop: a square; bucket: a near shape.")] = "pad",
    focus: Annotated[str, typer.Option(help="What a crop keeps in its middle: centre, or detail.")] = "centre",
    background: Annotated[str, typer.Option(help="Colour of margins and behind transparency.")] = "white",
    remove_background: Annotated[
        bool, typer.Option("--remove-background", help="Cut the subject out; --background is then behind it.")
    ] = False,
    cutout_model: Annotated[
        str | None, typer.Option(metavar="NAME|FILE.onnx", help="What finds the subject; u2net when not given.")
    ] = None,
    upscale: Annotated[bool, typer.Option("--upscale", help="Enlarge small pictures; else they stay small.")] = False,
    step: Annotated[int, typer.Option("--bucket-step", help="Buckets' sides are multiples of it.")] = 64,
    format_: Annotated[str, typer.Option("--format", help="jpeg, png or webp.")] = "jpeg",
    quality: Annotated[int, typer.Option(help="Of JPEG and WebP, 1 to 100.")] = 95,
    recursive: Annotated[bool, typer.Option("--recursive", help="Look into folders inside folders.")] = False,
    zip_: Annotated[bool, typer.Option("--zip", help="Write an archive beside the dataset folder.")] = False,
    sheet: Annotated[bool, typer.Option("--sheet/--no-sheet", help="Draw a contact sheet beside the folder.")] = True,
    upload: Annotated[bool, typer.Option("--upload", help="Upload it, as `dreamctl upload` does.")] = False,
    to: Annotated[str | None, typer.Option(metavar="URL", help="With --upload: the storage, s3://… or gs://…")] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="With --upload: how long the URL works, such as 12h.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="With --upload: a URL for everybody.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Any problem or warning: change nothing, exit 1.")] = False,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="URLs may name this network's addresses and any port.")
    ] = False,
) -> None:
    """Make a dataset from a heap of pictures.

    They become square or of a near shape, undistorted, upright, sRGB, without metadata.

    Run again, it does only what changed, and removes pictures whose source is gone.
    """
    from dreamctl.cutout import MODEL, parse_model
    from dreamctl.fitting import Rules, parse_colour
    from dreamctl.workflows.prepare import prepare
    from dreamctl.workflows.upload import check_destination
    from dreamctl.workflows.upload import upload as send

    if cutout_model is not None and not remove_background:
        raise InvalidInput(
            "--cutout-model is given, and no background is to be removed",
            field="--cutout-model",
            hint="add --remove-background",
        )
    if not upload and (to or expires or public):
        raise InvalidInput("--to, --expires and --public are for --upload", field="--upload", hint="add --upload")
    if public and expires:
        raise InvalidInput("--public and --expires exclude each other", field="--expires", hint="leave one out")
    rules_at = partial(
        Rules,
        background=parse_colour(background),
        fit=fit,
        focus=focus,
        upscale=upscale,
        step=step,
        format=format_,
        quality=quality,
        cutout=parse_model(cutout_model or MODEL) if remove_background else None,
    )
    context = session.context()
    if upload:
        check_destination(context, to, expires, public)
    report = prepare(context, sources, size, rules_at, out, recursive, zip_, sheet, strict, allow_private)
    sent = send(context, report.dataset, to, expires, public) if upload else None
    if sent:
        tell(session, sent)
    ids = [sent.url] if sent else [str(report.dataset)]
    session.output.emit(partial(_data, report, sent), partial(_text, report, sent), ids)


def _data(report: PrepareReport, sent: UploadReport | None) -> dict[str, Any]:
    return {
        "dataset": str(report.dataset),
        "size": report.manifest.size,
        "digest": report.digest,
        "made": list(report.made),
        "kept": list(report.kept),
        "removed": list(report.removed),
        "pictures": [picture.plain() for picture in report.pictures],
        "skipped": [item.plain() for item in report.skipped],
        "urls": [asdict(outcome) for outcome in report.urls],
        "warnings": list(report.warnings),
        "zip": str(report.zip) if report.zip else None,
        "contact_sheet": str(report.sheet) if report.sheet else None,
        "next": report.next,
        "upload": data(sent) if sent else None,
    }


def _text(report: PrepareReport, sent: UploadReport | None) -> list[str | Table]:
    made = set(report.made)
    rows = [
        (picture.file, picture.source, "made" if picture.file in made else "kept")
        for picture in report.pictures[:_ROWS]
    ]
    rows += [(file, "", "removed") for file in report.removed[:_ROWS]]
    more = len(report.pictures) + len(report.removed) - len(rows)
    shapes = sorted({(picture.width, picture.height) for picture in report.pictures})
    shape = f"of {shapes[0][0]}×{shapes[0][1]}" if len(shapes) == 1 else f"in {len(shapes)} shapes"
    done = ", ".join(
        f"{count} {word}"
        for count, word in (
            (len(report.made), "made"),
            (len(report.kept), "kept"),
            (len(report.removed), "removed"),
            (len(report.skipped), "skipped"),
        )
        if count
    )
    lines: list[str | Table] = [
        Table(("picture", "source", ""), rows),
        *([f"… and {more} more: see {report.dataset / 'dataset.json'}"] if more else []),
        f"{report.dataset}: {len(report.pictures)} pictures {shape} ({done})",
    ]
    if report.sheet:
        lines.append(f"look at it: {report.sheet}")
    if report.urls:
        used = sum(outcome.file is not None or outcome.files > 0 for outcome in report.urls)
        lines.append(f"URLs: {used} of {len(report.urls)} gave pictures")
    if report.zip:
        lines.append(f"archive: {report.zip}")
    if sent:
        lines.append(f"URL: {sent.url}")
    return [*lines, f"next: {report.next}"]
