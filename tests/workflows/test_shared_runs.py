"""Runs that another computer sees: one object a run in a storage, names claimed by a condition, nothing paid twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dreamctl import recipes
from dreamctl.backends.base import as_remote
from dreamctl.context import Context
from dreamctl.domain.run import State
from dreamctl.errors import InvalidInput, ProviderError
from dreamctl.http import AnswerLost
from dreamctl.runfolder import RunFolder
from dreamctl.workflows import shared_runs
from dreamctl.workflows.ending import cancel, remove
from dreamctl.workflows.lesson import Wish
from dreamctl.workflows.runs import all_status, one_status
from dreamctl.workflows.train import Taught, train
from tests.clouds.robot import Robot, robot
from tests.clouds.runpod import RunPodCloud, runpod_cloud
from tests.fakes import Recorder, write_dataset

KNOBS = ["training.steps=3", "training.resolution=64", "prior.pictures=0", "samples.prompts=[]"]

At = Callable[..., Context]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunPodCloud]:
    with runpod_cloud() as running:
        monkeypatch.setenv("RUNPOD_API_KEY", running.token)
        yield running


@pytest.fixture
def worker(cloud: RunPodCloud, tmp_path: Path) -> Iterator[Robot]:
    with robot(cloud, tmp_path / "worker") as working:
        yield working


@pytest.fixture
def at(cloud: RunPodCloud, user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> At:
    """Opens a context on a computer that is called so; all share the storage and have the same dataset."""
    write_dataset(user / "processed")

    def open_one(computer: str, reporter: Recorder | None = None, **flags: Any) -> Context:
        monkeypatch.setenv("DREAMCTL_HOME", str(tmp_path / computer))
        given = {
            "backend": "runpod", "runpod_url": cloud.url, "runpod_endpoint": cloud.endpoint, "base_model": "builtin",
            "price_per_hour": 1.0, "max_cost": 50.0, "runs": (tmp_path / "bucket").as_uri(),
        }  # fmt: skip
        return Context.open(None, {**given, **flags}, reporter or Recorder())

    return open_one


def taught(context: Context, **wish: Any) -> Taught:
    return train(context, Wish(**{"category": "person", "recipe": "builtin-lora", "overrides": KNOBS, **wish}))


def test_another_computer_follows_and_brings_home(at: At, worker: Robot) -> None:
    worker.hold.set()
    begun = taught(at("ci"), detach=True)
    assert begun.run is not None
    (told,) = all_status(at("laptop"))
    assert (told.id, told.state, told.concept.category) == (begun.run.id, State.queued, "person")
    worker.hold.clear()
    worker.cloud.wait_for(worker.cloud.newest)
    done = train(at("laptop"), Wish(resume=begun.run.id))
    assert [version.name for version in done.versions] == ["sks@1"]
    assert done.run is not None and (done.run.model / "model.json").is_file()
    assert one_status(at("ci"), begun.run.id).versions, "it is home on both"
    assert worker.submitted == 1


def test_what_the_provider_has_forgotten_is_in_the_bucket(at: At, worker: Robot) -> None:
    begun = taught(at("ci"))
    assert begun.run is not None
    worker.cloud.forget(worker.cloud.newest)
    told = one_status(at("laptop"), begun.run.id)
    assert told.state is State.succeeded and [version.name for version in told.versions] == ["sks@1"]


def test_another_computer_cancels(at: At, worker: Robot) -> None:
    worker.hold.set()
    begun = taught(at("ci"), detach=True)
    assert begun.run is not None
    assert cancel(at("laptop"), begun.run.id).state() is State.cancelled
    assert worker.cloud.jobs[worker.cloud.newest].status == "CANCELLED"
    assert one_status(at("ci"), begun.run.id).state is State.cancelled


def test_a_name_is_joined_from_a_fresh_disk(at: At, worker: Robot) -> None:
    first, second = taught(at("ci"), name="build-7"), taught(at("another ci"), name="build-7")
    assert first.run and second.run and first.run.id == second.run.id
    assert second.before and second.versions and worker.submitted == 1
    with pytest.raises(InvalidInput, match="belongs to run"):
        taught(at("third"), name="build-7", overrides=[*KNOBS, "training.seed=9"])
    third = taught(at("third"), name="build-7", overrides=[*KNOBS, "training.seed=9"], again=True)
    assert third.run and third.run.id != first.run.id and worker.submitted == 2


def test_the_name_of_a_cancelled_run_begins_a_new_one(at: At, worker: Robot) -> None:
    worker.hold.set()
    first = taught(at("ci"), name="nightly", detach=True)
    assert first.run is not None
    cancel(at("ci"), first.run.id)
    worker.hold.clear()
    second = taught(at("another ci"), name="nightly")
    assert second.run and second.run.id != first.run.id and second.versions
    third = taught(at("ci"), name="nightly")
    assert third.run and third.run.id == second.run.id and worker.submitted == 2


def test_a_removed_run_has_its_name_no_more(at: At, worker: Robot) -> None:
    first = taught(at("ci"), name="nightly")
    assert first.run is not None
    remove(at("ci"), first.run.id, yes=True)
    second, third = taught(at("another ci"), name="nightly"), taught(at("ci"), name="nightly")
    assert second.run and third.run and second.run.id == third.run.id != first.run.id


def test_a_lost_second_attempt_is_not_paid_by_another_computer(
    at: At, worker: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.hold.set()
    begun = taught(at("ci"), detach=True)
    assert begun.run is not None
    worker.cloud.fail(worker.cloud.newest, "the disk is full")
    for computer in ("ci", "laptop"):
        assert one_status(at(computer), begun.run.id).state is State.failed
    remote = as_remote(at("ci").backend())
    assert remote is not None
    remote.ready(recipes.resolve("builtin-lora"))
    worker.cloud.lose_answer()
    with pytest.raises(AnswerLost):
        taught(at("ci"))
    submitted = worker.submitted
    monkeypatch.setattr(shared_runs, "UNDER_WAY_SECONDS", 0.0)
    with pytest.raises(ProviderError, match="cannot be found out"):
        taught(at("laptop"))
    assert worker.submitted == submitted


def test_the_same_training_is_found_without_a_name(at: At, worker: Robot) -> None:
    first, second = taught(at("ci")), taught(at("laptop"))
    assert first.run and second.run and first.run.id == second.run.id and worker.submitted == 1


def test_a_lost_answer_is_known_elsewhere_too(at: At, worker: Robot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_runs, "UNDER_WAY_SECONDS", 1.0)
    context = at("ci")
    remote = as_remote(context.backend())
    assert remote is not None
    remote.ready(recipes.resolve("builtin-lora"))
    worker.cloud.lose_answer()
    with pytest.raises(AnswerLost):
        taught(context)
    person = Recorder()
    laptop = at("laptop")
    shared_runs.pull(laptop)
    (folder,) = laptop.runs.iterdir()
    shared_runs.await_submission(laptop, RunFolder(folder))
    (told,) = all_status(at("laptop", person))
    assert told.state is State.submitting and any("--resubmit" in warning for warning in person.warnings)
    with pytest.raises(ProviderError, match="cannot be found out"):
        taught(at("laptop"))
    assert worker.submitted == 1


def test_two_computers_at_once_pay_once(at: At, worker: Robot, user: Path, tmp_path: Path) -> None:
    at("warm").backend()
    words = ["train", "--name", "nightly", "--category", "person", "--recipe", "builtin-lora", "--json"]
    words += [word for knob in KNOBS for word in ("--set", knob)]
    settings = {
        "BACKEND": "runpod", "RUNPOD_URL": worker.cloud.url, "RUNPOD_ENDPOINT": worker.cloud.endpoint,
        "BASE_MODEL": "builtin", "PRICE_PER_HOUR": "1", "MAX_COST": "50", "RUNS": (tmp_path / "bucket").as_uri(),
    }  # fmt: skip
    environment = {**os.environ, **{f"DREAMCTL_{name}": value for name, value in settings.items()}}
    racers = [
        subprocess.Popen(
            [sys.executable, "-m", "dreamctl", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, "DREAMCTL_HOME": str(tmp_path / f"racer {number}")},
        )
        for number in range(3)
    ]
    told = []
    for racer in racers:
        out, err = racer.communicate(timeout=100)
        assert racer.returncode == 0, err
        told.append(json.loads(out))
    assert len({one["run"] for one in told}) == 1 and all(one["versions"] == ["sks@1"] for one in told)
    assert worker.submitted == 1
