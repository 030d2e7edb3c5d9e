"""A look at the folders that a description names: pictures, captions, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dreamctl.domain.dataset import IMAGE_SUFFIXES

WITH_BMP = (*IMAGE_SUFFIXES, ".bmp")
_SHOWN = 3


def folder_problems(where: str, key: str, value: Any) -> list[str]:
    """Whether a key names a folder. A value that is not text is told of elsewhere."""
    if not isinstance(value, str) or Path(value).is_dir():
        return []
    return [f"{where}: {key} = {value!r} is not a folder on this computer"]


def pictures_in(folder: Path, recursive: bool = False, suffixes: tuple[str, ...] = WITH_BMP) -> list[Path]:
    """The pictures of a folder, as a trainer finds them, by name."""
    found = folder.rglob("*") if recursive else folder.glob("*")
    return sorted(path for path in found if path.suffix.lower() in suffixes and not path.name.startswith("."))


def caption_problems(where: str, pictures: Iterable[Path], extension: str, otherwise: str) -> list[str]:
    """Captions that are missing (`otherwise`: what then happens; "" where that is well), empty, or not UTF-8."""
    missing, empty, unreadable = [], [], []
    for picture in pictures:
        file = picture.with_suffix(extension)
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            missing.append(file.name)
        except (OSError, UnicodeDecodeError):
            unreadable.append(file.name)
        else:
            empty += [] if text.strip() else [file.name]
    found = [f"{where}: {_some(missing)} missing: {otherwise}"] if missing and otherwise else []
    found += [f"{where}: {_some(empty)} empty"] if empty else []
    return found + ([f"{where}: {_some(unreadable)} not readable as UTF-8 text"] if unreadable else [])


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{shown}{more} {'is' if len(names) == 1 else 'are'}"
