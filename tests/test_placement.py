"""Where pixels go: undistorted, inside, and as large as may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamctl.badpictures import UnusablePicture
from dreamctl.placement import FITS, buckets, place

SIDES = st.integers(1, 6000)
SHARES = st.floats(0, 1)


@given(
    fit=st.sampled_from(sorted(FITS)), width=SIDES, height=SIDES, side=st.sampled_from([64, 512, 1024]),
    upscale=st.booleans(), across=SHARES, down=SHARES,
)  # fmt: skip
def test_nothing_is_distorted_or_leaves_its_frame(
    fit: str, width: int, height: int, side: int, upscale: bool, across: float, down: float
) -> None:
    try:
        where = place(fit, (width, height), side, upscale=upscale, focus=(across, down))
    except UnusablePicture:
        assert fit != "pad" and not upscale
        return
    left, top, right, bottom = where.crop
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    box = where.box
    assert 0 <= box[0] < box[2] <= where.canvas[0] and 0 <= box[1] < box[3] <= where.canvas[1]
    assert (box[2] - box[0], box[3] - box[1]) == where.scaled
    # One scale for both sides, but for the rounding to whole pixels, of source (half a pixel each) and output.
    for length, taken in zip(where.scaled, (right - left, bottom - top), strict=True):
        assert abs(length - taken * where.scale) <= 1 + where.scale
    assert upscale or where.scale <= 1.001
    if fit == "pad":
        assert where.crop == (0, 0, width, height) and where.canvas == (side, side)
    else:
        assert where.scaled == where.canvas, "no margins"


@pytest.mark.parametrize(
    ("size", "crop"),
    [((300, 200), (50, 0, 250, 200)), ((200, 300), (0, 50, 200, 250)), ((128, 128), (0, 0, 128, 128))],
)
def test_a_crop_is_the_largest_square(size: tuple[int, int], crop: tuple[int, ...]) -> None:
    assert place("crop", size, 128, upscale=False).crop == crop


def test_a_crop_moves_towards_its_focus_as_far_as_it_goes() -> None:
    crops = [place("crop", (300, 200), 128, upscale=False, focus=(x, 0.5)).crop for x in (0.0, 0.4, 1.0)]
    assert crops == [(0, 0, 200, 200), (20, 0, 220, 200), (100, 0, 300, 200)]


@pytest.mark.parametrize(
    ("size", "canvas"),
    [
        ((3000, 3000), (512, 512)), ((4000, 3000), (576, 448)), ((3000, 4000), (448, 576)), ((4000, 2250), (640, 384)),
        ((9000, 1000), (1024, 256)),
    ],
)  # fmt: skip
def test_a_picture_goes_into_the_nearest_bucket(size: tuple[int, int], canvas: tuple[int, int]) -> None:
    assert place("bucket", size, 512, upscale=False).canvas == canvas


def test_buckets_hold_no_more_pixels_than_the_square() -> None:
    for side in (512, 768, 1024):
        for width, height in buckets(side):
            assert width * height <= side * side and width % 64 == height % 64 == 0


def test_a_small_picture_makes_a_small_bucket() -> None:
    assert place("bucket", (400, 300), 512, upscale=False).canvas == (384, 256)
    assert place("bucket", (400, 300), 512, upscale=True).canvas == (576, 448)


@pytest.mark.parametrize(("fit", "size"), [("crop", (600, 500)), ("bucket", (600, 40))])
def test_what_is_too_small_to_crop_says_the_ways_out(fit: str, size: tuple[int, int]) -> None:
    with pytest.raises(UnusablePicture, match=f"has {size[0]}×{size[1]} pixels, too few for") as raised:
        place(fit, size, 512, upscale=False)
    assert "--upscale" in str(raised.value.hint) and "--fit pad" in str(raised.value.hint)
