"""Zip archives from anywhere, opened safely: what may be a picture or a caption is written below one folder.

No entry's name ever becomes a path: files lie in numbered folders under cleaned names, and the report keeps the names
that the archive has. Sizes are counted while reading, since an archive may lie about them.
"""

from __future__ import annotations

import re
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dreamctl.errors import DreamctlError
from dreamctl.files import explained, os_reason
from dreamctl.sources import CAPTION_SUFFIXES, clean_stem, clean_suffix, passed_over, printable

_CHUNK = 1 << 20
_ENTRY_MARK = b"PK\x01\x02"
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_BY_HAND = "unpack it yourself and name the folder"
_BOMB = "unpacks to far more than its size (a zip bomb?)"
_TWICE = ("is in the archive twice: the last one is taken", "give each file a name of its own")
# Others are unpacked by Python in one go, however much comes out.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class ArchiveLimits:
    """The most that is taken from one archive: entries, bytes in all, bytes of an entry, and of a caption.

    An entry or archive may unpack to `ratio` times its packed size; the first `free` bytes are not counted against it.
    """

    entries: int = 200_000
    bytes: int = 16 << 30
    entry_bytes: int = 1 << 30
    caption_bytes: int = 1 << 20
    ratio: int = 100
    free: int = 64 << 20


@dataclass(frozen=True)
class BadEntry:
    """An entry that was left out. `name` is the archive's own, printable; `reason` ends the sentence "NAME …"."""

    name: str
    reason: str
    advice: str


@dataclass(frozen=True)
class Unpacked:
    """The pictures' files with their names in the archive, and what was left out. Captions lie beside the pictures."""

    files: tuple[tuple[Path, str], ...]
    bad: tuple[BadEntry, ...]


class UnusableArchive(DreamctlError):
    """An archive of which nothing is used: the reason as the end of "ARCHIVE …", advice as the hint."""

    code = "unusable_archive"


class _Unfit(Exception):
    """An entry's reason and advice."""


def is_archive(path: Path) -> bool:
    """Whether a file begins as a zip archive does."""
    try:
        with open(path, "rb") as file:
            return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except OSError:
        return False


def unpack(archive: Path, folder: Path, limits: ArchiveLimits | None = None) -> Unpacked:
    """Write what may be a picture or a caption into the new folder `folder`.

    Raises UnusableArchive, and DreamctlError where `folder` cannot be written.
    """
    limits = limits or ArchiveLimits()
    try:
        _check_count(archive, limits.entries)
        most = min(limits.bytes, max(limits.free, limits.ratio * archive.stat().st_size))
        with zipfile.ZipFile(archive) as opened:
            return _unpack(opened, folder, limits, most)
    except zipfile.BadZipFile as error:
        raise UnusableArchive(f"is a damaged archive ({printable(str(error))[:80]})", hint="make it again") from error
    except (OSError, ValueError, NotImplementedError) as error:
        reason = os_reason(error) if isinstance(error, OSError) else printable(str(error))[:80]
        raise UnusableArchive(f"cannot be read: {reason}", hint=_BY_HAND) from error


def _check_count(archive: Path, most: int) -> None:
    """Count the marks that each entry has, in pieces: Python's reader would first make an object of every entry."""
    count, tail = 0, b""
    with open(archive, "rb") as file:
        while piece := file.read(_CHUNK):
            data = tail + piece
            count += data.count(_ENTRY_MARK)
            tail = data[-len(_ENTRY_MARK) + 1 :]
    if count > most:
        raise UnusableArchive(f"holds more than {most} entries", hint=_BY_HAND)


def _unpack(opened: zipfile.ZipFile, folder: Path, limits: ArchiveLimits, most: int) -> Unpacked:
    bad: list[BadEntry] = []
    files: list[tuple[Path, str]] = []
    places: dict[tuple[PurePosixPath, str], Path] = {}
    left = wasted = most  # bytes that may still be unpacked, to be kept and in vain
    for entry, path in _chosen(opened, bad):
        # A picture and its caption lie together; twins that differ by case or by Unicode form do not.
        place = places.setdefault((path.parent, path.stem), folder / str(len(places)))
        target = place / f"{clean_stem(path.stem)}{clean_suffix(path.suffix.lower())}"
        try:
            left -= _write(opened, entry, target, _most_of(entry, path, limits), left)
        except _Unfit as error:
            wasted -= target.stat().st_size
            target.unlink()
            if wasted < 0:
                raise UnusableArchive(_BOMB, hint=_BY_HAND) from None
            bad.append(BadEntry(printable(path.as_posix()), *error.args))
            continue
        if path.suffix.lower() not in CAPTION_SUFFIXES:
            files.append((target, printable(path.as_posix())))
    return Unpacked(tuple(files), tuple(bad))


def _chosen(opened: zipfile.ZipFile, bad: list[BadEntry]) -> Iterator[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """The entries to unpack. What is left out on purpose (folders, `__MACOSX`, hidden files, videos) is not told."""
    chosen: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for entry in opened.infolist():
        path = _path(entry)
        if passed_over(path) and ".." not in path.parts:
            continue
        if reason := _unfit(entry, path):
            bad.append(BadEntry(printable(entry.filename), *reason))
        elif not entry.filename.endswith(("/", "\\")):
            key = path.with_suffix(path.suffix.lower())
            if key in chosen:
                bad.append(BadEntry(printable(entry.filename), *_TWICE))
            chosen[key] = entry
    for entry in chosen.values():
        yield entry, _path(entry)


def _path(entry: zipfile.ZipInfo) -> PurePosixPath:
    return PurePosixPath(entry.filename.replace("\\", "/"))


def _unfit(entry: zipfile.ZipInfo, path: PurePosixPath) -> tuple[str, str] | None:
    """Why an entry is not opened at all, and what to do."""
    if path.is_absolute() or ".." in path.parts or _DRIVE.match(entry.filename) or not path.name:
        return "has a name that leaves the archive", _BY_HAND
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a link", "put the picture itself into the archive"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is not a regular file", "take it out of the archive"
    if entry.flag_bits & 1:
        return "is encrypted", _BY_HAND
    if entry.compress_type not in _METHODS:
        return "is packed by a method that is not read", "pack it again as an ordinary zip archive"
    return None


def _most_of(entry: zipfile.ZipInfo, path: PurePosixPath, limits: ArchiveLimits) -> int:
    if path.suffix.lower() in CAPTION_SUFFIXES:
        return limits.caption_bytes
    return min(limits.entry_bytes, max(limits.free, limits.ratio * entry.compress_size))


def _write(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, most: int, left: int) -> int:
    """Unpack one entry and return its bytes. Raises _Unfit, and UnusableArchive where the archive has had its share."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as file:
            size = 0
            for piece in _pieces(opened, entry):
                size += len(piece)
                if size > most:
                    raise _Unfit(f"unpacks to more than {_megabytes(most)}", "save it smaller, or " + _BY_HAND)
                if size > left:
                    raise UnusableArchive(_BOMB, hint=_BY_HAND)
                file.write(piece)
    except OSError as error:
        raise explained(error, target) from error
    if size != entry.file_size:
        raise _Unfit("is damaged (it is not as long as it says)", "make the archive again")
    return size


def _pieces(opened: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """The entry's bytes. Damaged archives make Python's reader raise nearly anything."""
    try:
        with opened.open(entry) as source:
            while piece := source.read(_CHUNK):
                yield piece
    except Exception as error:
        raise _Unfit(
            f"is damaged ({printable(str(error))[:80] or type(error).__name__})", "make the archive again"
        ) from error


def _megabytes(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size} bytes"
