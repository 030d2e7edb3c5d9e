"""Pictures: opened safely, their colours made right, fitted into a square. Pillow only; nothing is written here."""

from __future__ import annotations

import contextlib
import io
import math
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, ImageColor
from PIL.Image import Resampling, Transpose

from dreamctl.badpictures import SAVE_SMALLER, UnusablePicture, explaining
from dreamctl.colours import eight_bit, srgb
from dreamctl.errors import InvalidInput
from dreamctl.files import os_hint, os_reason

# MPO comes through JPEG. No format that starts a program (EPS runs Ghostscript) and none that nobody photographs in.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MAX_PIXELS = 80_000_000
MAX_BYTES = 1 << 30
QUALITY = 95

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "MPO": (".jpg", ".jpeg", ".mpo"), "PNG": (".png", ".apng"),
    "WEBP": (".webp",), "GIF": (".gif",), "BMP": (".bmp", ".dib"), "TIFF": (".tif", ".tiff"), "AVIF": (".avif",),
}  # fmt: skip
_KNOWN_SUFFIXES = frozenset(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)
_TRANSPOSES = {
    2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
}  # fmt: skip


@dataclass(frozen=True)
class Rules:
    """How pictures are fitted: `size` × `size` pixels; margins, and what shows through, in `background` (RGB)."""

    size: int
    background: tuple[int, int, int] = (255, 255, 255)


@dataclass(frozen=True)
class Fitted:
    """A fitted picture as a JPEG file, its mask as a PNG file (L, white = subject) where something is to be masked.

    `box` is where the source's pixels lie: left, top, right, bottom. `warnings` end the sentence "FILE: …".
    """

    jpeg: bytes
    mask: bytes | None
    box: tuple[int, int, int, int]
    warnings: tuple[str, ...]


@dataclass
class _Decoded:
    """Pixels as L, RGB, RGBA or CMYK, not yet turned, not yet sRGB."""

    image: Image.Image
    profile: bytes | None
    turn: Transpose | None
    size: tuple[int, int]
    warnings: list[str]


def parse_colour(text: str) -> tuple[int, int, int]:
    """`white`, `#ff8800` … as red, green and blue. Raises InvalidInput that names the value."""
    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise InvalidInput(
            f"{text!r} is not a colour", field="--background", hint="for example white, black or '#808080'"
        ) from error
    return red, green, blue


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
        decoded = _decode(data, path.suffix)
        colour, alpha = _upright(decoded, decoded.image)
        if alpha is None:
            return colour
        canvas = Image.new("RGB", colour.size, (255, 255, 255))
        canvas.paste(colour, (0, 0), alpha)
        return canvas


def fit(data: bytes, rules: Rules, suffix: str = "") -> Fitted:
    """Scale the whole picture into the square, undistorted, with margins. No metadata is left.

    `suffix` is the file's, to warn where it lies. Raises UnusablePicture, whatever is wrong with `data`.
    """
    with explaining(data):
        decoded = _decode(data, suffix, at_least=2 * rules.size)
        scale = rules.size / max(decoded.size)
        if scale > 1:
            decoded.warnings.append(f"is smaller than {rules.size}: enlarged {scale:.2f}×")
        width, height = (max(1, round(side * scale)) for side in decoded.size)
        small = decoded.image.resize((width, height), Resampling.LANCZOS)
        colour, alpha = _upright(decoded, small)
        return _framed(colour, alpha, rules, decoded.warnings)


def _framed(colour: Image.Image, alpha: Image.Image | None, rules: Rules, notes: list[str]) -> Fitted:
    side = rules.size
    left, top = (side - colour.width) // 2, (side - colour.height) // 2
    box = (left, top, left + colour.width, top + colour.height)
    canvas = Image.new("RGB", (side, side), rules.background)
    canvas.paste(colour, (left, top), alpha)
    mask = None
    if alpha or colour.size != canvas.size:
        subject = Image.new("L", canvas.size, 0)
        subject.paste(alpha or 255, box)
        mask = _encoded(subject, "PNG")
    return Fitted(_encoded(canvas, "JPEG", quality=QUALITY, subsampling=0), mask, box, tuple(notes))


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _decode(data: bytes, suffix: str, at_least: int | None = None) -> _Decoded:
    """Decode all pixels; JPEG is decoded at a half, quarter or eighth where its longer side stays `at_least`."""
    notes: list[str] = []
    image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    kind = image.format or ""
    lower = suffix.lower()
    if lower in _KNOWN_SUFFIXES and lower not in _SUFFIXES[kind]:
        notes.append(f"is a {kind} named {suffix}")
    if _has_more_frames(image):
        notes.append("holds more than one picture: only the first is taken")
    size = image.size
    if kind in ("JPEG", "MPO") and at_least:
        shrunk = at_least / max(size)
        if shrunk < 1:
            image.draft(None, (math.ceil(size[0] * shrunk), math.ceil(size[1] * shrunk)))
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
    return _Decoded(eight_bit(image, notes), profile, turn, size, notes)


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


def _upright(decoded: _Decoded, image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colour (RGB, sRGB) and alpha (L, or None where nothing is transparent) of `image`, turned upright."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    colour = srgb(image.convert("RGB") if alpha else image, decoded.profile, decoded.warnings)
    if decoded.turn is not None:  # after the resize: far fewer pixels to move
        colour = colour.transpose(decoded.turn)
        alpha = alpha.transpose(decoded.turn) if alpha else None
    return colour, alpha
