"""ICC profiles built by hand, so that no file with another's licence is needed to test colours."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageCms

from tests.pictures import Colour, pixel

Triple = tuple[float, float, float]
_D50: Triple = (0.9642, 1.0, 0.8249)
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
# As Display P3 has them, adapted to D50.
_P3 = {b"rXYZ": (0.51512, 0.2412, -0.00105), b"gXYZ": (0.29198, 0.69225, 0.04189), b"bXYZ": (0.1571, 0.06657, 0.784)}


def display_p3() -> bytes:
    """Wider than sRGB, as phones write it."""
    points = {name: _xyz(value) for name, value in _P3.items()}
    curves = {name: _curve(*_SRGB_CURVE) for name in (b"rTRC", b"gTRC", b"bTRC")}
    return _profile(b"mntr", b"RGB ", b"XYZ ", {**points, **curves})


def linear_grey() -> bytes:
    """Grey whose values are light: 128 is much brighter than in sRGB."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _curve(1.0)})


def inks(colours: Mapping[tuple[int, ...], Colour]) -> bytes:
    """CMYK whose full inks (each 0 or 1) give these colours in sRGB; white without inks, and black otherwise."""
    grid = b""
    for ink in itertools.product((0, 1), repeat=4):
        grid += bytes(_lab(colours.get(ink, (0, 0, 0) if any(ink) else (255, 255, 255))))
    straight = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table + straight * 4 + grid + straight * 3})


def by_profile(colour: int | Colour, mode: str, profile: bytes) -> tuple[int, ...]:
    """A colour in sRGB, by the colour management that comes with Pillow."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return _converted(Image.new(mode, (1, 1), colour), source, ImageCms.createProfile("sRGB"), "RGB")


def _lab(colour: Colour) -> tuple[int, ...]:
    source = ImageCms.createProfile("sRGB")
    return _converted(Image.new("RGB", (1, 1), colour), source, ImageCms.createProfile("LAB"), "LAB")


def _converted(image: Image.Image, source: Any, target: Any, mode: str) -> tuple[int, ...]:
    converted = ImageCms.profileToProfile(image, source, target, outputMode=mode)
    assert converted  # not in place
    return pixel(converted, 0, 0)


def _profile(kind: bytes, space: bytes, connection: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    tags = {b"wtpt": _xyz(_D50), **tags}
    table, body, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(
        ">I4xI4s4s4s12x4s24xI12s48x", at + len(body), 0x04400000, kind, space, connection, b"acsp", 0, _fixed(*_D50)
    )
    return header + table + body


def _xyz(value: Triple) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*value)


def _curve(*numbers: float) -> bytes:
    return b"para" + bytes(4) + struct.pack(">HH", 0 if len(numbers) == 1 else 3, 0) + _fixed(*numbers)


def _fixed(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))
