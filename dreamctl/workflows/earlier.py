"""What an earlier `prepare` left in the folder: which pictures stay as they are, and whose names stay."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from PIL import Image

from dreamctl.datasetfolder import DatasetFolder, is_dataset
from dreamctl.domain.dataset import IMAGE_FORMATS, Dataset, Picture, Pictures
from dreamctl.errors import DreamctlError, InvalidInput
from dreamctl.files import sha256_file
from dreamctl.fitting import Rules
from dreamctl.sources import Found, Source, root_of

Item = TypeVar("Item")
Result = TypeVar("Result")
_UNDER_WAY = 256


@dataclass(frozen=True)
class Earlier:
    """By source name: the pictures that stay (`kept`), each as its line, and the output names (without suffix) of all
    that were known. `absent`: pictures that stay though their sources could not be looked at. `changed`: sources that
    are another picture now.
    """

    kept: Mapping[str, bytes]
    names: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    absent: Pictures = field(default_factory=Pictures)
    changed: frozenset[str] = frozenset()


def manifest_of(folder: Path) -> Dataset | None:
    """The folder's `dataset.json`, or None where there is none. Raises DreamctlError with the way out of a bad one."""
    if not is_dataset(folder):
        return None
    try:
        return DatasetFolder(folder).manifest()
    except DreamctlError as error:
        raise DreamctlError(error.message, hint="mend it, or name another folder with --out") from error


def look_up(folder: Path, before: Dataset | None, found: Found, rules: Rules) -> Earlier:
    """Compare the sources with what `before` was made of. A renamed source is known by its content.

    Raises InvalidInput where the folder holds another subject.
    """
    if before is None or not before.pictures or not found.sources:
        return Earlier({}, {})
    old = before.pictures
    with ThreadPoolExecutor() as pool:
        digests = _in_turn(pool, _digest, found.sources)
        sha256 = {source.name: digest for source, digest in zip(found.sources, digests, strict=True)}
        away = _away(old, found, sha256)
        known, changed = _known(old, sha256, away)
        _check_same_subject(folder, old, {*known.values(), *away.values()}, found)
        by_the_rules = all(getattr(before, name) == value for name, value in rules.plain().items())
        again = changed if by_the_rules else known
        places = [known[name] for name in again]
        edited = _in_turn(pool, lambda place: _is_edited(folder, old[place]), places)
        _check_no_edit_is_lost(folder, [old[place].file for place, lost in zip(places, edited, strict=True) if lost])
        same = [pair for pair in (*known.items(), *away.items()) if pair[0] not in changed] if by_the_rules else []
        kept, warnings = _staying(pool, folder, old, same)
    absent = Pictures(line for name in away if (line := kept.pop(name, None)))
    warnings += [f"{picture.source} could not be looked at again: its picture stays as it was" for picture in absent]
    names = {name: Path(old[place].file).stem for name, place in known.items()}
    names |= {picture.source: Path(picture.file).stem for picture in absent}
    return Earlier(kept, names, tuple(warnings), absent, changed)


def _staying(
    pool: ThreadPoolExecutor, folder: Path, old: Pictures, same: Sequence[tuple[str, int]]
) -> tuple[dict[str, bytes], list[str]]:
    """Of the sources that are the same, with the places of their pictures: which of those are too, and warnings."""
    kept, warnings = {}, []
    as_they_are = _in_turn(pool, lambda pair: _as_it_is(folder, old[pair[1]]), same)
    for (name, place), (picture, warning) in zip(same, as_they_are, strict=True):
        if picture:
            kept[name] = _line(picture, name, old.lines[place])
        if warning:
            warnings.append(warning)
    return kept, warnings


