"""Everything that a line may name as a source (folders, files, zip archives, URLs, lists of URLs), as local files."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from dreamctl import paths, unpack, urls
from dreamctl.context import Context
from dreamctl.domain.dataset import Picture, Pictures, Skipped
from dreamctl.errors import NotFound
from dreamctl.images import SUFFIXES
from dreamctl.sources import (
    COMPANIONS,
    Absent,
    Found,
    Source,
    find,
    ordered,
    own_archive,
    printable,
    repeats_of,
    root_of,
)

if TYPE_CHECKING:
    from dreamctl.downloads import Download

_SCRATCH = "unpacked"


@dataclass(frozen=True)
class Named:
    """What a line names: what lies in folders and files, and what is still to be unpacked and fetched."""

    found: Found
    archives: tuple[Path, ...] = ()
    wanted: tuple[urls.Wanted, ...] = ()
    bad_urls: tuple[UrlOutcome, ...] = ()


@dataclass(frozen=True)
class UrlOutcome:
    """What became of a URL (without its secrets): the dataset's file, else how many `files` its archive gave, else why
    nothing. Both file and reason where a picture stays though the URL could not be asked again.
    """

    url: str
    file: str | None
    reason: str | None = None
    files: int = 0


@dataclass(frozen=True)
class Gathered:
    """All sources as local files; in `came` each URL's `file` is its source's name."""

    found: Found
    came: tuple[UrlOutcome, ...] = ()

    def outcomes(self, pictures: Sequence[Picture], skipped: Sequence[Skipped]) -> tuple[UrlOutcome, ...]:
        """What became of each URL in the end: a source may still be no picture."""
        if not self.came:
            return ()
        files = {picture.source: picture.file for picture in pictures}
        reasons = {item.source: item.reason for item in skipped}
        return tuple(
            replace(
                item,
                file=files.get(item.file or ""),
                reason=item.reason or reasons.get(item.file or ""),
                files=item.files or _staying(item, files),
            )
            for item in self.came
        )


def _staying(item: UrlOutcome, files: Mapping[str, str]) -> int:
    """How many pictures stay of an archive that could not be asked for again."""
    if not (item.reason and item.file) or item.file in files:
        return 0
    return sum(name.startswith(f"{item.file}/") for name in files)


def look(words: Sequence[str | Path], leave_out: Path, recursive: bool = False) -> Named:
    """Find what the words of a line name, without fetching or unpacking; nothing of the folder `leave_out`.

    Raises NotFound for a place that does not exist, InvalidInput for `leave_out` itself and for a list of URLs that
    is none.
    """
    places: list[Path] = []
    archives: list[Path] = []
    wanted: list[urls.Wanted] = []
    bad: list[urls.BadLine] = []
    stems: dict[Path, set[str]] = {}
    own = own_archive(leave_out).resolve()
    for word in words:
        if isinstance(word, str) and urls.is_url(word):
            wanted.append(urls.Wanted(word))
            continue
        path = Path(word).expanduser()
        if not path.exists():
            raise NotFound(f"{path} does not exist", field="SOURCE", hint="check the path")
        if path.is_file() and (_is_companion(path, stems) or path.resolve() == own):
            continue
        if path.is_file() and path.suffix.lower() in urls.LIST_SUFFIXES:
            named, lines = urls.read_list(path)
            wanted += named
            bad += lines
        elif path.is_file() and unpack.is_archive(path):
            archives.append(path)
        else:
            places.append(path)
    found = find(places, leave_out, recursive)
    skipped = [Skipped(source=line.where, reason=line.reason, advice=line.advice) for line in bad]
    return Named(
        replace(found, skipped=(*found.skipped, *skipped)),
        tuple(archives),
        tuple(wanted),
        tuple(UrlOutcome(line.url, None, f"{line.where} {line.reason}") for line in bad),
    )


def _is_companion(path: Path, stems: dict[Path, set[str]]) -> bool:
    """Whether a file named on the line belongs to a picture of its name beside it: `original/*` names captions too.

    `stems` remembers the names of each folder's pictures.
    """
    if path.suffix.lower() not in COMPANIONS:
        return False
    if path.parent not in stems:
        stems[path.parent] = {item.stem for item in path.parent.iterdir() if item.suffix.lower() in SUFFIXES}
    return path.stem in stems[path.parent]


@contextlib.contextmanager
def brought(context: Context, named: Named, stage: Path, allow_private: bool = False) -> Iterator[Gathered]:
    """Fetch the URLs, unpack the archives below the folder `stage`, and give all sources while the block lasts.

    Raises DreamctlError only where the cache or `stage` cannot be written: a URL or an archive that is bad is skipped.
    """
    if not named.archives and not named.wanted:
        yield Gathered(named.found, named.bad_urls)
        return
    scratch = stage / _SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)  # a killed run's
    try:
        yield _gather(context, named, scratch, allow_private)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@dataclass
class _Heap:
    """What has been gathered so far; archives are unpacked into numbered folders below `scratch`."""

    scratch: Path
    sources: list[Source]
    skipped: list[Skipped]
    roots: set[str]
    warnings: list[str]
    archives: int = 0
    away: list[Download] = field(default_factory=list)

    def unpack(self, archive: Path, name: str) -> int:
        """Add what is in an archive that people call `name`; returns how many files it gave."""
        self.archives += 1
        self.roots.add(root_of(f"{name}/"))
        try:
            unpacked = unpack.unpack(archive, self.scratch / str(self.archives))
        except unpack.UnusableArchive as error:
            self.skipped.append(Skipped(source=name, reason=error.message, advice=error.hint or ""))
            return 0
        for path, inside in unpacked.files:
            repeats = repeats_of(PurePosixPath(inside).parent.name)
            self.sources.append(Source.at(path, f"{name}/{inside}", repeats))
        for bad in unpacked.bad:
            self.skipped.append(Skipped(source=f"{name}/{bad.name}", reason=bad.reason, advice=bad.advice))
        if not unpacked.files and not unpacked.bad:
            advice = "put some JPEG or PNG pictures into it"
            self.skipped.append(Skipped(source=name, reason="holds no pictures", advice=advice))
        return len(unpacked.files)

    def take(self, item: Download) -> tuple[UrlOutcome, Path | None]:
        """Add what a URL gave; returns what is known of it, and the file whose source's name is its outcome."""
        url, name = urls.public_name(item.wanted.url), urls.source_name(item.wanted.url)
        self.roots.add(root_of(name))
        if item.note:
            self.warnings.append(f"{name} {item.note}")
        if item.path is None:
            self.skipped.append(Skipped(source=url, reason=item.reason, advice=item.advice))
            if item.passing:
                self.away.append(item)
            return UrlOutcome(url, None, item.reason), item.folder if item.passing else None
        if unpack.is_archive(item.path):
            count = self.unpack(item.path, name)
            return UrlOutcome(url, None, f"is an archive of {count} file{'s' if count != 1 else ''}", count), None
        self.sources.append(Source.at(item.path, name, text=item.wanted.caption))
        return UrlOutcome(url, None), item.path


