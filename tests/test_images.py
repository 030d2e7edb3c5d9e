"""Pictures as people have them come out upright, in their right colours, undistorted and without metadata."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps
from PIL.Image import Transpose

from dreamctl.badpictures import UnusablePicture
from dreamctl.errors import InvalidInput
from dreamctl.images import Fitted, Rules, fit, parse_colour, read_bytes, read_picture

Colour = tuple[int, int, int]
RED, GREEN, BLUE, WHITE, BLACK = (254, 0, 0), (0, 128, 0), (0, 0, 254), (255, 255, 255), (0, 0, 0)
RULES = Rules(64)

# How a camera stores an upright picture under each EXIF orientation.
STORED = {
    1: None, 2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_90, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_270,
}  # fmt: skip


def quarters(width: int = 96, height: int = 64) -> Image.Image:
    """Red and green above, blue and white below."""
    image = Image.new("RGB", (width, height), WHITE)
    half = (width // 2, height // 2)
    image.paste(RED, (0, 0, *half))
    image.paste(GREEN, (half[0], 0, width, half[1]))
    image.paste(BLUE, (0, half[1], half[0], height))
    return image


def packed(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def opened(fitted: Fitted) -> Image.Image:
    image = Image.open(io.BytesIO(fitted.jpeg))
    image.load()
    return image


def mask_of(fitted: Fitted) -> Image.Image:
    assert fitted.mask
    image = Image.open(io.BytesIO(fitted.mask))
    image.load()
    assert image.mode == "L"
    return image


def pixel(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    value = image.getpixel((x, y))
    return value if isinstance(value, tuple) else (int(value or 0),)


def near(found: tuple[int, ...], wanted: tuple[int, ...], by: int = 6) -> bool:
    return len(found) == len(wanted) and all(abs(a - b) <= by for a, b in zip(found, wanted, strict=True))


def middle(data: bytes, rules: Rules = RULES) -> tuple[int, ...]:
    return pixel(opened(fit(data, rules)), rules.size // 2, rules.size // 2)


# shape


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("side", [96, 1200])
def test_every_orientation_comes_out_upright(kind: str, orientation: int, side: int) -> None:
    upright = quarters(side, side * 2 // 3)
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


def test_a_small_picture_is_enlarged_with_a_warning() -> None:
    fitted = fit(packed(quarters(32, 32), "PNG"), RULES)
    assert fitted.box == (0, 0, 64, 64)
    assert fitted.warnings == ("is smaller than 64: enlarged 2.00×",)


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
    assert b"Secret" not in fitted.jpeg and b"at home" not in fitted.jpeg


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


# colours


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    for value in (0, 0x4000, 0x8000, 0xFFFF):
        image = Image.new("I;16", (64, 64), value)
        assert near(middle(packed(image, "PNG")), (value >> 8,) * 3, 1)
        assert near(middle(packed(image, "TIFF")), (value >> 8,) * 3, 1)


def test_big_endian_and_32_bit_integers_are_scaled() -> None:
    assert near(middle(packed(Image.new("I;16B", (64, 64), 0x8000), "TIFF")), (128,) * 3, 1)
    assert near(middle(packed(Image.new("I", (64, 64), 0x8000), "TIFF")), (128,) * 3, 1)
    wide = Image.new("I", (64, 64), 0)
    wide.paste(1 << 24, (0, 0, 64, 32))
    fitted = fit(packed(wide, "TIFF"), RULES)
    assert near(pixel(opened(fitted), 32, 5), WHITE, 1) and near(pixel(opened(fitted), 32, 60), BLACK, 1)
    assert "stretched" in fitted.warnings[0]


@pytest.mark.parametrize(("white", "value"), [(1.0, 0.5), (255.0, 128.0), (65535.0, 32768.0)])
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


def hidden(mode: str) -> Image.Image:
    """Left half transparent over a hidden colour, right half opaque."""
    image = Image.new("RGBA", (64, 64), (0, 128, 0, 255))
    image.paste((254, 0, 0, 0), (0, 0, 32, 64))
    if mode == "P":
        palette = Image.new("P", (64, 64), 0)
        palette.putpalette([254, 0, 0, 0, 128, 0])
        palette.paste(1, (32, 0, 64, 64))
        palette.info["transparency"] = 0
        return palette
    return image.convert(mode)


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


def test_transparency_of_gif_and_webp() -> None:
    assert near(pixel(opened(fit(packed(hidden("P"), "GIF", transparency=0), RULES)), 8, 32), WHITE)
    assert near(pixel(opened(fit(packed(hidden("RGBA"), "WEBP", lossless=True), RULES)), 8, 32), WHITE)


@pytest.mark.parametrize(("mode", "kind"), [("1", "PNG"), ("L", "JPEG"), ("P", "PNG"), ("L", "BMP"), ("RGB", "AVIF")])
def test_plain_modes_keep_their_colours(mode: str, kind: str) -> None:
    assert near(middle(packed(Image.new("RGB", (64, 64), WHITE).convert(mode), kind)), WHITE)


def test_cmyk_without_a_profile_is_converted_with_a_warning() -> None:
    fitted = fit(packed(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG", quality=95), RULES)
    assert near(pixel(opened(fitted), 32, 32), (255, 0, 0), 8)
    assert "CMYK" in fitted.warnings[0]


def wide_profile() -> bytes:
    """A profile whose red, green and blue are sRGB's in another order: whoever ignores it is seen at once."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data = bytearray(bytes(data).replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be")))
    data = bytearray(bytes(data).replace(b"sRGB", b"test"))
    count = struct.unpack_from(">I", data, 128)[0]
    for index in range(count):
        at = 132 + 12 * index
        swapped = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}.get(bytes(data[at : at + 4]))
        if swapped:
            data[at : at + 4] = swapped
    return bytes(data)


