"""The captioner of the built-in model's world: names the scene of a drawing, as the model's own captions do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dreamctl.captioners.ahead import batches
from dreamctl.domain.captioning import CaptionOptions
from dreamctl.errors import DreamctlError
from dreamctl.images import read_picture

_BATCH = 32
# Of other pictures than the world's drawings the reader is unsure; no caption is better than a wrong one.
_SURE = 0.5


class BuiltinCaptioner:
    """Names the scene only: what the subject looks like is what a training is to learn."""

    name = "builtin"
    takes = ()
    account = None
    bill = None

    def __init__(self, options: CaptionOptions) -> None:
        pass

    def caption(self, pictures: Sequence[Path]) -> Iterator[str]:
        """A phrase such as "on a beach" for each picture, "" where the reader is not sure.

        Raises UnusablePicture, and DreamctlError where torch is not installed.
        """
        try:
            from dreamctl.builtin.reader import Reader
            from dreamctl.builtin.world import scene_phrase

            reader = Reader.load()
        except ImportError as error:
            raise DreamctlError(
                f"the built-in captioner needs the package {error.name!r}",
                hint='install it: pip install "dreamctl[local]"; or choose --captioner template',
            ) from error
        for batch in batches(pictures, _BATCH):
            for reading in reader.read([read_picture(path) for path in batch]):
                scene = reading.scene
                yield scene_phrase(scene.value) if scene.confidence >= _SURE else ""
