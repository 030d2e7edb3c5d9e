"""Uploads under way, one small file each, which another process finds after a kill; they hold no URL of an object.

What a storage keeps in them may be as good as a password (a resumable session of Google's): only their owner may read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dreamctl import paths
from dreamctl.errors import DreamctlError
from dreamctl.files import is_locked, locked, read_json, replacing
from dreamctl.runfolder import now
from dreamctl.storage.base import Access

_SCHEMA = 1
_YOUNG_SECONDS = 60.0


@dataclass(frozen=True)
class Journey:
    """An upload from here to there. `source`: the dataset's folder or the file; `place`: the object, however written.

    `expires` and `public`: what was asked of its URL.
    """

    source: str
    storage: str
    access: Access
    key: str
    place: str
    sha256: str
    bytes: int
    expires: str | None
    public: bool
    started: str = ""

    @property
    def name(self) -> str:
        """The same for the same object, whoever sends it from here."""
        return hashlib.sha256(self.place.encode()).hexdigest()[:32]


class FileTicket:
    """A ticket (see dreamctl.storage.base) as a file; there is none on the disk before the storage keeps something."""

    def __init__(self, journey: Journey) -> None:
        self._path = _folder() / f"{journey.name}.json"
        # Locks stay when nobody holds them, and uploads are many: a few are enough.
        self._lock = paths.locks_dir() / f"upload-{journey.name[:2]}.lock"
        kept = _read(self._path)
        self.journey = replace(journey, started=kept[0].started if kept else now())
        self._state: dict[str, Any] | None = kept[1] if kept else None

    @property
    def state(self) -> dict[str, Any] | None:
        return self._state

    @property
    def busy(self) -> bool:
        """Whether a live process holds it."""
        return is_locked(self._lock)

    def held(self, on_wait: Callable[[str], None]) -> contextlib.AbstractContextManager[None]:
        """Hold the upload alone: two of the same object follow each other."""
        return locked(self._lock, f"an upload of {self.journey.source}", on_wait)

    def refresh(self) -> None:
        """Read again what another process kept meanwhile."""
        kept = _read(self._path)
        self._state = kept[1] if kept else None

    def keep(self, state: dict[str, Any]) -> None:
        self._state = state
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        value = {"schema": _SCHEMA, **asdict(self.journey), "state": state}
        with replacing(self._path) as temporary:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(value, file, indent=2)

    def drop(self) -> None:
        """The upload is ended, in one way or the other."""
        self._state = None
        self._path.unlink(missing_ok=True)


def tickets() -> tuple[list[FileTicket], list[DreamctlError]]:
    """All uploads of this user that are not ended, oldest first; and what is wrong with tickets that cannot be read."""
    found, bad = [], []
    for path in _folder().glob("[!.]*.json"):
        try:
            if kept := _read(path):
                found.append(kept[0])
        except DreamctlError as error:
            bad.append(error)
    return [FileTicket(journey) for journey in sorted(found, key=lambda each: each.started)], bad


def sweep_tickets() -> None:
    """Remove what a kill left of tickets that were just being written; those that are young may be."""
    for path in _folder().glob(".*.json"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _YOUNG_SECONDS:
                path.unlink()


def _folder() -> Path:
    return paths.data_dir() / "uploads"


def _read(path: Path) -> tuple[Journey, dict[str, Any]] | None:
    """What a ticket's file says; None where there is none. Raises DreamctlError for one that is damaged."""
    if not path.exists():
        return None
    try:
        value = read_json(path)
        if value.pop("schema") != _SCHEMA:
            raise ValueError("it is of another version of dreamctl")
        state = value.pop("state")
        return Journey(**{**value, "access": Access(**value["access"])}), dict(state)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise DreamctlError(f"{path} is not a ticket of an upload: {error}", hint="delete it") from error
    except DreamctlError as error:
        error.hint = error.hint or "delete it"
        raise
