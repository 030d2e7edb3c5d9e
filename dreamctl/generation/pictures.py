"""Pictures on disk: named by prompt and time, with the parameters that made them inside."""

from __future__ import annotations

import datetime
import io
import itertools
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from dreamctl.domain.dataset import IMAGE_FORMATS
from dreamctl.errors import DreamctlError
from dreamctl.files import write_new

TEXT_KEY = "parameters"  # what AUTOMATIC1111's web UI writes and most viewers show
JSON_KEY = "dreamctl"
_SLUG_LENGTH = 60


def slug(text: str) -> str:
    """A prompt as part of a file name: letters and digits of any script, joined by hyphens."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFC", text).lower())
    name = ""
    for word in words:
        longer = f"{name}-{word}" if name else word
        if len(longer.encode()) > _SLUG_LENGTH:
            break
        name = longer
    return name or "picture"


def save_picture(
    image: Image.Image,
    folder: Path,
    prompt: str,
    when: datetime.datetime,
    seed: int,
    parameters: Mapping[str, Any],
    prefix: str = "",
) -> Path:
    """Save as PNG named by prompt, time and seed, and return the path. Never overwrites: a counter is added.

    `parameters` (JSON-ready; `negative`, `steps`, `guidance`, `width`, `height`, `model` … by these names) are embedded
    as a `parameters` text in AUTOMATIC1111's dialect and as JSON. Raises DreamctlError that names the path.
    """
    stem = f"{prefix}{slug(prompt)}-{when:%Y%m%d-%H%M%S}-{seed}"
    told = {"prompt": prompt, "seed": seed, **parameters}
    info = PngImagePlugin.PngInfo()
    info.add_itxt(TEXT_KEY, a1111_text(told))
    info.add_itxt(JSON_KEY, json.dumps(told, ensure_ascii=False, sort_keys=True))
    png = io.BytesIO()
    image.save(png, format="PNG", pnginfo=info)
    names = (f"{stem}.png" if number == 1 else f"{stem}-{number}.png" for number in itertools.count(1))
    return write_new((folder / name for name in names), png.getvalue())


def a1111_text(told: Mapping[str, Any]) -> str:
    """The parameters as AUTOMATIC1111's web UI writes them: prompt, negative prompt, `Key: value, …`."""
    pairs = {
        "Steps": told.get("steps"),
        "CFG scale": told.get("guidance"),
        "Seed": told.get("seed"),
        "Size": f"{told['width']}x{told['height']}" if "width" in told and "height" in told else None,
        "Model": told.get("model"),
    }
    lines = [str(told.get("prompt", ""))]
    if told.get("negative"):
        lines.append(f"Negative prompt: {told['negative']}")
    lines.append(", ".join(f"{key}: {value}" for key, value in pairs.items() if value is not None))
    return "\n".join(lines)


def read_parameters(path: Path) -> dict[str, Any] | None:
    """What `save_picture` embedded; None for a picture from elsewhere. Raises DreamctlError when it is no picture."""
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            image.load()
            text = getattr(image, "text", {}).get(JSON_KEY)
    except (OSError, UnidentifiedImageError) as error:
        raise DreamctlError(f"{path} cannot be read as a picture: {error}") from error
    try:
        value = json.loads(text) if text else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def grid(images: Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """All images in one, row by row, on white; the cell is as large as the largest. Raises ValueError without any."""
    if not images:
        raise ValueError("a grid needs at least one picture")
    across = min(columns or _square(len(images)), len(images))
    down = -(-len(images) // across)
    width, height = max(image.width for image in images), max(image.height for image in images)
    sheet = Image.new("RGB", (across * width, down * height), "white")
    for number, image in enumerate(images):
        left = number % across * width + (width - image.width) // 2
        top = number // across * height + (height - image.height) // 2
        sheet.paste(image, (left, top))
    return sheet


def _square(count: int) -> int:
    """The number of columns that makes the grid nearest to a square, not higher than wide."""
    columns = 1
    while columns * columns < count:
        columns += 1
    return columns
