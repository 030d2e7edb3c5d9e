"""Writes the README's generated blocks (help, tree, settings, knobs) from the program itself; a test compares them.

`python -m tests.readme --write`
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
_BLOCK = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_TOP = (
    ("configs/", "the recipes and profiles that ship, and the pinned versions of everything"),
    ("tests/", "mirror the package; fakes, benchmarks, the README's generator"),
)


def help_block() -> str:
    """`dreamctl --help` at 80 columns."""
    shown = subprocess.run(
        [sys.executable, "-m", "dreamctl", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "80", "TERM": "dumb"},
    ).stdout
    return f"```console\n$ dreamctl --help\n{shown.strip()}\n```\n"


def tree_block() -> str:
    """Every file of the package with the first phrase of its docstring."""
    lines = ["dreamctl/"]
    lines += _folder(ROOT / "dreamctl", 1)
    lines += [f"{name:<34}{phrase}" for name, phrase in _TOP]
    return "```text\n" + "\n".join(lines) + "\n```\n"


def settings_block() -> str:
    """Every setting with its default and its meaning."""
    from dreamctl.settings import Settings

    rows = ["| setting | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{getattr(field.default, 'value', field.default)}`"
        rows.append(f"| `{name}` | {default} | {_cell(field.description)} |")
    return "\n".join(rows) + "\n"


def knobs_block() -> str:
    """Every knob of a recipe with its default and its meaning."""
    from dreamctl.domain.recipe import Recipe

    rows = ["| knob | default | what it is |", "|---|---|---|"]
    for table, field in Recipe.model_fields.items():
        for name, knob in getattr(field.annotation, "model_fields", {}).items():
            default = "" if knob.is_required() or knob.default is None else f"`{_toml(knob.default)}`"
            rows.append(f"| `{table}.{name}` | {default} | {_cell(knob.description)} |")
    return "\n".join(rows) + "\n"


BLOCKS: dict[str, Callable[[], str]] = {
    "help": help_block, "tree": tree_block, "settings": settings_block, "knobs": knobs_block,
}  # fmt: skip


def rendered(text: str) -> str:
    """The README's text with every block made anew."""
    return _BLOCK.sub(lambda match: match[1] + BLOCKS[match[2]]() + match[3], text)


def _folder(folder: Path, depth: int) -> Iterator[str]:
    entries = sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name))
    for path in entries:
        name = "  " * depth + path.name
        if path.is_dir() and (path / "__init__.py").exists():
            yield f"{name + '/':<34}{_phrase(path / '__init__.py')}"
            yield from _folder(path, depth + 1)
        elif path.suffix == ".py" and path.name != "__init__.py":
            yield f"{name:<34}{_phrase(path)}"


def _phrase(file: Path) -> str:
    first = (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n\n")[0].replace("\n", " ")
    return re.split(r"(?<=[a-z`)])\. |: (?=[a-z])", first)[0].rstrip(".")


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    fresh = rendered(README.read_text())
    if "--write" in sys.argv:
        README.write_text(fresh)
    sys.stdout.write("README.md written\n" if "--write" in sys.argv else fresh)
