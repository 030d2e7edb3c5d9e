"""What a URL names in a storage, as files of the cache: fetched when it changed, removed when it is gone there.

A key never becomes a path. Each picture has a folder that a digest of its key names, and there a cleaned name; its
captions lie beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dreamctl import paths
from dreamctl.context import Context
from dreamctl.domain.dataset import Skipped
from dreamctl.downloads import LOCK, prune
from dreamctl.errors import InvalidInput, NotFound
from dreamctl.files import explained, locked
from dreamctl.images import MAX_BYTES, SUFFIXES
from dreamctl.sheet import is_sheet
from dreamctl.sources import CAPTION_SUFFIXES, clean_stem, clean_suffix, passed_over, printable
from dreamctl.storage.base import Storage, StoredObject, checked_key
from dreamctl.unpack import ArchiveLimits
from dreamctl.urls import LIST_SUFFIXES, public_name
from dreamctl.workflows.bringing import bring

_CAPTION_BYTES = ArchiveLimits.caption_bytes
_NO_KEY = ("has a key that is not fetched", "rename it there: readable names between single slashes")
_NO_PICTURE = ("was not fetched: its name is no picture's", "if it is one, give it a suffix such as .jpg; else move it")
_ARCHIVE = ("is a zip archive", "name it on the command line, and the pictures in it are taken")
_TOO_LARGE = ("is larger than 1 GiB", "save it as a JPEG")
_LONG_CAPTION = ("is too large for a caption", "make it shorter")


@dataclass(frozen=True)
class Address:
    """What a line names in a bucket: the object under `key`, or what lies below it; all of the bucket where "".

    `folder`: no object is meant.
    """

    bucket: str
    key: str
    folder: bool

    @classmethod
    def of(cls, word: str) -> Address:
        scheme, _, rest = word.partition("://")
        bucket, _, path = rest.partition("/")
        key = path.rstrip("/")
        return cls(f"{scheme.lower()}://{bucket}", key, not key or key != path)

    @property
    def url(self) -> str:
        return f"{self.bucket}/{self.key}".rstrip("/")

    @property
    def shown(self) -> str:
        """What people call it: the last part of what they wrote."""
        return printable(self.url.rpartition("/")[2])


@dataclass(frozen=True)
class Mirror:
    """What lies at an address: a `folder`, whose files stand with their keys below it, or else one object."""

    address: Address
    folder: bool
    files: tuple[tuple[Path, str], ...]
    skipped: tuple[Skipped, ...]


@dataclass
class _Listing:
    """The objects to fetch, by file; the keys below the address of all but captions, by file; what is left out."""

    folder: bool
    wanted: dict[str, StoredObject] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)

    def add(self, inside: str, stored: StoredObject) -> str:
        """Note an object that may be a picture; returns where it lies in the mirror, without its suffix."""
        path = PurePosixPath(inside or stored.key)
        place = f"{hashlib.sha256(inside.encode()).hexdigest()[:20]}/{clean_stem(path.stem)}"
        file = f"{place}{clean_suffix(path.suffix)}"
        self.wanted[file], self.keys[file] = stored, inside
        return place

    def add_caption(self, place: str, stored: StoredObject) -> None:
        self.wanted[f"{place}{PurePosixPath(stored.key).suffix.lower()}"] = stored

    def skip(self, name: str, why: tuple[str, str]) -> None:
        self.skipped.append(Skipped(source=printable(name), reason=why[0], advice=why[1]))


@contextlib.contextmanager
def mirrored(context: Context, storage: Storage, address: Address, recursive: bool = False) -> Iterator[Mirror]:
    """What lies at the address of the storage now, as files that nobody changes while the block lasts.

    Raises NotFound where nothing lies there, DiskFull before anything is fetched where there is no room, and what the
    storage raises: then nothing is known of what lies there.
    """
    cache = paths.cache_dir() / "objects"
    folder = cache / hashlib.sha256(address.url.encode(errors="surrogateescape")).hexdigest()[:32]

    def on_wait(holder: str) -> None:
        context.reporter.note(f"waiting for {holder}")

    def progress(done: int, total: int) -> None:
        context.reporter.progress("fetch", done, total, unit="bytes")

    with contextlib.ExitStack() as held:
        try:
            holder = f"another dreamctl command on {public_name(address.url)}"
            held.enter_context(locked(folder / LOCK, holder, on_wait))
            listing = _listing(storage, address, recursive)
            bring(storage, folder, listing.wanted, progress)
            prune(cache)
        except OSError as error:
            raise explained(error, folder) from error
        files = ((folder / file, inside) for file, inside in listing.keys.items())
        kept = tuple((path, inside) for path, inside in files if not is_sheet(path))
        yield Mirror(address, listing.folder, kept, tuple(listing.skipped))


# listing


def _listing(storage: Storage, address: Address, recursive: bool) -> _Listing:
    if not address.folder and (stored := storage.head(address.key)):
        return _of_object(storage, address, stored)
    prefix = f"{checked_key(address.key)}/" if address.key else ""
    objects = list(storage.list(prefix, recursive))
    if not objects and (recursive or next(iter(storage.list(prefix)), None) is None):
        raise NotFound(f"nothing is at {public_name(address.url)}", field="SOURCE", hint="check the URL")
    return _of_objects(objects, prefix, address.shown)


def _of_object(storage: Storage, address: Address, stored: StoredObject) -> _Listing:
    """One object, whatever it is called; beside a picture its captions."""
    listing = _Listing(folder=False)
    path = PurePosixPath(address.key)
    if reason := _unfit_alone(stored, path.suffix.lower()):
        listing.skip(address.shown, reason)
        return listing
    place = listing.add("", stored)
    for suffix in CAPTION_SUFFIXES if path.suffix.lower() in SUFFIXES else ():
        caption = storage.head(str(path.with_suffix(suffix)))
        if caption and caption.bytes <= _CAPTION_BYTES:
            listing.add_caption(place, caption)
    return listing


def _of_objects(objects: Iterable[StoredObject], prefix: str, shown: str) -> _Listing:
    """What is fetched of a folder is what may be a picture by its name, and its caption; the rest is told."""
    listing = _Listing(folder=True)
    places: dict[PurePosixPath, list[str]] = {}
    captions = []
    for stored in sorted(objects, key=lambda stored: stored.key):
        inside = stored.key.removeprefix(prefix)
        path = PurePosixPath(inside)
        if passed_over(path) and ".." not in path.parts:
            continue
        if reason := _unfit(stored, path):
            listing.skip(f"{shown}/{inside}", reason)
        elif path.suffix.lower() in CAPTION_SUFFIXES:
            captions.append((stored, path))
        else:
            places.setdefault(path.with_suffix(""), []).append(listing.add(inside, stored))
    for stored, path in captions:
        for place in places.get(path.with_suffix(""), ()):
            if stored.bytes <= _CAPTION_BYTES:
                listing.add_caption(place, stored)
            else:
                listing.skip(f"{shown}/{path}", _LONG_CAPTION)
    return listing


def _unfit_alone(stored: StoredObject, suffix: str) -> tuple[str, str] | None:
    """Why an object that the line names itself is not fetched, and what to do. Archives and lists of URLs are."""
    if suffix in SUFFIXES:
        return _TOO_LARGE if stored.bytes > MAX_BYTES else None
    return _NO_PICTURE if suffix and suffix not in (".zip", *LIST_SUFFIXES) else None


def _unfit(stored: StoredObject, path: PurePosixPath) -> tuple[str, str] | None:
    """Why an object is not fetched, and what to do."""
    suffix = path.suffix.lower()
    try:
        checked_key(stored.key)
    except InvalidInput:
        return _NO_KEY
    if suffix == ".zip":
        return _ARCHIVE
    if suffix and suffix not in SUFFIXES and suffix not in CAPTION_SUFFIXES:
        return _NO_PICTURE
    return _TOO_LARGE if stored.bytes > MAX_BYTES else None
