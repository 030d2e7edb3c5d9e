"""Two processes with half the batch each are one process with the whole batch."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from dreamctl.errors import InvalidInput
from dreamctl.families.base import load_family
from dreamctl.families.sources import resolve_base
from dreamctl.training.session import check
from tests.training.school import FULL, assert_succeeded, finished, make_recipe, make_run, spawn, teach

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


def test_a_batch_that_cannot_be_shared_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    recipe = make_recipe(tiny, {"training": {"batch_size": 3}})
    with pytest.raises(InvalidInput, match=r"training\.batch_size = 3 cannot be shared by 2 processes"):
        check(recipe, load_family("sd15"), resolve_base(recipe.base))
