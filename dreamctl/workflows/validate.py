"""Check recipes, settings files and descriptions for other trainers before they are used: every problem at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dreamctl import paths, plugins
from dreamctl.domain.base import explain as explained
from dreamctl.domain.recipe import Recipe
from dreamctl.errors import DreamctlError, InvalidInput, NotFound, did_you_mean
from dreamctl.formats import read_format
from dreamctl.profiles import Profile, shipped_profiles, user_file_problems
from dreamctl.recipes import load_table
from dreamctl.settings import KEYS, Dotenv, NamedProfile, ProjectFile, table_problems
from dreamctl.trainers.base import Trainer
from dreamctl.workflows.explain import NAMES


@dataclass(frozen=True)
class Checked:
    """A file that `config validate` read, as what it read it, and everything that is wrong in it."""

    file: Path
    kind: str
    problems: tuple[str, ...]


def validate(files: list[Path], project: Path) -> list[Checked]:
    """Check recipes, project files, user files, profiles, `.env` files and what other trainers read.

    Without any named, those in use.

    Raises NotFound where the only one is not there.
    """
    used = (project / paths.PROJECT_FILE, project / ".env", paths.user_file())
    if len(files) == 1 and not files[0].is_file():
        raise NotFound(f"{files[0]} does not exist", field="FILE")
    return [_check(file) for file in files or [file for file in used if file.is_file()]]


def name_problems(values: Mapping[str, Any]) -> list[str]:
    """Names that no built-in and no installed part answers to."""
    return [
        f"{key} = {values[key]!r} is not known ({did_you_mean(str(values[key]), names())})"
        for key, names in NAMES.items()
        if values.get(key) is not None and values[key] not in names()
    ]


def _check(file: Path) -> Checked:
    if not file.is_file():
        return Checked(file, "file", (f"{file} does not exist",))
    if file.name == ".env":
        return Checked(file, ".env", tuple(table_problems(Dotenv(file))))
    try:
        table = read_format(file)
        trainer = _trainer(file, table)
        if trainer:
            found = tuple(f"{file}: {problem}" for problem in trainer.problems(file, table))
            return Checked(file, f"description for {trainer.name}", found)
        if file.suffix == ".json":
            raise InvalidInput(f"{file} is nothing that dreamctl or a trainer that it knows reads")
        kind = _kind(file, table)
        problems = _CHECKS[kind](file, table)
    except DreamctlError as error:
        return Checked(file, (file.suffix.removeprefix(".") or "TOML").upper(), (error.message,))
    return Checked(file, kind, tuple(problems))


def _trainer(file: Path, content: Any) -> Trainer | None:
    """The trainer that reads such a file, if any."""
    if file.name == paths.PROJECT_FILE or file.absolute() == paths.user_file():
        return None
    trainers: list[Trainer] = [plugins.load("trainers", name) for name in plugins.names("trainers")]
    return next((trainer for trainer in trainers if trainer.recognises(file, content)), None)


def _kind(file: Path, table: Mapping[str, Any]) -> str:
    if file.name == paths.PROJECT_FILE:
        return "project file"
    if file.absolute() == paths.user_file() or {"profiles", "default_profile"} & table.keys():
        return "user file"
    return "profile" if table.keys() & set(KEYS) and not table.keys() & set(Recipe.model_fields) else "recipe"


def _project_problems(file: Path, table: Mapping[str, Any]) -> list[str]:
    return table_problems(ProjectFile(file, table)) + [f"{file}: {problem}" for problem in name_problems(table)]


def _profile_problems(file: Path, table: Mapping[str, Any], name: str | None = None) -> list[str]:
    profile = Profile(name or file.stem, table, file)
    return table_problems(NamedProfile(profile)) + [f"{profile.origin}: {problem}" for problem in name_problems(table)]


def _user_problems(file: Path, table: Mapping[str, Any]) -> list[str]:
    found = user_file_problems(file, table)
    tables = table.get("profiles", {})
    named = tables if isinstance(tables, Mapping) else {}
    for name, values in named.items():
        if isinstance(values, Mapping):
            found += _profile_problems(file, values, name)
    default, known = table.get("default_profile"), {*named, *(item.name for item in shipped_profiles())}
    if isinstance(default, str) and default not in known:
        found.append(f"{file}: default_profile: no profile named {default!r} ({did_you_mean(default, known)})")
    return found


def _recipe_problems(file: Path, table: Mapping[str, Any]) -> list[str]:
    whole = load_table(os.fspath(file.absolute()))
    try:
        Recipe.model_validate(whole)
    except ValidationError as error:
        return [f"{file}: {problem}" for problem in explained(error, Recipe)]
    return [f"{file}: {problem}" for problem in name_problems(whole)]


_CHECKS: Mapping[str, Callable[[Path, Mapping[str, Any]], list[str]]] = {
    "project file": _project_problems,
    "user file": _user_problems,
    "profile": _profile_problems,
    "recipe": _recipe_problems,
}
