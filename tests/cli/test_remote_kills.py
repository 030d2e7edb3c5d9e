"""`kill -9` of a command that trains at RunPod, at random moments: what comes next brings the run home, paid once."""

from __future__ import annotations

import collections
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clouds.robot import Robot, robot
from tests.clouds.runpod import runpod_cloud
from tests.fakes import write_dataset
from tests.servers.ceph import Ceph
from tests.storage.stores import new_bucket, use_keys

KNOBS = ("training.steps=3", "training.resolution=64", "prior.pictures=0", "samples.prompts=[]")
PATIENCE = 240.0  # another computer waits for a submission that may be under way


@pytest.fixture
def worker(ceph_servers: Ceph, user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Robot]:
    server = ceph_servers.plain
    bucket = new_bucket(server)
    use_keys(server, monkeypatch)
    write_dataset(user / "processed", count=2)
    with runpod_cloud() as cloud, robot(cloud, tmp_path / "worker") as working:
        settings = {
            "BACKEND": "runpod", "RUNPOD_URL": cloud.url, "RUNPOD_ENDPOINT": cloud.endpoint, "BASE_MODEL": "builtin",
            "PRICE_PER_HOUR": "1", "MAX_COST": "50", "S3_ENDPOINT": server.endpoint,
            "STORAGE": f"s3://{bucket}/data", "RUNS": f"s3://{bucket}/runs",
        }  # fmt: skip
        for name, value in settings.items():
            monkeypatch.setenv(f"DREAMCTL_{name}", value)
        monkeypatch.setenv("RUNPOD_API_KEY", cloud.token)
        yield working


def command(home: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dreamctl", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # each round's runs are kept apart, so that `last` is its own
        env={
            **os.environ,
            "DREAMCTL_HOME": str(home),
            "DREAMCTL_RUNS": f"{os.environ['DREAMCTL_RUNS']}/{home.parent.name}",
        },
    )


def training(seed: int) -> list[str]:
    """The same words, the same run; another seed, another run."""
    sets = [word for knob in (*KNOBS, f"training.seed={seed}") for word in ("--set", knob)]
    return ["train", "--category", "person", "--recipe", "builtin-lora", "--json", *sets]


def brought_home(home: Path, words: list[str]) -> tuple[list[str], str]:
    """What the next commands do until the run is home: the versions that it made."""
    deadline, told = time.monotonic() + PATIENCE, ""
    while time.monotonic() < deadline:
        process = command(home, *words)
        out, told = process.communicate(timeout=PATIENCE)
        value = json.loads(out) if out.strip() else {}
        if process.returncode == 0 and value.get("versions"):
            return list(value["versions"]), told
        assert process.returncode in (0, 3, 5), told  # 3: killed before there was a run; 5: not known yet
        if process.returncode == 3 or value.get("state") in ("created", "interrupted", "failed"):
            words = training(int(home.parent.name))
        time.sleep(0.5)
    raise AssertionError(f"not home after {PATIENCE:.0f} s: {told}")


def undisturbed(worker: Robot, home: Path) -> float:
    """Seconds that the whole command takes."""
    begun = time.monotonic()
    process = command(home, *training(999_999))
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, told
    assert worker.submitted == 1
    return time.monotonic() - begun


def kill_and_bring_home(
    worker: Robot, folder: Path, moment: float, chance: random.Random, number: int, elsewhere: float
) -> str:
    """One command that is killed after so many seconds; how far the run was then."""
    before = worker.submitted
    here = folder / str(number) / "here"
    if chance.random() < 0.5:  # so that kills fall between the job's acceptance and the answer's arrival
        worker.cloud.fault("run", None, times=1, delay=0.3)
        worker.cloud.fault("run", None, times=1, delay=0.3)
    process = command(here, *training(number))
    try:
        process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    runs = list((here / "runs").glob("[0-9]*"))
    journals = [json.loads((run / "remote.json").read_text()) for run in runs if (run / "remote.json").exists()]
    sent = bool(journals)
    place = here if not sent or chance.random() >= elsewhere else folder / str(number) / "elsewhere"
    words = chance.choice([["status", "last", "--json"], ["train", "--resume", "last", "--json"], training(number)])
    versions, told = brought_home(place, words)
    assert len(versions) == 1, told
    assert worker.submitted - before == 1, f"{worker.submitted - before} submissions after a kill at {moment:.2f} s"
    if not runs:
        return "no run"
    if not journals:
        return "not sent"
    return "id known" if journals[0].get("id") else "submitting"


def kills(worker: Robot, folder: Path, count: int, seed: int, elsewhere: float = 0.5) -> collections.Counter[str]:
    """So many kills; `elsewhere`: the share of runs that another computer brings home."""
    chance = random.Random(seed)
    longest = undisturbed(worker, folder / "999999" / "here")
    worker.trained.clear()
    stages: collections.Counter[str] = collections.Counter()
    for number in range(count):
        stages[kill_and_bring_home(worker, folder, chance.uniform(0.3, longest), chance, number, elsewhere)] += 1
    assert len(worker.trained) == len(set(worker.trained)) == count, "each run was trained once"
    return stages


@pytest.mark.timeout(300)
def test_a_kill_loses_nothing_and_pays_once(worker: Robot, tmp_path: Path) -> None:
    kills(worker, tmp_path / "rounds", 1, seed=5, elsewhere=0)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_fifty_kills_lose_nothing_and_pay_once(worker: Robot, tmp_path: Path) -> None:
    stages = kills(worker, tmp_path / "rounds", 50, seed=50)
    print(dict(stages))
    assert set(stages) >= {"not sent", "id known"}, stages
