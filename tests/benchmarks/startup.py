"""How long `dreamctl --help` takes, beside the start of Python itself."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from tests.benchmarks.rows import Row

ROUNDS = 15


def run() -> list[Row]:
    """Medians of alternating calls in one run, in milliseconds."""
    bare, full = [], []
    for _ in range(ROUNDS):
        bare.append(_milliseconds([sys.executable, "-c", "pass"]))
        full.append(_milliseconds([sys.executable, "-m", "dreamctl", "--help"]))
    return [
        Row(
            "dreamctl --help, beside python -c pass",
            statistics.median(full),
            statistics.median(bare),
            "at most",
            150,
            "ms",
        )
    ]


def _milliseconds(command: Sequence[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - start) * 1000
