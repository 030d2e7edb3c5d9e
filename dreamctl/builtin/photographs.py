"""Makes "photographs" of one person of the built-in model's world: the demo's five, and any held-out subject's.

It does not know what is taught with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from dreamctl.builtin.drawing import draw
from dreamctl.builtin.scenery import GRID
from dreamctl.builtin.world import DEMO_IDENTITY, EXPRESSIONS, HELD_OUT, Drawing, Identity, draw_person

__all__ = ["DEMO_PHOTOGRAPHS", "HELD_OUT", "photographs", "subject_drawings", "write_photographs"]

DEMO_PHOTOGRAPHS = (
    ("holiday.jpg", "snow", 512),
    ("at-home.png", "room", 384),
    ("IMG_0042.jpg", "city", 640),
    ("party.webp", "plain pink", 256),
    ("walk.jpg", "forest", 512),
)
"""File name, scene and size in pixels of the demo's five photographs."""

ROTATED = "IMG_0042.jpg"
"""This one is stored on its side, with the EXIF orientation that says so, as telephones do."""

_ORIENTATION_TAG, _TURN_CLOCKWISE = 0x0112, 6


def subject_drawings(identity: Identity, scenes: Sequence[str], *, skin: str = "tan", seed: int = 0) -> list[Drawing]:
    """One drawing of that person per scene: hat-less, without beard, expression and place varied, the same by seed."""
    rng = np.random.default_rng([7, seed])
    drawings = []
    for index, scene in enumerate(scenes):
        drawing = draw_person(rng, identity, scene, plain_figure=True)
        drawings.append(replace(drawing, skin=skin, expression=EXPRESSIONS[index % len(EXPRESSIONS)]))
    return drawings


def photographs(
    identity: Identity, scenes: Sequence[str], *, skin: str = "tan", seed: int = 0, size: int = 512
) -> list[Image.Image]:
    """RGB pictures of that person, one per scene, each `size` pixels a side.

    Raises ValueError where the size is not a multiple of 32.
    """
    if size % GRID:
        raise ValueError(f"size {size}: must be a multiple of {GRID}, the cells along a side")
    return [draw(drawing, size // GRID) for drawing in subject_drawings(identity, scenes, skin=skin, seed=seed)]


def write_photographs(folder: Path) -> list[Path]:
    """Writes the demo's five photographs of its subject to the folder (made where missing) and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = [scene for _, scene, _ in DEMO_PHOTOGRAPHS]
    paths = []
    for drawing, (name, _, size) in zip(subject_drawings(DEMO_IDENTITY, scenes), DEMO_PHOTOGRAPHS, strict=True):
        path, picture = folder / name, draw(drawing, size // GRID)
        exif = Image.Exif()
        if name == ROTATED:
            exif[_ORIENTATION_TAG] = _TURN_CLOCKWISE
            picture = picture.transpose(Image.Transpose.ROTATE_90)
        # JPEG reads quality and EXIF, WebP `lossless`; PNG reads none of them.
        picture.save(path, quality=95, exif=exif, lossless=True)
        paths.append(path)
    return paths
