"""Look at the recipes that ship, and take one as the beginning of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from dreamctl import recipes
from dreamctl.errors import InvalidInput
from dreamctl.files import write_bytes


@dataclass(frozen=True)
class Listed:
    """A recipe that ships, in one line."""

    name: str
    family: str
    base: str
    method: str
    steps: int
    purpose: str


@dataclass(frozen=True)
class Complete:
    """A recipe with nothing left to be guessed, and the file it begins in."""

    name: str
    file: Path
    purpose: str
    values: dict[str, Any]

    @property
    def toml(self) -> str:
        """The whole recipe as a recipe file."""
        return tomlkit.dumps(self.values)


def list_recipes() -> list[Listed]:
    """Every recipe that ships. Raises InvalidInput where one is damaged."""
    return [_listed(name) for name in recipes.names()]


def show(name_or_path: str) -> Complete:
    """A shipped recipe, or a file's. Raises NotFound, or InvalidInput that names the file and the field."""
    file = recipes.find(name_or_path)
    return Complete(name_or_path, file, recipes.purpose(file), recipes.resolve(name_or_path).plain())


def copy(name: str, to: Path) -> Path:
    """Write a shipped recipe, with its comments, to a file of the user's; a folder gets `NAME.toml`.

    Raises NotFound for an unknown name, InvalidInput where the file is there already or does not end in `.toml`.
    """
    source = recipes.find(name)
    target = to / source.name if to.is_dir() else to
    if target.suffix != ".toml":
        raise InvalidInput(f"{target}: a recipe file ends in .toml", field="FILE", hint=f"for example {target}.toml")
    if target.exists():
        raise InvalidInput(f"{target} is there already", field="FILE", hint="choose another name")
    write_bytes(target, source.read_bytes())
    return target


def _listed(name: str) -> Listed:
    recipe = recipes.resolve(name)
    purpose = recipes.purpose(recipes.find(name))
    return Listed(name, recipe.family, recipe.base.source, recipe.method.name, recipe.training.steps, purpose)
