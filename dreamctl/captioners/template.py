"""Captions from the names that people gave to files and folders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from dreamctl.domain.captioning import CaptionOptions
from dreamctl.errors import InvalidInput

TEMPLATE = "{words}"

# What cameras and phones begin a file's name with; it says nothing about the picture.
_CAMERA_WORDS = frozenset(("img", "dsc", "dscf", "dscn", "pxl", "mvimg", "photo", "image", "picture", "screenshot"))


class TemplateCaptioner:
    """Fills a template for each picture: {stem} as it is, {words} its words without numbers, {folder}."""

    name = "template"
    takes = ("template",)
    account = None
    bill = None

    def __init__(self, options: CaptionOptions) -> None:
        self._template = options.template or TEMPLATE
        self._filled(Path("picture.jpg"))

    def caption(self, pictures: Sequence[Path]) -> Iterator[str]:
        """One caption for each picture."""
        return map(self._filled, pictures)

    def _filled(self, picture: Path) -> str:
        fields = {"stem": picture.stem, "words": words(picture.stem), "folder": picture.absolute().parent.name}
        try:
            return self._template.format_map(fields).strip()
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            raise InvalidInput(
                f"template {self._template!r}: {error}", field="--template", hint="fields: {stem} {words} {folder}"
            ) from error


def words(stem: str) -> str:
    """`on-the_beach_03` as "on the beach"; nothing of a camera's `IMG_2041`."""
    found = re.findall(r"[^\W\d_]+", stem)
    return " ".join(word for word in found if word.lower() not in _CAMERA_WORDS)
