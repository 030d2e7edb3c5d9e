"""How long the demo takes, and its parts beside the whole."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

from tests.benchmarks.rows import Row


def run() -> list[Row]:
    """Seconds of `dreamctl demo` in an empty folder, and of its training and pictures."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "dreamctl", "demo", folder, "--json"], stdout=subprocess.PIPE, check=True
        )
    seconds: dict[str, float] = json.loads(done.stdout)["seconds"]
    whole = sum(seconds.values())
    training = sum(value for line, value in seconds.items() if " train" in line)
    drawing = max(value for line, value in seconds.items() if " generate" in line)
    return [
        Row("whole demo", whole, 0, "at most", 300, "s"),
        Row("training", training, whole, "at most", 90, "s"),
        Row("a picture of four, the command's start included", drawing / 4, whole, "at most", 3, "s"),
    ]
