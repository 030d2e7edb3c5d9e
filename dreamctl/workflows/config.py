"""Look at settings, and change them in a file without harming its comments."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import ValidationError

from dreamctl import paths
from dreamctl.domain.recipe import merged
from dreamctl.errors import InvalidInput, did_you_mean
from dreamctl.files import locked, read_toml, write_text
from dreamctl.http import redact
from dreamctl.profiles import (
    DEFAULT_NAME,
    VARIABLE,
    Profile,
    chosen_profile,
    default_profile,
    profiles,
    read_user_file,
    shipped_profiles,
)
from dreamctl.settings import (
    KEYS,
    USER_ONLY,
    NamedProfile,
    ProjectFile,
    Settings,
    explain_hint,
    load_settings,
    table_problems,
    value_problem,
)
from dreamctl.workflows.explain import knobs
from dreamctl.workflows.validate import name_problems


@dataclass(frozen=True)
class Shown:
    """One setting, its value as JSON, and where that came from."""

    key: str
    value: Any
    origin: str


@dataclass(frozen=True)
class Written:
    """What `config set` did. `hidden_by` names what stands above it and still wins."""

    key: str
    value: Any
    place: str
    file: Path
    hidden_by: str | None


@dataclass(frozen=True)
class ListedProfile:
    """A profile that may be named. `active_by` says what makes it the active one, or is None."""

    name: str
    file: Path
    values: Mapping[str, Any]
    active_by: str | None


def init_project(folder: Path) -> Path:
    """Write a `dreamctl.toml` in which every setting is explained and none is set. Raises InvalidInput where one is."""
    file = folder / paths.PROJECT_FILE
    if file.exists():
        raise InvalidInput(
            f"{file} is there already",
            hint="`dreamctl config show` reads it, `dreamctl config set --project KEY VALUE` changes it",
        )
    lines = [
        "# Settings of this project, for everybody who works on it. How to train stands in a recipe, not here.",
        "# `dreamctl config show` says which value counts and where it comes from.",
        "# A person's own (accounts, money) belong to a profile: `dreamctl config set KEY VALUE`.",
        "",
    ]
    examples = {
        "base_model": "builtin", "captioner": "builtin", "caption_model": "qwen2.5vl", "device": "cuda",
        "storage": "file:///srv/datasets", "s3_region": "eu-central-1", "public_url": "https://pictures.example.com",
        "recipe": "sd15", "identifier": "sks", "category": "person", "kind": "subject", "max_hours": 2.0,
        "runs": "s3://bucket/runs", "runpod_endpoint": "abc123xyz", "replicate_template": "a-version",
        "replicate_trainer": "ostris/flux-dev-lora-trainer", "replicate_destination": "you/your-model",
    }  # fmt: skip
    for knob in knobs():
        if knob.belongs_to == "setting" and knob.key not in USER_ONLY:
            value = knob.default if knob.default is not None else examples[knob.key]
            allowed = f" ({knob.allowed})" if knob.allowed and knob.key != "device" else ""
            lines += [f"# {knob.description}{allowed}", f"# {knob.key} = {tomlkit.item(value).as_string()}", ""]
    write_text(file, "\n".join(lines))
    return file


def show(project: Path, profile: str | None) -> list[Shown]:
    """Every setting with its value and origin. Raises InvalidInput as `load_settings` does."""
    settings = load_settings(project, profile)
    return [Shown(key, _plain(settings, key), settings.origin(key)) for key in KEYS]


def list_profiles(project: Path, profile: str | None) -> list[ListedProfile]:
    """Every profile that may be named; at most one is active."""
    active = chosen_profile(project, profile)
    why = "--profile" if profile else VARIABLE
    if active is None:
        active, why = default_profile(), "default_profile"
    name = active.name if active else None
    return [
        ListedProfile(item.name, item.file, _redacted(item.values), why if item.name == name else None)
        for item in profiles().values()
    ]


def locations(project: Path) -> dict[str, Path]:
    """Where everything lies, whether it exists or not."""
    return {
        "user_file": paths.user_file(),
        "project_file": project / paths.PROJECT_FILE,
        "credentials": paths.credentials_file(),
        "registry": paths.registry_file(),
        "runs": paths.runs_dir(),
        "cache": paths.cache_dir(),
        "configs": paths.configs_dir(),
    }


def set_value(key: str, text: str, project: Path, profile: str | None, in_project: bool) -> Written:
    """Write one setting into the project's file, or into a profile of the user's (the named or active one).

    Raises InvalidInput, before anything is written, when key or value is not right or may not stand there.
    """
    if key not in KEYS:
        raise InvalidInput(f"unknown setting {key!r}", field=key, hint=did_you_mean(key, KEYS))
    value = _checked_value(key, text)
    with locked(paths.locks_dir() / "config.lock", "dreamctl config set"):
        write = _set_in_project if in_project else _set_in_profile
        place, file = write(key, value, project, profile)
    try:
        origin = load_settings(project, None if in_project else profile).origin(key)
    except InvalidInput:  # something else is wrong, which the next command will tell; this was written
        origin = place
    return Written(key, _shown(value), place, file, hidden_by=None if origin == place else origin)


def _checked_value(key: str, text: str) -> Any:
    try:
        given: dict[str, Any] = {key: text}
        value = Settings(**given).model_dump(mode="json")[key]
    except ValidationError as error:
        raise InvalidInput(value_problem(error.errors()[0]), field=key, hint=explain_hint(key)) from None
    problems = name_problems({key: value})
    if problems:
        raise InvalidInput(problems[0], field=key)
    return value


def _set_in_project(key: str, value: Any, project: Path, profile: str | None) -> tuple[str, Path]:
    file = project / paths.PROJECT_FILE
    table = {**_table(file), key: value}
    _refuse_problems(table_problems(ProjectFile(file, table)))
    _lay_over(file, {key: value})
    return paths.PROJECT_FILE, file


def _set_in_profile(key: str, value: Any, project: Path, profile: str | None) -> tuple[str, Path]:
    user = read_user_file()
    active = None if profile else chosen_profile(project, None)
    name = profile or (active.name if active else None) or user.default_profile or DEFAULT_NAME
    before = {item.name: item.values for item in user.profiles}.get(name)
    if before is None:  # a profile of the user's hides a shipped one: it begins with the same words
        before = {item.name: item.values for item in shipped_profiles()}.get(name, {})
    changed = Profile(name, {**before, key: value}, user.path)
    _refuse_problems(table_problems(NamedProfile(changed)))
    # Without a default, nothing would read the first profile.
    default = {} if profile or active or user.default_profile else {"default_profile": name}
    _lay_over(user.path, {**default, "profiles": {name: dict(changed.values)}})
    return changed.origin, user.path


def _table(file: Path) -> dict[str, Any]:
    return read_toml(file) if file.exists() else {}


def _lay_over(file: Path, change: Mapping[str, Any]) -> None:
    """Write `change` into a TOML file and keep its comments; where tomlkit cannot do both, the values count."""
    wanted = merged(_table(file), change)
    document = tomlkit.parse(file.read_text(encoding="utf-8")) if file.exists() else tomlkit.document()
    _lay(document, change)
    text = tomlkit.dumps(document)
    try:
        kept = tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        kept = False
    write_text(file, text if kept else tomlkit.dumps(wanted))


def _lay(table: MutableMapping[str, Any], change: Mapping[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, Mapping) and key in table:
            _lay(table[key], value)
        elif table.get(key) != value:
            table[key] = value


def _refuse_problems(problems: list[str]) -> None:
    if problems:
        raise InvalidInput("; ".join(problems), hint="nothing was written")


def _plain(settings: Settings, key: str) -> Any:
    return _shown(settings.model_dump(mode="json")[key])


def _shown(value: Any) -> Any:
    return redact(value) if isinstance(value, str) else value


def _redacted(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _shown(value) for key, value in values.items()}
