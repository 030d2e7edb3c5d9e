"""One picture of a dataset: read, fitted and staged, in whatever process. Imports little, since each process must."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from dreamctl import images
from dreamctl.badpictures import UnusablePicture
from dreamctl.files import sha256_file, write_bytes
from dreamctl.fitting import Rules, fit
from dreamctl.placement import Box


@dataclass(frozen=True, slots=True)
class Made:
    """A picture that lies in the stage, whole; the fields are those of `domain.dataset.Picture`."""

    file: str
    sha256: str
    width: int
    height: int
    source: str
    source_sha256: str
    box: Box
    crop: Box | None
    fingerprint: str
    mask: str | None
    repeats: int
    warnings: tuple[str, ...]
    thumb: bytes | None = None  # for the contact sheet: not noted, not kept

    def plain(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "thumb"}

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Self:
        """From `plain` as JSON. Raises TypeError where it is something else."""
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Refused:
    """A source that cannot become a picture."""

    source: str
    reason: str
    advice: str


@dataclass(frozen=True, slots=True)
class Job:
    """One picture to make of the file at `path`, which people call `source`: `file` and `mask` in the folder `stage`.

    `notes` are warnings that it has already. `before` is what a killed run made of that source by the same rules.
    `thumb` is the side of a small picture to give back too, 0 for none.
    """

    path: Path
    source: str
    file: str
    mask: str
    rules: Rules
    stage: Path
    repeats: int
    notes: tuple[str, ...]
    before: Made | None
    thumb: int


def make(job: Job) -> Made | Refused:
    """Make one picture into the stage. Raises DreamctlError where it cannot be written; a bad source is no error."""
    try:
        data = images.read_bytes(job.path)
        source_sha256 = hashlib.sha256(data).hexdigest()
        if job.before and _still_true(job, job.before, source_sha256):
            return job.before
        fitted = fit(data, job.rules, job.path.suffix, job.thumb)
    except UnusablePicture as error:
        return Refused(job.source, error.message, error.hint or "")
    for file, written in ((job.file, fitted.data), (job.mask, fitted.mask)):
        if written:
            write_bytes(job.stage / file, written, name_synced=False)  # the stage's commit does it once for all
    return Made(
        file=job.file,
        sha256=hashlib.sha256(fitted.data).hexdigest(),
        width=fitted.size[0],
        height=fitted.size[1],
        source=job.source,
        source_sha256=source_sha256,
        box=fitted.box,
        crop=fitted.crop,
        fingerprint=fitted.fingerprint,
        mask=job.mask if fitted.mask else None,
        repeats=job.repeats,
        warnings=(*job.notes, *fitted.warnings),
        thumb=fitted.thumb,
    )


def _still_true(job: Job, made: Made, source_sha256: str) -> bool:
    """Whether what a killed run made lies there, and would be made again just so."""
    same = (made.file, made.source_sha256, made.repeats) == (job.file, source_sha256, job.repeats)
    files = [job.stage / name for name in (made.file, made.mask) if name]
    return same and all(file.is_file() for file in files) and sha256_file(files[0]) == made.sha256
