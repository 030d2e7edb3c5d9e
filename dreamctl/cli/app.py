"""The program: its commands, and the one place where an error becomes a sentence and an exit code."""

from __future__ import annotations

import importlib
import io
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Annotated

import typer

from dreamctl import __version__
from dreamctl.cli.output import Output, reader_left
from dreamctl.errors import DreamctlError, Interrupted, InvalidInput, Signalled, Terminated, signalled_error
from dreamctl.http import redact

# Each file registers its commands with `register(app)`; the order is that of `dreamctl --help`.
COMMAND_FILES = (
    "prepare", "upload", "caption", "config", "train", "status", "generate", "identifiers",
    "remove", "recipes", "auth", "doctor", "demo",
)  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dreamctl {__version__}")
        raise typer.Exit


_VERSION_FLAG = typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")


def _root(version: Annotated[bool, _VERSION_FLAG] = False) -> None:
    """What stands before the command."""


def build_app() -> typer.Typer:
    """The Typer program with every command. Imports nothing heavy."""
    app = typer.Typer(
        name="dreamctl",
        help="Teach an image model a person, a pet, a product or a style from a handful of pictures.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    app.callback()(_root)

    for name in COMMAND_FILES:
        importlib.import_module(f"dreamctl.cli.{name}").register(app)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. Never raises, never shows a traceback without --debug."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    flags = words[: words.index("--")] if "--" in words else words
    output = Output("json" if "--json" in flags else "text")
    told: list[int] = []

    def terminated(number: int, frame: FrameType | None) -> None:
        told.append(number)
        raise Signalled

    signal.signal(signal.SIGTERM, terminated)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may hold what the terminal cannot show
    try:
        result = build_app()(args=words, prog_name="dreamctl", standalone_mode=False)
        sys.stdout.flush()
        if result == Interrupted.exit_code and told:  # Typer's own answer to a signal before the command began
            return _told(output, Terminated("terminated"))
        return result if isinstance(result, int) else 0
    except BrokenPipeError:
        return reader_left()
    except SystemExit as left:  # shell completion ends this way
        return left.code if isinstance(left.code, int) else 0
    except BaseException as raised:
        error = as_error(raised)
        if "--debug" in flags:
            sys.stderr.write(redact(traceback.format_exc()))
        return _told(output, error)


def _told(output: Output, error: DreamctlError) -> int:
    """Say the error, wherever it still can be said; its exit code."""
    try:
        output.fail(error)
    except BrokenPipeError:
        reader_left()
    except OSError as lost:  # stdout is full or gone: stderr may not be
        sys.stderr.write(f"error: {error.message}\nerror: cannot write the result: {lost.strerror}\n")
        reader_left()
        return error.exit_code or 1
    return error.exit_code


def as_error(raised: BaseException) -> DreamctlError:
    """The one sentence for anything that was raised."""
    if isinstance(raised, DreamctlError):
        return raised
    if isinstance(raised, (KeyboardInterrupt, typer.Abort)):
        return signalled_error(raised, "terminated" if isinstance(raised, Signalled) else "interrupted")
    if hasattr(raised, "format_message"):  # Typer's usage errors, whose classes are not public
        context = getattr(raised, "ctx", None)
        where = context.command_path if context else "dreamctl"
        return InvalidInput(raised.format_message(), hint=f"see `{where} --help`")
    if isinstance(raised, OSError):
        from dreamctl.files import os_hint, os_reason

        where = f"{raised.filename}: " if raised.filename else ""
        return DreamctlError(where + os_reason(raised), hint=os_hint(raised))
    if isinstance(raised, ImportError):
        return DreamctlError(f"the package {raised.name!r} is not installed", hint='pip install "dreamctl[local]"')
    if isinstance(raised, MemoryError):
        return DreamctlError("out of memory", hint="close other programs, or use smaller pictures")
    kind = type(raised).__name__
    return DreamctlError(
        f"a fault in dreamctl: {kind}: {raised}", hint="run it again with --debug and report what it prints"
    )
