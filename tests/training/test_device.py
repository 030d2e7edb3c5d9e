"""One training for each device, and one trainer for each run."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from dreamctl.domain.run import State
from dreamctl.errors import InvalidInput
from dreamctl.files import is_locked, locked
from dreamctl.training.device import device_lock, device_names, prepare_environment
from tests.training.school import LORA, assert_succeeded, finished, make_run, messages, spawn, wait_for

BARE = {"prior": {"pictures": 0}, "samples": {"prompts": []}, "training": {"steps": 2}}


def test_the_second_training_waits_and_says_for_what(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, LORA, BARE)
    with locked(device_lock("cpu"), "run 20261120-101502-k3f9"):
        process = spawn(run)
        wait_for(run, process, lambda events: any(event.type == "note" for event in events))
        assert messages(run) == ["waiting for cpu, which is used by run 20261120-101502-k3f9"]
        assert run.state() is State.queued and run.alive()
    assert finished(process, run) == 0
    assert_succeeded(run)


def test_a_waiting_training_can_be_stopped(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, LORA, BARE)
    with locked(device_lock("cpu"), "somebody"):
        process = spawn(run)
        wait_for(run, process, lambda events: any(event.type == "note" for event in events))
        process.send_signal(signal.SIGTERM)
        assert finished(process, run) == 0
    assert run.state() is State.interrupted


def test_a_run_has_one_trainer(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, LORA, BARE)
    with locked(run.lock_file, "its trainer"):
        assert finished(spawn(run), run) == 1
        assert run.events() == []
    assert f"another trainer works on run {run.id}" in run.log_tail(1)[0]


def test_a_dead_trainer_holds_nothing(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, LORA, {**BARE, "training": {"steps": 5000}})
    process = spawn(run)
    wait_for(run, process, lambda events: any(event.type == "step" for event in events))
    assert run.alive() and is_locked(device_lock("cpu"))
    process.kill()
    process.wait()
    assert not run.alive() and not is_locked(device_lock("cpu"))
    assert run.state() is State.interrupted


def test_a_hidden_gpu_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("DREAMCTL_DEVICE", "cuda:1")
    with pytest.raises(InvalidInput, match=r"there is no cuda:1 among the devices of CUDA_VISIBLE_DEVICES=3"):
        prepare_environment()


def test_devices_go_by_the_computers_own_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setenv("DREAMCTL_DEVICE", "cuda:1")
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    prepare_environment()
    import os

    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    monkeypatch.setenv("DREAMCTL_DEVICE", "cpu")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "")
    prepare_environment()
    assert device_names() == ["cpu"]