def test_embedded_profiles_are_applied() -> None:
    data = packed(Image.new("RGB", (64, 64), (254, 0, 0)), "PNG", icc_profile=wide_profile())
    fitted = fit(data, RULES)
    assert near(pixel(opened(fitted), 32, 32), (0, 254, 0), 8)
    assert "icc_profile" not in opened(fitted).info


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


# warnings


def test_the_first_frame_of_an_animation_is_taken_with_a_warning() -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in (RED, GREEN, BLUE)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        data = packed(frames[0], kind, save_all=True, append_images=frames[1:])
        fitted = fit(data, RULES)
        assert near(pixel(opened(fitted), 32, 32), RED, 10), kind
        assert any("only the first" in text for text in fitted.warnings), kind


def test_a_wrong_suffix_is_a_warning() -> None:
    assert "is a PNG named .jpg" in fit(packed(quarters(), "PNG"), RULES, ".jpg").warnings
    assert fit(packed(quarters(), "JPEG"), RULES, ".JPEG").warnings == ()
    assert fit(packed(quarters(), "JPEG"), RULES, "").warnings == ()


def test_broken_exif_does_not_cost_the_picture() -> None:
    data = packed(quarters(), "JPEG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff garbage")
    assert near(pixel(opened(fit(data, RULES)), 8, 16), RED)


# what cannot be used


def refusal(data: bytes) -> str:
    with pytest.raises(UnusablePicture) as raised:
        fit(data, RULES)
    assert raised.value.hint, "a reason needs advice"
    return raised.value.message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP"])
def test_a_truncated_picture_is_refused(kind: str) -> None:
    data = packed(Image.effect_noise((200, 200), 80).convert("RGB"), kind)
    assert refusal(data[: len(data) // 2])


def test_truncated_jpeg_and_png_are_called_so() -> None:
    for kind in ("JPEG", "PNG"):
        data = packed(Image.effect_noise((200, 200), 80).convert("RGB"), kind)
        assert "truncated" in refusal(data[: len(data) * 2 // 3])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\n <!DOCTYPE html><p>404", "web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "video"),
        (b"PK\x03\x04....", "zip"),
        (b"hello", "not a picture"),
    ],
)
def test_what_is_not_a_picture_is_named(data: bytes, reason: str) -> None:
    assert reason in refusal(data)


@pytest.mark.parametrize("side", [10_000, 14_000])
def test_a_decompression_bomb_is_refused(side: int) -> None:
    assert "pixels" in refusal(packed(Image.new("1", (side, side)), "PNG"))


def test_a_wholly_transparent_picture_is_refused() -> None:
    assert "transparent" in refusal(packed(Image.new("RGBA", (64, 64), (9, 9, 9, 0)), "PNG"))


def test_floats_that_are_not_numbers_are_refused() -> None:
    assert "not numbers" in refusal(packed(Image.new("F", (64, 64), float("inf")), "TIFF"))


def test_random_damage_ends_in_a_picture_or_in_one_reason() -> None:
    import random

    random.seed(4)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"):
        whole = packed(quarters(), kind)
        for _ in range(60):
            data = bytearray(whole)
            for _ in range(random.randint(1, 8)):
                data[random.randrange(len(data))] = random.randrange(256)
            try:
                assert opened(fit(bytes(data), RULES)).size == (64, 64)
            except UnusablePicture as error:
                assert error.message and error.hint


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusablePicture, match="no such file"):
        read_bytes(tmp_path / "gone.jpg")


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
