"""Runs for tiny models, and ways to train them: in this process or in one of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import dreamctl
from dreamctl.datasetfolder import DatasetFolder
from dreamctl.domain.concept import Concept
from dreamctl.domain.dataset import Dataset, Picture, Pictures
from dreamctl.domain.recipe import Recipe, merged
from dreamctl.domain.run import Event, State
from dreamctl.files import sha256_file
from dreamctl.runfolder import RunFolder
from dreamctl.training.__main__ import lead
from dreamctl.training.stop import Stop
from tests.fakes import write_run

SIDE = 64
QUICK: dict[str, Any] = {
    "training": {"resolution": SIDE, "steps": 4, "batch_size": 2},
    "sampling": {"steps": 2},
    "prior": {"pictures": 4},
    "optimizer": {"learning_rate": 1e-3, "text_encoder_learning_rate": 1e-3},
    "checkpoints": {"every": 2, "keep_when_done": True},
    "samples": {"prompts": ["a photo of {identifier} {category}"]},
}
FULL: dict[str, Any] = {"method": {"name": "full", "train_text_encoder": True}}
LORA: dict[str, Any] = {"method": {"name": "lora", "rank": 4, "alpha": 8.0}}


def make_recipe(base: Path, *changes: dict[str, Any]) -> Recipe:
    """A quick recipe for a tiny base, with changes laid over it."""
    plain = merged(QUICK, {"base": {"source": str(base)}})
    for change in changes:
        plain = merged(plain, change)
    return Recipe.parse(plain, "test")


def make_dataset(folder: Path, masks: bool = False, side: int = SIDE) -> DatasetFolder:
    """Three pictures of noise, each with its own caption."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(7)
    pictures = []
    for number in range(3):
        file = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(file)
        file.with_suffix(".txt").write_text(f"scene {number}\n")
        mask = None
        if masks:
            mask = f"masks/{number}.png"
            (folder / "masks").mkdir(exist_ok=True)
            white = np.zeros((side, side), dtype=np.uint8)
            white[: side // 2] = 255
            Image.fromarray(white).save(folder / mask)
        digest = sha256_file(file)
        pictures.append(
            Picture(
                file=file.name,
                sha256=digest,
                width=side,
                height=side,
                source=file.name,
                source_sha256=digest,
                mask=mask,
            )
        )
    dataset = DatasetFolder(folder)
    dataset.write_manifest(Dataset(size=side, format="png", pictures=Pictures.of(pictures)))
    return dataset


def make_run(root: Path, base: Path, *changes: dict[str, Any], masks: bool = False) -> RunFolder:
    """A run folder below `root`, on a dataset of its own."""
    number = len(list(root.glob("data-*")))
    dataset = make_dataset(root / f"data-{number}", masks)
    concept = Concept(identifier="sks", category="person")
    return write_run(root / f"runs-{number}", dataset, make_recipe(base, *changes), concept)


def teach(run: RunFolder, stop: Stop | None = None) -> int:
    """Train in this process, without touching its signals; the exit code."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    return lead(run, stop or Stop(run.path))


def spawn(run: RunFolder, launcher: list[str] | None = None, module: bool = True) -> subprocess.Popen[bytes]:
    """Train in a process of its own, as the local backend does; without `module`, `launcher` says what is run."""
    source = str(Path(dreamctl.__file__).parents[1])
    with open(run.log_file, "ab") as log:
        return subprocess.Popen(
            [sys.executable, *(launcher or []), *(("-m", "dreamctl.training") if module else ()), str(run.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": source, "DREAMCTL_DEVICE": "cpu"},
            start_new_session=True,
        )


def finished(process: subprocess.Popen[bytes], run: RunFolder) -> int:
    """The exit code; the trainer's log in the failure's message if it takes too long."""
    try:
        return process.wait(timeout=240)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise AssertionError(f"the trainer hangs: {run.log_tail(30)}") from error


def wait_for(run: RunFolder, process: subprocess.Popen[bytes], wanted: Callable[[list[Event]], bool]) -> None:
    """Wait until the run's events are as wanted; the trainer must live until then."""
    deadline = time.monotonic() + 240
    while not wanted(run.events()):
        assert process.poll() is None, run.log_tail(30)
        assert time.monotonic() < deadline, run.log_tail(30)
        time.sleep(0.005)


def steps_done(events: list[Event]) -> int:
    return max((event.fields["step"] for event in events if event.type == "step"), default=0)


def messages(run: RunFolder) -> list[str]:
    return [event.fields["message"] for event in run.events() if event.type == "note"]


def last_state(run: RunFolder) -> dict[str, Any]:
    """The fields of the last change of state."""
    return [event.fields for event in run.events() if event.type == "state"][-1]


def assert_succeeded(run: RunFolder) -> None:
    assert run.state() is State.succeeded, (last_state(run), run.log_tail(30))


def weights(run: RunFolder) -> dict[str, Tensor]:
    """Every tensor of the run's model, by file and name."""
    return {
        f"{path.relative_to(run.model)}:{name}": tensor
        for path in sorted(run.model.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }
