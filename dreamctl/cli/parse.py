"""Words of the line as values, with an error that names the nearest right word."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from dreamctl.errors import InvalidInput, did_you_mean

Choice = TypeVar("Choice", bound=StrEnum)


def choice(flag: str, word: str, values: type[Choice]) -> Choice:
    """The value of an enumeration that `word` names."""
    try:
        return values(word)
    except ValueError:
        raise InvalidInput(f"{flag} {word!r} is not known", field=flag, hint=did_you_mean(word, list(values))) from None


def address(flag: str, text: str) -> tuple[str, int]:
    """`8484`, `localhost:8484` or `[::1]:8484` as (host, port); without a host this computer alone."""
    host, _, port = text.rpartition(":")
    if port.isdecimal() and 0 <= int(port) <= 65535:
        return host.strip("[]") or "127.0.0.1", int(port)
    raise InvalidInput(f"{flag} {text!r} is not an address", field=flag, hint="for example 8484 or 0.0.0.0:8484")


def size(flag: str, text: str) -> tuple[int, int]:
    """`512` or `640x480` as (width, height), multiples of 8."""
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) in (1, 2) and all(part.isdecimal() for part in parts):
        width, height = int(parts[0]), int(parts[-1])
        if all(64 <= side <= 4096 and side % 8 == 0 for side in (width, height)):
            return width, height
    raise InvalidInput(f"{flag} {text!r} is not a size", field=flag, hint="for example 512 or 640x480, multiples of 8")
