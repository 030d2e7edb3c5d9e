"""The door to other people's trainers: what a description is made of, and what it consists of.

A trainer's file turns a `Material` into texts and names of pictures, and looks at folders only to check a description
that somebody wrote. It knows the kernel, `domain` and its own package; the workflow that collects the material and puts
the files in place stands above it. A trainer is neither a backend, for it starts nothing, nor a family.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamctl.domain.base import digest
from dreamctl.domain.concept import Concept
from dreamctl.domain.recipe import Recipe

RESOLUTION = 1024  # where no recipe says another, as batch size 1


@dataclass(frozen=True)
class Item:
    """One picture and the whole text that it is taught with, without line breaks; None where there is no text."""

    file: Path
    sha256: str
    size: tuple[int, int]
    text: str | None
    mask: Path | None = None
    mask_sha256: str | None = None
    repeats: int = 1

    @property
    def stem(self) -> str:
        """Named after the content, text and mask included: some trainers keep caches by name, and reuse stale ones."""
        return f"{self.file.stem[:80]}-{digest([self.sha256, self.text, self.mask_sha256])[:12]}"


@dataclass(frozen=True)
class Material:
    """What is described. `file` and `folder` are absolute: the description, and where its pictures and texts go.

    `options` are the line's `--set KEY=VALUE`; `recipe` is None where none is configured.
    """

    items: tuple[Item, ...]
    regularisation: tuple[Item, ...]
    concept: Concept
    recipe: Recipe | None
    file: Path
    folder: Path
    options: tuple[str, ...] = ()

    @property
    def resolution(self) -> int:
        return self.recipe.training.resolution if self.recipe else RESOLUTION

    @property
    def batch_size(self) -> int:
        return self.recipe.training.batch_size if self.recipe else 1

    @property
    def base(self) -> str:
        """The base model as a word of the command that the user completes."""
        source = self.recipe.base.source if self.recipe else "builtin"
        return "BASE_MODEL" if source == "builtin" else source

    @property
    def square(self) -> bool:
        return all(width == height for width, height in (item.size for item in self.items))


@dataclass(frozen=True)
class Copied:
    """A file of a description's folder: the picture as it is."""

    source: Path


@dataclass(frozen=True)
class Masked:
    """A file of a description's folder: the picture as PNG, its mask as the alpha channel."""

    source: Path
    mask: Path


@dataclass(frozen=True)
class White:
    """A file of a description's folder: the mask (PNG) of a picture whose every pixel counts."""

    size: tuple[int, int]


Content = str | Copied | Masked | White


@dataclass(frozen=True)
class Description:
    """`text` goes into the material's file, `files` (by path below it) into its folder; `command` trains with it."""

    text: str
    files: Mapping[str, Content]
    command: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trainer:
    """One trainer. `file_name` is the description's name, with `{name}` for the dataset's, or one inside the folder.

    `recognises` says by path and content whether a file is such a description; `problems` names everything that is
    wrong in one, each with its place.
    """

    name: str
    file_name: str
    describe: Callable[[Material], Description]
    recognises: Callable[[Path, Any], bool]
    problems: Callable[[Path, Any], list[str]]
