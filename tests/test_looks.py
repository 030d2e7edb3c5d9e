"""What is measured of pictures: blur, where the detail is, and which are nearly the same."""

from __future__ import annotations

import io
import random

import pytest
from PIL import Image, ImageEnhance, ImageFilter

from dreamctl.looks import ALIKE_BITS, alike, blur, fingerprint, focus
from tests.pictures import noise, patchwork

PICTURE = Image.effect_mandelbrot((600, 400), (-2, -1.2, 1, 1.2), 80).convert("RGB")


def printed(image: Image.Image) -> str:
    return fingerprint(image.convert("L"))


def distance(one: Image.Image, other: Image.Image) -> int:
    return (int(printed(one), 16) ^ int(printed(other), 16)).bit_count()


def test_the_more_blurred_the_higher() -> None:
    measured = [blur(PICTURE.filter(ImageFilter.GaussianBlur(radius)).convert("L")) for radius in (0, 1, 2, 4, 8)]
    assert measured == sorted(measured)
    assert measured[0] < 0.4 and measured[-1] > 0.7


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (300, 200)])
def test_a_picture_of_one_colour_is_not_blurred(size: tuple[int, int]) -> None:
    assert blur(Image.new("L", size, 76)) == 0


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=60)
    return Image.open(buffer).convert("RGB")


@pytest.mark.parametrize("seed", range(8))
def test_the_same_picture_stays_alike(seed: int) -> None:
    image = patchwork(seed)
    for same in (jpeg(image), image.resize((1000, 700)), ImageEnhance.Brightness(image).enhance(0.9)):
        assert distance(image, same) <= ALIKE_BITS


def test_different_pictures_are_not_alike() -> None:
    assert not list(alike(printed(patchwork(seed)) for seed in range(300)))


def test_twins_are_found_among_many() -> None:
    rng = random.Random(1)
    marked = [f"{rng.getrandbits(128):032x}" for _ in range(2000)]
    value = int(marked[700], 16)
    for bit in rng.sample(range(128), ALIKE_BITS):
        value ^= 1 << bit
    far = value
    for bit in rng.sample(range(128), 40):
        far ^= 1 << bit
    assert list(alike([*marked, None, f"{value:032x}", f"{far:032x}", marked[700]])) == [(2001, 700), (2003, 700)]


def test_pictures_of_one_colour_are_nobodys_twins() -> None:
    assert not list(alike(fingerprint(Image.new("L", (90, 90), grey)) for grey in (0, 76, 255)))


def test_the_focus_lies_where_the_detail_is() -> None:
    for x, y in ((80, 300), (500, 100), (300, 200)):
        image = Image.new("RGB", (640, 400), "grey")
        image.paste(noise(80, 80, 90).convert("RGB"), (x - 40, y - 40))
        across, down = focus(image)
        assert abs(across - x / 640) < 0.05 and abs(down - y / 400) < 0.05


def test_the_focus_of_a_cut_out_is_what_is_left() -> None:
    image = noise(400, 200, 90).convert("RGBA")
    image.putalpha(0)
    image.paste((255, 0, 0, 255), (300, 50, 380, 150))
    assert focus(image)[0] > 0.8


def test_without_detail_the_focus_is_the_middle() -> None:
    assert focus(Image.new("RGB", (300, 200), "red")) == (0.5, 0.5)
