"""What can be measured of a picture: how blurred it is, where its detail lies, and a fingerprint of what it shows."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence

from PIL import Image, ImageChops, ImageFilter, ImageStat
from PIL.Image import Resampling

_BLUR_SIDE = 512
_BLUR_RADIUS = 4  # nine pixels, as in the paper
_FOCUS_SIDE = 64
_HASH_SIDE = 8
_HASH_BITS = 2 * _HASH_SIDE * _HASH_SIDE
_FLAT = (0, (1 << _HASH_BITS) - 1)  # a picture of one colour looks like every other
_BANDS, _BAND_BITS = 8, 16
_BAND_LENGTH = 256  # where thousands agree in a band, it says nothing
ALIKE_BITS = _BANDS - 1
"""Fingerprints that differ in at most so many of 128 bits are of one picture: saved again, scaled, hardly edited."""


def blur(grey: Image.Image) -> float:
    """How blurred a picture (L) is, from 0 (sharp) to 1: how little it changes when it is blurred once more.

    Crété-Roffet et al., "The blur effect: perception and estimation with a new no-reference perceptual blur metric"
    (2007). 0 for a picture without any edge.
    """
    if max(grey.size) > _BLUR_SIDE:
        grey = grey.copy()
        grey.thumbnail((_BLUR_SIDE, _BLUR_SIDE), Resampling.BOX)
    shares = []
    for radius, step in (((_BLUR_RADIUS, 0), (1, 0)), ((0, _BLUR_RADIUS), (0, 1))):
        lines = _some_lines(grey, step)
        before, after = _differences(lines, step), _differences(lines.filter(ImageFilter.BoxBlur(radius)), step)
        edges = ImageStat.Stat(before).sum[0]
        lost = ImageStat.Stat(ImageChops.subtract(before, after)).sum[0]
        shares.append((edges - lost) / edges if edges else 0.0)
    return max(shares)


def _some_lines(grey: Image.Image, along: tuple[int, int]) -> Image.Image:
    """Every third row or column, which runs `along`: enough for a mean."""
    across = (max(1, grey.width // 3), grey.height) if along[1] else (grey.width, max(1, grey.height // 3))
    return grey.resize(across, Resampling.NEAREST)


def _differences(grey: Image.Image, step: tuple[int, int]) -> Image.Image:
    """Each pixel's distance from its neighbour."""
    width, height = grey.width - step[0], grey.height - step[1]
    if min(width, height) < 1:
        return Image.new("L", (1, 1))
    return ImageChops.difference(grey.crop((0, 0, width, height)), grey.crop((*step, grey.width, grey.height)))


def focus(image: Image.Image) -> tuple[float, float]:
    """The middle of what matters, in shares of width and height: of what is not transparent, else of the detail.

    The detail is where the edges are; the picture's middle counts a little more, since that is where people put it.
    """
    small = image.copy()
    small.thumbnail((_FOCUS_SIDE, _FOCUS_SIDE), Resampling.BOX)
    if small.mode == "RGBA":
        weights = small.getchannel("A")
    else:
        edges = small.convert("L").filter(ImageFilter.FIND_EDGES)
        inner = edges.crop((1, 1, max(2, edges.width - 1), max(2, edges.height - 1)))  # the filter's frame is none
        weights = Image.new("L", edges.size)
        weights.paste(inner, (1, 1))
    across = _middle(weights.resize((weights.width, 1), Resampling.BOX).tobytes())
    down = _middle(weights.resize((1, weights.height), Resampling.BOX).tobytes())
    return across, down


def _middle(profile: bytes) -> float:
    """The centre of gravity of the stronger half of a profile, from 0 to 1."""
    count = len(profile)
    nearness = [1.25 - abs((place + 0.5) / count - 0.5) for place in range(count)]
    weighted = [value * near for value, near in zip(profile, nearness, strict=True)]
    floor = sum(weighted) / count
    strong = [max(0.0, value - floor) for value in weighted]
    total = sum(strong)
    return sum(value * (place + 0.5) for place, value in enumerate(strong)) / total / count if total else 0.5


def fingerprint(grey: Image.Image) -> str:
    """128 bits of a picture (L), in hex, that stay when it is scaled, recompressed or made brighter.

    A difference hash, both ways: whether each of 8 × 8 cells is darker than the next one, across and down. Neal
    Krawetz, "Kind of Like That" (2013).
    """
    bits = 0
    small = grey.reduce(max(1, min(grey.size) // (8 * _HASH_SIDE)))
    for turned in (small, small.transpose(Image.Transpose.TRANSPOSE)):
        cells = turned.resize((_HASH_SIDE + 1, _HASH_SIDE), Resampling.BOX).tobytes()
        for place in range(len(cells) - 1):
            if (place + 1) % (_HASH_SIDE + 1):
                bits = bits << 1 | (cells[place + 1] > cells[place])
    return f"{bits:0{_HASH_BITS // 4}x}"


def alike(fingerprints: Iterable[str | None]) -> Iterator[tuple[int, int]]:
    """(place, the place of an earlier one that is nearly the same) for each of the fingerprints that has one.

    Of fingerprints that differ in no more bits than there are bands less one, one band is equal: only those are
    compared, so that a hundred thousand pictures take seconds; arrays, so that they take a few bytes each.
    """
    high, low = array("Q"), array("Q")
    newest = [array("i", [-1]) * (1 << _BAND_BITS) for _ in range(_BANDS)]  # for each value of a band
    before = [array("i") for _ in range(_BANDS)]  # for each fingerprint: the one before it with the same value
    for place, text in enumerate(fingerprints):
        value = int(text or "0", 16)
        high.append(value >> 64)
        low.append(value & (1 << 64) - 1)
        bands = [value >> _BAND_BITS * band & (1 << _BAND_BITS) - 1 for band in range(_BANDS)]
        flat = value in _FLAT
        twin = None if flat else _nearest(value, bands, newest, before, high, low)
        if twin is not None:
            yield place, twin
        for band, bits in enumerate(bands):
            before[band].append(newest[band][bits])
            if not flat and twin is None:
                newest[band][bits] = place


def _nearest(
    value: int, bands: Sequence[int], newest: Sequence[array[int]], before: Sequence[array[int]],
    high: array[int], low: array[int],
) -> int | None:  # fmt: skip
    for band, bits in enumerate(bands):
        place = newest[band][bits]
        for _ in range(_BAND_LENGTH):
            if place < 0:
                break
            if (value ^ (high[place] << 64 | low[place])).bit_count() <= ALIKE_BITS:
                return place
            place = before[band][place]
    return None
