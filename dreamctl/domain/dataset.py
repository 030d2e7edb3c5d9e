"""A dataset's description (`dataset.json`) and its two digests, pictures and captions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from dreamctl.domain.base import Noun, Stored, digest

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def _inside(name: str) -> str:
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or ":" in parts[0] or not name.isprintable():
        raise ValueError("must be the name of a file inside the dataset")
    return name


# A dataset may come from anybody: what its manifest names is read, and removed when it is made again.
FileName = Annotated[str, AfterValidator(_inside)]


class Picture(Noun):
    """One output picture: names, never paths.

    `box` is where the source's pixels lie in it, `crop` the part of the upright source that they show where that is
    not the whole, both left, top, right, bottom; `fingerprint` is alike where pictures look alike; `repeats`: how
    often an epoch shows it.
    """

    file: FileName
    sha256: str
    width: int
    height: int
    source: str
    source_sha256: str
    box: tuple[int, int, int, int] | None = None
    crop: tuple[int, int, int, int] | None = None
    fingerprint: str | None = None
    mask: FileName | None = None
    repeats: int = Field(1, ge=1)
    warnings: tuple[str, ...] = ()


class Skipped(Noun):
    """A source that did not become a picture, why, and what to do."""

    source: str
    reason: str
    advice: str = ""


class Dataset(Stored):
    """What `prepare` made, and by which rules. `cutout`: the model that removed the backgrounds, where they were.

    `trigger`: the word that `caption --trigger` wrote into the captions.
    """

    size: int
    background: str = "#ffffff"
    fit: str = "pad"
    focus: str = "centre"
    upscale: bool = False
    step: int = 64
    format: str = "jpeg"
    quality: int = 95
    cutout: str | None = None
    pictures: tuple[Picture, ...]
    skipped: tuple[Skipped, ...] = ()
    trigger: str | None = None


def pictures_digest(sha256_by_file: Mapping[str, str], repeats_by_file: Mapping[str, int] | None = None) -> str:
    """One digest for the pictures (and masks) of a dataset, whatever their order.

    Repeats count where they differ: all pictures ten times are all pictures once.
    """
    repeats = repeats_by_file or {}
    told = sorted(repeats.items()) if len(set(repeats.values())) > 1 else []
    return digest([*sorted(sha256_by_file.items()), *told])


def captions_digest(caption_by_file: Mapping[str, str]) -> str:
    """One digest for the captions of a dataset; an absent caption is an empty one."""
    return digest(sorted((name, text.strip()) for name, text in caption_by_file.items()))
