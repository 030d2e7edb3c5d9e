"""A concept: what is taught."""

from __future__ import annotations

import re
from enum import StrEnum

from pydantic import field_validator

from dreamctl.domain.base import Noun
from dreamctl.domain.identifiers import checked_identifier

CATEGORY_EXAMPLES = ("person", "dog", "cat", "mug", "car", "painting")


class Kind(StrEnum):
    """What sort of thing is taught: something in the picture, or the way of the whole picture."""

    subject = "subject"
    style = "style"


class Concept(Noun):
    """`identifier` (a rare token, `sks`), `category` (the class noun, `person`), and a human `name` ("Luna")."""

    identifier: str
    category: str
    kind: Kind = Kind.subject
    name: str | None = None

    @field_validator("identifier")
    @classmethod
    def _identifier(cls, value: str) -> str:
        return checked_identifier(value)

    @field_validator("category")
    @classmethod
    def _category(cls, value: str) -> str:
        text = " ".join(value.split())
        if not re.fullmatch(r"[^\W\d_][\w '-]{0,63}", text):
            raise ValueError(f"a category is a plain noun such as {', '.join(CATEGORY_EXAMPLES)}")
        return text

    @field_validator("name")
    @classmethod
    def _name(cls, value: str | None) -> str | None:
        return checked_identifier(value) if value else None


def compose_caption(template: str, concept: Concept, caption: str) -> str:
    """The text that a picture is taught with: the template filled in, without a dangling comma where no caption is.

    A caption that begins with the identifier (`caption --trigger` wrote it in) does not get it twice.
    """
    bare = re.sub(rf"^{re.escape(concept.identifier)}\s*(,|$)", "", caption.strip(), flags=re.IGNORECASE).strip()
    text = template.format(identifier=concept.identifier, category=concept.category, caption=bare)
    return re.sub(r"\s*,\s*$", "", " ".join(text.split()))


def taught_text(template: str, concept: Concept, caption: str, trigger: str | None) -> str:
    """A picture's whole text, whoever trains with it; a caption with the dataset's trigger in it is whole already."""
    return caption if trigger and caption else compose_caption(template, concept, caption)
