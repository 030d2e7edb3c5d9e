"""Draws the built-in model's world as pixel art: a `Drawing` becomes 32 x 32 coloured cells, and those a picture.

It does not know how drawings are chosen or named.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from dreamctl.builtin.scenery import GRID, Cells, paint_scene
from dreamctl.builtin.world import Drawing

NATIVE_CELL = 4
"""Pixels along a cell's side at the model's native resolution of 128 x 128."""

Colour = tuple[int, int, int]

HAIR_RGB: dict[str, Colour] = {
    "black": (38, 34, 46),
    "brown": (116, 62, 22),
    "blond": (250, 214, 92),
    "red": (214, 52, 30),
    "green": (46, 178, 62),
    "blue": (40, 92, 226),
    "pink": (255, 110, 186),
    "white": (240, 240, 246),
}
SHIRT_RGB: dict[str, Colour] = {
    "red": (222, 36, 44),
    "orange": (248, 136, 24),
    "yellow": (252, 222, 36),
    "green": (30, 156, 60),
    "blue": (36, 82, 214),
    "purple": (142, 54, 190),
    "white": (246, 246, 250),
    "black": (36, 34, 42),
}
SKIN_RGB: dict[str, Colour] = {
    "pale": (255, 224, 198),
    "tan": (236, 184, 134),
    "brown": (178, 118, 76),
    "dark": (112, 70, 46),
}
OBJECT_RGB: dict[str, Colour] = {
    "black": (44, 42, 50),
    "brown": (136, 82, 40),
    "white": (244, 244, 248),
    "orange": (240, 146, 50),
    "red": (222, 36, 44),
    "blue": (36, 82, 214),
    "green": (30, 156, 60),
    "yellow": (252, 222, 36),
}
INK: Colour = (28, 24, 34)
LENS: Colour = (206, 236, 244)


class Brush:
    """Paints rectangles of cells, moved by the figure's offset and cut at the picture's edge."""

    def __init__(self, cells: Cells, dx: int, dy: int) -> None:
        self.cells, self.dx, self.dy = cells, dx, dy

    def box(self, left: int, top: int, right: int, bottom: int, colour: Colour) -> None:
        """Fills columns left..right and rows top..bottom, both ends included."""
        x0, x1 = max(left + self.dx, 0), min(right + self.dx + 1, GRID)
        y0, y1 = max(top + self.dy, 0), min(bottom + self.dy + 1, GRID)
        if x0 < x1 and y0 < y1:
            self.cells[y0:y1, x0:x1] = colour

    def pair(self, left: int, top: int, right: int, bottom: int, colour: Colour) -> None:
        """Fills a box and its mirror image about the figure's middle (between columns 15 and 16)."""
        self.box(left, top, right, bottom, colour)
        self.box(GRID - 1 - right, top, GRID - 1 - left, bottom, colour)


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker (factor below 1) or lighter."""
    red, green, blue = (int(min(255, max(0, channel * factor))) for channel in colour)
    return red, green, blue


def draw_cells(drawing: Drawing) -> Cells:
    """The drawing as cells: uint8 of shape (32, 32, 3), RGB."""
    cells = np.zeros((GRID, GRID, 3), np.uint8)
    paint_scene(cells, drawing.scene, drawing.variant)
    if drawing.category == "person":
        _person(Brush(cells, drawing.dx if not drawing.mirrored else -drawing.dx, drawing.dy), drawing)
    else:
        _OBJECTS[drawing.category](Brush(cells, drawing.dx, drawing.dy), OBJECT_RGB[drawing.colour])
    return cells[:, ::-1].copy() if drawing.mirrored else cells


def draw(drawing: Drawing, cell: int = NATIVE_CELL) -> Image.Image:
    """The drawing as an RGB picture of 32 * cell pixels a side."""
    return Image.fromarray(draw_cells(drawing).repeat(cell, 0).repeat(cell, 1))


def _person(brush: Brush, drawing: Drawing) -> None:
    hair, skin = HAIR_RGB[drawing.hair_colour], SKIN_RGB[drawing.skin]
    _hair_behind(brush, drawing.hair_style, hair)
    _body(brush, SHIRT_RGB[drawing.shirt], skin)
    _HAIR[drawing.hair_style](brush, hair)
    _face(brush, drawing, skin, hair)
    if drawing.hat != "none":
        _HATS[drawing.hat](brush)


def _body(brush: Brush, shirt: Colour, skin: Colour) -> None:
    brush.box(14, 19, 17, 22, shade(skin, 0.82))
    brush.pair(8, 22, 13, 22, shirt)
    brush.box(8, 23, 23, 23, shirt)
    brush.box(6, 24, 25, 33, shirt)
    brush.box(14, 23, 17, 23, shade(skin, 0.82))
    dark = shade(shirt, 0.72) if sum(shirt) > 150 else (74, 72, 84)
    brush.pair(9, 26, 9, 33, dark)
    brush.box(10, 8, 21, 19, skin)
    brush.pair(9, 13, 9, 14, shade(skin, 0.9))
    for row in (8, 19):
        brush.pair(10, row, 10, row, skin if row == 8 else shade(skin, 0.82))


def _face(brush: Brush, drawing: Drawing, skin: Colour, hair: Colour) -> None:
    lips: Colour = (190, 60, 66)
    if drawing.beard == "beard":
        brush.box(10, 16, 21, 19, hair)
        brush.pair(10, 14, 11, 15, hair)
        brush.box(12, 20, 19, 20, hair)
        lips = (238, 140, 130)
    brush.pair(12, 12, 13, 13, INK)
    if drawing.glasses == "glasses":
        brush.pair(10, 11, 14, 15, INK)
        brush.pair(11, 12, 13, 14, LENS)
        brush.pair(12, 12, 13, 13, INK)
        brush.box(15, 12, 16, 12, INK)
    elif drawing.glasses == "sunglasses":
        brush.box(10, 12, 21, 12, INK)
        brush.pair(10, 12, 14, 14, INK)
        brush.pair(11, 15, 13, 15, INK)
        brush.pair(11, 13, 11, 13, (120, 130, 160))
    else:
        brush.box(15, 15, 16, 15, shade(skin, 0.82))
    if drawing.expression == "surprised":
        brush.box(14, 16, 17, 18, lips)
        brush.box(15, 17, 16, 17, (90, 20, 30))
        return
    brush.box(13, 17, 18, 17, lips)
    if drawing.expression == "smiling":
        brush.pair(12, 16, 12, 16, lips)
        brush.box(13, 17, 18, 17, (255, 255, 255))
        brush.box(13, 18, 18, 18, lips)


def _highlight(colour: Colour) -> Colour:
    return shade(colour, 0.8) if sum(colour) > 620 else tuple(min(255, channel + 44) for channel in colour)  # type: ignore[return-value]


def _hair_behind(brush: Brush, style: str, hair: Colour) -> None:
    """What hangs behind the head and the shoulders."""
    if style == "curly":
        brush.box(8, 4, 23, 15, hair)
        brush.pair(6, 6, 7, 13, hair)
        brush.pair(10, 2, 13, 3, hair)


def _cap_of_hair(brush: Brush, hair: Colour) -> None:
    brush.box(10, 6, 21, 9, hair)
    brush.box(11, 5, 20, 5, hair)
    brush.pair(9, 7, 9, 11, hair)
    brush.box(12, 6, 15, 6, _highlight(hair))


def _short(brush: Brush, hair: Colour) -> None:
    _cap_of_hair(brush, hair)
    brush.box(10, 10, 12, 10, hair)


def _long(brush: Brush, hair: Colour) -> None:
    _cap_of_hair(brush, hair)
    brush.pair(7, 8, 9, 25, hair)
    brush.pair(8, 6, 9, 7, hair)
    brush.pair(8, 12, 8, 23, _highlight(hair))


def _mohawk(brush: Brush, hair: Colour) -> None:
    brush.box(14, 0, 17, 9, hair)
    brush.pair(12, 1, 13, 4, hair)
    brush.box(15, 2, 15, 7, _highlight(hair))


def _curly(brush: Brush, hair: Colour) -> None:
    brush.box(10, 6, 21, 9, hair)
    light = _highlight(hair)
    for column, row in ((9, 5), (13, 3), (17, 5), (21, 7), (7, 9), (23, 11), (13, 7), (8, 13)):
        brush.box(column, row, column + 1, row, light)


def _bun(brush: Brush, hair: Colour) -> None:
    _cap_of_hair(brush, hair)
    brush.box(13, 0, 18, 4, hair)
    brush.pair(12, 1, 12, 3, hair)
    brush.box(14, 1, 15, 1, _highlight(hair))


def _pigtails(brush: Brush, hair: Colour) -> None:
    _cap_of_hair(brush, hair)
    brush.pair(4, 9, 7, 17, hair)
    brush.pair(5, 18, 6, 19, hair)
    brush.pair(8, 9, 8, 10, (250, 250, 250))
    brush.pair(5, 11, 5, 15, _highlight(hair))


def _hat(brush: Brush) -> None:
    brush.box(10, 0, 21, 4, (122, 84, 52))
    brush.box(10, 4, 21, 4, (60, 36, 24))
    brush.box(6, 5, 25, 6, (122, 84, 52))


def _baseball_cap(brush: Brush) -> None:
    brush.box(10, 2, 21, 6, (40, 150, 170))
    brush.box(12, 1, 19, 1, (40, 150, 170))
    brush.box(10, 6, 27, 7, (24, 100, 120))
    brush.box(14, 3, 17, 4, (250, 250, 250))


def _crown(brush: Brush) -> None:
    gold = (255, 200, 20)
    brush.box(10, 3, 21, 6, gold)
    for column in (10, 15, 20):
        brush.box(column, 1, column + 1, 2, gold)
    brush.pair(12, 5, 13, 5, (210, 30, 60))
    brush.box(15, 5, 16, 5, (40, 90, 220))


def _dog(brush: Brush, fur: Colour) -> None:
    dark = shade(fur, 0.7) if sum(fur) > 200 else (82, 78, 92)
    brush.box(8, 20, 23, 33, fur)
    brush.box(8, 8, 23, 21, fur)
    brush.pair(4, 8, 7, 18, dark)
    brush.pair(11, 12, 12, 13, INK)
    brush.box(12, 16, 19, 20, (250, 236, 214))
    brush.box(14, 16, 17, 17, INK)
    brush.box(14, 20, 17, 22, (240, 100, 120))
    brush.box(8, 24, 23, 25, (220, 40, 50))


def _cat(brush: Brush, fur: Colour) -> None:
    dark = shade(fur, 0.7) if sum(fur) > 200 else (82, 78, 92)
    brush.box(10, 20, 21, 33, fur)
    brush.box(8, 8, 23, 20, fur)
    brush.pair(8, 4, 11, 7, fur)
    brush.pair(9, 5, 10, 7, (250, 160, 170))
    brush.pair(11, 12, 13, 14, (130, 220, 60))
    brush.pair(12, 12, 12, 14, INK)
    brush.box(15, 16, 16, 16, (240, 110, 130))
    brush.pair(6, 16, 12, 16, (250, 250, 250))
    for row in (24, 27, 30):
        brush.box(12, row, 19, row, dark)


def _mug(brush: Brush, glaze: Colour) -> None:
    dark = shade(glaze, 0.7) if sum(glaze) > 200 else (82, 78, 92)
    brush.box(8, 12, 21, 27, glaze)
    brush.box(8, 12, 21, 13, shade((96, 60, 36), 1.0))
    brush.box(22, 15, 26, 23, dark)
    brush.box(22, 17, 24, 21, (250, 250, 250))
    brush.box(10, 16, 11, 24, shade(dark, 1.15))
    for column in (11, 16):
        brush.box(column, 6, column + 1, 8, (250, 250, 250))
        brush.box(column - 1, 9, column, 10, (250, 250, 250))


def _car(brush: Brush, paint: Colour) -> None:
    brush.box(4, 17, 27, 24, paint)
    brush.box(9, 10, 22, 17, paint)
    brush.box(11, 12, 15, 16, LENS)
    brush.box(17, 12, 21, 16, LENS)
    brush.box(4, 19, 5, 20, (255, 240, 120))
    brush.box(26, 19, 27, 20, (255, 70, 60))
    brush.box(4, 23, 27, 24, shade(paint, 0.7) if sum(paint) > 200 else (82, 78, 92))
    brush.pair(6, 22, 11, 27, INK)
    brush.pair(8, 24, 9, 25, (210, 210, 220))


_HAIR: dict[str, Callable[[Brush, Colour], None]] = {
    "short": _short,
    "long": _long,
    "mohawk": _mohawk,
    "curly": _curly,
    "bun": _bun,
    "pigtails": _pigtails,
}
_HATS: dict[str, Callable[[Brush], None]] = {"hat": _hat, "cap": _baseball_cap, "crown": _crown}
_OBJECTS: dict[str, Callable[[Brush, Colour], None]] = {"dog": _dog, "cat": _cat, "mug": _mug, "car": _car}
