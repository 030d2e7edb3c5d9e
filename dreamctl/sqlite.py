"""SQLite's errors as sentences that name the registry's file and the way out."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dreamctl.errors import DreamctlError
from dreamctl.files import free_bytes, os_hint, os_reason

_LEAST_BYTES = 1 << 20  # less free space than SQLite's side files need
_HINTS = {
    sqlite3.SQLITE_BUSY: "another program holds it: look which, or run the same command again",
    sqlite3.SQLITE_CANTOPEN: "check that you may write to it and to its folder",
    sqlite3.SQLITE_READONLY: "check that you may write to it and to its folder",
}
_UNFIT = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    ValueError,
)
_DISK_FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Translate SQLite's errors into a sentence that names the file: a value that does not fit is one too."""
    try:
        yield
    except _UNFIT as error:
        raise DreamctlError(
            f"the registry {path} cannot hold this: {error}",
            hint="what a run's files say does not fit; `dreamctl rm RUN` removes a damaged one",
        ) from error
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extended part
        # Where there is no room for its shared memory, SQLite says no more than "disk I/O error".
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and free_bytes(path) < _LEAST_BYTES):
            raise DreamctlError(f"{path}: {os_reason(_DISK_FULL)}", hint=os_hint(_DISK_FULL)) from error
        hint = _HINTS.get(code, "check its folder's permissions and its disk")
        raise DreamctlError(f"cannot use the registry {path}: {error}", hint=hint) from error
    except sqlite3.Error as error:
        raise DreamctlError(
            f"the registry {path} is damaged: {error}",
            hint="move it away; the next command rebuilds it from the run folders beside it",
        ) from error
