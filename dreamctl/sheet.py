"""A contact sheet: all pictures of a dataset on one page, with what was padded, cropped and warned about.

People look rather than read. It stands beside the dataset folder, never inside, where a trainer would take it for data.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from dreamctl.datasetfolder import DatasetFolder
from dreamctl.domain.base import digest
from dreamctl.domain.dataset import Dataset, Picture
from dreamctl.errors import DreamctlError
from dreamctl.files import write_bytes

MOST = 400
"""Pictures on a sheet; those with warnings come first where there are more."""

_CELL, _GAP, _LINE = 160, 12, 16
_WIDTH = 1600
_KEY = "dreamctl"
_INK, _PAPER = (40, 40, 40), (245, 245, 245)
_MARKS = {"padded": (40, 110, 200), "cropped": (20, 140, 80), "warned": (215, 95, 0)}


def sheet_file(dataset: Path) -> Path:
    """Where the sheet of a dataset folder lies."""
    return dataset.with_name(f"{dataset.name}-contact-sheet.png")


def write_sheet(folder: DatasetFolder, warned: Mapping[str, str]) -> Path:
    """Write the folder's sheet, unless the one that is there shows the same; `warned`: a warning by picture file.

    Raises DreamctlError where a file of that name is not a sheet of ours, or cannot be written.
    """
    path, manifest = sheet_file(folder.path), folder.manifest()
    state = digest([manifest.plain(), dict(warned)])
    shown = _shown(path)
    if shown is None and path.exists():
        raise DreamctlError(f"{path} is there and is not a contact sheet", hint="move it away, or say --no-sheet")
    if shown != state:
        info = PngImagePlugin.PngInfo()
        info.add_text(_KEY, state)
        png = io.BytesIO()
        draw(folder, manifest, warned).save(png, "PNG", pnginfo=info)
        write_bytes(path, png.getvalue())
    return path


def marks(picture: Picture, warned: Mapping[str, str]) -> list[str]:
    """What happened to a picture."""
    padded = picture.box is not None and picture.box != (0, 0, picture.width, picture.height)
    happened = {"padded": padded, "cropped": picture.crop is not None, "warned": picture.file in warned}
    return [mark for mark, is_so in happened.items() if is_so]


def draw(folder: DatasetFolder, manifest: Dataset, warned: Mapping[str, str]) -> Image.Image:
    """The sheet, in rows, below a line that sums up."""
    pictures = _chosen(manifest.pictures, warned)
    across = max(1, min(len(pictures), (_WIDTH - _GAP) // (_CELL + _GAP)))
    step_y = _CELL + 2 * _LINE + _GAP
    width = max(4 * (_CELL + _GAP), across * (_CELL + _GAP)) + _GAP
    sheet = Image.new("RGB", (width, 3 * _LINE + math.ceil(len(pictures) / across) * step_y), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    pen.text((_GAP, _GAP), _summary(folder.path.name, manifest, warned), _INK, ImageFont.load_default(15))
    for number, picture in enumerate(pictures):
        left = _GAP + number % across * (_CELL + _GAP)
        top = 3 * _LINE + number // across * step_y
        _draw_one(sheet, pen, folder.path / picture.file, picture, left, top)
        happened = marks(picture, warned)
        pen.text((left, top + _CELL + 2), _short(picture.file, font), _INK, font)
        place = left
        for mark in happened:
            pen.text((place, top + _CELL + _LINE), mark, _MARKS[mark], font)
            place += round(font.getlength(mark)) + 8
    return sheet


def _draw_one(sheet: Image.Image, pen: ImageDraw.ImageDraw, file: Path, picture: Picture, left: int, top: int) -> None:
    with Image.open(file) as image:
        image.draft("RGB", (_CELL, _CELL))
        small = image.convert("RGBA")
    small.thumbnail((_CELL, _CELL))
    x, y = left + (_CELL - small.width) // 2, top + (_CELL - small.height) // 2
    sheet.paste(small, (x, y), small)
    pen.rectangle((x - 1, y - 1, x + small.width, y + small.height), outline=(190, 190, 190))
    if picture.box and picture.box != (0, 0, picture.width, picture.height):
        scale = small.width / picture.width
        box = [x + round(picture.box[0] * scale), y + round(picture.box[1] * scale)]
        box += [x + round(picture.box[2] * scale) - 1, y + round(picture.box[3] * scale) - 1]
        pen.rectangle(box, outline=_MARKS["padded"])


def _chosen(pictures: Sequence[Picture], warned: Mapping[str, str]) -> list[Picture]:
    if len(pictures) <= MOST:
        return list(pictures)
    return sorted(pictures, key=lambda picture: picture.file not in warned)[:MOST]


def _summary(name: str, manifest: Dataset, warned: Mapping[str, str]) -> str:
    counted = {mark: sum(mark in marks(picture, warned) for picture in manifest.pictures) for mark in _MARKS}
    parts = [f"{name}: {len(manifest.pictures)} pictures, {manifest.fit} at {manifest.size}"]
    parts += [f"{count} {mark}" for mark, count in counted.items() if count]
    parts += [f"{len(manifest.skipped)} skipped"] if manifest.skipped else []
    parts += [f"the first {MOST} shown"] if len(manifest.pictures) > MOST else []
    return "  ·  ".join(parts)


def _short(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """The text as it fits under a picture."""
    if font.getlength(text) <= _CELL:
        return text
    while text and font.getlength(text + "…") > _CELL:
        text = text[:-1]
    return text + "…"


def _shown(path: Path) -> str | None:
    """What the sheet that is there shows; None where none of ours is."""
    with contextlib.suppress(OSError), Image.open(path, formats=("PNG",)) as image:
        image.load()
        text = getattr(image, "text", {}).get(_KEY)
        return text if isinstance(text, str) else None
    return None
