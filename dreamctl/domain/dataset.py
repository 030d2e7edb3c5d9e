"""A dataset's description (`dataset.json`) and its two digests, pictures and captions."""

from __future__ import annotations

from collections.abc import Mapping

from dreamctl.domain.base import Noun, Stored, digest

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class Picture(Noun):
    """One output picture: names, never paths; `box` is where the source's pixels lie (left, top, right, bottom)."""

    file: str
    sha256: str
    width: int
    height: int
    source: str
    source_sha256: str
    box: tuple[int, int, int, int] | None = None
    mask: str | None = None
    warnings: tuple[str, ...] = ()


class Skipped(Noun):
    """A source that did not become a picture, why, and what to do."""

    source: str
    reason: str
    advice: str = ""


class Dataset(Stored):
    """What `prepare` made. `trigger` is the word that `caption --trigger` wrote into the captions, if any."""

    size: int
    fit: str = "pad"
    background: str = "#ffffff"
    format: str = "jpeg"
    pictures: tuple[Picture, ...]
    skipped: tuple[Skipped, ...] = ()
    trigger: str | None = None


def pictures_digest(sha256_by_file: Mapping[str, str]) -> str:
    """One digest for the pictures (and masks) of a dataset, whatever their order."""
    return digest(sorted(sha256_by_file.items()))


def captions_digest(caption_by_file: Mapping[str, str]) -> str:
    """One digest for the captions of a dataset; an absent caption is an empty one."""
    return digest(sorted((name, text.strip()) for name, text in caption_by_file.items()))
