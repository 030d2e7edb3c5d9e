"""A picture by the rules of a dataset: placed, scaled, framed, masked and encoded. Nothing is written here."""

from __future__ import annotations

import dataclasses
import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageChops, ImageColor
from PIL.Image import Resampling, Transpose

from dreamctl import looks
from dreamctl.badpictures import UnusablePicture, explaining
from dreamctl.cutout import SIDE, Cutout, subject
from dreamctl.errors import InvalidInput
from dreamctl.images import SIDEWAYS, Decoded, decode, upright
from dreamctl.placement import BUCKET_STEP, CENTRE, FITS, Box, Placement, Size, place

QUALITY = 95
WHITE = (255, 255, 255)
BLURRED = 0.7  # of `looks.blur`; a sharp photograph has 0.2 to 0.5
# A JPEG is decoded at a half, quarter or eighth that is at least so many times what is needed: 46 dB or more beside the
# long way, for a third of its time.
_SPARE = 1.9
# Where the pixel at (x, y) of an upright picture of the size (w, h) is stored.
_STORED: Mapping[Transpose | None, Callable[[int, int, int, int], tuple[int, int]]] = {
    None: lambda x, y, w, h: (x, y),
    Transpose.FLIP_LEFT_RIGHT: lambda x, y, w, h: (w - x, y),
    Transpose.ROTATE_180: lambda x, y, w, h: (w - x, h - y),
    Transpose.FLIP_TOP_BOTTOM: lambda x, y, w, h: (x, h - y),
    Transpose.TRANSPOSE: lambda x, y, w, h: (y, x),
    Transpose.ROTATE_270: lambda x, y, w, h: (y, w - x),
    Transpose.TRANSVERSE: lambda x, y, w, h: (h - y, w - x),
    Transpose.ROTATE_90: lambda x, y, w, h: (h - y, x),
}

FORMATS_OUT: Mapping[str, tuple[str, str]] = {
    "jpeg": (".jpg", "JPEG"),
    "png": (".png", "PNG"),
    "webp": (".webp", "WEBP"),
}
"""Suffix and Pillow's name of each output format."""
FOCUSES = ("centre", "detail")


@dataclass(frozen=True)
class Rules:
    """How pictures are fitted.

    `fit`: pad, crop or bucket, at `size` pixels. `background` (RGB) is the colour of margins and behind transparency;
    None keeps them transparent, which JPEG cannot. `focus`: what a crop keeps in its middle. `step`: of the buckets.
    `cutout`: the model that removes the background; None keeps it.
    """

    size: int
    background: tuple[int, int, int] | None = WHITE
    fit: str = "pad"
    focus: str = "centre"
    upscale: bool = False
    step: int = BUCKET_STEP
    format: str = "jpeg"
    quality: int = QUALITY
    cutout: Cutout | None = None

    def __post_init__(self) -> None:
        for field, value, known in (
            ("--fit", self.fit, FITS), ("--focus", self.focus, FOCUSES), ("--format", self.format, FORMATS_OUT),
        ):  # fmt: skip
            if value not in known:
                raise InvalidInput(f"{field} {value!r} is not known", field=field, hint=f"one of {', '.join(known)}")
        if not 1 <= self.quality <= 100:
            raise InvalidInput(f"--quality {self.quality} is out of range", field="--quality", hint="1 to 100, best 95")
        if self.step % 8 or not 8 <= self.step <= self.size:
            raise InvalidInput(
                f"--bucket-step {self.step} is not a multiple of 8 up to {self.size}",
                field="--bucket-step",
                hint="64, as most trainers have it",
            )
        if self.background is None and self.format == "jpeg":
            raise InvalidInput(
                "JPEG has no transparency", field="--background", hint="--format png or webp, or a colour such as white"
            )

    @property
    def suffix(self) -> str:
        return FORMATS_OUT[self.format][0]

    def plain(self) -> dict[str, Any]:
        """As `dataset.json` holds them."""
        colour = "transparent" if self.background is None else "#" + bytes(self.background).hex()
        cutout = self.cutout.label if self.cutout else None
        return {**dataclasses.asdict(self), "background": colour, "cutout": cutout}


