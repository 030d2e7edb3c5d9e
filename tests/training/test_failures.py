"""What can go wrong: the run ends as failed, with one sentence, and never with a torn model."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from dreamctl.domain.run import State
from dreamctl.errors import DreamctlError
from dreamctl.files import free_bytes
from dreamctl.runfolder import RunFolder
from dreamctl.training.__main__ import explained
from tests.training.school import (
    FULL,
    LORA,
    assert_succeeded,
    last_state,
    make_run,
    messages,
    steps_done,
    teach,
)

BARE: dict[str, Any] = {"prior": {"pictures": 0}, "samples": {"prompts": []}}


def failure(run: RunFolder) -> str:
    """The sentence of a failed run, which has no model."""
    assert run.state() is State.failed
    assert not run.model.exists()
    message = last_state(run)["message"]
    assert isinstance(message, str) and "\n" not in message
    return message


def test_a_loss_that_is_no_number_stops_and_names_the_pictures(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, FULL, {**BARE, "optimizer": {"learning_rate": 1e30, "max_grad_norm": 1e30}})
    assert teach(run) == 1
    told = failure(run)
    assert ("loss of step 2" in told or "gradient of step 2" in told) and ("0.png" in told or "1.png" in told)
    assert steps_done(run.events()) <= 2


def test_a_failure_while_saving_costs_no_step(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, tiny, LORA, BARE, {"checkpoints": {"every": 1000}})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("dreamctl.training.session.export", full)
        assert teach(run) == 1
    assert "no space left on device" in failure(run)
    assert teach(run) == 0
    again = [event for event in run.events() if event.attempt == 2]
    assert steps_done(again) == 0 and "going on from checkpoint step-000004" in messages(run)
    assert_succeeded(run)


def test_secrets_in_errors_of_others_are_hidden() -> None:
    url = "https://cdn.example/weights?X-Amz-Signature=0123456789abcdef"
    for error in (DreamctlError(f"403 for {url}"), OSError(f"403 for {url}"), RuntimeError(f"403 for {url}")):
        assert "0123456789abcdef" not in explained(error).message


def test_a_picture_that_is_gone(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, BARE)
    (run.data.path / "1.png").unlink()
    assert teach(run) == 1
    assert "1.png" in failure(run)


def test_a_picture_that_is_none(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, BARE)
    (run.data.path / "1.png").write_bytes(b"not a picture")
    assert teach(run) == 1
    assert "1.png cannot be read as a picture" in failure(run)


def test_a_truncated_picture(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, BARE)
    whole = (run.data.path / "1.png").read_bytes()
    (run.data.path / "1.png").write_bytes(whole[: len(whole) // 2])
    assert teach(run) == 1
    assert "1.png cannot be read as a picture" in failure(run)


def test_a_dataset_smaller_than_the_resolution(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, BARE, {"training": {"resolution": 128}})
    assert teach(run) == 2
    assert "0.png is 64x64 pixels, smaller than training.resolution = 128" in failure(run)
    assert "dreamctl prepare --size 128" in last_state(run)["hint"]


def test_a_base_that_is_gone_or_no_model(tmp_path: Path, tiny: Path) -> None:
    gone = make_run(tmp_path, tmp_path / "nowhere", BARE)
    assert teach(gone) == 3
    assert f"{tmp_path / 'nowhere'} does not exist" in failure(gone)
    other = make_run(tmp_path, tmp_path, BARE)
    assert teach(other) == 2
    assert "is not a diffusers folder" in failure(other)


def test_a_base_that_has_changed(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, BARE, {"base": {"digest": "0" * 64}})
    assert teach(run) == 2
    assert "has changed since" in failure(run)


def test_fp16_without_a_gpu(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, BARE, {"training": {"precision": "fp16"}})
    assert teach(run) == 2
    assert "fp16" in failure(run)


def test_a_failed_run_can_be_started_again(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, BARE, LORA)
    hidden = tmp_path / "hidden.png"
    (run.data.path / "1.png").rename(hidden)
    assert teach(run) == 1
    hidden.rename(run.data.path / "1.png")
    assert teach(run) == 0
    assert_succeeded(run)


@pytest.mark.parametrize("small_disk", ["9m"], indirect=True)
def test_a_full_disk(small_disk: Path, tiny: Path) -> None:
    """A checkpoint (0.8 MB of weights and 1.6 MB of optimizer) does not fit."""
    run = make_run(small_disk, tiny, FULL, BARE)
    (small_disk / "ballast").write_bytes(bytes(free_bytes(small_disk) - 1_500_000))
    assert teach(run) == 1
    assert "no space left on device" in failure(run)
    assert "free some space" in last_state(run)["hint"]
    assert not list(run.checkpoints.glob("step-*"))
    (small_disk / "ballast").unlink()
    assert teach(run) == 0  # as its hint says
    assert_succeeded(run)
    assert not messages(run) or "passed over" not in messages(run)[0]
