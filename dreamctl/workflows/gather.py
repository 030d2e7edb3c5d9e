"""Everything that a line may name as a source, as local files.

Folders, files and zip archives, here or in a storage; URLs, and lists of them.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
)
from dreamctl.workflows.heap import Heap, UrlOutcome, of_lines

if TYPE_CHECKING:
    from dreamctl.workflows.mirror import Mirror

_SCRATCH = "unpacked"


@dataclass(frozen=True)
class Named:
    """What a line names: what lies in folders and files, and what is still to be unpacked and fetched.

    `stored`: URLs of storages; with `recursive`, what lies below their folders is meant too.
    """

    found: Found
    archives: tuple[Path, ...] = ()
    wanted: tuple[urls.Wanted, ...] = ()
    bad_urls: tuple[UrlOutcome, ...] = ()
    stored: tuple[str, ...] = ()
    recursive: bool = False


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
    stored: list[str] = []
    bad: list[urls.BadLine] = []
    stems: dict[Path, set[str]] = {}
    own = own_archive(leave_out).resolve()
    for word in words:
        if isinstance(word, str) and urls.is_url(word):
            if urls.in_storage(word):
                stored.append(word)
            else:
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
    skipped, outcomes = of_lines(bad)
    found = replace(found, skipped=(*found.skipped, *skipped))
    return Named(found, tuple(archives), tuple(wanted), tuple(outcomes), _without_companions(stored), recursive)


def here(word: str | Path) -> str | Path:
    """A word of the line; file:///srv/photos as the path that it means. Raises InvalidInput."""
    is_file = isinstance(word, str) and word.lower().startswith("file://")
    return urls.file_path(str(word), "SOURCE") if is_file else word


def _without_companions(stored: Sequence[str]) -> tuple[str, ...]:
    """The URLs without those of captions and the like whose pictures are named too: they come with these."""
    named = [(word, PurePosixPath(word)) for word in stored]
    stems = {path.with_suffix("") for _, path in named if path.suffix.lower() in SUFFIXES}
    return tuple(
        word for word, path in named if path.suffix.lower() not in COMPANIONS or path.with_suffix("") not in stems
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

    Raises what a storage raises, and DreamctlError where the cache or `stage` cannot be written; else a URL or an
    archive that is bad is skipped.
    """
    if not named.archives and not named.wanted and not named.stored:
        yield Gathered(named.found, named.bad_urls)
        return
    scratch = stage / _SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)  # a killed run's
    try:
        with contextlib.ExitStack() as held:
            yield _gather(context, named, scratch, allow_private, _mirrors(context, named, held))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _mirrors(context: Context, named: Named, held: contextlib.ExitStack) -> list[Mirror]:
    """What the storages hold, each held while `held` is: all commands take them in one order."""
    if not named.stored:
        return []
    from dreamctl.workflows.mirror import Address, mirrored

    addresses = {address.url: address for address in map(Address.of, named.stored)}
    storages = {bucket: context.storage(bucket) for bucket in {address.bucket for address in addresses.values()}}
    return [
        held.enter_context(mirrored(context, storages[address.bucket], address, named.recursive))
        for _, address in sorted(addresses.items())
    ]


def _gather(context: Context, named: Named, scratch: Path, allow_private: bool, mirrors: Sequence[Mirror]) -> Gathered:
    from dreamctl.downloads import download

    def progress(done: int, total: int) -> None:
        context.reporter.progress("fetch", done, total)

    found = named.found
    heap = Heap(scratch, list(found.sources), list(found.skipped), set(found.roots), list(found.warnings))
    for archive in named.archives:
        heap.unpack(archive, printable(archive.resolve().name))
    for mirror in mirrors:
        heap.take_stored(mirror)
    cache = paths.cache_dir() / "downloads"
    wanted = (*named.wanted, *heap.wanted)
    downloads = download(wanted, cache, allow_private=allow_private, progress=progress)
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
    return Gathered(gathered, (*named.bad_urls, *heap.bad_urls, *outcomes))


def with_repeats(pictures: Pictures, found: Found) -> Iterator[bytes]:
    """The pictures' lines with the repeats that their sources' folders ask for now."""
    repeats = {source.name: source.repeats for source in found.sources if source.repeats != 1}
    for picture, line in zip(pictures, pictures.lines, strict=True):
        now = repeats.get(picture.source, 1)
        yield line if picture.repeats == now else picture.model_copy(update={"repeats": now}).line()
