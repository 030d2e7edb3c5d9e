"""`dreamctl recipes`: the group of commands about recipes that ship."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dreamctl.cli.command import Session, command
from dreamctl.cli.output import Table


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="List, show and copy recipes.")
    app.add_typer(group, name="recipes")
    for name, function in (("list", list_), ("show", show), ("copy", copy)):
        command(group, name)(function)


def list_(session: Session) -> None:
    """Every recipe that ships, and for whom it is."""
    from dataclasses import asdict

    from dreamctl.workflows.recipes import list_recipes

    rows = list_recipes()
    cells = [(row.name, row.method, row.base, row.steps, row.purpose) for row in rows]
    table = Table(("recipe", "method", "base model", "steps", "for"), cells)
    session.output.emit({"recipes": [asdict(row) for row in rows]}, table, [row.name for row in rows])


def show(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A recipe's name, or a recipe file.")],
) -> None:
    """A recipe, complete: what it extends and every default filled in."""
    from dreamctl.workflows.recipes import show

    one = show(name)
    head = f"# {one.purpose}\n" if one.purpose else ""
    value = {"name": one.name, "file": str(one.file), "purpose": one.purpose, "recipe": one.values}
    session.output.emit(value, (head + one.toml).rstrip("\n"), [str(one.file)])


def copy(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A recipe's name.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to, such as my.toml.")],
) -> None:
    """Copy a recipe, with its comments, to change it: then `train --recipe FILE`."""
    from dreamctl.workflows.recipes import copy

    target = copy(name, file)
    session.output.note(f"use it with `dreamctl train --recipe {target}`")
    session.output.emit({"file": str(target)}, f"wrote {target}", [str(target)])