@dataclass(frozen=True)
class Fitted:
    """A fitted picture as a file, its mask as a PNG file (L, white = subject) where something is to be masked.

    `box` is where the source's pixels lie, `crop` the part of the upright source that they show, both left, top,
    right, bottom. `fingerprint`: see `looks`. `warnings` end the sentence "FILE: …". `thumb` is a small JPEG or
    PNG of it.
    """

    data: bytes
    mask: bytes | None
    size: Size
    box: Box
    crop: Box | None
    fingerprint: str
    warnings: tuple[str, ...]
    thumb: bytes | None = None


def parse_colour(text: str) -> tuple[int, int, int] | None:
    """`white`, `#ff8800` … as red, green and blue; None for `transparent`. Raises InvalidInput that names the value."""
    if text.strip().lower() == "transparent":
        return None
    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise InvalidInput(
            f"{text!r} is not a colour", field="--background", hint="for example white, transparent or '#808080'"
        ) from error
    return red, green, blue


def fit(data: bytes, rules: Rules, suffix: str = "", thumb: int = 0) -> Fitted:
    """Place the picture by the rules, undistorted. No metadata is left.

    `suffix` is the file's, to warn where it lies. `thumb`: the longer side of one, in pixels; 0 for none. Raises
    UnusablePicture, whatever is wrong with `data`; DreamctlError where the rules' `cutout` does not work at all.
    """
    with explaining(data):
        decoded = decode(data, suffix, lambda size: _wanted_scale(size, rules))
        cut = _cut(decoded, rules) if rules.cutout else None
        focus = _focus(decoded, cut) if rules.focus == "detail" and rules.fit != "pad" else CENTRE
        where = _placed(decoded.upright_size, rules, focus)
        notes = [*decoded.warnings, *_size_notes(where, rules, decoded.upright_size)]
        colour, alpha = upright(decoded, _scaled(decoded, where), notes)
        if cut:
            alpha = _cut_alpha(cut, alpha, where, decoded.upright_size)
        elif rules.cutout:
            notes.append("shows no subject: its background stays (--cutout-model NAME tries another model)")
        seen = _on_background(colour, alpha, rules)
        grey = seen.convert("L")
        if looks.blur(grey) > BLURRED:
            notes.append("looks blurred: a sharper one teaches better")
        fingerprint = looks.fingerprint(grey)
        return _framed(seen, alpha, where, decoded.upright_size, rules, fingerprint, notes, thumb)


def _placed(size: Size, rules: Rules, focus: tuple[float, float] = CENTRE) -> Placement:
    return place(rules.fit, size, rules.size, upscale=rules.upscale, step=rules.step, focus=focus)


def _size_notes(where: Placement, rules: Rules, size: Size) -> list[str]:
    if where.scale > 1:
        return [f"has {size[0]}×{size[1]} pixels: enlarged {where.scale:.2f}×"]
    if max(where.scaled) < rules.size and rules.fit == "pad":
        return [f"has {size[0]}×{size[1]} pixels, less than {rules.size}: wide margins (--upscale enlarges it)"]
    return []


def _wanted_scale(size: Size, rules: Rules) -> float:
    """The least at which a picture of the size may be decoded."""
    seen = SIDE / max(size) if rules.cutout else 0.0
    return min(1.0, max(_SPARE * _placed(size, rules).scale, seen))


def _cut(decoded: Decoded, rules: Rules) -> Image.Image | None:
    """The subject's mask, of the whole upright picture though smaller; None where there is no subject."""
    assert rules.cutout
    scale = min(1.0, SIDE / max(decoded.image.size))
    size = (max(1, round(decoded.image.width * scale)), max(1, round(decoded.image.height * scale)))
    colour, alpha = upright(decoded, decoded.image.resize(size, Resampling.LANCZOS, reducing_gap=2.0), [])
    seen = colour
    if alpha:
        seen = Image.new("RGB", colour.size, rules.background or WHITE)
        seen.paste(colour, (0, 0), alpha)
    mask = subject(seen, rules.cutout)
    if alpha:
        mask = ImageChops.darker(mask, alpha)
    return mask if _shows(mask) else None


