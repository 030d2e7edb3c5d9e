"""The door of captioners: pictures in, words out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol


class Captioner(Protocol):
    """Describes what is not the subject; it never writes the identifier. Built without arguments, loads when used."""

    name: str

    def caption(self, pictures: Sequence[Path]) -> Iterator[str]:
        """One caption for each picture, in order, as soon as it is known; "" where there is nothing to say.

        It may read pictures in batches. Raises DreamctlError or one of its kind when it cannot go on.
        """
