"""What cannot become a picture is refused with one reason and one piece of advice."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

import pytest
from PIL import Image, TiffImagePlugin

from dreamctl.badpictures import UnusablePicture
from dreamctl.fitting import fit
from dreamctl.images import read_bytes
from tests.pictures import (
    RULES,
    noise,
    opened,
    packed,
    quarters,
)

# Whatever Pillow raises, these are the words.
OURS = re.compile(
    "is cut off .truncated.|is damaged(, or a rare kind of [A-Za-z]+ that is not read)?|is wholly transparent|"
    "has .* pixels.*|is not a picture of a kind that is read"
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


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\n <!DOCTYPE html><p>404", "web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "video"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "raw"),
        (b"II*\0\x10\0\0\0CR\2\0", "raw"),
        (b"FUJIFILMCCD-RAW 0201", "raw"),
        (b"\x1a\x45\xdf\xa3....", "video"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"PK\x03\x04....", "zip"),
        (b"Rar!\x1a\7", "RAR"),
        (b"hello", "not a picture"),
    ],
)
def test_what_is_not_a_picture_is_named(data: bytes, reason: str) -> None:
    assert reason in refusal(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0\0\0\x20ftypavif\0\0\0\0avif", "damaged, or a rare kind of AVIF"),  # no video
        (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "damaged, or a rare kind of TIFF"),
        (b"GIF89a\0\0", "damaged, or a rare kind of GIF"),
        (b"\x89PNG\r\n\x1a\n", "cut off"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "cut off"),
    ],
)
def test_a_damaged_head_is_not_taken_for_another_kind_of_file(data: bytes, reason: str) -> None:
    assert reason in refusal(data)


def test_a_kind_that_pillow_does_not_know_is_not_only_called_damaged() -> None:
    data = bytearray(packed(quarters(), "BMP"))
    data[28] = 2  # bits a pixel
    assert refusal(bytes(data)) == "is damaged, or a rare kind of BMP that is not read"


@pytest.mark.parametrize(("tag", "value"), [(50706, b"\1\4\0\0"), (330, 8)])
def test_the_thumbnail_of_a_raw_file_is_not_taken_for_the_picture(tag: int, value: bytes | int) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[254] = 1  # a smaller version of another picture in the file
    tags[tag] = value
    assert refusal(packed(quarters(), "TIFF", tiffinfo=tags)) == "is a camera's raw file"


def test_a_wholly_transparent_picture_is_refused() -> None:
    assert "transparent" in refusal(packed(Image.new("RGBA", (64, 64), (9, 9, 9, 0)), "PNG"))


def test_floats_that_are_not_numbers_are_refused() -> None:
    assert "not numbers" in refusal(packed(Image.new("F", (64, 64), float("inf")), "TIFF"))


def test_random_damage_ends_in_a_picture_or_in_one_reason_and_pillow_is_not_heard(
    caplog: pytest.LogCaptureFixture,
) -> None:
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
                assert OURS.fullmatch(error.message) and error.hint
    assert not caplog.records


def test_a_damaged_heic_is_not_told_to_install_what_is_there() -> None:
    pytest.importorskip("pillow_heif")
    assert refusal(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic") == "is damaged, or a rare kind of HEIC that is not read"


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusablePicture, match="no such file"):
        read_bytes(tmp_path / "gone.jpg")


def test_heic_without_the_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnusablePicture, match="is a HEIC picture") as raised:
        fit(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", RULES)
    assert 'pip install "dreamctl[heic]"' in str(raised.value.hint)
