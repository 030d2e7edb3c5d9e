"""The door of captioners: pictures in, words out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from dreamctl.domain.captioning import CaptionOptions


class Captioner(Protocol):
    """Describes what is not the subject; it never writes the identifier. Loads when used, not when built."""

    name: str

    takes: Collection[str]
    """The options of the line that it understands, by their names in CaptionOptions."""

    account: str | None
    """The provider (`dreamctl auth`) whose endpoint and token it is given, such as "huggingface"."""

    def __init__(self, options: CaptionOptions) -> None:
        """Raises InvalidInput for a value that it cannot work with."""

    @property
    def bill(self) -> str | None:
        """Who may charge money for each picture; None where captions cost nothing."""

    def caption(self, pictures: Sequence[Path]) -> Iterator[str | None]:
        """One caption for each picture, in order, as soon as it is known; "" where there is nothing to say.

        None where no caption of this one picture could be had: the others go on, and it raises after the last. It may
        read pictures in batches and ahead. Raises DreamctlError or one of its kind when it cannot go on.
        """
