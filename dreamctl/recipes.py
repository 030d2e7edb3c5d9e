"""Recipes on disk: the ones that ship, files of the user's, and `extends` between them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamctl import paths
from dreamctl.domain.recipe import Recipe, merged
from dreamctl.errors import InvalidInput, NotFound, did_you_mean
from dreamctl.files import read_toml


def names() -> list[str]:
    """The names of the recipes that ship with the program."""
    return sorted(file.stem for file in _folder().glob("*.toml"))


def is_path(name_or_path: str) -> bool:
    """Whether a recipe is named by its file."""
    return name_or_path.endswith(".toml") or "/" in name_or_path or os.sep in name_or_path


def find(name_or_path: str, beside: Path | None = None) -> Path:
    """The file of a recipe: a name, or a path, which ends in `.toml` or holds a slash.

    A relative path starts at `beside`, else at the current folder. Raises NotFound with the nearest name.
    """
    if is_path(name_or_path):
        file = (beside or Path()) / Path(name_or_path).expanduser()
        if not file.is_file():
            raise NotFound(
                f"recipe file {file} does not exist",
                field="recipe",
                hint="`dreamctl recipes list` shows those that ship",
            )
        return file
    file = _folder() / f"{name_or_path}.toml"
    if not name_or_path or not file.is_file():
        raise NotFound(f"no recipe named {name_or_path!r}", field="recipe", hint=did_you_mean(name_or_path, names()))
    return file


def load_table(name_or_path: str, beside: Path | None = None) -> dict[str, Any]:
    """A recipe's table with everything that it extends laid under it, not yet checked.

    Raises NotFound where a file is missing, InvalidInput where it is not TOML, its `extends` is not a name, or a
    recipe extends itself in the end; each names the file.
    """
    return _load(find(name_or_path, beside), ())


def resolve(name_or_path: str, overrides: Sequence[Mapping[str, Any]] = (), beside: Path | None = None) -> Recipe:
    """The complete recipe: what it extends, then itself, then `overrides` in turn (`--set`, `--base-model`).

    Raises NotFound or InvalidInput that names the file or the line's value, the field and the nearest right key.
    """
    table = load_table(name_or_path, beside)
    where = _where(name_or_path)
    if not overrides:
        return Recipe.parse(table, where)
    for override in overrides:
        table = merged(table, override)
    return Recipe.parse(table, f"{where} with the values given on the command line")


def default_for(base_source: str, family: str) -> str:
    """The name of the recipe for a base model: the one that names it as its `base.source`, else its family's.

    Raises NotFound where neither ships.
    """
    known = names()
    for name in known:
        base = read_toml(_folder() / f"{name}.toml").get("base")  # its own words: presets inherit theirs
        if isinstance(base, Mapping) and base.get("source") == base_source:
            return name
    if family in known:
        return family
    raise NotFound(
        f"no recipe ships for {base_source!r} (family {family})",
        field="recipe",
        hint="name one with --recipe NAME or --recipe FILE; `dreamctl recipes list` shows them",
    )


def purpose(file: Path) -> str:
    """The first line of the comment at a recipe's top: for whom it is."""
    first = file.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def _load(file: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    place = file.resolve()
    if place in above:
        circle = " -> ".join(item.name for item in (*above[above.index(place) :], place))
        raise InvalidInput(f"{file}: a recipe extends itself: {circle}", field="extends")
    table = read_toml(file)
    below = table.pop("extends", None)
    if below is None:
        return table
    if not isinstance(below, str):
        raise InvalidInput(f"{file}: extends = {below!r}: must be one name or one path", field="extends")
    try:
        parent = find(below, file.parent)
    except NotFound as error:
        raise NotFound(f"{file}: extends = {below!r}: {error.message}", field="extends", hint=error.hint) from error
    return merged(_load(parent, (*above, place)), table)


def _folder() -> Path:
    return paths.configs_dir() / "recipes"


def _where(name_or_path: str) -> str:
    return name_or_path if is_path(name_or_path) else f"recipe {name_or_path!r}"
