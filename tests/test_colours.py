"""Every pixel format comes out in its right colours; transparency becomes a mask."""

from __future__ import annotations

import struct
import zlib

import pytest
from PIL import Image, ImageCms, TiffImagePlugin

from dreamctl.fitting import Rules, fit
from tests.pictures import (
    BLACK,
    BLUE,
    RED,
    RULES,
    WHITE,
    hidden,
    mask_of,
    middle,
    near,
    opened,
    packed,
    pixel,
    quarters,
)


def test_integers_beyond_sixteen_bits_are_stretched() -> None:
    wide = Image.new("I", (64, 64), 0)
    wide.paste(1 << 24, (0, 0, 64, 32))
    fitted = fit(packed(wide, "TIFF"), RULES)
    assert near(pixel(opened(fitted), 32, 5), WHITE, 1) and near(pixel(opened(fitted), 32, 60), BLACK, 1)
    assert "stretched" in fitted.warnings[0]


def test_a_picture_that_uses_few_of_its_bits_is_told() -> None:
    dark = fit(packed(Image.new("I;16", (64, 64), 0x0800), "TIFF"), RULES)
    assert near(pixel(opened(dark), 32, 32), (8,) * 3, 1) and "nearly black" in dark.warnings[0]


def test_twelve_bits_are_scaled_by_what_the_file_says() -> None:
    """Two samples are packed into three bytes: 0x800 and 0x800."""
    strip = bytes.fromhex("800800") * (64 * 64 // 2)
    tags = [
        (256, 64), (257, 64), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 64), (279, len(strip)),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + struct.pack("<H", len(tags)) + entries + b"\0" * 4
    assert near(middle(data), (128,) * 3, 1)


def test_signed_integers_are_scaled() -> None:
    signed = Image.new("I;16", (64, 64), 0x4000)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[339] = 2
    assert near(middle(packed(signed, "TIFF", tiffinfo=tags)), (128,) * 3, 1)


def test_floats_beyond_white_are_stretched_and_not_taken_for_nearly_black() -> None:
    image = Image.new("F", (64, 64), 2.0)
    image.putpixel((0, 0), 4.0)
    image.putpixel((1, 0), 0.0)
    fitted = fit(packed(image, "TIFF"), RULES)
    assert near(pixel(opened(fitted), 32, 32), (128,) * 3, 1)
    assert fitted.warnings == ("holds values from 0 to 4: stretched to black and white",)


@pytest.mark.parametrize(("white", "value"), [(255.0, 128.0), (65535.0, 32768.0)])
def test_float_pictures_are_scaled(white: float, value: float) -> None:
    image = Image.new("F", (64, 64), value)
    image.putpixel((0, 0), white)
    assert near(middle(packed(image, "TIFF")), (128,) * 3, 1)


def test_sixteen_bit_grey_with_a_transparent_value_is_composited() -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = b"".join(b"\0" + struct.pack(">H", 1000) * 32 + struct.pack(">H", 0xFFFF) * 32 for _ in range(64))
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 16, 0, 0, 0, 0))
        + chunk(b"tRNS", struct.pack(">H", 1000))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    fitted = fit(data, Rules(64, (0, 0, 254)))
    assert near(pixel(opened(fitted), 8, 32), BLUE) and near(pixel(opened(fitted), 56, 32), WHITE)
    assert (pixel(mask_of(fitted), 8, 32), pixel(mask_of(fitted), 56, 32)) == ((0,), (255,))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_shows_the_background_and_becomes_the_mask(mode: str) -> None:
    fitted = fit(packed(hidden(mode), "PNG"), Rules(64, (0, 0, 254)))
    image, mask = opened(fitted), mask_of(fitted)
    assert near(pixel(image, 8, 32), BLUE)
    assert near(pixel(image, 56, 32), pixel(hidden(mode).convert("RGB"), 56, 32))
    assert (pixel(mask, 8, 32), pixel(mask, 56, 32)) == ((0,), (255,))


def test_palettes_with_partial_transparency_are_honoured() -> None:
    image = Image.new("P", (64, 64), 0)
    image.putpalette([254, 0, 0])
    data = packed(image, "PNG", transparency=bytes([128]))
    assert near(middle(data), (254, 127, 127))


@pytest.mark.parametrize(("mode", "kind"), [("1", "PNG"), ("L", "JPEG"), ("P", "PNG"), ("L", "BMP"), ("RGB", "AVIF")])
def test_plain_modes_keep_their_colours(mode: str, kind: str) -> None:
    assert near(middle(packed(Image.new("RGB", (64, 64), WHITE).convert(mode), kind)), WHITE)


def test_a_broken_profile_is_a_warning() -> None:
    fitted = fit(packed(quarters(), "PNG", icc_profile=b"nonsense" * 40), RULES)
    assert "profile" in fitted.warnings[0]
    assert near(pixel(opened(fitted), 8, 16), RED)


def test_lab_is_converted() -> None:
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (64, 64), RED), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab
    assert near(middle(packed(lab, "TIFF")), RED, 8)
