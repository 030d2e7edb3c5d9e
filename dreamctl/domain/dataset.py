"""A dataset's description (`dataset.json`) and its two digests, pictures and captions."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, overload

from pydantic import AfterValidator, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from dreamctl.domain.base import Noun, Stored, digest, digest_of_items

MASKS = "masks"
"""The folder of masks inside of a dataset's."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP")
"""What a dataset's pictures are opened as, by Pillow's names: it may be anybody's, and some formats start programs."""


def file_name(name: str) -> str:
    """The name itself. Raises ValueError unless it is one of a file in the dataset's own folder."""
    if name in ("", ".", "..") or set(name) & set("/\\:") or not name.isprintable():
        raise ValueError("must be the name of a file inside the dataset")
    return name


def mask_name(name: str) -> str:
    """The name itself. Raises ValueError unless it is one of a file in the dataset's folder of masks."""
    folder, _, file = name.partition("/")
    if folder != MASKS:
        raise ValueError(f"must be the name of a file inside the dataset, in {MASKS}/")
    return f"{folder}/{file_name(file)}"


# A dataset may come from anybody: what its manifest names is read, and removed when it is made again.
FileName = Annotated[str, AfterValidator(file_name)]
MaskName = Annotated[str, AfterValidator(mask_name)]


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
    fingerprint: str | None = Field(None, pattern=r"\A[0-9a-f]{32}\z")
    mask: MaskName | None = None
    repeats: int = Field(1, ge=1)
    warnings: tuple[str, ...] = ()

    def line(self) -> bytes:
        """As a line of JSON."""
        return json.dumps(self.plain(), ensure_ascii=False, separators=(",", ":")).encode()


class Pictures(Sequence[Picture]):
    """The pictures of a dataset, each packed as a line of JSON: of hundreds of thousands no object is kept."""

    __slots__ = ("lines",)

    def __init__(self, lines: Iterable[bytes] = ()) -> None:
        self.lines = tuple(lines)

    @classmethod
    def of(cls, pictures: Iterable[Picture]) -> Pictures:
        return cls(picture.line() for picture in pictures)

    @classmethod
    def in_order(cls, lines: Iterable[bytes]) -> Pictures:
        """Sorted by file name."""
        return cls(sorted(lines, key=lambda line: str(json.loads(line)["file"])))

    def files(self) -> Iterator[str]:
        """Names of all pictures and masks, relative to the folder."""
        return (name for picture in self for name in (picture.file, picture.mask) if name)

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> Pictures: ...
    def __getitem__(self, index: int | slice) -> Picture | Pictures:
        return Pictures(self.lines[index]) if isinstance(index, slice) else _unpacked(self.lines[index])

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[Picture]:
        return map(_unpacked, self.lines)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pictures) and self.lines == other.lines

    def __hash__(self) -> int:
        return hash(self.lines)

    def __repr__(self) -> str:
        return f"Pictures({list(self)})"

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """From Pictures as they are, or from a sequence of pictures or of plain data; to a list of plain data."""
        return core_schema.no_info_wrap_validator_function(
            lambda value, inner: value if isinstance(value, cls) else cls.of(inner(value)),
            handler.generate_schema(tuple[Picture, ...]),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda pictures: [json.loads(line) for line in pictures.lines]
            ),
        )


def _unpacked(line: bytes) -> Picture:
    return Picture.model_validate_json(line)


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
    pictures: Pictures
    skipped: tuple[Skipped, ...] = ()
    trigger: str | None = None


def pictures_digest(sha256_by_file: Iterable[tuple[str, str]], repeats_by_file: Mapping[str, int] | None = None) -> str:
    """One digest for the pictures (and masks) of a dataset, which come in the order of their names.

    Repeats count where they differ: all pictures ten times are all pictures once.
    """
    repeats = repeats_by_file or {}
    told = sorted(repeats.items()) if len(set(repeats.values())) > 1 else []
    return digest_of_items(itertools.chain(sha256_by_file, told))


def captions_digest(caption_by_file: Mapping[str, str]) -> str:
    """One digest for the captions of a dataset; an absent caption is an empty one."""
    return digest(sorted((name, text.strip()) for name, text in caption_by_file.items()))
