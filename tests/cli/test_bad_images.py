"""One folder of everything that pictures can be, prepared once: what becomes of each file, to the pixel."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from dreamctl.sources import printable
from tests import profiles
from tests.pictures import (
    BLACK,
    BLUE,
    GREEN,
    RED,
    STORED,
    WHITE,
    Colour,
    hidden,
    near,
    noise,
    packed,
    pixel,
    quarters,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="its names lie side by side on Linux only")

SIZE = 64
MIDDLE, LEFT, RIGHT = (32, 32), (8, 32), (56, 32)
QUARTERS = {(8, 16): RED, (56, 16): GREEN, (8, 48): BLUE, (56, 48): WHITE}
MORE = "holds more than one picture: only the first is taken"
APPROXIMATE = "is CMYK without a colour profile: its colours are approximate"
CUT, MANY_PIXELS = "is cut off (truncated)", "has 10000×10000 pixels, more than 80 million"
NO_HEIC = "is a HEIC picture"
HEIC = importlib.util.find_spec("pillow_heif") is not None


@dataclass(frozen=True)
class Row:
    """A file, and what becomes of it: its picture's pixels, by a tolerance, and warnings; or the reason why it is none.

    Where nothing is lossy the tolerance is for rounding alone.
    """

    data: Callable[[], bytes]
    pixels: Mapping[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    by: int = 1
    warnings: Sequence[str] = ()
    reason: str = ""


def flat(mode: str, value: Any, kind: str, **options: Any) -> Callable[[], bytes]:
    return lambda: packed(Image.new(mode, (SIZE, SIZE), value), kind, **options)


def bands(mode: str, values: Sequence[Any], kind: str, **options: Any) -> Callable[[], bytes]:
    """Upright bands of these values."""

    def data() -> bytes:
        # Pillow pastes no more than 8 bits into I;16.
        image, width = Image.new("I" if mode == "I;16" else mode, (SIZE, SIZE)), SIZE // len(values)
        for number, value in enumerate(values):
            image.paste(value, (number * width, 0, (number + 1) * width, SIZE))
        return packed(image.convert(mode), kind, **options)

    return data


def greys(*values: int) -> Mapping[tuple[int, int], Colour]:
    """The middles of bands of these greys."""
    width = SIZE // len(values)
    return {(number * width + width // 2, 32): (value,) * 3 for number, value in enumerate(values)}


def turned(kind: str, orientation: int) -> Callable[[], bytes]:
    def data() -> bytes:
        exif, turn = Image.Exif(), STORED[orientation]
        exif[ExifTags.Base.Orientation] = orientation
        stored = quarters().transpose(turn) if turn is not None else quarters()
        return packed(stored, kind, exif=exif, **({"quality": 95} if kind in ("JPEG", "WEBP") else {}))

    return data


def frames(kind: str, **options: Any) -> Callable[[], bytes]:
    first, *others = (Image.new("RGB", (SIZE, SIZE), colour) for colour in (RED, GREEN, BLUE))
    return lambda: packed(first, kind, save_all=True, append_images=others, **options)


def cut(kind: str, share: float = 0.6) -> Callable[[], bytes]:
    def data() -> bytes:
        whole = packed(noise(200, 200, 80).convert("RGB"), kind)
        return whole[: int(len(whole) * share)]

    return data


def gain_map(picture: Image.Image, missing: int) -> Callable[[], bytes]:
    """A picture with its gain map behind it, as phones store HDR, without its last bytes."""
    behind = [noise(SIZE, SIZE, 80).convert("RGB")]
    return lambda: packed(picture, "MPO", save_all=True, append_images=behind, quality=95)[:-missing]


def flipped_bit() -> bytes:
    data = bytearray(packed(quarters(), "JPEG", quality=95))
    data[len(data) * 9 // 10] ^= 4
    return bytes(data)


def ycck(colour: tuple[int, int, int, int], **options: Any) -> Callable[[], bytes]:
    """CMYK in the way that Photoshop stores it: Pillow writes the four layers, and their meaning is set by hand."""

    def data() -> bytes:
        layers = pixel(Image.new("RGB", (1, 1), colour[:3]).convert("YCbCr"), 0, 0)
        stored = tuple(255 - value for value in (*layers, 255 - colour[3]))
        written = bytearray(packed(Image.new("CMYK", (SIZE, SIZE), stored), "JPEG", quality=95, **options))
        written[written.index(b"Adobe") + 11] = 2
        assert Image.open(io.BytesIO(written)).info["adobe_transform"] == 2
        return bytes(written)

    return data


def heic() -> bytes:
    if not HEIC:
        return b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(quarters(128, 128)).save(buffer, quality=95)
    return buffer.getvalue()


def just(data: bytes) -> Callable[[], bytes]:
    return lambda: data


MAGENTA_YELLOW = (0, 255, 255, 0)
INKS = profiles.inks({(0, 1, 1, 0): (40, 90, 200)})  # not at all the red that a naive formula gives
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n0 0 64 64 rectfill\nshowpage\n%%EOF\n"
WMF = bytes.fromhex("d7cdc69a0000000000004000400048000000000000000100090000030000000000000000000000")
POSTSCRIPT, PDF, METAFILE = "is a PostScript document", "is a PDF document", "is a Windows metafile, a drawing"
LONG, LONG_ACCENTED = "x" * 251 + ".png", "ü" * 125 + ".png"
NFC, NFD = "é.png", unicodedata.normalize("NFD", "é.png")

ROWS: dict[str, Row] = {
    **{
        f"turned-{kind}-{number}.{kind.lower()}": Row(turned(kind, number), QUARTERS, 1 if kind == "PNG" else 6)
        for kind in ("JPEG", "PNG", "WEBP", "TIFF")
        for number in STORED
    },
    # more than 8 bits
    "grey-16.png": Row(bands("I;16", (0, 0x4000, 0x8000, 0xFFFF), "PNG"), greys(0, 64, 128, 255)),
    "grey-16.tif": Row(bands("I;16", (0, 0x4000, 0x8000, 0xFFFF), "TIFF"), greys(0, 64, 128, 255)),
    "grey-16-big-endian.tif": Row(flat("I;16B", 0x8000, "TIFF"), greys(128)),
    "grey-32.tif": Row(bands("I", (0, 0x4000, 0x8000, 0xFFFF), "TIFF"), greys(0, 64, 128, 255)),
    "float.tif": Row(bands("F", (0.0, 0.25, 0.5, 1.0), "TIFF"), greys(0, 64, 128, 255)),
    # transparency
    "rgba.png": Row(lambda: packed(hidden("RGBA"), "PNG"), {LEFT: WHITE, RIGHT: GREEN}),
    "rgba.webp": Row(lambda: packed(hidden("RGBA"), "WEBP", lossless=True), {LEFT: WHITE, RIGHT: GREEN}),
    "half.png": Row(flat("RGBA", (*RED, 128), "PNG"), {MIDDLE: (254, 127, 127)}),
    "palette.png": Row(lambda: packed(hidden("P"), "PNG"), {LEFT: WHITE, RIGHT: GREEN}),
    "palette.gif": Row(lambda: packed(hidden("P"), "GIF", transparency=0), {LEFT: WHITE, RIGHT: GREEN}),
    "grey-alpha.png": Row(lambda: packed(hidden("LA"), "PNG"), {LEFT: WHITE, RIGHT: (75, 75, 75)}),
    "grey-key.png": Row(bands("L", (100, 200), "PNG", transparency=100), greys(255, 200)),
    "colour-key.png": Row(bands("RGB", (RED, BLUE), "PNG", transparency=RED), {LEFT: WHITE, RIGHT: BLUE}),
    "one-bit.png": Row(bands("1", (0, 255), "PNG"), greys(0, 255)),
    "one-bit-key.png": Row(bands("1", (0, 255), "PNG", transparency=0), greys(255, 255)),
    # several pictures in one
    "frames.gif": Row(frames("GIF"), {MIDDLE: RED}, warnings=[MORE]),
    "frames.webp": Row(frames("WEBP", lossless=True), {MIDDLE: RED}, warnings=[MORE]),
    "frames-apng.png": Row(frames("PNG"), {MIDDLE: RED}, warnings=[MORE]),
    "frames.avif": Row(frames("AVIF", quality=95), {MIDDLE: RED}, 8, [MORE]),
    "frames.tif": Row(frames("TIFF"), {MIDDLE: RED}, warnings=[MORE]),
    "frames.mpo": Row(frames("MPO", quality=95), {MIDDLE: RED}, 3, [MORE]),
    "frames-mpo.jpg": Row(frames("MPO", quality=95), {MIDDLE: RED}, 3, [MORE]),
    # colour spaces
    "cmyk.jpg": Row(flat("CMYK", MAGENTA_YELLOW, "JPEG", quality=95), {MIDDLE: (255, 0, 0)}, 3, [APPROXIMATE]),
    "ycck.jpg": Row(ycck(MAGENTA_YELLOW), {MIDDLE: (255, 0, 0)}, 3, [APPROXIMATE]),
    "cmyk-profile.jpg": Row(
        flat("CMYK", MAGENTA_YELLOW, "JPEG", quality=95, icc_profile=INKS), {MIDDLE: (40, 90, 200)}, 6
    ),
    "ycck-profile.jpg": Row(ycck(MAGENTA_YELLOW, icc_profile=INKS), {MIDDLE: (40, 90, 200)}, 6),
    "display-p3.png": Row(
        flat("RGB", (200, 100, 50), "PNG", icc_profile=profiles.display_p3()),
        {MIDDLE: profiles.by_profile((200, 100, 50), "RGB", profiles.display_p3())},
    ),
    "display-p3.jpg": Row(
        flat("RGB", (200, 100, 50), "JPEG", quality=95, icc_profile=profiles.display_p3()),
        {MIDDLE: profiles.by_profile((200, 100, 50), "RGB", profiles.display_p3())},
        4,
    ),
    "grey-profile.png": Row(flat("L", 128, "PNG", icc_profile=profiles.linear_grey()), greys(188)),
    # damage
    "cut.jpg": Row(cut("JPEG"), reason=CUT),
    "cut.png": Row(cut("PNG"), reason=CUT),
    "cut.webp": Row(cut("WEBP"), reason=CUT),
    "cut-in-its-picture.jpg": Row(gain_map(noise(200, 200, 80), 20_000), reason=CUT),
    "cut-in-its-gain-map.jpg": Row(gain_map(Image.new("RGB", (SIZE, SIZE), RED), 100), {MIDDLE: RED}, 3, [MORE]),
    "flipped-bit.jpg": Row(flipped_bit, {(8, 16): RED, (56, 16): GREEN}, 6),  # nobody can tell it from a picture
    "empty.jpg": Row(just(b""), reason="is empty (0 bytes)"),
    "page.jpg": Row(just(b"<!DOCTYPE html><p>404"), reason="is a web page, not a picture"),
    "png-named.jpg": Row(lambda: packed(quarters(), "PNG"), QUARTERS, warnings=["is a PNG named .jpg"]),
    "bomb-100.png": Row(lambda: packed(Image.new("1", (10_000, 10_000)), "PNG"), reason=MANY_PIXELS),
    "bomb-196.png": Row(lambda: packed(Image.new("1", (14_000, 14_000)), "PNG"), reason="has far too many pixels"),
    # other kinds
    "phone.heic": Row(heic, {(16, 16): RED, (48, 16): GREEN, (16, 48): BLUE}, 12, reason="" if HEIC else NO_HEIC),
    **{
        f"{name}.{suffix}": Row(just(data), reason=reason)
        for name, honest, data, reason in (
            ("drawing", "eps", EPS, POSTSCRIPT),
            ("preview", "eps", b"\xc5\xd0\xd3\xc6" + bytes(26) + EPS, POSTSCRIPT),
            ("document", "pdf", b"%PDF-1.7\n%%EOF\n", PDF),
            ("metafile", "wmf", WMF, METAFILE),
        )
        for suffix in (honest, "jpg")
    },
    # names
    "a.png": Row(flat("RGB", RED, "PNG"), {MIDDLE: RED}),
    "a.jpg": Row(flat("RGB", GREEN, "JPEG", quality=95), {MIDDLE: GREEN}, 3),
    "A.jpg": Row(flat("RGB", BLUE, "JPEG", quality=95), {MIDDLE: BLUE}, 3),
    NFC: Row(flat("RGB", (10, 20, 30), "PNG"), {MIDDLE: (10, 20, 30)}),
    NFD: Row(flat("RGB", (200, 100, 0), "PNG"), {MIDDLE: (200, 100, 0)}),
    "line\nbreak.png": Row(flat("RGB", RED, "PNG"), {MIDDLE: RED}),
    "red\x1b[31m\t.png": Row(flat("RGB", RED, "PNG"), {MIDDLE: RED}),
    "what:is\\this?.png": Row(flat("RGB", RED, "PNG"), {MIDDLE: RED}),
    "CON.png": Row(flat("RGB", RED, "PNG"), {MIDDLE: RED}),
    "nul.tar.png": Row(flat("RGB", RED, "PNG"), {MIDDLE: RED}),
    LONG: Row(flat("RGB", RED, "PNG"), {MIDDLE: RED}),
    LONG_ACCENTED: Row(flat("RGB", BLACK, "PNG"), {MIDDLE: BLACK}),
}
LINKS = {"leaves.png": "is a link that leaves the folder", "nothing.png": "is a link to nothing"}
PASSED_OVER = (
    ".hidden.png",
    "..png.png",
    "._x.jpg",
    "__MACOSX/x.png",
    "@eaDir/x.png",
    "IMG_1.MOV",
    "IMG_1.AAE",
    "a.json",
    "Thumbs.db",
)
CAPTIONS = {"a.txt": "on a beach", "é.txt": "composed", unicodedata.normalize("NFD", "é.txt"): "decomposed"}


@dataclass(frozen=True)
class Done:
    """What the run told: pictures and reasons by the file's name, and where it all lies."""

    folder: Path
    pictures: Mapping[str, dict[str, Any]]
    reasons: Mapping[str, str]
    stderr: str


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("bad")
    heap = folder / "heap"
    fill(heap)
    interpreter = folder / "bin" / "gs"
    interpreter.parent.mkdir()
    interpreter.write_text(f"#!/bin/sh\ntouch '{folder / 'interpreted'}'\n")
    interpreter.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{interpreter.parent}:{os.environ['PATH']}",
        "DREAMCTL_HOME": str(folder / "home"),
    }
    assert shutil.which("gs", path=environment["PATH"]) == str(interpreter)
    words = [str(heap), "--recursive", "--size", str(SIZE), "--format", "png", "--json"]
    ran = subprocess.run(
        [sys.executable, "-m", "dreamctl", "prepare", *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    return Done(
        folder,
        {item["source"].removeprefix("heap/"): item for item in report["pictures"]},
        {item["source"].removeprefix("heap/"): item["reason"] for item in report["skipped"] if item["advice"]},
        ran.stderr,
    )


def fill(heap: Path) -> None:
    heap.mkdir()
    for name, row in ROWS.items():
        (heap / name).write_bytes(row.data())
    for name in PASSED_OVER:
        (heap / name).parent.mkdir(exist_ok=True)
        (heap / name).write_bytes(b"\0\5\x16\7")
    for name, text in CAPTIONS.items():
        (heap / name).write_text(text)
    shutil.copy(heap / "a.png", heap.parent / "outside.png")
    (heap / "leaves.png").symlink_to(heap.parent / "outside.png")
    (heap / "nothing.png").symlink_to("nowhere.png")
    (heap / "inside.png").symlink_to("a.png")
    (heap / "loop").symlink_to(heap)
    os.mkfifo(heap / "pipe.png")


@pytest.mark.parametrize("name", ROWS, ids=lambda name: ascii(name)[1:-1][:40])
def test_a_file_becomes_its_picture_or_has_its_reason(done: Done, name: str) -> None:
    row, told = ROWS[name], printable(name)
    assert done.reasons.get(told, "") == row.reason
    if row.reason:
        return
    item = done.pictures[told]
    said = [text for text in item.get("warnings", []) if not text.startswith("is stored as")]
    assert said == list(row.warnings)
    with Image.open(done.folder / "processed" / item["file"]) as image:
        assert (image.size, image.mode, image.format) == ((SIZE, SIZE), "RGB", "PNG")
        for place, wanted in row.pixels.items():
            assert near(pixel(image, *place), wanted, row.by), (place, pixel(image, *place), wanted)
        assert set(image.info) <= {"dpi"} and not image.getexif()


def test_nothing_else_is_told_of(done: Done) -> None:
    links = {**LINKS, "pipe.png": "is not a regular file"}
    assert set(done.pictures) == {printable(name) for name, row in ROWS.items() if not row.reason} | {"inside.png"}
    assert done.reasons == {**links, **{name: row.reason for name, row in ROWS.items() if row.reason}}
    assert "Traceback" not in done.stderr


def test_no_interpreter_is_started(done: Done) -> None:
    assert not (done.folder / "interpreted").exists()


def test_outputs_have_names_for_every_system(done: Done) -> None:
    files = [item["file"] for item in done.pictures.values()]
    assert len({unicodedata.normalize("NFC", name).casefold() for name in files}) == len(files)
    for name in files:
        assert name.isprintable() and not set(name) & set('<>:"/\\|?*') and len(name.encode()) < 140
        assert name.split(".")[0].lower() not in ("con", "nul")


def test_captions_follow_their_pictures(done: Done) -> None:
    for source, caption in (("a.png", "on a beach"), (NFC, "composed"), (NFD, "decomposed")):
        file = done.folder / "processed" / done.pictures[source]["file"]
        assert file.with_suffix(".txt").read_text() == f"{caption}\n"
    assert not (done.folder / "processed" / done.pictures["A.jpg"]["file"]).with_suffix(".txt").exists()
