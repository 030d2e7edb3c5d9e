"""A folder of this computer as a storage: `file:///srv/datasets`."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from dreamctl.errors import DreamctlError, InvalidInput, NotFound
from dreamctl.files import locked, replacing, sha256_file
from dreamctl.storage.base import Changed, StoredObject, checked_key

_SCHEME = "file://"
_LOCK = ".dreamctl.lock"


class LocalStorage:
    """Keys are paths below the folder that the URL names; the folder is made when something is put."""

    def __init__(self, url: str) -> None:
        place = url.removeprefix(_SCHEME).removeprefix("localhost")
        if not url.startswith(_SCHEME) or not place.startswith("/"):
            raise InvalidInput(
                f"{url!r} does not name a folder", field="storage", hint="three slashes: file:///srv/datasets"
            )
        self.root = Path(unquote(place))

    def head(self, key: str) -> StoredObject | None:
        """What lies under `key`, its digest computed from its bytes."""
        path = self._path(key)
        if not path.is_file():
            return None
        digest = sha256_file(path)
        return StoredObject(key, path.stat().st_size, digest, digest)

    def put(
        self, key: str, file: Path, sha256: str, *, create_only: bool = False, if_version: str | None = None
    ) -> StoredObject:
        """Copy, read back, compare, rename. Conditions hold against every other dreamctl on this folder."""
        path = self._path(key)
        with self._exclusive():
            if create_only or if_version is not None:
                self._check(key, create_only, if_version)
            with replacing(path) as temporary:
                shutil.copyfile(file, temporary)
                if sha256_file(temporary) != sha256:
                    raise DreamctlError(f"{file} changed while it was stored", hint="run the same command again")
        return StoredObject(key, path.stat().st_size, sha256, sha256)

    def get(self, key: str, target: Path) -> StoredObject:
        """Copy the object to `target`, atomically."""
        stored = self.head(key)
        if stored is None:
            raise NotFound(f"{self.url(key)} is not there", field="key")
        with replacing(target) as temporary:
            shutil.copyfile(self._path(key), temporary)
            if sha256_file(temporary) != stored.sha256:
                raise DreamctlError(f"{self.url(key)} changed while it was read", hint="run the same command again")
        return stored

    def delete(self, key: str) -> bool:
        """Remove the object, and folders that are empty without it."""
        path = self._path(key)
        if not path.is_file():
            return False
        path.unlink()
        for folder in path.parents:
            if folder == self.root:
                break
            with contextlib.suppress(OSError):  # something else lies there
                folder.rmdir()
        return True

    def url(self, key: str) -> str:
        """The file's own URL."""
        return self._path(key).as_uri()

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)

    def _check(self, key: str, create_only: bool, if_version: str | None) -> None:
        there = self.head(key)
        if create_only and there:
            raise Changed(f"{self.url(key)} is there already", hint="choose another name")
        if if_version is not None and (there is None or there.version != if_version):
            raise Changed(f"{self.url(key)} was changed by somebody else", hint="look at it, then try again")

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        try:
            with locked(self.root / _LOCK, "another dreamctl writes there"):
                yield
        except OSError as error:
            from dreamctl.files import os_hint, os_reason

            raise DreamctlError(f"cannot write into {self.root}: {os_reason(error)}", hint=os_hint(error)) from error
