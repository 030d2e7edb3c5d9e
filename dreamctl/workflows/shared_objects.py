"""The objects of shared runs: where each lies in the storage, and which version of it was read here last."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamctl import paths
from dreamctl.context import Context
from dreamctl.errors import DreamctlError, NotFound
from dreamctl.files import locked, read_json, sha256_file, write_json
from dreamctl.storage.base import Storage

_SCHEMA = 1


def storage(context: Context) -> Storage:
    """The storage that the setting `runs` names."""
    return context.storage(context.settings.runs)


def run_key(run_id: str) -> str:
    return f"{run_id}.json"


def outcome_key(run_id: str) -> str:
    return f"{run_id}.outcome.zip"


def name_key(name: str) -> str:
    return f"names/{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"


def read(context: Context, key: str) -> tuple[dict[str, Any], str] | None:
    """An object's value and its version, or None. Raises DreamctlError for one that this program cannot read."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "object"
        try:
            version = storage(context).get(key, file).version
        except NotFound:
            return None
        try:
            value = read_json(file)
        except (DreamctlError, RecursionError) as error:
            raise DreamctlError(f"{key} in {context.settings.runs} is not JSON") from error
    if not isinstance(value, dict):
        raise DreamctlError(f"{key} in {context.settings.runs} holds no table")
    if value.get("schema") != _SCHEMA:
        raise DreamctlError(f"{key} was written by a newer dreamctl", hint="upgrade dreamctl")
    return value, version


def put(context: Context, key: str, value: Mapping[str, Any], before: str | None) -> str:
    """Write an object in the place of version `before`, or (None) where nothing is; returns its version.

    Raises Changed where something else is there.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "object.json"
        write_json(file, {"schema": _SCHEMA, **value})
        stored = storage(context).put(key, file, sha256_file(file), create_only=before is None, if_version=before)
    return stored.version


def versions(context: Context) -> dict[str, str]:
    """The version of each run's object, and of each outcome, that was read or written here last."""
    file = _versions_file(context)
    known: dict[str, str] = read_json(file) if file.exists() else {}
    return known


def remember(context: Context, seen: Mapping[str, str | None]) -> None:
    """Remember versions of runs' objects and outcomes; None: it is there no more."""
    with locked(paths.locks_dir() / "shared-runs.lock", "remembering shared runs"):
        known = versions(context)
        news = {name: version for name, version in {**known, **seen}.items() if version is not None}
        if news != known:
            write_json(_versions_file(context), news)


def _versions_file(context: Context) -> Path:
    place = hashlib.sha256(str(context.settings.runs).encode()).hexdigest()[:16]
    return paths.data_dir() / "shared-runs" / f"{place}.json"
