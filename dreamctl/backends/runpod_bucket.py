"""The user's storage as a worker at RunPod uses it: which can be reached from there, its keys, and notes in it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from dreamctl.backends.base import Support
from dreamctl.domain.remote import RemoteJob
from dreamctl.errors import DreamctlError
from dreamctl.files import read_json
from dreamctl.storage.base import Storage, arrived

_REACHABLE = ("s3://", "gs://")


@runtime_checkable
class Lender(Protocol):
    """A storage whose keys can be given to a worker."""

    def lend(self) -> dict[str, str]:
        """RunPod's `s3Config`: a secret."""


def reachable(url: str | None) -> str | None:
    """The storage's URL, where a worker elsewhere can reach it: a folder of this computer it cannot."""
    return url if url and url.startswith(_REACHABLE) else None


def opened(support: Support, url: str, access: Mapping[str, Any] | None) -> Storage:
    """The storage, reached as the journal says, with the keys that the settings of this computer name."""
    return support.storage(url, arrived(access, support.settings) if access else None)


def storage_of(support: Support, job: RemoteJob) -> Storage | None:
    """Where the job's worker leaves what it makes, if anywhere."""
    url = reachable(job.storage)
    return opened(support, url, job.access) if url else None


def lent(storage: Storage) -> dict[str, str] | None:
    """The storage's keys for a worker; None for a kind that RunPod has no place for: there the worker has its own.

    Raises CredentialsError for keys that cannot be lent.
    """
    return storage.lend() if isinstance(storage, Lender) else None


def note(storage: Storage, key: str) -> dict[str, Any] | None:
    """The JSON table that a worker left under `key`; None where nothing lies there, or something else."""
    if storage.head(key) is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "note.json"
        storage.get(key, file)
        try:
            value = read_json(file)
        except DreamctlError:
            return None
    return value if isinstance(value, dict) else None
