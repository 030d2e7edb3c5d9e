"""`dreamctl config dataset`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dreamctl.cli.command import Session

if TYPE_CHECKING:
    from dreamctl.workflows.describe import Described

Trainer = Annotated[str, typer.Option("--for", metavar="TRAINER", help="sd-scripts, musubi, ai-toolkit or diffusers.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A key of the trainer: num_repeats=5, general.flip_aug=true."),
]
Reg = Annotated[Path | None, typer.Option("--reg", metavar="FOLDER", help="Regularisation pictures.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where to; beside the dataset when not given.")]


def dataset(
    session: Session,
    dataset: Annotated[Path | None, typer.Argument(help="Dataset folder; the project's when not given.")] = None,
    trainer: Trainer = "sd-scripts",
    identifier: Annotated[str | None, typer.Option(help="Rare token; chosen when not given.")] = None,
    category: Annotated[str | None, typer.Option(help="What it is: person, dog, mug …")] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe that gives resolution and batch size.")] = None,
    set_: Options = None,
    reg: Reg = None,
    out: Out = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that were edited.")] = False,
) -> None:
    """Describe a dataset in another trainer's own format.

    Writes the description, and a folder with the pictures and their whole texts as they are now; prints the command
    that trains with it. Run it again when the dataset has changed.
    """
    from dreamctl.workflows.describe import Wish, describe

    wish = Wish(trainer, dataset, identifier, category, recipe, tuple(set_ or ()), reg, out, overwrite)
    described = describe(session.context(), wish)
    for note in described.notes:
        session.output.warn(note)
    session.output.emit(_data(described), _text(described), [str(described.file)])


def _data(described: Described) -> dict[str, Any]:
    return {
        "trainer": described.trainer,
        "file": str(described.file),
        "folder": str(described.folder),
        "identifier": described.concept.identifier,
        "category": described.concept.category,
        "pictures": described.pictures,
        "regularisation": described.regularisation,
        "written": described.written,
        "notes": list(described.notes),
        "next": described.command,
    }


def _text(described: Described) -> list[str]:
    what = _count(described.pictures, "picture")
    if described.regularisation:
        what += f" and {_count(described.regularisation, 'regularisation picture')}"
    concept = f"{described.concept.identifier} ({described.concept.category})"
    same = "" if described.written else " (nothing has changed)"
    return [
        f"{described.file}: {what} of {concept}{same}",
        f"next: {described.command}",
    ]


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
