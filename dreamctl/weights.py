"""Files of weights, told apart by their first bytes and looked at without loading them. No pickle is ever opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from dreamctl.errors import DreamctlError

Sort = Literal["safetensors", "zip", "tar", "gzip", "pickle", "unknown"]

_LARGEST_HEADER = 100 << 20  # the limit of the format's own library


def sort_of(path: Path) -> Sort:
    """What a file is, whatever it is called. A zip archive that torch wrote (`.ckpt`, `.pt`) is a pickle."""
    with open(path, "rb") as file:
        head = file.read(512)
        if head[:2] == b"\x1f\x8b":
            return "gzip"
        if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            return "pickle" if b"data.pkl" in head[:128] else "zip"
        if head[257:262] == b"ustar":
            return "tar"
        if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            return "pickle"
        size = int.from_bytes(head[:8], "little") if len(head) >= 8 else 0
        return "safetensors" if 0 < size <= _LARGEST_HEADER and head[8:9] == b"{" else "unknown"


def check_safetensors(path: Path, called: str = "") -> dict[str, str]:
    """Look at the header of a safetensors file; returns its metadata.

    Raises DreamctlError that names the file (as `called`) where the header is none, or where it speaks of other bytes
    than are there: the format says that the tensors fill the file without a gap.
    """
    name = called or str(path)
    size = path.stat().st_size
    length, header = _header(path, name)
    try:
        metadata = header.pop("__metadata__", {})
        spans = sorted(_span(tensor["data_offsets"]) for tensor in header.values())
        told = {str(key): str(value) for key, value in metadata.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DreamctlError(f"{name} is no safetensors file: its header cannot be read") from error
    end = 0
    for begin, stop in spans:
        if begin != end or stop < begin:
            raise DreamctlError(f"{name} is damaged: its tensors do not follow each other")
        end = stop
    if not spans:
        raise DreamctlError(f"{name} holds no weights")
    if 8 + length + end != size:
        raise DreamctlError(f"{name} is damaged: {size} bytes are there and {8 + length + end} belong to it")
    return told


def tensor_names(path: Path, called: str = "") -> list[str]:
    """What the tensors of a safetensors file are called. Raises DreamctlError as `check_safetensors` does."""
    return [name for name in _header(path, called or str(path))[1] if name != "__metadata__"]


def _header(path: Path, name: str) -> tuple[int, dict[str, Any]]:
    """A header's length in bytes, and what it says, of which only its being a table is known."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        if size < 8 or not 0 < length <= min(_LARGEST_HEADER, size - 8):
            raise DreamctlError(f"{name} is no safetensors file: its header is broken")
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise DreamctlError(f"{name} is no safetensors file: its header cannot be read")
    return length, header


def _span(offsets: object) -> tuple[int, int]:
    """Where a tensor's bytes begin and end. Raises ValueError."""
    match offsets:
        case [int(begin), int(end)] if not isinstance(begin, bool) and not isinstance(end, bool):
            return begin, end
    raise ValueError("no two numbers")
