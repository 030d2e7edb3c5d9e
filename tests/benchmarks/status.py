"""How long `dreamctl status` takes with 10,000 ended runs, a third of them failed, beside its start without any."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dreamctl.domain.recipe import Base, Recipe, Training
from dreamctl.domain.run import State
from dreamctl.runfolder import EventWriter, RunFolder
from tests.benchmarks.rows import Row
from tests.fakes import finish, write_dataset, write_run

RUNS = 10_000
ROUNDS = 5
SMALL = ("run.json", "recipe.toml", "concept.json", "dataset.json", "events.jsonl")


def run() -> list[Row]:
    """Medians of alternating calls in one run, in milliseconds beside start-up."""
    with tempfile.TemporaryDirectory() as folder:
        full, empty = Path(folder) / "full", Path(folder) / "empty"
        fill(full)
        rows = []
        for words in (["status"], ["status", "--json"], ["status", "-q"]):
            status(full, words)  # once before anything counts: the pages are in memory then, as in daily use
            taken = [(status(full, words), status(empty, words)) for _ in range(ROUNDS)]
            beside = statistics.median(one - other for one, other in taken)
            start = statistics.median(other for _, other in taken)
            rows.append(
                Row(f"`{' '.join(words)}` of 10,000 runs, beside start-up", beside, start, "at most", 500, "ms")
            )
        return rows


def status(home: Path, words: list[str]) -> float:
    environment = {**os.environ, "DREAMCTL_HOME": str(home)}
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "dreamctl", *words], stdout=subprocess.DEVNULL, env=environment, cwd="/", check=True
    )
    return (time.perf_counter() - start) * 1000


def fill(home: Path, count: int = RUNS) -> None:
    """A home with so many runs of one concept, in folders and in the registry."""
    recipe = Recipe(base=Base(source="builtin", digest="b"), training=Training(steps=200))
    data = write_dataset(home / "data")
    good, bad = write_run(home / "patterns", data, recipe), write_run(home / "patterns", data, recipe)
    finish(good)
    events = EventWriter(bad.events_file)
    events.state(State.running)
    events.state(State.failed, message="out of memory")
    events.close()
    patterns = [{name: (run.path / name).read_text() for name in SMALL} for run in (good, bad)]
    for number in range(count):
        pattern = 1 if number % 3 == 0 else 0
        run = RunFolder(home / "runs" / f"20261101-{number:06}-aaaa")
        run.path.mkdir(parents=True)
        for name, text in patterns[pattern].items():
            (run.path / name).write_text(text.replace((good, bad)[pattern].id, run.id))
        if pattern == 0:
            run.model.mkdir()
            (run.model / "model.json").write_text((good.model / "model.json").read_text())
    register(home)


def register(home: Path) -> None:
    """Harvest all runs as a command does, but without waiting for the disk after each."""
    os.environ["DREAMCTL_HOME"] = str(home)
    from dreamctl.context import Context
    from dreamctl.reporter import Silent
    from dreamctl.workflows.harvest import harvest

    context = Context.open(None, {}, Silent())
    context.registry._db.execute("PRAGMA synchronous = OFF")
    harvest(context)
    context.registry.close()
