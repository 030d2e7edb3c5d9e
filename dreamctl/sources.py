"""Which files lie in the folders and files that a line names, what travels with them, and what outputs are called."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path, PurePath

from dreamctl.domain.dataset import Skipped
from dreamctl.errors import InvalidInput, NotFound
from dreamctl.sheet import is_sheet

CAPTION_SUFFIXES = (".txt", ".caption")
# What cameras, trainers and systems leave beside pictures: passed over without a word.
COMPANIONS = frozenset((*CAPTION_SUFFIXES, ".mov", ".aae", ".xmp", ".thm", ".json", ".jsonl", ".ini", ".db"))
_PASSED_FOLDERS = frozenset(("__macosx", "@eadir"))
_RESERVED = frozenset(("con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))))
# kohya's folders: `10_luna` shows its pictures ten times. Years (`2024_sea`) and numbers (`01_sea`) are not meant.
_REPEATS = re.compile(r"([1-9]\d{0,2})_.")
_MAX_NAME_BYTES = 120  # leaves room below the 255 of file systems for suffixes and temporary names


@dataclass(frozen=True, slots=True)
class Source:
    """A file that may be a picture. `name` is what people and the manifest call it: `original/1.jpg`.

    `repeats`: how often a training shows it in an epoch. `text` is its caption where a list of URLs told one.
    """

    folder: str  # one string for all of a folder: a heap may hold hundreds of thousands, and a Path weighs 400 bytes
    file: str
    name: str
    repeats: int = 1
    text: str = ""

    @classmethod
    def at(cls, path: Path, name: str, repeats: int = 1, text: str = "") -> Source:
        return cls(sys.intern(str(path.parent)), path.name, name, repeats, text)

    @property
    def path(self) -> Path:
        return Path(self.folder, self.file)

    def caption(self) -> Path | None:
        """The caption file beside it, if there is one."""
        for suffix in CAPTION_SUFFIXES:
            file = self.path.with_suffix(suffix)
            with contextlib.suppress(OSError):  # the picture's name may leave no room for a longer suffix
                if file.is_file():
                    return file
        return None

    def called(self, caption: Path) -> str:
        """What people call the caption file beside it: `original/1.txt`, wherever the two lie now."""
        return str(PurePath(self.name).with_suffix(caption.suffix))

    def caption_text(self) -> str:
        """The caption that travels with it; "" where there is none. Raises InvalidInput that names a bad file."""
        beside = None if self.text else self.caption()
        if beside is None:
            return self.text
        try:
            return beside.read_text(encoding="utf-8-sig").strip()
        except (UnicodeDecodeError, OSError):
            raise InvalidInput(f"{self.called(beside)} cannot be read as UTF-8 text", hint="save it as UTF-8") from None


@dataclass(frozen=True)
class Absent:
    """A source that could not be looked at: its `name`, and what `Found.skipped` calls it.

    What was behind it may have been an archive, whose files are named `archive/…`.
    """

    name: str
    archive: str
    skipped: str


@dataclass(frozen=True)
class Found:
    """All files of some sources, in an order that is the same on every file system.

    `roots` are the names of the folders and archives that were searched, the hosts that were asked, and "" where single
    files were named. `warnings` are whole sentences. `absent` may be there another time.
    """

    sources: tuple[Source, ...]
    skipped: tuple[Skipped, ...]
    roots: frozenset[str]
    warnings: tuple[str, ...] = ()
    absent: tuple[Absent, ...] = ()


def find(places: Sequence[Path], leave_out: Path, recursive: bool = False) -> Found:
    """The files in `places` (folders or files) but not in the folder `leave_out`.

    Raises NotFound for a place that does not exist, InvalidInput for one that is `leave_out` itself.
    """
    output, archive = leave_out.resolve(), own_archive(leave_out).resolve()
    found: list[Source] = []
    seen: set[Path] = set()  # a file that two of the places hold counts once
    skipped: list[Skipped] = []
    roots: set[str] = set()
    for place in places:
        if not place.exists():
            raise NotFound(f"{place} does not exist", field="SOURCE", hint="check the path")
        root = place.resolve()
        if root == output:
            raise InvalidInput(
                f"{place} is the source and the output folder", field="--out", hint="name another one with --out"
            )
        roots.add(printable(root.name) if root.is_dir() else "")
        paths = _entries(root, recursive, output) if root.is_dir() else iter([root])
        for path in paths:
            if path == archive or is_sheet(path):  # what an earlier run wrote beside the dataset
                continue
            name = printable(path.relative_to(root.parent).as_posix())
            reason = _unfit(path, root)
            if reason is None:
                if path not in seen:
                    found.append(Source.at(path, name, repeats_of(path.parent.name if root.is_dir() else "")))
                if len(places) > 1:  # one folder has each file once, and may have hundreds of thousands
                    seen.add(path)
            else:
                skipped.append(Skipped(source=name, reason=reason, advice="put the picture itself there"))
    return Found(ordered(found), tuple(skipped), frozenset(roots))


def own_archive(dataset: Path) -> Path:
    """Where `prepare --zip` packs a dataset folder: never a source of that dataset."""
    return dataset.with_name(f"{dataset.name}.zip")


def ordered(sources: Iterable[Source]) -> tuple[Source, ...]:
    """In the order of their names, each of which is made unique: two folders `a/x` and `b/x` may both be named."""
    result = list(sources)
    for key in (attrgetter("file"), attrgetter("folder"), attrgetter("name"), lambda source: _key(source.name)):
        result.sort(key=key)  # one after the other: a tuple for each would weigh more
    taken: set[str] = set()
    for place, source in enumerate(result):
        name, number = source.name, 2
        while name in taken:
            name, number = f"{source.name} ({number})", number + 1
        taken.add(name)
        if name != source.name:
            result[place] = replace(source, name=name)
    return tuple(result)


def _entries(folder: Path, recursive: bool, output: Path) -> Iterator[Path]:
    """The files of a folder that may be pictures. Links to folders are not followed: no going in circles."""
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=attrgetter("name"), reverse=True)
    while listed:
        entry = listed.pop()  # what was looked at is let go
        path = Path(entry.path)
        if path == output or _hidden(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            if recursive:
                yield from _entries(path, recursive, output)
        elif path.suffix.lower() not in COMPANIONS and not path.is_dir():
            yield path


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _PASSED_FOLDERS


def passed_over(path: PurePath) -> bool:
    """Whether a path inside an archive is left out without a word: neither a picture nor a caption."""
    suffix = path.suffix.lower()
    return any(map(_hidden, path.parts)) or (suffix in COMPANIONS and suffix not in CAPTION_SUFFIXES)


def repeats_of(folder: str) -> int:
    """The repeats that a folder's name asks for (kohya's `10_luna`), else 1."""
    named = _REPEATS.match(folder)
    return int(named[1]) if named else 1


def _unfit(path: Path, root: Path) -> str | None:
    """Why a directory entry is not read at all: opening a pipe would wait for ever."""
    if path.is_symlink():
        if not path.exists():
            return "is a link to nothing"
        if not path.resolve().is_relative_to(root):
            return "is a link that leaves the folder"
    return None if stat.S_ISREG(path.stat().st_mode) else "is not a regular file"


def root_of(name: str) -> str:
    """The root (see `Found.roots`) that a source's name tells."""
    return name.partition("/")[0] if "/" in name else ""


