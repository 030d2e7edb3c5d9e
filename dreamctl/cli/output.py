"""The one sink: results on stdout; progress, notes and errors on stderr.

`text` for people, `json` for programs (one document), `quiet` for xargs (ids or paths, one a line).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TextIO

from dreamctl.domain.quantities import bytes_text
from dreamctl.errors import DreamctlError
from dreamctl.http import redact
from dreamctl.reporter import Unit

Mode = Literal["text", "json", "quiet"]
HEARTBEAT_SECONDS = 60.0
_BAR = 24


@dataclass(frozen=True)
class Table:
    """Rows for people; `columns` are the headings."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    empty: str = "nothing yet"


Text = str | Table | Sequence[str | Table]


@dataclass
class Output:
    """Writes for one command."""

    mode: Mode = "text"
    out: TextIO = field(default_factory=lambda: sys.stdout)
    err: TextIO = field(default_factory=lambda: sys.stderr)

    def __post_init__(self) -> None:
        self._drawn = False
        self._beat = time.monotonic()
        self._started: dict[str, float] = {}

    # results

    def emit(
        self,
        value: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
        text: Text | Callable[[], Text],
        ids: Sequence[str] = (),
    ) -> None:
        """The result of a command, once: `value` for --json, `text` for people, `ids` for --quiet.

        Of a long result, functions: only the one whose form is wanted is called.
        """
        self._clear()
        if self.mode == "json":
            plain = value() if callable(value) else value
            indent = (
                2 if self.out.isatty() else None
            )  # programs need none, and long documents are written faster without
            self._line(self.out, json.dumps({"schema": 1, **plain}, indent=indent, ensure_ascii=False, default=str))
        elif self.mode == "quiet":
            for item in ids:
                self._line(self.out, item)
        else:
            parts = text() if callable(text) else text
            for part in [parts] if isinstance(parts, (str, Table)) else parts:
                self._show(part)

    def stream(self, value: Mapping[str, Any], text: str) -> None:
        """One of many results (`--follow`, `logs`): a JSON document a line, or a line of text."""
        self._clear()
        if self.mode == "json":
            self._line(self.out, json.dumps({"schema": 1, **value}, ensure_ascii=False, default=str))
        elif self.mode == "text":
            self._line(self.out, text)

    # the reporter's side (see dreamctl.reporter.Reporter)

    def note(self, message: str) -> None:
        if self.mode != "quiet":
            self._clear()
            self._line(self.err, message)

    def warn(self, message: str) -> None:
        self._clear()
        self._line(self.err, f"warning: {message}")

    def progress(self, label: str, done: int, total: int, detail: str = "", unit: Unit = "") -> None:
        if self.mode == "quiet":
            return
        start = self._started.setdefault(label, time.monotonic())
        if done >= total:
            self._started.pop(label, None)
        passed = time.monotonic() - start
        left = f", {clock(passed / done * (total - done))} left" if 0 < done < total and passed > 1 else ""
        of = f"{bytes_text(done)} of {bytes_text(total)}" if unit == "bytes" else f"{done}/{total}"
        line = f"{label} {of}{left}{', ' + detail if detail else ''}"
        if self.err.isatty():
            filled = _BAR * done // max(total, 1)
            self._draw(f"[{'#' * filled}{'.' * (_BAR - filled)}] {line}", final=done >= total)
        elif time.monotonic() - self._beat >= HEARTBEAT_SECONDS:
            self._beat = time.monotonic()
            self._line(self.err, line)

    def confirm(self, question: str) -> bool | None:
        if not self.interactive:
            return None
        return self._answer(f"{question} [y/N] ").lower() in ("y", "yes")

    def ask(self, question: str) -> str | None:
        return self._answer(f"{question}: ") if self.interactive else None

    @property
    def interactive(self) -> bool:
        """Whether a person sits at both ends."""
        return sys.stdin is not None and sys.stdin.isatty() and self.err.isatty() and self.mode == "text"

    # errors

    def fail(self, error: DreamctlError) -> None:
        """The sentence and the hint on stderr, and with --json one document on stdout."""
        self._clear()
        message, hint = redact(error.message), redact(error.hint) if error.hint else None
        if self.mode == "json":
            described = {"code": error.code, "message": message, "field": error.field, "hint": hint}
            self._line(self.out, json.dumps({"schema": 1, "error": described}, ensure_ascii=False))
        self._line(self.err, f"error: {message}")
        if hint:
            self._line(self.err, f"  {hint}")

    # the terminal

    def _show(self, part: str | Table) -> None:
        if isinstance(part, str):
            self._line(self.out, part)
        elif not part.rows:
            self._line(self.out, part.empty)
        elif self.out.isatty() and "NO_COLOR" not in os.environ:
            _rich_table(part, self.out)
        else:
            for line in plain_table(part):
                self._line(self.out, line)

    def _answer(self, prompt: str) -> str:
        self._clear()
        self.err.write(prompt)
        self.err.flush()
        return sys.stdin.readline().strip()

    def _draw(self, line: str, final: bool) -> None:
        width = terminal_width() - 1
        self.err.write("\r\x1b[K" + line[:width] + ("\n" if final else ""))
        self.err.flush()
        self._drawn = not final

    def _clear(self) -> None:
        if self._drawn:
            self.err.write("\r\x1b[K")
            self._drawn = False

    def _line(self, stream: TextIO, text: str) -> None:
        stream.write(text + "\n")
        stream.flush()


def reader_left() -> int:
    """The reader of stdout went away (`| head`): it has what it wanted, and nobody must complain again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def terminal_width() -> int:
    try:
        return os.get_terminal_size(2).columns or 80  # some pseudo-terminals say 0
    except OSError:
        return 80


def clock(seconds: float) -> str:
    """Seconds as 0:05, 12:34 or 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def plain_table(table: Table) -> list[str]:
    """Aligned columns without a frame and without cutting anything off: for pipes and files."""
    cells = [list(table.columns), *([str(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _rich_table(table: Table, out: TextIO) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable

    shown = RichTable(box=SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        shown.add_column(column, overflow="fold")
    for row in table.rows:
        shown.add_row(*(escape(str(cell)) for cell in row))
    Console(file=out).print(shown)
