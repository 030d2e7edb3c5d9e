"""What tests of runs at RunPod share: the queue, a worker that trains nothing, a project with a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dreamctl import recipes
from dreamctl.backends.base import as_remote
from dreamctl.context import Context
from dreamctl.runfolder import RunFolder
from dreamctl.workflows.lesson import Wish
from dreamctl.workflows.train import Taught, train
from tests.clouds.robot import Robot, robot
from tests.clouds.runpod import RunPodCloud, runpod_cloud
from tests.fakes import Recorder, write_dataset

RECIPE = "builtin-lora"
KNOBS = ["training.steps=3", "training.resolution=64", "prior.pictures=0", "samples.prompts=[]"]


@pytest.fixture(name="cloud")
def cloud_fixture(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunPodCloud]:
    with runpod_cloud() as running:
        monkeypatch.setenv("RUNPOD_API_KEY", running.token)
        yield running


@pytest.fixture(name="worker")
def worker_fixture(cloud: RunPodCloud, tmp_path: Path) -> Iterator[Robot]:
    with robot(cloud, tmp_path / "worker") as working:
        yield working


Open = Callable[..., Context]


@pytest.fixture(name="opened")
def opened_fixture(cloud: RunPodCloud, user: Path) -> Open:
    """Opens a context as a new command does, in a project with a dataset, with consent."""
    write_dataset(user / "processed")

    def open_one(reporter: Recorder | None = None, **flags: Any) -> Context:
        given = {
            "backend": "runpod", "runpod_url": cloud.url, "runpod_endpoint": cloud.endpoint, "base_model": "builtin",
            "price_per_hour": 1.0, "max_cost": 50.0,
        }  # fmt: skip
        return Context.open(None, {**given, **flags}, reporter or Recorder())

    return open_one


def taught(context: Context, **wish: Any) -> Taught:
    return train(context, Wish(**{"category": "person", "recipe": RECIPE, "overrides": KNOBS, **wish}))


def acquainted(context: Context) -> None:
    """The worker has said what it accepts, so that the next request is the training's."""
    remote = as_remote(context.backend())
    assert remote is not None
    remote.ready(recipes.resolve(RECIPE))


def the_run(context: Context) -> RunFolder:
    (path,) = (path for path in context.runs.iterdir() if not path.name.startswith("."))
    return RunFolder(path)
