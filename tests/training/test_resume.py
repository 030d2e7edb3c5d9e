"""Stopping at any moment, and going on as if nothing had happened."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamctl.domain.run import Event, State
from dreamctl.runfolder import RunFolder
from dreamctl.training.checkpoint import checkpoints_in
from dreamctl.training.stop import Stop
from tests.training.school import (
    FULL,
    LORA,
    assert_succeeded,
    finished,
    last_state,
    make_run,
    messages,
    spawn,
    steps_done,
    teach,
    wait_for,
    weights,
)

LONG: dict[str, Any] = {"training": {"steps": 12}, "checkpoints": {"every": 3}, "prior": {"pictures": 8}}
DROPOUT: dict[str, Any] = {"method": {**LORA["method"], "dropout": 0.2}}  # the only user of the global generator


def assert_same_model(one: RunFolder, other: RunFolder) -> None:
    """Bitwise, down to the digest of all files."""
    assert_succeeded(one)
    assert_succeeded(other)
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    models = one.model_file(), other.model_file()
    assert models[0] and models[1] and models[0].digest == models[1].digest
    assert models[0].final_loss == models[1].final_loss


def kill_and_resume(run: RunFolder, kills: int, seed: int) -> None:
    """Kill -9 the trainer at `kills` random moments between its first event and its last, then let it finish."""
    chance = random.Random(seed)
    for _ in range(kills):
        before = len(run.events())
        process = spawn(run)
        more = chance.randrange(1, 12)
        while process.poll() is None and len(run.events()) < before + more:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert finished(spawn(run), run) == 0


def test_kill_9_three_times_gives_the_same_weights(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = make_run(tmp_path, tiny, LONG, FULL)
    assert teach(quiet) == 0
    monkeypatch.setenv("DREAMCTL_HOME", str(tmp_path / "another home"))  # class pictures must be made again
    killed = make_run(tmp_path, tiny, LONG, FULL)
    kill_and_resume(killed, kills=3, seed=1)
    assert_same_model(quiet, killed)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_kill_9_fifty_times(tmp_path: Path, tiny: Path) -> None:
    changes = {**FULL, "training": {"steps": 60}, "checkpoints": {"every": 2}}
    quiet = make_run(tmp_path, tiny, changes)
    assert teach(quiet) == 0
    killed = make_run(tmp_path, tiny, changes)
    kill_and_resume(killed, kills=50, seed=3)
    assert_same_model(quiet, killed)


def test_sigterm_saves_and_the_next_start_goes_on(tmp_path: Path, tiny: Path) -> None:
    changes = {**LONG, "training": {"steps": 40}, "checkpoints": {"every": 1000}, "samples": {"prompts": []}}
    quiet = make_run(tmp_path, tiny, DROPOUT, changes)
    assert teach(quiet) == 0
    stopped = make_run(tmp_path, tiny, DROPOUT, changes)
    process = spawn(stopped)
    wait_for(stopped, process, lambda events: steps_done(events) >= 2)
    process.send_signal(signal.SIGHUP)  # a closed terminal stops nothing
    process.send_signal(signal.SIGTERM)
    assert finished(process, stopped) == 0
    assert stopped.state() is State.interrupted and last_state(stopped)["message"]
    done = steps_done(stopped.events())
    assert [path.name for path in checkpoints_in(stopped.checkpoints)] == [f"step-{done:06d}"] and done < 40
    assert not stopped.model.exists()
    assert teach(stopped) == 0
    assert f"going on from checkpoint step-{done:06d}" in messages(stopped)
    assert stopped.events()[-1].attempt == 2
    assert_same_model(quiet, stopped)


class AskedWhileDrawing(Stop):
    """Somebody presses Ctrl-C while the first sample of a training is drawn."""

    def __init__(self, run: RunFolder) -> None:
        super().__init__(run.path)
        self._run = run

    def check(self) -> None:
        if any(event.fields.get("name") == "samples" for event in self._run.events()):
            self._signalled = True
        super().check()


def test_a_stop_while_a_sample_is_drawn_loses_no_step(tmp_path: Path, tiny: Path) -> None:
    changes = {"samples": {"every": 3}, "checkpoints": {"every": 1000}, "training": {"steps": 5}}
    quiet, stopped = (make_run(tmp_path, tiny, LORA, changes) for _ in range(2))
    assert teach(quiet) == 0
    assert teach(stopped, AskedWhileDrawing(stopped)) == 0
    assert stopped.state() is State.interrupted
    assert [path.name for path in checkpoints_in(stopped.checkpoints)] == ["step-000003"]
    assert teach(stopped) == 0
    assert_same_model(quiet, stopped)


def test_cancel_stops_at_the_next_step_for_good(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, LORA, {"training": {"steps": 5000}, "prior": {"pictures": 0}})
    process = spawn(run)
    wait_for(run, process, lambda events: steps_done(events) >= 1)
    (run.path / "cancel").touch()
    assert finished(process, run) == 0
    assert run.state() is State.cancelled and not run.model.exists()
    assert teach(run) == 0  # nothing to do
    assert run.state() is State.cancelled


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, tiny: Path) -> None:
    changes = {"training": {"steps": 8}, "checkpoints": {"every": 2, "keep": 3}, "prior": {"pictures": 0}}
    run = make_run(tmp_path, tiny, LORA, changes)
    assert teach(run) == 0
    assert [path.name for path in checkpoints_in(run.checkpoints)] == [f"step-00000{step}" for step in (8, 6, 4)]
    before = weights(run)
    shutil.rmtree(run.model)
    run.events_file.unlink()
    shutil.copytree(
        run.checkpoints / "step-000008", run.checkpoints / ".step-000009.aaaa"
    )  # half-written by a dead one
    flip_a_byte(run.checkpoints / "step-000008" / "weights.safetensors")
    (run.checkpoints / "step-000006" / "optimizer.safetensors").unlink()
    assert teach(run) == 0
    told = messages(run)
    assert told[0].startswith("checkpoint step-000008 is passed over: the SHA-256 of weights.safetensors")
    assert told[1].startswith("checkpoint step-000006 is passed over")
    assert told[2] == "going on from checkpoint step-000004"
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(run).items())
    assert not list(run.checkpoints.glob(".*"))


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 0xFF
    path.write_bytes(data)


def test_checkpoints_hold_no_pickle(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, FULL, {"training": {"steps": 3}, "prior": {"pictures": 0}})
    assert teach(run) == 0
    files = {path.suffix for path in run.checkpoints.rglob("*") if path.is_file()}
    assert files == {".safetensors", ".json"}


def test_events_are_numbered_and_attempts_counted(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, LORA, {"prior": {"pictures": 0}})
    (run.path / "events.jsonl").write_text('{"v": 1, "seq": 7, "attempt": 2, "time": "t", "type": "note"}\n{"torn')
    assert teach(run) == 0
    events: list[Event] = run.events()
    assert [event.seq for event in events] == [7, *range(8, 7 + len(events))]
    assert {event.attempt for event in events[1:]} == {3}
