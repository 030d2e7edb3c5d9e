"""Right colours: any pixel format as 8 bits a channel, and embedded colour profiles as sRGB."""

from __future__ import annotations

import io
import math

from PIL import Image, ImageCms

from dreamctl.badpictures import UnusablePicture

_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _SIGNED = 258, 339, 2  # of TIFF
_EIGHT_BIT = {"1": "L", "P": "RGB", "YCbCr": "RGB", "HSV": "RGB", "RGBX": "RGB"}
_PROFILE_MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}


def eight_bit(image: Image.Image, notes: list[str]) -> Image.Image:
    """The picture as L, RGB, RGBA or CMYK. 16 bits and floats are scaled, never clipped."""
    if image.mode.startswith("I"):
        image = _from_integers(image, notes)
    elif image.mode == "F":
        image = _from_floats(image, notes)
    if image.mode == "LAB":
        return _from_lab(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        lowest, highest = image.getchannel("A").getextrema()
        if highest == 0:
            raise UnusablePicture("is wholly transparent", hint="save it again with its subject visible")
        return image if lowest != 255 else image.convert("RGB")
    return in_mode(image, _EIGHT_BIT.get(image.mode, image.mode))


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """The picture itself where it has that mode: Pillow would copy it."""
    return image if image.mode == mode else image.convert(mode)


def _from_integers(image: Image.Image, notes: list[str]) -> Image.Image:
    wide = image.convert("I")
    lowest, highest = _extrema(wide)
    if image.mode == "I" and lowest >= 0 and highest <= 255:
        return wide.convert("L")
    if lowest < 0 or highest > 65535:
        return _stretched(wide.convert("F"), lowest, highest, notes)
    white = _white(image)
    if highest < white // 16:
        notes.append(f"uses only values up to {highest} of {white}: it is nearly black")
    grey = wide.point([min(255, (value * 255 + white // 2) // white) for value in range(65536)], "L")
    key = image.info.get("transparency")
    if isinstance(key, int):
        alpha = wide.point([255 * (value != key) for value in range(65536)], "L")
        return Image.merge("LA", (grey, alpha))
    return grey


def _white(image: Image.Image) -> int:
    """The value of white: 65535, or less where a TIFF says that it has fewer bits, or one for the sign."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0] - (tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED)
    return (1 << bits) - 1 if 8 < bits < 16 else 65535


def _from_floats(image: Image.Image, notes: list[str]) -> Image.Image:
    lowest, highest = _extrema(image)
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise UnusablePicture("holds values that are not numbers", hint="export it as an 8-bit or 16-bit picture")
    for white in (1.0, 255.0, 65535.0):
        if lowest >= 0 and highest <= white:
            if white > 1 and highest < white / 16:
                break  # light beyond white, such as 0 to 4.7: by that white it would be nearly black
            return _scaled(image, 255 / white, 0.0)
    return _stretched(image, lowest, highest, notes)


def _stretched(image: Image.Image, lowest: float, highest: float, notes: list[str]) -> Image.Image:
    notes.append(f"holds values from {lowest:g} to {highest:g}: stretched to black and white")
    scale = 255 / ((highest - lowest) or 1)
    return _scaled(image, scale, -lowest * scale)


def _scaled(image: Image.Image, scale: float, offset: float) -> Image.Image:
    half = offset + 0.5  # Pillow cuts the fraction off
    return image.point(lambda value: value * scale + half).convert("L")


def _extrema(image: Image.Image) -> tuple[float, float]:
    lowest, highest = image.getextrema()
    assert not isinstance(lowest, tuple) and not isinstance(highest, tuple)  # one channel
    return lowest, highest


def _from_lab(image: Image.Image) -> Image.Image:
    converted = ImageCms.profileToProfile(
        image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None  # not in place
    return converted


def srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """The picture as sRGB by its embedded profile; the RGB values as they are where it has none."""
    if not profile:
        if image.mode == "CMYK":
            notes.append("is CMYK without a colour profile: its colours are approximate")
        return in_mode(image, "RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _PROFILE_MODES[source.profile.xcolor_space.strip()]
        if (mode == "CMYK") != (image.mode == "CMYK"):
            raise ValueError("the profile is for another kind of picture")
        if mode == "RGB" and "sRGB" in ImageCms.getProfileDescription(source):
            return in_mode(image, "RGB")
        converted = ImageCms.profileToProfile(
            in_mode(image, mode), source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        assert converted is not None  # not in place
        return converted
    except (ImageCms.PyCMSError, OSError, ValueError, KeyError, TypeError):
        notes.append("has an unusable colour profile: its colours are approximate")
        return image.convert("RGB")
