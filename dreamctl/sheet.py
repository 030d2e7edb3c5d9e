"""A contact sheet: all pictures of a dataset on one page, with what was padded, cropped and warned about.

People look rather than read. It stands beside the dataset folder, never inside, where a trainer would take it for data.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import unicodedata
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps, PngImagePlugin

from dreamctl.domain.base import digest_of_items
from dreamctl.domain.dataset import IMAGE_FORMATS, Dataset, Picture, Pictures
from dreamctl.errors import DreamctlError
from dreamctl.files import write_bytes

MOST = 400
"""Pictures on a sheet; those with warnings come first where there are more."""

_CELLS = {60: 192, MOST: 128}
"""Pixels of a picture's side where there are at most so many; 128 is what a JPEG of 512 is quickly decoded at."""
_GAP, _LINE = 12, 16
_WIDTH = 1600
_KEY = "dreamctl"
_SUFFIX = "-contact-sheet.png"
_INK, _PAPER = (40, 40, 40), (245, 245, 245)
_MARKS = {"padded": (40, 110, 200), "cropped": (20, 140, 80), "warned": (215, 95, 0)}


def sheet_file(dataset: Path) -> Path:
    """Where the sheet of a dataset folder lies."""
    return dataset.with_name(f"{dataset.name}{_SUFFIX}")


def is_sheet(file: Path) -> bool:
    """Whether it is a sheet of any dataset: it may lie among the pictures that are to be prepared next."""
    return file.name.endswith(_SUFFIX) and _shown(file) is not None


def cell(count: int) -> int:
    """Pixels of a picture's side on a sheet of so many; 0 where not all are on it."""
    return next((side for most, side in _CELLS.items() if count <= most), 0)


def write_sheet(
    dataset: Path, manifest: Dataset, warned: Mapping[str, str], thumbs: Mapping[str, bytes] | None = None
) -> Path:
    """Write the sheet of a dataset folder, unless the one that is there shows the same.

    By picture file: `warned`, a warning, and `thumbs`, small pictures that save opening those of the dataset.

    Raises DreamctlError where a file of that name is not a sheet of ours, or cannot be written.
    """
    path = sheet_file(dataset)
    head = manifest.model_copy(update={"pictures": Pictures()}).plain()
    lines = map(bytes.decode, manifest.pictures.lines)
    state = digest_of_items(itertools.chain([head, dict(warned)], lines))
    shown = _shown(path)
    if shown is None and path.exists():
        raise DreamctlError(f"{path} is there and is not a contact sheet", hint="move it away, or say --no-sheet")
    if shown != state:
        info = PngImagePlugin.PngInfo()
        info.add_text(_KEY, state)
        png = io.BytesIO()
        draw(dataset, manifest, warned, thumbs or {}).save(png, "PNG", pnginfo=info, compress_type=zlib.Z_RLE)
        write_bytes(path, png.getvalue())
    return path


def marks(picture: Picture, warned: Mapping[str, str]) -> list[str]:
    """What happened to a picture."""
    padded = picture.box is not None and picture.box != (0, 0, picture.width, picture.height)
    happened = {"padded": padded, "cropped": picture.crop is not None, "warned": picture.file in warned}
    return [mark for mark, is_so in happened.items() if is_so]


