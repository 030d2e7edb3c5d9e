"""Pictures: opened safely, their colours made right. Pillow only; nothing is written here."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image
from PIL.Image import Transpose

from dreamctl.badpictures import CR2, RAW, SAVE_SMALLER, UnusablePicture, explaining, needs_heif
from dreamctl.colours import eight_bit, srgb
from dreamctl.files import os_hint, os_reason
from dreamctl.placement import Size

# MPO comes through JPEG. No format that starts a program (EPS runs Ghostscript) and none that nobody photographs in.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MAX_PIXELS = 80_000_000
MAX_BYTES = 1 << 30
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "MPO": (".jpg", ".jpeg", ".mpo"), "PNG": (".png", ".apng"),
    "WEBP": (".webp",), "GIF": (".gif",), "BMP": (".bmp", ".dib"), "TIFF": (".tif", ".tiff"), "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
}  # fmt: skip
SUFFIXES = frozenset(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)
"""What files of pictures that can be read are called."""
_TRANSPOSES = {
    2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
}  # fmt: skip
_SUBFILE, _REDUCED, _SUB_IFDS, _DNG_VERSION = 254, 1, 330, 50706  # of TIFF

# Turned so that width and height change places.
SIDEWAYS = frozenset((Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90))


@dataclass
class Decoded:
    """Pixels as L, RGB, RGBA or CMYK, not yet turned, not yet sRGB; perhaps fewer than the stored `size` has."""

    image: Image.Image
    profile: bytes | None
    turn: Transpose | None
    size: Size
    warnings: list[str]

    @property
    def upright_size(self) -> Size:
        return (self.size[1], self.size[0]) if self.turn in SIDEWAYS else self.size


def read_bytes(path: Path) -> bytes:
    """A picture file's bytes. Raises UnusablePicture where it cannot be read or is larger than 1 GiB."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UnusablePicture("is larger than 1 GiB", hint="save it as a JPEG")
        return path.read_bytes()
    except OSError as error:
        raise UnusablePicture(f"cannot be read: {os_reason(error)}", hint=os_hint(error)) from error


def read_picture(path: Path) -> Image.Image:
    """The picture as people see it: upright, sRGB, transparency on white. Raises UnusablePicture."""
    data = read_bytes(path)
    with explaining(data):
        decoded = decode(data, path.suffix)
        colour, alpha = upright(decoded, decoded.image, decoded.warnings)
        if alpha is None:
            return colour
        canvas = Image.new("RGB", colour.size, (255, 255, 255))
        canvas.paste(colour, (0, 0), alpha)
        return canvas


def decode(data: bytes, suffix: str, scale: Callable[[Size], float] = lambda _: 1.0) -> Decoded:
    """Decode all pixels; JPEG is decoded at a half, quarter or eighth where that is no less than the wanted `scale`.

    `scale` is asked with the stored size, and does not depend on which way up it is.
    """
    notes: list[str] = []
    image: Image.Image = Image.open(io.BytesIO(data), formats=_formats(data))
    kind = image.format or ""
    if _is_raw(data, image):
        raise UnusablePicture(RAW[0], hint=RAW[1])
    lower = suffix.lower()
    if lower in SUFFIXES and lower not in _SUFFIXES[kind]:
        notes.append(f"is a {kind} named {suffix}")
    if _has_more_frames(image):
        notes.append("holds more than one picture: only the first is taken")
    size = image.size
    if kind in ("JPEG", "MPO") and (wanted := scale(size)) < 1:
        image.draft(None, (math.ceil(size[0] * wanted), math.ceil(size[1] * wanted)))
    # A progressive JPEG keeps all coefficients in memory however small it is decoded.
    width, height = size if image.info.get("progressive") else image.size
    if width * height > MAX_PIXELS:
        raise UnusablePicture(
            f"has {size[0]}×{size[1]} pixels, more than {MAX_PIXELS // 10**6} million", hint=SAVE_SMALLER
        )
    image.load()
    if kind == "TIFF":
        size = image.size  # Pillow turns TIFF while loading
    profile = None if image.mode == "LAB" else image.info.get("icc_profile")
    turn = _turn(image, notes)
    return Decoded(eight_bit(image, notes), profile, turn, size, notes)


def _formats(data: bytes) -> tuple[str, ...]:
    """What may be opened; HEIC too, where the extra that reads it is installed."""
    if not needs_heif(data):
        return FORMATS
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
        return (*FORMATS, "HEIF")
    return FORMATS


def _is_raw(data: bytes, image: Image.Image) -> bool:
    """Whether this is a camera's raw file: a TIFF whose first picture is a thumbnail of what lies deeper."""
    tags = getattr(image, "tag_v2", {})
    return data.startswith(CR2) or _DNG_VERSION in tags or (tags.get(_SUBFILE) == _REDUCED and _SUB_IFDS in tags)


def _has_more_frames(image: Image.Image) -> bool:
    with contextlib.suppress(Exception):  # a broken second frame is none
        return bool(getattr(image, "is_animated", False))
    return False


def _turn(image: Image.Image, notes: list[str]) -> Transpose | None:
    try:
        return _TRANSPOSES.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises nearly anything on broken EXIF, and the pixels are good
        notes.append("has unreadable EXIF data: check that it is upright")
        return None


def upright(decoded: Decoded, image: Image.Image, notes: list[str]) -> tuple[Image.Image, Image.Image | None]:
    """Colour (RGB, sRGB) and alpha (L, or None where nothing is transparent) of `image`, turned upright."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    colour = srgb(image.convert("RGB") if alpha else image, decoded.profile, notes)
    if decoded.turn is not None:
        colour = colour.transpose(decoded.turn)
        alpha = alpha.transpose(decoded.turn) if alpha else None
    return colour, alpha
