"""Captions while a dataset is made again: those that come with their sources, and those whose pictures go or change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

from dreamctl.datasetfolder import DatasetFolder
from dreamctl.domain.dataset import Dataset, Pictures
from dreamctl.errors import InvalidInput
from dreamctl.reporter import Reporter
from dreamctl.sources import Found
from dreamctl.workflows.earlier import Earlier


def travelling_captions(
    dataset: DatasetFolder, found: Found, pictures: Pictures, gone: Iterable[str], warnings: list[str]
) -> Mapping[str, str]:
    """The captions beside the sources, by picture file, for pictures that have none in the dataset but a `gone` one."""
    sources = {source.name: source for source in found.sources if source.text or source.caption()}
    without = {dataset.caption_file(file) for file in gone}
    result = {}
    for picture in pictures:
        if picture.source not in sources:
            continue
        inside, source = dataset.caption_file(picture.file), sources[picture.source]
        there = inside not in without and inside.is_file() and bool(inside.read_bytes().strip())
        beside = source.caption()
        if there and (beside is None or beside.stat().st_mtime <= inside.stat().st_mtime):
            continue
        try:
            text = source.caption_text()
        except InvalidInput as error:
            warnings.append(f"{error.message}: the caption was left out")
            continue
        if text and not there:
            result[picture.file] = text
        elif beside and text and text.encode() != inside.read_bytes().strip():
            newer = source.called(beside)
            warnings.append(f"{newer} is newer than {inside}, which stays: delete that to have the other one")
    return result


def gone_captions(
    dataset: DatasetFolder, before: Dataset | None, pictures: Pictures, earlier: Earlier
) -> dict[str, str]:
    """The captions of pictures that go, by file: a new picture that gets the name must not get the words."""
    known = (picture for picture in pictures if picture.source in earlier.names)
    staying = {dataset.caption_file(picture.file) for picture in known} if before else set()
    texts = {}
    for old in before.pictures if before else ():
        if dataset.caption_file(old.file) not in staying:
            with contextlib.suppress(InvalidInput):  # not UTF-8: it stays, and is told when something asks for it
                texts[old.file] = dataset.caption(old.file)
    return {file: text for file, text in texts.items() if text}


def foreign_captions(dataset: DatasetFolder, made: Pictures, earlier: Earlier) -> list[str]:
    """Warnings of captions whose source is another picture now."""
    changed = (picture.file for picture in made if picture.source in earlier.changed)
    files = [file for file in changed if dataset.caption_file(file).is_file()]
    return [f"{dataset.path / file} shows another picture now: look at its caption, which stays" for file in files]


def has_caption(reporter: Reporter, dataset: DatasetFolder, picture: str) -> bool:
    """Whether a picture has one; one that is not text is told, and is one."""
    try:
        return bool(dataset.caption(picture))
    except InvalidInput as error:
        reporter.warn(error.message)
        return True
