"""Lengths of time and sizes as people write and read them: 90s, 30m, 12h, 3d; 3.4 MB."""

from __future__ import annotations

import re

LONGEST_LINK = 7 * 24 * 3600  # seconds that a signature of version 4 lives at most, Amazon's as Google's
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_FORM = re.compile(r"(\d{1,9})\s*([smhd]?)", re.ASCII)


def seconds(text: str) -> int:
    """Whole seconds of `90s`, `30m`, `12h`, `3d`, or of a bare number. Raises ValueError for others and 0."""
    form = _FORM.fullmatch(text.strip().lower())
    count = int(form[1]) * _SECONDS[form[2] or "s"] if form else 0
    if not count:
        raise ValueError("must be a length of time such as 90s, 30m, 12h or 3d")
    return count


def spoken(count: float) -> str:
    """Seconds for people, rounded down to the two largest units: `2 d 3 h`, `40 min`, `12 s`."""
    left, parts = max(0, int(count)), []
    for name, size in (("d", 24 * 3600), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= size:
            parts.append(f"{left // size} {name}")
            left %= size
    return " ".join(parts[:2]) or "0 s"


def bytes_text(count: float) -> str:
    """Bytes for people: 512 bytes, 3.4 MB, 1.2 GB (powers of a thousand, as disks and clouds count)."""
    if count < 1000:
        return f"{count:.0f} bytes"
    unit = 0
    while count >= 999.5 and unit < 4:
        count, unit = count / 1000, unit + 1
    return f"{count:.{0 if count >= 100 else 1}f} {('', 'kB', 'MB', 'GB', 'TB')[unit]}"
