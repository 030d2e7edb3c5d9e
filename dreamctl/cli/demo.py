"""`dreamctl demo`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dreamctl.cli.command import Session, command


def register(app: typer.Typer) -> None:
    command(app, "demo")(demo)


def demo(
    session: Session,
    folder: Annotated[Path, typer.Argument(help="Where the demo works.")] = Path("dreamctl-demo"),
) -> None:
    """Try it: teach one person from five photographs.

    The built-in model learns a cartoon person and draws it where it never was photographed. Prints the commands that it
    runs. Works in a folder of its own, with a registry of its own.
    """
    from dreamctl.workflows.demo import demo

    text = session.output.mode == "text"

    def say(line: str) -> None:
        print(line, file=sys.stdout if text else sys.stderr, flush=True)

    made = demo(folder, say, results_to_stderr=not text)
    grids = [str(path) for path in made.grids]
    total = sum(seconds for _, seconds in made.seconds)
    session.output.emit(
        {"folder": str(made.folder), "seconds": dict(made.seconds), "grids": grids},
        f"\ndone in {total:.0f} seconds. Look at:\n" + "\n".join(f"  {path}" for path in grids),
        grids,
    )
