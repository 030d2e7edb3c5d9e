"""Files that are either wholly there or not at all: atomic, fsynced writes, digests and locks.

Knows nothing of what the files mean.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import os
import secrets
import shutil
import stat
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from dreamctl.errors import DiskFull, DreamctlError, InvalidInput, NotFound

_CHUNK = 1 << 20
_POLL_SECONDS = 0.05
_LOOKS = 4  # failed attempts that may be somebody who only looks (see `is_locked`)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable (a no-op where folders cannot be opened, as on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is synced and takes `path`'s place, else it is removed.

    The temporary name keeps the suffix, since libraries choose a format by it.
    """
    with _renaming(path) as temporary:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())


@contextlib.contextmanager
def _renaming(path: Path, name_synced: bool = True) -> Iterator[Path]:
    temporary = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
        if name_synced:
            sync_folder(path.parent)
    except OSError as error:
        raise explained(error, path) from error
    finally:
        with contextlib.suppress(OSError):  # gone after the rename; a full disk must not hide the first error
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give an empty temporary folder beside `path`; on success it takes `path`'s place, else it is removed.

    Its files may be read by whoever may read the folder: safetensors 0.8 writes them for their owner alone, whatever
    the umask (safetensors issue 782), and a team's shared models would be nobody else's.
    """
    temporary = path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        mode = stat.S_IMODE(temporary.stat().st_mode) & 0o666
        for folder, _, names in os.walk(temporary):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    os.fchmod(file.fileno(), mode)
                    os.fsync(file.fileno())
            sync_folder(Path(folder))
        if path.exists():
            old = path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}.old")
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise explained(error, path) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: Path, data: bytes, name_synced: bool = True) -> None:
    """Write `data` to `path` atomically and durably. Raises DreamctlError naming the path when it cannot.

    Without `name_synced` a power failure may lose the name, but never half of the file: for those who write many and
    then call `sync_folder` themselves.
    """
    with _renaming(path, name_synced) as temporary, open(temporary, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_new(paths: Iterable[Path], data: bytes) -> Path:
    """Write `data` durably under the first of `paths` that is free, and return it; no file is ever overwritten.

    All of `paths` lie in one folder. A kill leaves the whole file or none under its name. Raises DreamctlError naming
    the path when it cannot.
    """
    candidates = iter(paths)
    path = next(candidates)
    temporary = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        while not _named(temporary, path):
            path = next(candidates)
        sync_folder(path.parent)
    except OSError as error:
        raise explained(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def _named(temporary: Path, path: Path) -> bool:
    """Give the file the name `path` too, in one step; False where the name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links, such as FAT: take the name empty, then fill it
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            return False
        os.replace(temporary, path)
    return True


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a final newline, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in `path`. Raises DreamctlError naming the file when it is missing or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise explained(error, path) from error
    except ValueError as error:
        raise DreamctlError(f"{path} is not valid JSON: {error}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as plain data. Raises NotFound, InvalidInput (with the line) or DreamctlError that names the file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFound(f"{path} does not exist") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise explained(error, path) from error


def sha256_file(path: Path) -> str:
    """The hex SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


Stamp = tuple[int, ...]
"""What tells a file from another and from itself after a change: device, inode, size, and the times of its changes."""


def stamp_of(status: os.stat_result) -> Stamp:
    """The stamp of a file by its `os.stat`: as long as it is the same, so are the file's bytes."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def free_bytes(path: Path) -> int:
    """Free space of the file system that holds `path` or its nearest existing parent."""
    folder = path.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


@contextlib.contextmanager
def locked(
    path: Path,
    holder: str,
    on_wait: Callable[[str], None] | None = None,
    check: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Hold an exclusive lock until the block ends or the process dies; `holder` says to others what for.

    While somebody else has it, `on_wait` is told once with that holder's words, and `check` is called again and again:
    it may raise to give up.
    """
    from filelock import FileLock, Timeout  # here: prepare's processes start without it

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    for attempt in itertools.count():
        with contextlib.suppress(Timeout):
            lock.acquire(blocking=False)
            break
        if attempt == _LOOKS and on_wait:
            on_wait(lock_holder(path))
        if attempt >= _LOOKS and check:
            check()
        time.sleep(_POLL_SECONDS)
    try:
        with contextlib.suppress(OSError):  # on a full disk the lock is held all the same
            _holder_file(path).write_text(holder, encoding="utf-8", errors="backslashreplace")
        yield
    finally:
        _holder_file(path).unlink(missing_ok=True)
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether a live process holds the lock at `path`. The system drops a dead holder's lock at once.

    Looked at through a shared lock, so that those who look do not take each other for holders.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def lock_holder(path: Path) -> str:
    """What the present holder said it needs the lock for."""
    try:
        return _holder_file(path).read_text()
    except OSError:
        return "another process"


def _holder_file(path: Path) -> Path:
    return path.with_suffix(".holder")


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.stem[:80]}.tmp-{secrets.token_hex(4)}{path.suffix}")


def explained(error: OSError, path: Path) -> DreamctlError:
    """The system's error as one of ours that names the file and the way out."""
    where = error.filename or path
    if isinstance(error, FileExistsError) and Path(where) in path.parents:
        return DreamctlError(f"{where} is a file, not a folder", hint="choose another place")
    kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else DreamctlError
    return kind(f"{where}: {os_reason(error)}", hint=os_hint(error))


def os_reason(error: OSError) -> str:
    """The system's reason in lower case, as the second half of a sentence."""
    reason = error.strerror or str(error)
    return reason[:1].lower() + reason[1:]


def os_hint(error: OSError) -> str | None:
    """What to do about the errors of the system that people meet most."""
    return _OS_HINTS.get(error.errno or 0)


_OS_HINTS = {
    errno.ENOSPC: "free some space (`dreamctl rm RUN` deletes old runs), then run the same command again",
    errno.EDQUOT: "free some space within your quota, then run the same command again",
    errno.EACCES: "choose a folder that you may write to, or change its permissions",
    errno.EPERM: "choose a folder that you may write to, or change its permissions",
    errno.EROFS: "the file system is read-only: choose another folder",
}
