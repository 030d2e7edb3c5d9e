"""The heap that a line's sources become: files that may be pictures, and what is told of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from dreamctl import unpack, urls
from dreamctl.domain.dataset import Skipped
from dreamctl.sources import Source, printable, repeats_of, root_of

if TYPE_CHECKING:
    from dreamctl.downloads import Download
    from dreamctl.workflows.mirror import Mirror


@dataclass(frozen=True)
class UrlOutcome:
    """What became of a URL (without its secrets): the dataset's file, else how many `files` its archive gave, else why
    nothing. Both file and reason where a picture stays though the URL could not be asked again.
    """

    url: str
    file: str | None
    reason: str | None = None
    files: int = 0


@dataclass
class Heap:
    """What has been gathered so far; archives are unpacked into numbered folders below `scratch`.

    `wanted` and `bad_urls` are of lists of URLs that lie in storages.
    """

    scratch: Path
    sources: list[Source]
    skipped: list[Skipped]
    roots: set[str]
    warnings: list[str]
    archives: int = 0
    away: list[Download] = field(default_factory=list)
    wanted: list[urls.Wanted] = field(default_factory=list)
    bad_urls: list[UrlOutcome] = field(default_factory=list)
    stored: set[str] = field(default_factory=set)

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

    def take_stored(self, mirror: Mirror) -> None:
        """Add what lies in a storage; an object that two URLs mean counts once. Raises InvalidInput for a bad list."""
        url, name = mirror.address.url, mirror.address.shown
        self.skipped += mirror.skipped
        if mirror.folder:
            self.roots.add(name)
            if not mirror.files and not mirror.skipped:
                advice = "put some JPEG or PNG pictures there, or look into its folders too: --recursive"
                self.skipped.append(Skipped(source=name, reason="holds no pictures", advice=advice))
        for path, inside in mirror.files:
            meant = f"{url}/{inside}" if inside else url
            if meant in self.stored:
                continue
            self.stored.add(meant)
            if mirror.folder:
                repeats = repeats_of(PurePosixPath(name, inside).parent.name)
                self.sources.append(Source.at(path, printable(f"{name}/{inside}"), repeats))
            else:
                self._take_object(path, name, url)

    def _take_object(self, path: Path, name: str, url: str) -> None:
        """Add the object that a URL itself names, as if it were a file of the line."""
        if path.suffix.lower() in urls.LIST_SUFFIXES:
            wanted, bad = urls.read_list(path, urls.public_name(url))
            skipped, outcomes = of_lines(bad)
            self.wanted += wanted
            self.skipped += skipped
            self.bad_urls += outcomes
        elif unpack.is_archive(path):
            self.unpack(path, name)
        else:
            self.roots.add("")
            self.sources.append(Source.at(path, name))


def of_lines(bad: Sequence[urls.BadLine]) -> tuple[list[Skipped], list[UrlOutcome]]:
    """What is told of the lines of lists that are no URLs."""
    skipped = [Skipped(source=line.where, reason=line.reason, advice=line.advice) for line in bad]
    return skipped, [UrlOutcome(line.url, None, f"{line.where} {line.reason}") for line in bad]
