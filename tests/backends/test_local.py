"""The local backend: a trainer that lives on without its terminal, is asked to stop, and never runs twice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dreamctl.domain.run import State
from dreamctl.paths import runs_dir
from dreamctl.runfolder import RunFolder
from tests.fakes import write_dataset
from tests.tiny_models import write_tiny_sd15

ENDLESS = [
    "training.resolution=64",
    "training.steps=100000",
    "prior.pictures=0",
    "samples.prompts=[]",
    "checkpoints.every=5",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_sd15(tmp_path_factory.mktemp("base"))


def dreamctl(*words: str) -> list[str]:
    return [sys.executable, "-m", "dreamctl", *words]


def train_command(base: Path, *words: str, steps: int | None = None) -> list[str]:
    knobs = [*ENDLESS, f"training.steps={steps}"] if steps else ENDLESS
    sets = [word for knob in knobs for word in ("--set", knob)]
    return dreamctl("train", "--category", "person", "--base-model", str(base), *sets, *words)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def no_trainer_left(user: Path) -> Iterator[None]:
    """Whatever a test does, its trainers end with it."""
    yield
    for file in runs_dir().glob("*/trainer.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(file.read_text()), signal.SIGKILL)


def the_run() -> RunFolder:
    (path,) = runs_dir().iterdir()
    return RunFolder(path)


def started() -> bool:
    return runs_dir().is_dir() and any(
        event.type == "step" for path in runs_dir().iterdir() for event in RunFolder(path).events()
    )


def test_ctrl_c_saves_says_how_to_go_on_and_ends_with_130(base: Path, user: Path) -> None:
    write_dataset(user / "processed")
    command = subprocess.Popen(
        train_command(base),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    wait_for(started)
    command.send_signal(signal.SIGINT)
    _, told = command.communicate(timeout=60)
    run = the_run()
    assert command.returncode == 130, told
    assert f"go on with: dreamctl train --resume {run.id}" in told
    assert run.state() is State.interrupted
    assert list(run.checkpoints.iterdir())
    assert not run.alive()


def test_a_closed_terminal_loses_nothing(base: Path, user: Path) -> None:
    write_dataset(user / "processed")
    command = subprocess.Popen(
        train_command(base, steps=30),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL) and None,  # tests may run under nohup
    )
    wait_for(started)
    command.send_signal(signal.SIGHUP)
    assert command.wait(20) != 0
    wait_for(lambda: not the_run().alive())
    listed = subprocess.run(dreamctl("identifiers", "--json"), capture_output=True, text=True, check=True)
    (known,) = json.loads(listed.stdout)["identifiers"]
    assert [version["version"] for version in known["versions"]] == ["sks@1"]


def test_two_trains_of_the_same_share_one_run_and_a_cancel_ends_both(base: Path, user: Path) -> None:
    write_dataset(user / "processed")
    first = subprocess.Popen(train_command(base), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(started)
    second = subprocess.Popen(train_command(base), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert second.stderr is not None
    assert "is at work already: following it" in second.stderr.readline()
    status = subprocess.run(dreamctl("status", "last", "--exit-status"), capture_output=True, text=True)
    assert status.returncode == 8
    assert "running" in status.stdout
    assert subprocess.run(dreamctl("cancel", "last"), capture_output=True).returncode == 0
    for command in (first, second):
        _, told = command.communicate(timeout=60)
        assert command.returncode == 6
        assert "was cancelled" in told
    assert the_run().state() is State.cancelled
    assert subprocess.run(dreamctl("status", "last", "--exit-status"), capture_output=True).returncode == 6


def test_two_processes_teach_one_model(base: Path, user: Path) -> None:
    write_dataset(user / "processed")
    words = train_command(base, "--set", "training.batch_size=2", "--json", steps=4)
    environment = {**os.environ, "DREAMCTL_PROCESSES": "2"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["versions"] == ["sks@1"]
    assert the_run().state() is State.succeeded
    assert "processes: 2, on cpu" in the_run().log_file.read_text()
    assert not the_run().checkpoints.exists(), "nothing goes on from a finished run"


def test_detached_it_returns_the_run_and_a_kill_is_told(base: Path, user: Path) -> None:
    write_dataset(user / "processed")
    done = subprocess.run(train_command(base, "--detach", "-q"), capture_output=True, text=True, check=True)
    run = the_run()
    assert done.stdout.strip() == run.id
    wait_for(started)
    os.killpg(int((run.path / "trainer.pid").read_text()), signal.SIGKILL)
    wait_for(lambda: not run.alive())
    assert run.state() is State.interrupted
    again = subprocess.Popen(dreamctl("train", "--resume", run.id[:17]), stderr=subprocess.PIPE, text=True)
    assert again.stderr is not None
    assert f"going on with run {run.id}" in again.stderr.readline()
    wait_for(run.alive)
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=60)
    assert again.returncode == 143
    assert not run.alive(), "also a trainer that has just begun is stopped"


def digest_after_kills(base: Path, kills: int, seed: int, monkeypatch: pytest.MonkeyPatch, home: Path) -> str:
    """Train with `dreamctl train`, killed with its trainer `kills` times at random moments; the model's digest."""
    monkeypatch.setenv("DREAMCTL_HOME", str(home))
    words = train_command(base, "--json", "--set", "prior.pictures=4", "--set", "sampling.steps=2", steps=40)
    chance = random.Random(seed)
    killed = 0
    while killed < kills:
        command = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            command.wait(chance.uniform(0.5, 12))
            break  # it was done before the next kill
        except subprocess.TimeoutExpired:
            killed += 1
        for file in runs_dir().glob("*/trainer.pid"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(file.read_text()), signal.SIGKILL)
        command.kill()
        command.wait()
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    value = json.loads(done.stdout)
    assert value["versions"] == ["sks@1"], "one run, one version, however often it was killed"
    return str(value["digest"])


def test_kill_9_of_command_and_trainer_gives_the_same_weights(
    base: Path, user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(user / "processed")
    undisturbed = digest_after_kills(base, 0, 0, monkeypatch, tmp_path / "calm")
    assert digest_after_kills(base, 2, 1, monkeypatch, tmp_path / "killed") == undisturbed


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_fifty_kills_of_command_and_trainer_give_the_same_weights(
    base: Path, user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(user / "processed")
    undisturbed = digest_after_kills(base, 0, 0, monkeypatch, tmp_path / "calm")
    for seed in range(5):
        assert digest_after_kills(base, 10, seed, monkeypatch, tmp_path / f"killed-{seed}") == undisturbed
