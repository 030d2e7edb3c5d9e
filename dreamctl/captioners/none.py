"""No captions: every picture is described by identifier and category alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dreamctl.domain.captioning import CaptionOptions


class NoCaptioner:
    """Says nothing about any picture; a caption that is there stays."""

    name = "none"
    takes = ()
    account = None
    bill = None

    def __init__(self, options: CaptionOptions) -> None:
        pass

    def caption(self, pictures: Sequence[Path]) -> Iterator[str]:
        """An empty caption for each picture."""
        return iter([""] * len(pictures))
