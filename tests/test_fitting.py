"""Pictures by the rules of a dataset: cropped, in buckets, transparent, in other formats."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import ExifTags, Image

from dreamctl.errors import InvalidInput
from dreamctl.fitting import FOCUSES, Rules, fit, parse_colour
from dreamctl.placement import FITS
from tests.pictures import (
    BLUE,
    GREEN,
    RED,
    STORED,
    WHITE,
    hidden,
    mask_of,
    near,
    noise,
    opened,
    packed,
    pixel,
    quarters,
)

NOISE = noise(512, 512, 80).convert("RGB")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_every_orientation_is_cropped_where_people_see_it(kind: str, orientation: int) -> None:
    upright = Image.new("RGB", (1200, 400), RED)
    upright.paste(NOISE.resize((300, 300)), (850, 50))  # the detail is at the right
    upright.paste(GREEN, (900, 100, 1100, 300))
    turned = STORED[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = upright.transpose(turned) if turned is not None else upright
    fitted = fit(packed(stored, kind, exif=exif), Rules(64, fit="crop", focus="detail"))
    assert fitted.crop and fitted.crop[0] > 700 and fitted.crop[1:] == (0, fitted.crop[0] + 400, 400)
    assert fitted.size == (64, 64) and fitted.mask is None
    middle = (1000 - fitted.crop[0]) * 64 // 400
    assert near(pixel(opened(fitted), middle, 32), GREEN, 20)


def test_a_bucket_has_the_shape_of_the_picture() -> None:
    image = opened(fitted := fit(packed(quarters(400, 200), "PNG"), Rules(128, fit="bucket", step=32)))
    assert fitted.size == image.size == (160, 96) and fitted.mask is None
    assert fitted.crop == (34, 0, 367, 200)
    for x, y, wanted in ((20, 20, RED), (140, 20, GREEN), (20, 80, BLUE), (140, 80, WHITE)):
        assert near(pixel(image, x, y), wanted)


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_margins_and_what_was_transparent_may_stay_so(kind: str) -> None:
    picture = Image.new("RGBA", (64, 128), (0, 0, 0, 0))
    picture.paste(hidden("RGBA"), (0, 32))
    fitted = fit(packed(picture, "PNG"), Rules(64, None, format=kind))
    image = opened(fitted)
    assert (image.mode, image.format) == ("RGBA", kind.upper())
    assert pixel(image, 2, 32)[3] == 0 and pixel(image, 20, 32)[3] == 0
    assert pixel(image, 44, 32)[3] == 255 and near(pixel(image, 44, 32)[:3], GREEN)
    assert image.getchannel("A").tobytes() == mask_of(fitted).tobytes()


def test_formats_and_quality() -> None:
    data = packed(NOISE, "PNG")
    sizes = {quality: len(fit(data, Rules(256, quality=quality)).data) for quality in (50, 95)}
    assert sizes[50] < sizes[95] / 2
    for kind in ("jpeg", "png", "webp"):
        image = opened(fit(packed(quarters(128, 128), "PNG"), Rules(64, format=kind)))
        assert (image.format, image.mode, image.size) == (kind.upper(), "RGB", (64, 64))
        assert near(pixel(image, 16, 16), RED) and near(pixel(image, 48, 16), GREEN)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"fit": "stretch"}, "--fit"), ({"focus": "face"}, "--focus"), ({"format": "gif"}, "--format"),
        ({"quality": 0}, "--quality"), ({"step": 12}, "--bucket-step"), ({"step": 128}, "--bucket-step"),
        ({"background": None}, "--background"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_are_refused(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        Rules(64, **wrong)
    assert raised.value.field == field


def test_the_names_of_the_rules() -> None:
    assert set(FITS) == {"pad", "crop", "bucket"} and set(FOCUSES) == {"centre", "detail"}
    assert parse_colour("Transparent") is None


def test_a_blurred_picture_is_a_warning() -> None:
    sharp = packed(NOISE, "PNG")
    small = NOISE.resize((24, 24)).resize((512, 512), Image.Resampling.BICUBIC)
    blurred = "looks blurred: a sharper one teaches better"
    assert blurred not in fit(sharp, Rules(512)).warnings
    assert blurred in fit(packed(small, "PNG"), Rules(512)).warnings
