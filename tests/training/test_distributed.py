"""Two processes with half the batch each are one process with the whole batch."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from dreamctl.domain.run import State, newest
from dreamctl.errors import InvalidInput
from dreamctl.families.base import load_family
from dreamctl.families.sources import resolve_base
from dreamctl.files import locked
from dreamctl.training.device import device_lock
from dreamctl.training.session import check
from tests.training.school import (
    FULL,
    assert_succeeded,
    finished,
    last_state,
    make_recipe,
    make_run,
    spawn,
    teach,
    wait_for,
)

# Not `accelerate launch --cpu`: without MPI it starts one process, whatever --num_processes says (accelerate 1.15).
LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def test_two_processes_equal_one(tmp_path: Path, tiny: Path) -> None:
    changes = {
        "training": {"steps": 3, "batch_size": 4},
        "optimizer": {"learning_rate": 1e-4, "text_encoder_learning_rate": 1e-4, "epsilon": 1e-6},
        "samples": {"prompts": []},
    }
    alone = make_run(tmp_path, tiny, FULL, changes)
    assert teach(alone) == 0
    together = make_run(tmp_path, tiny, FULL, changes)
    assert finished(spawn(together, LAUNCH), together) == 0, together.log_tail(40)
    assert_succeeded(together)
    one, two = (load_file(run.checkpoints / "step-000002" / "weights.safetensors") for run in (alone, together))
    gap = max(float((one[name] - two[name]).abs().max()) for name in one)
    print(f"largest difference of a weight after two steps: {gap:.1e}")
    assert gap < 1e-5
    seqs = [event.seq for event in together.events()]
    assert seqs == list(range(1, len(seqs) + 1))  # one writer


def test_a_run_that_is_cancelled_while_it_waits_leaves_no_process(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, FULL, {"training": {"batch_size": 4}})
    with locked(device_lock("cpu"), "another training"):
        process = spawn(run, LAUNCH)
        wait_for(run, process, lambda events: newest(events, "note") is not None)
        (run.path / "cancel").touch()
        finished(process, run)  # the launcher ends when all processes have ended
    assert run.state() is State.cancelled


FAULT = """
import os, sys
from dreamctl.training import session
from dreamctl.training.__main__ import main

def broken(*_):
    raise MemoryError("the second card is full")

if os.environ["RANK"] == "1":
    session.Session._loop = broken
sys.exit(main(sys.argv[1:]))
"""


def test_why_another_process_failed_is_told(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, FULL, {"training": {"batch_size": 4}, "prior": {"pictures": 0}})
    script = tmp_path / "fault.py"
    script.write_text(FAULT)
    process = spawn(run, [*LAUNCH, str(script)], module=False)
    assert finished(process, run) != 0
    assert last_state(run)["state"] == "failed", run.log_tail(40)
    assert last_state(run)["message"] == "out of memory: the second card is full"


def test_a_batch_that_cannot_be_shared_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    recipe = make_recipe(tiny, {"training": {"batch_size": 3}})
    with pytest.raises(InvalidInput, match=r"training\.batch_size = 3 cannot be shared by 2 processes"):
        check(recipe, load_family("sd15"), resolve_base(recipe.base))
