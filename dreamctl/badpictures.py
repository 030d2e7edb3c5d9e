"""Why a file cannot become a picture: one clear reason and one piece of advice for whatever Pillow raises."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator

from PIL import Image, UnidentifiedImageError

from dreamctl.errors import DreamctlError

SAVE_SMALLER = "save it smaller"


class UnusablePicture(DreamctlError):
    """A file that cannot become a picture: the reason as the end of "FILE: …", and advice as the hint."""

    code = "unusable_picture"


@contextlib.contextmanager
def explaining(data: bytes) -> Iterator[None]:
    """Turn whatever Pillow raises into UnusablePicture; our own errors stay.

    Seen on its own test pictures: seven exception classes.
    """
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # it logs what it then raises, on people's screens
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limits are ours, and damaged metadata harms nobody
            yield
    except DreamctlError:
        raise
    except UnidentifiedImageError as error:
        reason, advice = _what_else(data)
        raise UnusablePicture(reason, hint=advice) from error
    except Image.DecompressionBombError as error:
        raise UnusablePicture("has far too many pixels", hint=SAVE_SMALLER) from error
    except MemoryError as error:
        raise UnusablePicture("needs more memory than there is", hint=SAVE_SMALLER) from error
    except Exception as error:
        reason, advice = _what_is_wrong(data, error)
        raise UnusablePicture(reason, hint=advice) from error


_TO_JPEG = "export it as JPEG or PNG"
_COPY_AGAIN = "copy it again from where it came from"
_SAVE_AGAIN = "open it in a viewer and save it as JPEG or PNG"
_UNPACK = "unpack it into the folder"
_A_VIDEO = ("is a video", "save a frame of it as JPEG, or take it out of the folder")
RAW = ("is a camera's raw file", "develop it, or export it as JPEG")
CR2 = b"II*\0\x10\0\0\0CR"  # a raw file that is a TIFF

# How the kinds begin that are read: what begins so and is not even recognised is damaged, or a rare kind of them.
_KINDS = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG", "PNG"), (b"GIF8", "GIF"), (b"BM", "BMP"),
    (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"),
)  # fmt: skip

_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}

# What people have in their folders that is not a picture that is read, by how it begins.
_OTHER_FILES: tuple[tuple[bytes, str, str], ...] = (
    (b"%PDF", "is a PDF document", _TO_JPEG),
    (b"%!PS", "is a PostScript document", _TO_JPEG),
    (b"\xc5\xd0\xd3\xc6", "is a PostScript document", _TO_JPEG),
    (b"\xd7\xcd\xc6\x9a", "is a Windows metafile, a drawing", _TO_JPEG),
    (b"8BPS", "is a Photoshop document", _TO_JPEG),
    (b"gimp xcf", "is a GIMP document", _TO_JPEG),
    (b"\xff\x0a", "is a JPEG XL picture, which is not supported", _TO_JPEG),
    (b"\0\0\0\x0cJXL ", "is a JPEG XL picture, which is not supported", _TO_JPEG),
    (b"\0\0\0\x0cjP  ", "is a JPEG 2000 picture, which is not supported", _TO_JPEG),
    (b"\xff\x4f\xff\x51", "is a JPEG 2000 picture, which is not supported", _TO_JPEG),
    *((begin, *RAW) for begin in (CR2, b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FOVb")),
    (b"PK\x03\x04", "is a zip archive", "name it on the command line, and the pictures in it are taken"),
    (b"Rar!", "is a RAR archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive", _UNPACK),
    (b"\x1a\x45\xdf\xa3", *_A_VIDEO),
    (b"<!doctype html", "is a web page, not a picture", "download the picture itself"),
    (b"<html", "is a web page, not a picture", "download the picture itself"),
    (b"<svg", "is an SVG drawing", _TO_JPEG),
    (b"<?xml", "is an XML file, perhaps an SVG drawing", _TO_JPEG),
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def needs_heif(data: bytes) -> bool:
    """Whether these are a HEIC picture's bytes, which only an extra reads."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS


def _what_is_wrong(data: bytes, error: Exception) -> tuple[str, str]:
    """Reason and advice for a picture whose reading failed. Pillow's own words are for its developers."""
    text = str(error).lower()
    if isinstance(error, EOFError) or "truncated" in text or "end of file" in text or _without_end(data):
        return "is cut off (truncated)", _COPY_AGAIN
    rare = isinstance(error, NotImplementedError) or any(
        word in text for word in ("unsupported", "not supported", "unknown", "decoder error")
    )
    return (_rare(_kind(data)) if rare else "is damaged"), _SAVE_AGAIN


def _what_else(data: bytes) -> tuple[str, str]:
    """Reason and advice for bytes that are no picture that we read."""
    if not data:
        return "is empty (0 bytes)", _COPY_AGAIN
    if _without_end(data):
        return "is cut off (truncated)", _COPY_AGAIN
    if needs_heif(data) and sys.modules.get("pillow_heif") is None:  # was to be imported, see `images`
        return "is a HEIC picture", 'pip install "dreamctl[heic]" reads it; or export it as JPEG'
    head = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, reason, advice in _OTHER_FILES:
        if head.startswith(beginning.lower()):
            return reason, advice
    if kind := _kind(data):
        return _rare(kind), _SAVE_AGAIN
    if data[4:8] == b"ftyp":
        return RAW if data[8:11] == b"crx" else _A_VIDEO
    return "is not a picture of a kind that is read", "export it as JPEG or PNG, or take it out of the folder"


def _rare(kind: str) -> str:
    return f"is damaged, or a rare kind of {kind or 'picture'} that is not read"


def _kind(data: bytes) -> str:
    """The kind of picture that these bytes begin as; "" where we read none that begins so."""
    if data[4:8] == b"ftyp":
        return "HEIC" if needs_heif(data) else "AVIF" if data[8:11] == b"avi" else ""
    if data[:4] == b"RIFF":
        return "WebP" if data[8:12] == b"WEBP" else ""
    return next((kind for beginning, kind in _KINDS if data.startswith(beginning)), "")


def _without_end(data: bytes) -> bool:
    """Whether a picture that cannot be read misses its end: decoders do not always tell why they fail."""
    kind = _kind(data)
    if kind == "WebP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    return kind in _ENDS and _ENDS[kind] not in data
