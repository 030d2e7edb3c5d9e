"""Pictures for tests, and what is asked of those that come out."""

from __future__ import annotations

import io
import random
from typing import Any

from PIL import Image
from PIL.Image import Transpose

from dreamctl.fitting import Fitted, Rules, fit

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


def noise(width: int, height: int, deviation: float, seed: int = 0) -> Image.Image:
    """Grey noise, the same for the same seed (`Image.effect_noise` draws anew each time)."""
    grain = Image.frombytes("L", (width, height), random.Random(seed).randbytes(width * height))
    return grain.point([min(255, max(0, round(128 + (value - 127.5) * deviation / 73.9))) for value in range(256)])


def packed(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def opened(fitted: Fitted) -> Image.Image:
    image = Image.open(io.BytesIO(fitted.data))
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


def patchwork(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Soft patches of grey, different for each seed."""
    rng = random.Random(seed)
    image = Image.new("L", (9, 9))
    image.putdata([rng.randrange(256) for _ in range(81)])
    return image.resize(size, Image.Resampling.BICUBIC).convert("RGB")
