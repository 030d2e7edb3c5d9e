"""Why a file cannot become a picture: one clear reason and one piece of advice for whatever Pillow raises."""

from __future__ import annotations

import contextlib
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
        if "truncated" in str(error).lower() or isinstance(error, EOFError):
            raise UnusablePicture("is cut off (truncated)", hint="copy it again from where it came from") from error
        text = str(error).strip() or type(error).__name__
        raise UnusablePicture(f"is damaged ({text[:120]})", hint="open it in a viewer and save it again") from error


_TO_JPEG = "export it as JPEG or PNG"

# What people have in their folders that is not a picture, by how it begins.
_OTHER_FILES: tuple[tuple[bytes, str, str], ...] = (
    (b"%PDF", "is a PDF document", _TO_JPEG),
    (b"%!PS", "is a PostScript document", _TO_JPEG),
    (b"8BPS", "is a Photoshop document", _TO_JPEG),
    (b"\xff\x0a", "is a JPEG XL picture, which is not supported", _TO_JPEG),
    (b"PK\x03\x04", "is a zip archive", "unpack it into the folder"),
    (b"<!doctype html", "is a web page, not a picture", "download the picture itself"),
    (b"<html", "is a web page, not a picture", "download the picture itself"),
    (b"<svg", "is an SVG drawing", _TO_JPEG),
    (b"<?xml", "is an XML file, perhaps an SVG drawing", _TO_JPEG),
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def needs_heif(data: bytes) -> bool:
    """Whether these are a HEIC picture's bytes, which only an extra reads."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS


def _what_else(data: bytes) -> tuple[str, str]:
    """Reason and advice for bytes that are no picture that we read."""
    if not data:
        return "is empty (0 bytes)", "copy it again from where it came from"
    if needs_heif(data):
        return "is a HEIC picture", 'pip install "dreamctl[heic]" reads it; or export it as JPEG'
    if data[4:8] == b"ftyp":
        return "is a video", _TO_JPEG
    head = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, reason, advice in _OTHER_FILES:
        if head.startswith(beginning.lower()):
            return reason, advice
    return "is not a picture of a kind that is read", "export it as JPEG or PNG, or take it out of the folder"
