"""What cannot become a picture is refused with one reason and one piece of advice."""

from __future__ import annotations

import io
import random
import sys
from pathlib import Path

import pytest
from PIL import Image

from dreamctl.badpictures import UnusablePicture
from dreamctl.fitting import fit
from dreamctl.images import read_bytes
from tests.pictures import (
    BLUE,
    GREEN,
    RED,
    RULES,
    near,
    noise,
    opened,
    packed,
    pixel,
    quarters,
)


def refusal(data: bytes) -> str:
    with pytest.raises(UnusablePicture) as raised:
        fit(data, RULES)
    assert raised.value.hint, "a reason needs advice"
    return raised.value.message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP"])
def test_a_truncated_picture_is_refused(kind: str) -> None:
    data = packed(noise(200, 200, 80).convert("RGB"), kind)
    assert refusal(data[: len(data) // 2])


def test_truncated_jpeg_and_png_are_called_so() -> None:
    for kind in ("JPEG", "PNG"):
        data = packed(noise(200, 200, 80).convert("RGB"), kind)
        assert "truncated" in refusal(data[: len(data) * 2 // 3])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\n <!DOCTYPE html><p>404", "web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
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


def test_heic_without_the_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnusablePicture, match="is a HEIC picture") as raised:
        fit(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", RULES)
    assert 'pip install "dreamctl[heic]"' in str(raised.value.hint)


def test_heic_is_read_with_the_extra() -> None:
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(quarters(128, 128)).save(buffer, quality=95)
    image = opened(fit(buffer.getvalue(), RULES, ".heic"))
    for x, y, wanted in ((16, 16, RED), (48, 16, GREEN), (16, 48, BLUE)):
        assert near(pixel(image, x, y), wanted, 12)
