"""The backgrounds of the built-in model's world, on a grid of 32 x 32 cells.

It does not know what stands before them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

GRID = 32
"""Cells along each side of a picture."""

Cells = npt.NDArray[np.uint8]

PLAIN_RGB = {
    "blue": (150, 196, 250),
    "green": (160, 226, 160),
    "pink": (255, 194, 214),
    "yellow": (255, 244, 170),
    "grey": (176, 178, 184),
    "purple": (206, 180, 246),
}


def paint_scene(cells: Cells, scene: str, variant: int) -> None:
    """Fills the cells, uint8 of shape (32, 32, 3), with one of `world.SCENES`.

    Raises KeyError where the scene is unknown.
    """
    if scene.startswith("plain "):
        cells[:] = PLAIN_RGB[scene.removeprefix("plain ")]
    else:
        _PLACES[scene](cells, variant)


def _beach(cells: Cells, variant: int) -> None:
    cells[:14] = (112, 206, 250)
    cells[14:20] = (24, 120, 200)
    cells[16, (2 + variant) % 4 :: 4] = (150, 220, 250)
    cells[18, variant % 4 :: 4] = (150, 220, 250)
    cells[20:] = (242, 214, 148)
    cells[21, 1::6] = cells[27, 4::6] = (222, 188, 118)
    sun = (0, 2, 4, 2)[variant]
    cells[sun : sun + 4, 26:30] = (255, 226, 60)
    if variant < 2:
        cells[8:24, 3:5] = (140, 90, 50)
        cells[6:8, 0:8] = cells[4:6, 2:6] = (40, 160, 70)
    else:
        cells[12:14, 1:7] = (250, 250, 250)
        cells[6:12, 4] = (120, 70, 40)
        cells[8:12, 2:4] = (230, 70, 60)


_STARS = ((1, 9), (4, 2), (3, 16), (7, 6), (9, 27), (10, 1), (13, 4), (2, 22), (14, 29), (17, 2), (18, 27), (6, 12))


def _night(cells: Cells, variant: int) -> None:
    cells[:24] = (34, 38, 104)
    cells[24:] = (18, 62, 62)
    cells[22:24, (variant * 4) : (variant * 4 + 10)] = (18, 62, 62)
    for row, column in _STARS:
        cells[row, (column + 8 * variant) % GRID] = (255, 250, 190)
    moon = (0, 2, 4, 6)[variant]
    cells[moon : moon + 6, 26:32] = (34, 38, 104)
    cells[moon + 1 : moon + 5, 26:30] = (250, 246, 210)
    cells[moon + 1 : moon + 3, 26:28] = (34, 38, 104)


def _room(cells: Cells, variant: int) -> None:
    cells[:26] = (222, 190, 168)
    cells[:24, 2::8] = cells[:24, 3::8] = (212, 176, 152)
    cells[26:] = (150, 92, 52)
    cells[24:26] = (250, 244, 236)
    cells[28:30, ::8] = (128, 76, 42)
    top = (2, 4, 2, 4)[variant]
    cells[top : top + 12, 0:8] = (250, 244, 236)
    cells[top + 1 : top + 11, 1:7] = (150, 214, 246)
    cells[top + 5 : top + 7, 0:8] = (250, 244, 236)
    if variant < 2:
        cells[4:10, 26:32] = (110, 70, 40)
        cells[5:9, 27:31] = (90, 180, 110)
    else:
        cells[2:4, 26:32] = (240, 200, 60)
        cells[4:24, 28:30] = (110, 70, 40)


def _snow(cells: Cells, variant: int) -> None:
    cells[:18] = (176, 200, 222)
    cells[18:] = (248, 252, 255)
    for index in range(16):
        column, row = (index * 13 + variant * 6) % 32, (index * 5 + variant * 3) % 18
        cells[row, column] = (255, 255, 255)
    left = (0, 0, 2, 2)[variant]
    for step in range(3):
        cells[6 + 4 * step : 10 + 4 * step, left + 2 - step : left + 4 + step] = (36, 110, 84)
        cells[6 + 4 * step, left + 2 - step : left + 4 + step] = (255, 255, 255)
    cells[18:20, left + 2 : left + 4] = (100, 64, 40)
    if variant % 2:
        cells[14:20, 26:32] = (255, 255, 255)
        cells[12:14, 28:30] = (60, 60, 80)


def _city(cells: Cells, variant: int) -> None:
    cells[:26] = (250, 188, 142)
    cells[26:] = (88, 88, 96)
    cells[28:30, ::4] = cells[28:30, 1::4] = (240, 240, 240)
    heights = ((4, 10, 2, 8), (8, 2, 10, 4), (2, 8, 6, 10), (10, 4, 8, 2))[variant]
    walls = ((124, 112, 136), (92, 92, 124))
    for index, top in enumerate(heights):
        cells[top:26, 8 * index : 8 * index + 8] = walls[index % 2]
        for row in range(top + 2, 25, 4):
            cells[row : row + 2, 8 * index + 1 : 8 * index + 3] = (255, 232, 130)
            cells[row : row + 2, 8 * index + 5 : 8 * index + 7] = (255, 232, 130)


def _forest(cells: Cells, variant: int) -> None:
    cells[:8] = (20, 92, 44)
    cells[8:22] = (92, 164, 88)
    cells[22:] = (66, 124, 48)
    cells[8:10, variant::4] = (20, 92, 44)
    for column in ((0, 26), (2, 28), (4, 28), (0, 24))[variant]:
        cells[8:24, column : column + 4] = (98, 62, 34)
        cells[8:24, column : column + 1] = (78, 46, 24)
    cells[26, (1 + variant) :: 8] = cells[29, (4 + variant) :: 8] = (240, 70, 80)


_PLACES: dict[str, Callable[[Cells, int], None]] = {
    "beach": _beach,
    "night": _night,
    "room": _room,
    "snow": _snow,
    "city": _city,
    "forest": _forest,
}
