"""The cache of downloads: each URL has a folder there, and is fetched again only when the server says that it changed.

`about.json` comes last and holds the file's digest, so a download that was killed is none. URLs themselves are not
kept, only digests of them: a presigned URL is a secret.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dreamctl.errors import DreamctlError
from dreamctl.fetch import Fetched, Known, Patience, fetch
from dreamctl.files import explained, is_locked, locked, read_json, sha256_file, sync_folder, write_json
from dreamctl.sources import clean_stem
from dreamctl.urls import Wanted
from dreamctl.wire import FetchFailed, Network

AT_ONCE = 4
KEPT_DAYS = 90
_ABOUT, _PART, LOCK, _HOLDER = _OURS = ("about.json", "part", "lock", "lock.holder")
_SCHEMA = 1
_HEAD = 512
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")

# What files are by how they begin; the name's suffix is made to fit.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", ".jpg"), (0, b"\x89PNG\r\n\x1a\n", ".png"), (0, b"GIF8", ".gif"), (8, b"WEBP", ".webp"),
    (0, b"BM", ".bmp"), (0, b"II*\0", ".tif"), (0, b"MM\0*", ".tif"), (4, b"ftypavif", ".avif"),
    (4, b"ftypavis", ".avif"), (4, b"ftyphei", ".heic"), (4, b"ftyphev", ".heic"), (4, b"ftypmif1", ".heic"),
    (0, b"PK\x03\x04", ".zip"), (0, b"PK\x05\x06", ".zip"),
)  # fmt: skip
_SAME = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tiff": ".tif", ".heif": ".heic", ".apng": ".png"}
_WEB_PAGE = (b"<!doctype html", b"<html")


@dataclass(frozen=True)
class Download:
    """What became of a URL: a file, or why not and what to do. `note`: what people should know of the file.

    `folder`: where the file lies, or would. `passing`: it may be there another time.
    """

    wanted: Wanted
    folder: Path
    path: Path | None = None
    reason: str = ""
    advice: str = ""
    note: str = ""
    passing: bool = False


@dataclass(frozen=True)
class _About:
    """`about.json`."""

    file: str
    sha256: str
    fetched: str
    known: Known


def download(
    wanted: Sequence[Wanted],
    cache: Path,
    *,
    allow_private: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    network: Network | None = None,
    patience: Patience | None = None,
) -> list[Download]:
    """The file of each URL, a few at a time, below the folder `cache`; each URL once, in the order of `wanted`.

    Raises DreamctlError only where the cache cannot be written.
    """
    if not wanted:
        return []
    items: dict[str, Wanted] = {}
    for item in wanted:
        items.setdefault(_key(item), item)
    stop = threading.Event()
    patience = replace(patience or Patience(), stop=stop)

    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        futures = [
            pool.submit(_download, item, cache / key, allow_private, network, patience) for key, item in items.items()
        ]
        progress(0, len(futures))
        for done, future in enumerate(as_completed(futures), 1):
            future.result()
            progress(done, len(futures))
        prune(cache)
        return [future.result() for future in futures]
    finally:
        stop.set()  # Ctrl-C and a full disk end the others too
        pool.shutdown(cancel_futures=True)


def prune(cache: Path) -> None:
    """Let go the folders that no command asked for in a season. Each use writes its lock's holder, which dates it."""
    limit = time.time() - KEPT_DAYS * 24 * 3600
    for folder in cache.iterdir():
        with contextlib.suppress(OSError):  # another command lets it go just now
            if folder.stat().st_mtime < limit and not is_locked(folder / LOCK):
                shutil.rmtree(folder, ignore_errors=True)


def _key(item: Wanted) -> str:
    return hashlib.sha256(f"{item.url.partition('#')[0]}\n{item.name}".encode()).hexdigest()[:32]


def _download(item: Wanted, folder: Path, allow_private: bool, network: Network | None, patience: Patience) -> Download:
    def check() -> None:
        if patience.stop.is_set():
            raise FetchFailed("was not fetched: stopped", hint="run the same command again")

    try:
        with locked(folder / LOCK, "a download", check=check):
            return _renewed(item, folder, allow_private, network, patience)
    except FetchFailed as error:
        return Download(item, folder, reason=error.message, advice=error.hint or "", passing=error.passing)
    except OSError as error:
        raise explained(error, folder) from error


def _renewed(item: Wanted, folder: Path, allow_private: bool, network: Network | None, patience: Patience) -> Download:
    part, about = folder / _PART, _about(folder)
    known = about.known if about else None
    try:
        got = fetch(item.url, part, known=known, allow_private=allow_private, network=network, patience=patience)
    except FetchFailed as error:
        part.unlink(missing_ok=True)
        if error.passing and about and not patience.stop.is_set():
            note = f"{error.message}: the copy of {about.fetched[:10]} was used"
            return Download(item, folder, folder / about.file, note=note)
        raise
    if got is not None:
        about = _kept(item, folder, got)
    if about is None:
        raise FetchFailed("was answered with status 304, which nobody asked for", hint="try again later")
    return Download(item, folder, folder / about.file)


def _kept(item: Wanted, folder: Path, got: Fetched) -> _About:
    """Give the downloaded part its name and describe it. Raises FetchFailed for a web page."""
    part = folder / _PART
    with open(part, "rb") as file:
        head = file.read(_HEAD)
        os.fsync(file.fileno())
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_WEB_PAGE):
        part.unlink()
        raise FetchFailed("is a web page, not a picture", hint="name the address of the picture itself")
    name = file_name(item.name or disposition_name(got.disposition) or _last_part(item.url), head)
    (folder / _ABOUT).unlink(missing_ok=True)
    for old in folder.iterdir():
        if old.name not in (_PART, LOCK, _HOLDER):
            old.unlink()
    os.replace(part, folder / name)
    sync_folder(folder)
    about = _About(name, got.sha256, datetime.now(UTC).isoformat(timespec="seconds"), got.known)
    write_json(folder / _ABOUT, {"schema": _SCHEMA, **asdict(about)})
    return about


def _about(folder: Path) -> _About | None:
    """What is kept in the folder, if it is whole."""
    with contextlib.suppress(DreamctlError, OSError, TypeError, KeyError, AttributeError):
        data = read_json(folder / _ABOUT)
        about = _About(data["file"], data["sha256"], data["fetched"], Known(**data["known"]))
        if data["schema"] == _SCHEMA and about.file == Path(about.file).name:
            return about if sha256_file(folder / about.file) == about.sha256 else None
    return None


# names


def file_name(name: str, head: bytes) -> str:
    """A safe file name from what a server or a list calls a file, with the suffix that its first bytes ask for."""
    base = name.replace("\\", "/").rpartition("/")[2]
    stem, dot, last = base.rpartition(".")
    suffix = f".{last.lower()}"
    if not (dot and stem and _SUFFIX.fullmatch(suffix)):
        stem, suffix = base, ""
    magic = next((kind for place, begin, kind in _MAGIC if head[place : place + len(begin)] == begin), "")
    if magic and _SAME.get(suffix, suffix) != magic:
        suffix = magic
    result = clean_stem(stem) + suffix
    return f"{clean_stem(stem)}_{suffix}" if result.lower() in _OURS else result


def disposition_name(header: str) -> str:
    """The file name in a Content-Disposition header, in either of its two forms (RFC 6266); "" where there is none."""
    message = Message()
    message["Content-Disposition"] = "".join(char for char in header if char.isprintable())
    return message.get_filename("") if header else ""


def _last_part(url: str) -> str:
    return unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])
