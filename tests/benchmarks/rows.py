"""A benchmark's rows: measured, reference, ratio, goal, held; as a table and as `build/bench/NAME.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from dreamctl.cli.output import Table, plain_table
from dreamctl.files import write_json

BUILD = Path(__file__).parents[2] / "build" / "bench"


@dataclass(frozen=True)
class Row:
    """One figure. `ratio` is measured / reference; `sense` says on which side of `goal` it must lie."""

    name: str
    measured: float
    reference: float
    sense: Literal["at least", "at most"]
    goal: float
    unit: str = ""

    @property
    def ratio(self) -> float | None:
        return self.measured / self.reference if self.reference else None

    @property
    def held(self) -> bool:
        return self.measured >= self.goal if self.sense == "at least" else self.measured <= self.goal


def publish(name: str, rows: Sequence[Row]) -> None:
    """Print the rows and write them to `build/bench/NAME.json`."""
    BUILD.mkdir(parents=True, exist_ok=True)
    write_json(BUILD / f"{name}.json", [{**asdict(row), "ratio": row.ratio, "held": row.held} for row in rows])
    cells = [
        (
            f"{name}: {row.name}", _figure(row.measured, row.unit), _figure(row.reference, row.unit),
            "-" if row.ratio is None else f"{row.ratio:.2f}", f"{row.sense} {_figure(row.goal, row.unit)}",
            "yes" if row.held else "NO",
        )
        for row in rows
    ]  # fmt: skip
    for line in plain_table(Table(("name", "measured", "reference", "ratio", "goal", "held"), cells)):
        print(line, flush=True)


def _figure(value: float, unit: str) -> str:
    return f"{value:.0%}" if unit == "%" else f"{value:.4g} {unit}".strip()
