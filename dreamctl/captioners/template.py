"""Captions from the names that people gave to files and folders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamctl.errors import InvalidInput

# What cameras and phones begin a file's name with; it says nothing about the picture.
_CAMERA_WORDS = frozenset(("img", "dsc", "dscf", "dscn", "pxl", "mvimg", "photo", "image", "picture", "screenshot"))


@dataclass(frozen=True)
class TemplateCaptioner:
    """Fills `template` for each picture: {stem} as it is, {words} its words without numbers, {folder}."""

    template: str = "{words}"
    name: str = "template"

    def caption(self, pictures: Sequence[Path]) -> Iterator[str]:
        """One caption for each picture. Raises InvalidInput for a field that does not exist."""
        for picture in pictures:
            fields = {"stem": picture.stem, "words": words(picture.stem), "folder": picture.absolute().parent.name}
            try:
                yield self.template.format_map(fields).strip()
            except (KeyError, ValueError, IndexError, AttributeError) as error:
                raise InvalidInput(
                    f"template {self.template!r}: {error}", field="template", hint="fields: {stem} {words} {folder}"
                ) from error


def words(stem: str) -> str:
    """`on-the_beach_03` as "on the beach"; nothing of a camera's `IMG_2041`."""
    found = re.findall(r"[^\W\d_]+", stem)
    return " ".join(word for word in found if word.lower() not in _CAMERA_WORDS)
