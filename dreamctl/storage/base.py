"""The door of storages: whole objects under keys, verified, with conditions for publishing without a race."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dreamctl.errors import DreamctlError, InvalidInput


class Changed(DreamctlError):
    """A condition of `put` does not hold: somebody else created or replaced the object."""

    code = "changed"


@dataclass(frozen=True)
class StoredObject:
    """What is stored under a key. `version` is opaque: an ETag, a generation or a digest."""

    key: str
    bytes: int
    sha256: str
    version: str


class Storage(Protocol):
    """One bucket or folder, built with its URL. An object is wholly there or not at all.

    Methods raise CredentialsError, NotFound (the bucket) and ProviderError; InvalidInput for a key that
    `checked_key` refuses.
    """

    def head(self, key: str) -> StoredObject | None:
        """What lies under `key`, or None."""

    def put(
        self, key: str, file: Path, sha256: str, *, create_only: bool = False, if_version: str | None = None
    ) -> StoredObject:
        """Store a file whose hex SHA-256 is `sha256` and verify it; raises DreamctlError where it does not match.

        Raises Changed, and stores nothing, where `create_only` and something is there, or where what is there is
        not of version `if_version`.
        """

    def get(self, key: str, target: Path) -> StoredObject:
        """Write the object to `target`, atomically and verified. Raises NotFound."""

    def delete(self, key: str) -> bool:
        """Remove the object; False where none was."""

    def url(self, key: str) -> str:
        """A URL under which it can be fetched."""


def checked_key(key: str) -> str:
    """The key itself: names separated by slashes, none of them empty, `.` or `..`. Raises InvalidInput."""
    if not key or "\\" in key or not key.isprintable() or any(part in ("", ".", "..") for part in key.split("/")):
        raise InvalidInput(f"{key!r} cannot be a key", field="key", hint="names separated by single slashes")
    return key


def content_key(kind: str, sha256: str, name: str) -> str:
    """The key of a file by its content: `datasets/<16 of the digest>/<name>`, so that nothing is sent twice."""
    return checked_key(f"{kind}/{sha256[:16]}/{name}")