def _in_turn(pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """The results in the items' order, with a few hundred under way: a future weighs a kilobyte."""
    for start in range(0, len(items), _UNDER_WAY):
        yield from pool.map(function, items[start : start + _UNDER_WAY])


def _line(picture: Picture, source: str, line: bytes) -> bytes:
    """The picture's line under that source's name; `line` itself where that is what it was."""
    new = picture.model_copy(update={"source": source}).line()
    return line if new == line else new


def _away(old: Pictures, found: Found, sha256: Container[str]) -> dict[str, int]:
    """Of the pictures whose sources are absent, or lay in an archive that is: the source's name, and the place."""
    names = {absent.name for absent in found.absent}
    archives = tuple(f"{absent.archive}/" for absent in found.absent)
    return {
        picture.source: place
        for place, picture in enumerate(old if names else ())
        if picture.source not in sha256 and (picture.source in names or picture.source.startswith(archives))
    }


def _known(
    old: Pictures, sha256: Mapping[str, str | None], away: Container[str]
) -> tuple[dict[str, int], frozenset[str]]:
    """The place of what `old` has of each source, by its name, and the names under which there is another picture now.

    Content counts more than names: pictures that were numbered anew keep their captions.
    """
    known: dict[str, int] = {}
    by_name: dict[str, int] = {}  # of those whose content is not there under their name
    by_content: dict[str, list[int]] = {}
    for place, picture in enumerate(old):
        if picture.source in away:
            continue
        if sha256.get(picture.source) == picture.source_sha256:
            known[picture.source] = place
        else:
            by_name[picture.source] = place
            by_content.setdefault(picture.source_sha256, []).append(place)
    for name, digest in sha256.items() if by_content else ():
        if name not in known and (places := by_content.get(digest or "")):
            known[name] = places.pop(0)
    moved = set(known.values())
    changed = frozenset(
        name for name, place in by_name.items() if name in sha256 and name not in known and place not in moved
    )
    return known | {name: by_name[name] for name in changed}, changed


def _as_it_is(folder: Path, old: Picture) -> tuple[Picture | None, str | None]:
    """The picture where its output can stay, and a warning. One that somebody retouched stays, with a new digest."""
    file = folder / old.file
    if not file.is_file() or (old.mask and not (folder / old.mask).is_file()):
        return None, None
    digest = sha256_file(file)
    if digest == old.sha256:
        return old, None
    if not _is_edited(folder, old):
        return None, f"{file} was damaged: made again"
    return old.model_copy(update={"sha256": digest}), f"{file} was edited: kept (delete it to have it made again)"


def _is_edited(folder: Path, old: Picture) -> bool:
    """Whether somebody retouched the picture: another file, of its size, that trainers can read."""
    file = folder / old.file
    if not file.is_file() or sha256_file(file) == old.sha256:
        return False
    with contextlib.suppress(Exception), Image.open(file, formats=IMAGE_FORMATS) as image:  # whatever Pillow raises
        image.load()
        return image.size == (old.width, old.height)
    return False


def _check_no_edit_is_lost(folder: Path, edited: Sequence[str]) -> None:
    if edited:
        more = f" and {len(edited) - 1} more" if len(edited) > 1 else ""
        raise InvalidInput(
            f"{folder / edited[0]}{more} was edited, and would be made anew",
            field="--out",
            hint="move it away, or name another folder with --out",
        )


def _digest(source: Source) -> str | None:
    try:
        return sha256_file(source.path)
    except OSError:  # told when the picture is made
        return None


def _check_same_subject(folder: Path, old: Pictures, staying: Container[int], found: Found) -> None:
    """A line that does not name where the folder's other pictures came from must not remove them.

    `staying`: the places of those that it does name.
    """
    count, first, known = 0, "", False
    for place, picture in enumerate(old):
        if place in staying:
            known = True
        elif root_of(picture.source) not in found.roots:
            count, first = count + 1, first or picture.source
    if known and not count:
        return
    if not count:
        count, first = len(old), old[0].source
    also = "also " if known else ""
    pictures = f"{count} picture{'s' if count > 1 else ''}"
    way = "name all sources on one line" if known else "prepare another subject into a folder of its own"
    raise InvalidInput(
        f"{folder} {also}holds {pictures} of something else, such as {first}",
        field="--out",
        hint=f"{way}{', or' if known else ':'} --out other",
    )