def _gather(context: Context, named: Named, scratch: Path, allow_private: bool) -> Gathered:
    from dreamctl.downloads import download

    def progress(done: int, total: int) -> None:
        context.reporter.progress("fetch", done, total)

    found = named.found
    heap = _Heap(scratch, list(found.sources), list(found.skipped), set(found.roots), list(found.warnings))
    for archive in named.archives:
        heap.unpack(archive, printable(archive.resolve().name))
    cache = paths.cache_dir() / "downloads"
    downloads = download(named.wanted, cache, allow_private=allow_private, progress=progress)
    came = [heap.take(item) for item in downloads]
    # Those that did not come take part in the order, so that each keeps its name beside others of the same.
    places = {item.folder: item for item in heap.away}
    unnamed = (Source(str(folder), "", urls.source_name(item.wanted.url)) for folder, item in places.items())
    everything = ordered((*heap.sources, *unnamed))
    sources = tuple(source for source in everything if source.file)
    names = {source.path: source.name for source in everything}
    absent = tuple(
        Absent(names[folder], urls.source_name(item.wanted.url), urls.public_name(item.wanted.url))
        for folder, item in places.items()
    )
    outcomes = [replace(outcome, file=names[path]) if path else outcome for outcome, path in came]
    gathered = Found(sources, tuple(heap.skipped), frozenset(heap.roots), tuple(heap.warnings), absent)
    return Gathered(gathered, (*named.bad_urls, *outcomes))


def with_repeats(pictures: Pictures, found: Found) -> Iterator[bytes]:
    """The pictures' lines with the repeats that their sources' folders ask for now."""
    repeats = {source.name: source.repeats for source in found.sources if source.repeats != 1}
    for picture, line in zip(pictures, pictures.lines, strict=True):
        now = repeats.get(picture.source, 1)
        yield line if picture.repeats == now else picture.model_copy(update={"repeats": now}).line()