def _cut_alpha(cut: Image.Image, alpha: Image.Image | None, where: Placement, source: Size) -> Image.Image:
    """The wanted part of the mask at its new size, and no more than the picture's own alpha."""
    across, down = (part / whole for part, whole in zip(cut.size, source, strict=True))
    left, top, right, bottom = where.crop
    box = (left * across, top * down, right * across, bottom * down)
    mask = cut.resize(where.scaled, Resampling.BILINEAR, box=box)  # LANCZOS would ring: ghosts of the background
    if alpha:
        mask = ImageChops.darker(mask, alpha)
    if not _shows(mask):
        raise UnusablePicture("has its subject outside of the crop", hint="--focus detail keeps it in, or --fit pad")
    return mask


def _shows(mask: Image.Image) -> bool:
    """Whether anything is more visible than not."""
    return any(mask.histogram()[128:])


def _focus(decoded: Decoded, cut: Image.Image | None) -> tuple[float, float]:
    """Of the upright picture."""
    if cut:
        return looks.focus(Image.merge("RGBA", (cut, cut, cut, cut)))
    small = decoded.image.reduce(max(1, min(decoded.image.size) // 256))
    return looks.focus(small.transpose(decoded.turn) if decoded.turn is not None else small)


def _scaled(decoded: Decoded, where: Placement) -> Image.Image:
    """The wanted part at its new size, as stored: turning it upright comes later, with far fewer pixels to move."""
    stored, (width, height) = _STORED[decoded.turn], decoded.upright_size
    (x1, y1), (x2, y2) = (stored(x, y, width, height) for x, y in (where.crop[:2], where.crop[2:]))
    across, down = (part / whole for part, whole in zip(decoded.image.size, decoded.size, strict=True))
    box = (min(x1, x2) * across, min(y1, y2) * down, max(x1, x2) * across, max(y1, y2) * down)
    size = where.scaled[::-1] if decoded.turn in SIDEWAYS else where.scaled
    return decoded.image.resize(size, Resampling.LANCZOS, box=box, reducing_gap=2.0)


def _on_background(colour: Image.Image, alpha: Image.Image | None, rules: Rules) -> Image.Image:
    """What people see of the picture. With margins that stay transparent, what is wholly hidden is white and the rest
    as it was: the alpha is kept."""
    if alpha is None:
        return colour
    canvas = Image.new("RGB", colour.size, rules.background or WHITE)
    canvas.paste(colour, (0, 0), alpha if rules.background else alpha.point([0] + [255] * 255))
    return canvas


def _framed(
    seen: Image.Image, alpha: Image.Image | None, where: Placement, source: Size, rules: Rules, fingerprint: str,
    notes: Sequence[str], thumb: int,
) -> Fitted:  # fmt: skip
    canvas = Image.new("RGB", where.canvas, rules.background or WHITE)
    canvas.paste(seen, where.box)
    mask = None
    if alpha or seen.size != where.canvas:
        subject = Image.new("L", where.canvas, 0)
        subject.paste(alpha or 255, where.box)
        mask = _encoded(subject, "PNG", compress_type=zlib.Z_RLE)  # as small, twice as fast
        if rules.background is None:
            canvas.putalpha(subject)
    options: dict[str, Any] = {"quality": rules.quality} if rules.format != "png" else {}
    if rules.format == "jpeg":
        options["subsampling"] = 0
    return Fitted(
        data=_encoded(canvas, FORMATS_OUT[rules.format][1], **options),
        mask=mask,
        size=where.canvas,
        box=where.box,
        crop=None if where.crop == (0, 0, *source) else where.crop,
        fingerprint=fingerprint,
        warnings=tuple(notes),
        thumb=_thumb(canvas, thumb) if thumb else None,
    )


def _thumb(canvas: Image.Image, side: int) -> bytes:
    scale = min(1.0, side / max(canvas.size))
    size = (max(1, round(canvas.width * scale)), max(1, round(canvas.height * scale)))
    small = canvas.resize(size, Resampling.BICUBIC, reducing_gap=1.0)
    return _encoded(small, "PNG") if small.mode == "RGBA" else _encoded(small, "JPEG", quality=90)


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
