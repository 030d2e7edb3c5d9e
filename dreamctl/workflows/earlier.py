"""What an earlier `prepare` left in the folder: which pictures stay as they are, and whose names stay."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dreamctl import images
from dreamctl.badpictures import UnusablePicture
from dreamctl.datasetfolder import DatasetFolder, is_dataset
from dreamctl.domain.dataset import Dataset, Picture
from dreamctl.errors import DreamctlError, InvalidInput
from dreamctl.files import sha256_file
from dreamctl.fitting import Rules
from dreamctl.sources import Found, root_of


@dataclass(frozen=True)
class Earlier:
    """By source name: the pictures that stay (`kept`), and the output names (without suffix) of all that were known.

    `absent`: pictures that stay though their sources could not be looked at.
    """

    kept: Mapping[str, Picture]
    names: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    absent: tuple[Picture, ...] = ()


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
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(_digest, (source.path for source in found.sources)))
        sha256 = {source.name: digest for source, digest in zip(found.sources, digests, strict=True)}
        away = _away(before, found, sha256)
        known, changed = _known(before, sha256, away)
        _check_same_subject(folder, before, [*known.values(), *away.values()], found)
        kept, warnings = {}, []
        if all(getattr(before, name) == value for name, value in rules.plain().items()):
            same = {name: old for name, old in known.items() if name not in changed} | away
            outputs = pool.map(lambda old: _as_it_is(folder, old), same.values())
            for name, (picture, warning) in zip(same, outputs, strict=True):
                if picture:
                    kept[name] = picture
                if warning:
                    warnings.append(warning)
    absent = tuple(kept.pop(name) for name in away if name in kept)
    warnings += [f"{old.source} could not be looked at again: its picture stays as it was" for old in absent]
    warnings += _foreign_captions(folder, [known[name] for name in changed])
    names = {old.source: Path(old.file).stem for old in (*known.values(), *absent)}
    return Earlier(kept, names, tuple(warnings), absent)


def _away(before: Dataset, found: Found, sha256: Container[str]) -> dict[str, Picture]:
    """The pictures whose sources are absent, or lay in an archive that is."""
    names = {absent.name for absent in found.absent}
    archives = tuple(f"{absent.archive}/" for absent in found.absent)
    return {
        old.source: old
        for old in before.pictures
        if old.source not in sha256 and (old.source in names or old.source.startswith(archives))
    }


def _known(
    before: Dataset, sha256: Mapping[str, str | None], away: Container[str]
) -> tuple[dict[str, Picture], frozenset[str]]:
    """What `before` made of each source, by its name, and the names under which there is another picture now.

    Content counts more than names: pictures that were numbered anew keep their captions.
    """
    by_name = {picture.source: picture for picture in before.pictures if picture.source not in away}
    known = {name: old for name, old in by_name.items() if old.source_sha256 == sha256.get(name)}
    free = {old.source_sha256: old for name, old in by_name.items() if name not in known}
    taken = set(known)
    for name, digest in sha256.items():
        if name not in known and (old := free.pop(digest or "", None)):
            known[name] = old.model_copy(update={"source": name})
            taken.add(old.source)
    changed = frozenset(name for name in sha256 if name not in known and name in by_name and name not in taken)
    known |= {name: by_name[name] for name in changed}
    return known, changed


def _foreign_captions(folder: Path, changed: Sequence[Picture]) -> list[str]:
    dataset = DatasetFolder(folder)
    files = [old.file for old in changed if dataset.caption_file(old.file).is_file()]
    return [f"{folder / file} shows another picture now: look at its caption, which stays" for file in sorted(files)]


def _as_it_is(folder: Path, old: Picture) -> tuple[Picture | None, str | None]:
    """The picture where its output can stay, and a warning. One that somebody retouched stays, with a new digest."""
    file = folder / old.file
    if not file.is_file() or (old.mask and not (folder / old.mask).is_file()):
        return None, None
    digest = sha256_file(file)
    if digest == old.sha256:
        return old, None
    try:
        edited = images.read_picture(file).size == (old.width, old.height)
    except UnusablePicture:
        edited = False
    if not edited:
        return None, f"{file} was damaged: made again"
    return old.model_copy(update={"sha256": digest}), f"{file} was edited: kept (delete it to have it made again)"


def _digest(path: Path) -> str | None:
    try:
        return sha256_file(path)
    except OSError:  # told when the picture is made
        return None


def _check_same_subject(folder: Path, before: Dataset, known: Sequence[Picture], found: Found) -> None:
    """A line that does not name where the folder's other pictures came from must not remove them."""
    staying = {old.file for old in known}
    foreign = [old for old in before.pictures if old.file not in staying and root_of(old.source) not in found.roots]
    if known and not foreign:
        return
    others = foreign or before.pictures
    also = "also " if known else ""
    count = f"{len(others)} picture{'s' if len(others) > 1 else ''}"
    way = "name all sources on one line" if known else "prepare another subject into a folder of its own"
    raise InvalidInput(
        f"{folder} {also}holds {count} of something else, such as {others[0].source}",
        field="--out",
        hint=f"{way}{', or' if known else ':'} --out other",
    )
