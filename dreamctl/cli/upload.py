"""`dreamctl upload`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dreamctl.cli.command import Session, command
from dreamctl.errors import InvalidInput

if TYPE_CHECKING:
    from dreamctl.context import Context
    from dreamctl.workflows.upload import UploadReport


def register(app: typer.Typer) -> None:
    command(app, "upload")(upload)


def upload(
    session: Session,
    source: Annotated[
        Path | None,
        typer.Argument(metavar="DATASET|ZIP|FILE", help="The project's dataset when not given."),
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="URL", help="s3://bucket/folder, gs://bucket/folder or file:///srv/datasets.")
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long the URL works: 90s, 30m, 12h; 7d at most."),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="A URL without a signature, for everybody.")] = False,
    url_only: Annotated[
        bool, typer.Option("--url-only", help="Send nothing: a new URL of what was uploaded last.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the upload that was interrupted.")] = False,
    clean: Annotated[
        bool,
        typer.Option("--clean", help="Remove what interrupted uploads left; with --to also others' older than a day."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --clean: do not ask about those of others.")] = False,
    s3_endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Service that speaks S3; else Amazon's.")
    ] = None,
    s3_region: Annotated[str | None, typer.Option(metavar="NAME", help="Region of the bucket.")] = None,
    s3_profile: Annotated[str | None, typer.Option(metavar="NAME", help="Profile of ~/.aws to use.")] = None,
    s3_addressing: Annotated[str | None, typer.Option(metavar="WHERE", help="auto, path or virtual.")] = None,
    s3_checksums: Annotated[
        str | None, typer.Option(metavar="WHEN", help="auto, when_supported or when_required.")
    ] = None,
    gcs_credentials: Annotated[str | None, typer.Option(metavar="FILE", help="Key file of a Google account.")] = None,
    public_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where everybody reads the storage, for --public.")
    ] = None,
) -> int:
    """Put a dataset, packed as a zip archive, or a file into a storage.

    Prints one URL, signed and therefore a secret, unless --public.

    The same content is not sent twice. Killed, it goes on when it is run again.
    """
    modes = [name for name, given in (("--url-only", url_only), ("--resume", resume), ("--clean", clean)) if given]
    if len(modes) > 1:
        raise InvalidInput(
            f"{modes[0]} and {modes[1]} exclude each other", field=modes[1], hint="leave one of them out"
        )
    if public and expires:
        raise InvalidInput(
            "--public and --expires exclude each other", field="--expires", hint="a public URL has no end"
        )
    context = session.context(
        s3_endpoint=s3_endpoint,
        s3_region=s3_region,
        s3_profile=s3_profile,
        s3_addressing=s3_addressing,
        s3_checksums=s3_checksums,
        gcs_credentials=gcs_credentials,
        public_url=public_url,
    )
    if clean:
        _refuse("--clean", {"a source": source, "--expires": expires, "--public": public})
        return _clean(session, context, to, yes)
    if resume:
        from dreamctl.workflows.unfinished import resume as go_on

        report = go_on(context, source, to, expires, public)
    else:
        from dreamctl.workflows.upload import sign_again
        from dreamctl.workflows.upload import upload as send

        report = (sign_again if url_only else send)(context, source, to, expires, public)
    tell(session, report, url_only)
    session.output.emit(data(report), report.url, [report.url])
    return 0


def tell(session: Session, report: UploadReport, url_only: bool = False) -> None:
    """Everything about an upload but its URL, on stderr."""
    if not url_only:
        state = "already there" if report.already_there else "uploaded"
        session.output.note(f"{state}: {report.bytes} bytes, sha256 {report.sha256}")
    if report.expires:
        session.output.note(
            f"the URL works until {report.expires:%Y-%m-%d %H:%M} UTC; whoever has it can read the file"
        )
    if report.note:
        session.output.warn(f"about the URL: {report.note}")


def data(report: UploadReport) -> dict[str, Any]:
    """The report for --json."""
    return {
        "source": str(report.source),
        "url": report.url,
        "public": report.public,
        "expires": report.expires.isoformat(timespec="seconds") if report.expires else None,
        "storage": report.storage,
        "key": report.key,
        "sha256": report.sha256,
        "bytes": report.bytes,
        "already_there": report.already_there,
    }


def _refuse(mode: str, others: dict[str, object]) -> None:
    for name, given in others.items():
        if given:
            raise InvalidInput(f"{mode} takes no {name.removeprefix('a ')}", field=name, hint="leave it out")


def _clean(session: Session, context: Context, to: str | None, yes: bool) -> int:
    from dreamctl.workflows.unfinished import clean

    report = clean(context, to, yes)
    for name, reason, _ in report.kept:
        session.output.warn(f"{name} is kept: {reason}")
    lines = [f"removed what was left of {name}" for name in report.removed] or ["nothing was left in a storage"]
    if report.freed:
        lines.append(f"removed archives of killed uploads: {report.freed} bytes")
    kept = [{"object": name, "reason": reason} for name, reason, _ in report.kept]
    session.output.emit({"removed": list(report.removed), "kept": kept, "freed": report.freed}, lines, report.removed)
    return max((code for _, _, code in report.kept), default=0)
