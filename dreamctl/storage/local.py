"""A folder of this computer as a storage: `file:///srv/datasets`."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dreamctl.errors import DreamctlError, NotFound
from dreamctl.files import Stamp, explained, locked, os_hint, os_reason, replacing, sha256_file
from dreamctl.storage.base import (
    Access,
    Changed,
    Link,
    Progress,
    StoredObject,
    Ticket,
    Unfinished,
    checked_key,
)
from dreamctl.storage.receiving import receive
from dreamctl.urls import file_path

_LOCK = ".dreamctl.lock"
_PIECE = 1 << 20


class LocalStorage:
    """Keys are paths below the folder that the URL names; the folder is made when something is put."""

    def __init__(self, url: str, access: Access | None = None) -> None:
        self.root = file_path(url, "storage")

    @property
    def access(self) -> Access:
        return Access()

    def place(self, key: str) -> str:
        return self._path(key).as_uri()

    def head(self, key: str) -> StoredObject | None:
        """What lies under `key`, its digest computed from its bytes."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            digest = sha256_file(path)
            return StoredObject(key, path.stat().st_size, digest, digest)
        except OSError as error:
            raise explained(error, path) from error

    def put(
        self,
        key: str,
        file: Path,
        sha256: str,
        *,
        create_only: bool = False,
        if_version: str | None = None,
        stamp: Stamp | None = None,
        ticket: Ticket | None = None,
        progress: Progress | None = None,
    ) -> StoredObject:
        """Copy, read back, compare, rename. Conditions hold against every other dreamctl on this folder."""
        path = self._path(key)
        size = file.stat().st_size
        with self._exclusive():
            if create_only or if_version is not None:
                self._check(key, create_only, if_version)
            self._remove_killed(path)
            if ticket:
                ticket.keep({"copying": True})
            with replacing(path) as temporary:
                try:
                    shutil.copyfile(file, temporary)
                except OSError as error:  # which names the file that is read, whatever is full
                    raise explained(OSError(error.errno, error.strerror), path) from error
                if sha256_file(temporary) != sha256:
                    raise DreamctlError(f"{file} changed while it was stored", hint="run the same command again")
        if progress:
            progress(size, size)
        return StoredObject(key, path.stat().st_size, sha256, sha256)

    def get(self, key: str, target: Path, progress: Progress | None = None) -> StoredObject:
        """Copy the object to `target`, atomically."""
        stored = self.head(key)
        if stored is None:
            raise NotFound(f"{self._path(key)} is not there", field="key")
        return receive(stored, target, lambda start: self._pieces(key, start), progress)

    def list(self, prefix: str = "", recursive: bool = True) -> Iterator[StoredObject]:
        """The files whose paths begin with `prefix`; hidden ones are not objects."""
        start = self.root / prefix.rpartition("/")[0]
        for folder, folders, names in os.walk(start):
            folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
            for name in sorted(names):
                path = Path(folder, name)
                key = path.relative_to(self.root).as_posix()
                if key.startswith(prefix) and not name.startswith(".") and path.is_file():
                    status = path.stat()
                    yield StoredObject(key, status.st_size, "", f"{status.st_mtime_ns}-{status.st_ino}")

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

    def check_link(self, seconds: int | None) -> None:
        """A path needs no signature."""

    def link(self, key: str, seconds: int | None) -> Link:
        """The file's own URL, which works on this computer as long as the file lies there."""
        path = self._path(key)
        if not path.is_file():
            raise NotFound(f"{path} is not there", field="key")
        return Link(path.as_uri())

    def abandon(self, key: str, state: dict[str, Any]) -> bool:
        """Remove the copies of this file that were killed half-way."""
        with self._exclusive():
            return self._remove_killed(self._path(key))

    def unfinished(self) -> Iterator[Unfinished]:
        """A folder does not know who copies into it."""
        yield from ()

    def _remove_killed(self, path: Path) -> bool:
        left = list(path.parent.glob(f".{glob.escape(path.stem[:80])}.tmp-????????{glob.escape(path.suffix)}"))
        for temporary in left:
            temporary.unlink(missing_ok=True)
        return bool(left)

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)

    def _pieces(self, key: str, start: int) -> Iterator[bytes]:
        with open(self._path(key), "rb") as file:
            file.seek(start)
            while piece := file.read(_PIECE):
                yield piece

    def _check(self, key: str, create_only: bool, if_version: str | None) -> None:
        there = self.head(key)
        if create_only and there:
            raise Changed(f"{self._path(key)} is there already", hint="choose another name")
        if if_version is not None and (there is None or there.version != if_version):
            raise Changed(f"{self._path(key)} was changed by somebody else", hint="look at it, then try again")

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        try:
            with locked(self.root / _LOCK, "another dreamctl writes there"):
                yield
        except OSError as error:
            raise DreamctlError(f"cannot write into {self.root}: {os_reason(error)}", hint=os_hint(error)) from error
