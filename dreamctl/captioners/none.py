"""No captions: every picture is described by identifier and category alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path


class NoCaptioner:
    """Says nothing about any picture; a caption that is there stays."""

    name = "none"

    def caption(self, pictures: Sequence[Path]) -> Iterator[str]:
        """An empty caption for each picture."""
        return iter([""] * len(pictures))
