"""One picture of a dataset: read, fitted and staged, in whatever process. Imports little, since each process must."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from dreamctl import images
from dreamctl.badpictures import UnusablePicture
from dreamctl.datasetfolder import MASKS
from dreamctl.domain.dataset import Picture, Skipped
from dreamctl.fitting import Rules, fit
from dreamctl.sources import Source, clean_stem
from dreamctl.staging import Stage


@dataclass(frozen=True)
class Job:
    """One picture to make. `stem` is the output's name without suffix."""

    source: Source
    stem: str
    rules: Rules
    stage: Stage

    @property
    def file(self) -> str:
        return f"{self.stem}{self.rules.suffix}"

    @property
    def mask(self) -> str:
        return f"{MASKS}/{self.stem}.png"


def make(job: Job) -> Picture | Skipped:
    """Make one picture into the stage. Raises DreamctlError where it cannot be written; a bad source is no error."""
    try:
        data = images.read_bytes(job.source.path)
        source_sha256, rules = hashlib.sha256(data).hexdigest(), str(job.rules)
        if staged := job.stage.find(job.file, job.source.name, source_sha256, rules):
            return staged
        fitted = fit(data, job.rules, job.source.path.suffix)
    except UnusablePicture as error:
        return Skipped(source=job.source.name, reason=error.message, advice=error.hint or "")
    renamed = job.stem.startswith(f"{clean_stem(job.source.path.stem)}-")
    note = (f"is stored as {job.file}, since another picture has its name",) if renamed else ()
    picture = Picture(
        file=job.file,
        sha256=hashlib.sha256(fitted.data).hexdigest(),
        width=fitted.size[0],
        height=fitted.size[1],
        source=job.source.name,
        source_sha256=source_sha256,
        box=fitted.box,
        crop=fitted.crop,
        fingerprint=fitted.fingerprint,
        mask=job.mask if fitted.mask else None,
        warnings=(*note, *fitted.warnings),
    )
    job.stage.put(picture, fitted.data, fitted.mask, rules)
    return picture
