"""Files that settings are read from: the user's `config.toml`, the profiles in it and shipped ones, a project's `.env`.

What stands in a profile is checked by `dreamctl.settings`; here only the shape of the files is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from dreamctl import paths
from dreamctl.errors import InvalidInput, did_you_mean
from dreamctl.files import read_toml

VARIABLE = "DREAMCTL_PROFILE"
DEFAULT_NAME = "default"


@dataclass(frozen=True)
class Profile:
    """A named set of settings, and the file that holds it."""

    name: str
    values: Mapping[str, Any]
    file: Path

    @property
    def origin(self) -> str:
        return f"profile {self.name!r} in {self.file}"


@dataclass(frozen=True)
class UserFile:
    """`config.toml`: `default_profile = "name"` and `[profiles.name]` tables."""

    path: Path
    default_profile: str | None
    profiles: tuple[Profile, ...]


def read_user_file(path: Path | None = None) -> UserFile:
    """The user's file, empty where there is none. Raises InvalidInput naming the file and what may not stand in it."""
    path = path or paths.user_file()
    table = read_toml(path) if path.exists() else {}
    problems = user_file_problems(path, table)
    if problems:
        raise InvalidInput("; ".join(problems))
    profiles = (Profile(name, values, path) for name, values in table.get("profiles", {}).items())
    return UserFile(path, table.get("default_profile"), tuple(profiles))


def user_file_problems(path: Path, table: Mapping[str, Any]) -> list[str]:
    """What is wrong with the shape of a user's file."""
    known = ("default_profile", "profiles")
    found = [
        f"{path}: unknown key {key!r} at the top ({did_you_mean(key, known)}); settings stand in [profiles.NAME]"
        for key in table
        if key not in known
    ]
    default, profiles = table.get("default_profile"), table.get("profiles", {})
    if default is not None and not isinstance(default, str):
        found.append(f"{path}: default_profile = {default!r}: must be a profile's name")
    if not isinstance(profiles, Mapping):
        found.append(f"{path}: profiles: must be tables [profiles.NAME]")
    else:
        found += [
            f"{path}: profiles.{name}: must be a table" for name, it in profiles.items() if not isinstance(it, Mapping)
        ]
    return found


def shipped_profiles() -> list[Profile]:
    """The profiles that come with the program."""
    files = sorted((paths.configs_dir() / "profiles").glob("*.toml"))
    return [Profile(file.stem, read_toml(file), file) for file in files]


def profiles() -> dict[str, Profile]:
    """Every profile that may be named; the user's own hides a shipped one of the same name."""
    return {profile.name: profile for profile in (*shipped_profiles(), *read_user_file().profiles)}


def find_profile(name: str, asked_by: str) -> Profile:
    """The profile called `name`. Raises InvalidInput that says who asked for it, with the nearest name."""
    known = profiles()
    if name not in known:
        raise InvalidInput(f"{asked_by}: no profile named {name!r}", field="profile", hint=did_you_mean(name, known))
    return known[name]


def chosen_profile(project: Path, named: str | None) -> Profile | None:
    """The profile that the line names, else `DREAMCTL_PROFILE` of the environment or of the project's `.env`."""
    dotenv = project / ".env"
    asked = (
        (named, "--profile"),
        (os.environ.get(VARIABLE), VARIABLE),
        (read_dotenv(dotenv).get(VARIABLE), f"{VARIABLE} in {dotenv}"),
    )
    for name, asked_by in asked:
        if name:
            return find_profile(name, asked_by)
    return None


def default_profile() -> Profile | None:
    """The user's default profile, where `config.toml` names one."""
    user = read_user_file()
    return find_profile(user.default_profile, f"default_profile in {user.path}") if user.default_profile else None


def read_dotenv(file: Path) -> dict[str, str]:
    """The variables of a `.env` file; none where there is no file. Raises InvalidInput where it is not text.

    `${NAME}` is not filled in: a cloned project could move the user's secrets into a URL that way.
    """
    if not file.is_file():
        return {}
    try:
        found = dotenv_values(file, interpolate=False, encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8 text: {error}") from error
    return {name: value for name, value in found.items() if value}
