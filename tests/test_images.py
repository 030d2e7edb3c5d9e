"""Pictures as people have them come out upright, undistorted and without metadata."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import ExifTags, Image, ImageOps
from PIL.Image import Transpose

from dreamctl.errors import InvalidInput
from dreamctl.fitting import Rules, fit, parse_colour
from dreamctl.images import read_picture
from tests.pictures import (
    BLUE,
    GREEN,
    RED,
    RULES,
    STORED,
    WHITE,
    hidden,
    mask_of,
    near,
    opened,
    packed,
    pixel,
    quarters,
)

# shape


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_comes_out_upright(kind: str, orientation: int) -> None:
    upright = quarters(1200, 800)  # large enough for a JPEG to be decoded at a part of its size
    turned = STORED[orientation]
    stored = upright.transpose(turned) if turned is not None else upright
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    quality = {} if kind in ("PNG", "TIFF") else {"quality": 95}
    fitted = fit(packed(stored, kind, exif=exif, **quality), RULES)
    image = opened(fitted)
    left, top, right, bottom = fitted.box
    assert (right - left, bottom - top) == (64, 43)
    for x, y, wanted in ((8, 16, RED), (56, 16, GREEN), (8, 48, BLUE), (56, 48, WHITE)):
        assert near(pixel(image, x, y), wanted), (x, y)
    assert "exif" not in image.info and not image.getexif()


@pytest.mark.parametrize(("size", "box"), [((200, 100), (0, 16, 64, 48)), ((100, 200), (16, 0, 48, 64))])
def test_margins_have_the_background_and_are_masked(size: tuple[int, int], box: tuple[int, ...]) -> None:
    fitted = fit(packed(Image.new("RGB", size, RED), "PNG"), Rules(64, (0, 0, 254)))
    image, mask = opened(fitted), mask_of(fitted)
    assert (image.size, image.format, fitted.box) == ((64, 64), "JPEG", box)
    assert near(pixel(image, 1, 1), BLUE) and near(pixel(image, 32, 32), RED)
    assert mask.getbbox() == box and set(mask.tobytes()) == {0, 255}


def test_a_square_opaque_picture_needs_no_mask() -> None:
    assert fit(packed(quarters(128, 128), "PNG"), RULES).mask is None
    assert fit(packed(quarters(128, 128).convert("RGBA"), "PNG"), RULES).mask is None


def test_a_small_picture_is_enlarged_only_on_request() -> None:
    small = packed(quarters(32, 24), "PNG")
    fitted = fit(small, RULES)
    assert fitted.box == (16, 20, 48, 44) and mask_of(fitted).getbbox() == fitted.box
    assert fitted.warnings == ("has 32×24 pixels, less than 64: wide margins (--upscale enlarges it)",)
    larger = fit(small, Rules(64, upscale=True))
    assert larger.box == (0, 8, 64, 56)
    assert "has 32×24 pixels: enlarged 2.00×" in larger.warnings


def test_an_extreme_shape_keeps_at_least_one_pixel() -> None:
    assert fit(packed(Image.new("RGB", (5000, 2), RED), "PNG"), RULES).box == (0, 31, 64, 32)


def test_metadata_is_gone() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Secret Camera"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    data = packed(quarters(), "JPEG", exif=exif, comment=b"at home")
    assert b"Secret" in data
    fitted = fit(data, RULES)
    assert set(opened(fitted).info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert b"Secret" not in fitted.data and b"at home" not in fitted.data


def test_jpeg_keeps_full_colour_resolution() -> None:
    image = opened(fit(packed(quarters(), "PNG"), RULES))
    assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]


def test_the_short_cut_for_large_jpegs_stays_close_to_the_long_way() -> None:
    noise = Image.effect_mandelbrot((1600, 1200), (-2, -1.5, 1, 1.5), 60).convert("RGB")
    data = packed(noise, "JPEG", quality=95)
    quick = opened(fit(data, Rules(256)))
    slow = ImageOps.pad(Image.open(io.BytesIO(data)), (256, 256), color=WHITE)
    pairs = zip(quick.tobytes(), slow.tobytes(), strict=True)
    error = sum((a - b) ** 2 for a, b in pairs) / (256 * 256 * 3)
    assert error < 255**2 / 10**4  # 40 dB


# warnings


def test_a_wrong_suffix_is_a_warning() -> None:
    assert "is a PNG named .jpg" in fit(packed(quarters(), "PNG"), RULES, ".jpg").warnings
    assert fit(packed(quarters(), "JPEG"), RULES, ".JPEG").warnings == ()
    assert fit(packed(quarters(), "JPEG"), RULES, "").warnings == ()


def test_broken_exif_does_not_cost_the_picture() -> None:
    data = packed(quarters(), "JPEG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff garbage")
    assert near(pixel(opened(fit(data, RULES)), 8, 16), RED)


# other doors


def test_reading_for_others_gives_what_people_see(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    file = tmp_path / "a.png"
    file.write_bytes(packed(quarters().transpose(Transpose.ROTATE_90), "PNG", exif=exif))
    image = read_picture(file)
    assert (image.mode, image.size, pixel(image, 5, 5)) == ("RGB", (96, 64), RED)
    file.write_bytes(packed(hidden("RGBA"), "PNG"))
    assert pixel(read_picture(file), 8, 32) == WHITE


def test_colours_are_words_or_numbers() -> None:
    assert parse_colour("white") == parse_colour("#fff") == WHITE
    with pytest.raises(InvalidInput, match="'blurple' is not a colour"):
        parse_colour("blurple")