def output_names(sources: Sequence[Source], before: Mapping[str, str]) -> list[str]:
    """The output's name without suffix for each source; no two are alike on any file system.

    `before` holds the names of an earlier run by the sources' names, which stay and are nobody else's. A name that is
    taken gets a number: `photo-2`.
    """
    result = []
    taken = {_key(name) for name in before.values()}
    given: set[str] = set()  # of the earlier names: a manifest that somebody edited may hold one twice
    for source in sources:
        name = before.get(source.name)
        if name is None or _key(name) in given:
            name = stem = clean_stem(source.path.stem)
            number = 2
            while _key(name) in taken:
                name, number = f"{stem}-{number}", number + 1
            taken.add(_key(name))
        else:
            given.add(_key(name))
        result.append(name)
    return result


def clean_stem(stem: str) -> str:
    """A stem as a file name that every system takes: NFC, no separators or control characters, not too long."""
    text = unicodedata.normalize("NFC", _text(stem, "replace"))
    text = "".join("_" if char in '<>:"/\\|?*' or not char.isprintable() else char for char in text)
    while len(text.encode()) > _MAX_NAME_BYTES:
        text = text[:-1]
    text = text.strip(" .")
    if text.lower().split(".")[0] in _RESERVED:
        text = f"_{text}"
    return text or "picture"


def clean_suffix(suffix: str, most: int = 10) -> str:
    """A suffix as every file system takes it: a dot and a few letters and digits."""
    return "".join(char for char in suffix if char.isascii() and (char.isalnum() or char == "."))[:most]


def printable(name: str) -> str:
    """A file name for people and JSON: no control characters, no bytes that are not text."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in _text(name, "backslashreplace"))


def _text(name: str, errors: str) -> str:
    return os.fsencode(name).decode("utf-8", errors)


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
