"""Where a picture's pixels go: padded into a square, cropped to one, or cropped to one of a set of rectangles.

Plain numbers of upright pictures; it knows no pixels. Never distorted: width and height get the same scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dreamctl.badpictures import UnusablePicture

Size = tuple[int, int]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom."""

CENTRE = (0.5, 0.5)
BUCKET_STEP = 64


@dataclass(frozen=True)
class Placement:
    """The part `crop` of the source, scaled to `scaled`, stands at `box` of a canvas of size `canvas`."""

    crop: Box
    scaled: Size
    canvas: Size

    @property
    def box(self) -> Box:
        left, top = ((whole - part) // 2 for whole, part in zip(self.canvas, self.scaled, strict=True))
        return (left, top, left + self.scaled[0], top + self.scaled[1])

    @property
    def scale(self) -> float:
        """Pixels of the output for one of the source."""
        return max(self.scaled) / max(self.crop[2] - self.crop[0], self.crop[3] - self.crop[1])


def place(
    fit: str, source: Size, side: int, *, upscale: bool, step: int = BUCKET_STEP, focus: tuple[float, float] = CENTRE
) -> Placement:
    """Where a picture of size `source` goes; `focus` is what a crop keeps in its middle, in shares of both sides.

    Raises UnusablePicture where a crop cannot be filled without enlarging, which only `upscale` allows.
    """
    return FITS[fit](source, side, upscale, step, focus)


def _pad(source: Size, side: int, upscale: bool, step: int, focus: tuple[float, float]) -> Placement:
    """The whole picture, with margins."""
    scale = side / max(source)
    if not upscale:
        scale = min(1.0, scale)
    scaled = (max(1, round(source[0] * scale)), max(1, round(source[1] * scale)))
    return Placement((0, 0, *source), scaled, (side, side))


def _crop(source: Size, side: int, upscale: bool, step: int, focus: tuple[float, float]) -> Placement:
    """The largest square of the picture."""
    return _covering(source, (side, side), upscale, focus)


def _bucket(source: Size, side: int, upscale: bool, step: int, focus: tuple[float, float]) -> Placement:
    """The largest part with the shape of the bucket that is nearest; a smaller picture makes a smaller bucket."""
    wanted = source[0] / source[1]
    near = min(buckets(side, step), key=lambda size: (abs(math.log(size[0] / size[1] / wanted)), -size[0] * size[1]))
    if not upscale and (near[0] > source[0] or near[1] > source[1]):
        near = (min(near[0], source[0] // step * step), min(near[1], source[1] // step * step))
    return _covering(source, near, upscale, focus)


def buckets(side: int, step: int = BUCKET_STEP) -> list[Size]:
    """The rectangles of at most `side`² pixels whose sides are multiples of `step`, from half `side` to twice it.

    As NovelAI's aspect ratio bucketing and kohya's sd-scripts have them.
    """
    found = set()
    for width in range(max(step, side // 2 // step * step), 2 * side + 1, step):
        height = min(2 * side, side * side // width) // step * step
        if height:
            found |= {(width, height), (height, width)}
    return sorted(found)


def _covering(source: Size, canvas: Size, upscale: bool, focus: tuple[float, float]) -> Placement:
    """The largest part of the source that has the canvas's shape, moved towards `focus` as far as it goes."""
    if min(canvas) < 1 or (not upscale and (canvas[0] > source[0] or canvas[1] > source[1])):
        wanted = f"{canvas[0]}×{canvas[1]}" if min(canvas) else "any bucket"
        raise UnusablePicture(
            f"has {source[0]}×{source[1]} pixels, too few for {wanted}",
            hint="--upscale enlarges it, --fit pad gives it margins, or choose a smaller --size",
        )
    scale = max(canvas[0] / source[0], canvas[1] / source[1])
    width, height = (min(whole, max(1, round(part / scale))) for whole, part in zip(source, canvas, strict=True))
    left = round(min(max(focus[0] * source[0] - width / 2, 0), source[0] - width))
    top = round(min(max(focus[1] * source[1] - height / 2, 0), source[1] - height))
    return Placement((left, top, left + width, top + height), canvas, canvas)


FITS: Mapping[str, Callable[[Size, int, bool, int, tuple[float, float]], Placement]] = {
    "pad": _pad,
    "crop": _crop,
    "bucket": _bucket,
}