def draw(
    folder: Path, manifest: Dataset, warned: Mapping[str, str], thumbs: Mapping[str, bytes] | None = None
) -> Image.Image:
    """The sheet, in rows, below a line that sums up. See `write_sheet`."""
    pictures = _chosen(manifest.pictures, warned)
    side = cell(len(pictures))
    across = max(1, min(len(pictures), (_WIDTH - _GAP) // (side + _GAP)))
    step_y = side + 2 * _LINE + _GAP
    width = max(4 * (side + _GAP), across * (side + _GAP)) + _GAP
    sheet = Image.new("RGB", (width, 3 * _LINE + math.ceil(len(pictures) / across) * step_y), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    pen.text((_GAP, _GAP), _summary(folder.name, manifest, warned), _INK, ImageFont.load_default(15))
    for number, picture in enumerate(pictures):
        left = _GAP + number % across * (side + _GAP)
        top = 3 * _LINE + number // across * step_y
        small = _small(folder / picture.file, (thumbs or {}).get(picture.file), picture, side)
        x, y = left + (side - small.width) // 2, top + (side - small.height) // 2
        sheet.paste(small, (x, y), small if small.mode == "RGBA" else None)
        _outline(pen, picture, (x, y), small.size)
        happened = marks(picture, warned)
        pen.text((left, top + side + 2), _short(picture.file, side, font), _INK, font)
        place = left
        for mark in happened:
            pen.text((place, top + side + _LINE), mark, _MARKS[mark], font)
            place += round(font.getlength(mark)) + 8
    return sheet


def _small(file: Path, thumb: bytes | None, picture: Picture, side: int) -> Image.Image:
    """A picture as RGB or RGBA of at most `side` pixels; from its thumb where that is large enough.

    A crossed-out cell where the file is none: somebody may have put another one there.
    """
    if thumb:
        with Image.open(io.BytesIO(thumb), formats=IMAGE_FORMATS) as image:
            if max(image.size) >= min(side, max(picture.width, picture.height)):
                image.thumbnail((side, side))
                return image.copy()
    try:
        with Image.open(file, formats=IMAGE_FORMATS) as image:
            image.thumbnail((side, side), reducing_gap=1.0)  # which decodes a JPEG no larger than needed
            shown = ImageOps.exif_transpose(image)  # a retouched one may have what ours never have
            return shown.convert("RGBA" if shown.has_transparency_data else "RGB")
    except Exception:  # whatever Pillow raises
        crossed = Image.new("RGB", (side, side), (225, 225, 225))
        ImageDraw.Draw(crossed).line((0, 0, side, side), _MARKS["warned"], 3)
        return crossed


def _outline(pen: ImageDraw.ImageDraw, picture: Picture, corner: tuple[int, int], size: tuple[int, int]) -> None:
    """Around the picture, and around what is not margin."""
    (x, y), (width, height) = corner, size
    pen.rectangle((x - 1, y - 1, x + width, y + height), outline=(190, 190, 190))
    if picture.box and picture.box != (0, 0, picture.width, picture.height):
        scale = width / picture.width
        box = [x + round(picture.box[0] * scale), y + round(picture.box[1] * scale)]
        box += [max(box[0], x + round(picture.box[2] * scale) - 1), max(box[1], y + round(picture.box[3] * scale) - 1)]
        pen.rectangle(box, outline=_MARKS["padded"])


def _chosen(pictures: Pictures, warned: Mapping[str, str]) -> list[Picture]:
    if len(pictures) <= MOST:
        return list(pictures)
    first = (picture for picture in pictures if picture.file in warned)
    rest = (picture for picture in pictures if picture.file not in warned)
    return list(itertools.islice(itertools.chain(first, rest), MOST))


def _summary(name: str, manifest: Dataset, warned: Mapping[str, str]) -> str:
    counted = Counter(mark for picture in manifest.pictures for mark in marks(picture, warned))
    parts = [f"{name}: {len(manifest.pictures)} pictures, {manifest.fit} at {manifest.size}"]
    parts += [f"{counted[mark]} {mark}" for mark in _MARKS if counted[mark]]
    parts += [f"cut out by {manifest.cutout}"] if manifest.cutout else []
    parts += [f"{len(manifest.skipped)} skipped"] if manifest.skipped else []
    parts += [f"the first {MOST} shown"] if len(manifest.pictures) > MOST else []
    return "  ·  ".join(parts)


def _short(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """The text as it fits under a picture, in the few letters that the font has."""
    plain = unicodedata.normalize("NFKD", text)
    text = "".join(char for char in plain if not unicodedata.combining(char)).encode("ascii", "replace").decode()
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _shown(path: Path) -> str | None:
    """What the sheet that is there shows; None where none of ours is."""
    with contextlib.suppress(Exception), Image.open(path, formats=("PNG",)) as image:  # whatever Pillow raises
        image.load()
        text = getattr(image, "text", {}).get(_KEY)
        return text if isinstance(text, str) else None
    return None
