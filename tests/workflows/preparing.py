"""Pictures to prepare, and a look at what came out."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from pathlib import Path

from PIL import Image

from dreamctl.context import Context
from dreamctl.files import sha256_file
from dreamctl.fitting import Rules, parse_colour
from dreamctl.workflows.prepare import PrepareReport, prepare

SIZE = 64
RULES = {field.name for field in fields(Rules)}


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (90, 70)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (seed * 37 % 256, seed * 91 % 256, 120)).save(path)
    return path


def run(context: Context, *sources: str | Path, **options: object) -> PrepareReport:
    """Prepare at 64 pixels; options of the rules and of the command alike."""
    rules = {name: options.pop(name) for name in list(options) if name in RULES}
    size = rules.pop("size", SIZE)
    if "background" in rules:
        rules["background"] = parse_colour(str(rules["background"]))
    return prepare(context, sources, size, partial(Rules, **rules), **options)  # type: ignore[arg-type]


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below `folder`, by digest."""
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*") if path.is_file()}
