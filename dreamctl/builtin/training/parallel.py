"""What every stage shares: processes of one thread each that average their gradients, and checkpoints that survive.

It does not know what is trained.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn

Stage = Callable[["Place"], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process works: the folder of all stages, its rank, and how many processes there are."""

    work: Path
    rank: int
    processes: int

    @property
    def leads(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def rng(self, stage: str, step: int) -> np.random.Generator:
        """The chance of one step of one process: the same after a resume as without one."""
        return np.random.default_rng([20, *stage.encode(), step, self.rank])

    def say(self, message: str) -> None:
        """Prints a line with the time, in the leading process only."""
        if self.leads:
            print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)


def run_stage(stage: Stage, work: Path, processes: int) -> None:
    """Runs the stage in so many processes of one thread each; raises where one of them fails."""
    if processes == 1:
        torch.set_num_threads(1)
        stage(Place(work, 0, 1))
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn(_enter, (stage, work, processes, port), nprocs=processes)  # type: ignore[no-untyped-call]


def _enter(rank: int, stage: Stage, work: Path, processes: int, port: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=processes, rank=rank)
    try:
        stage(Place(work, rank, processes))
    finally:
        dist.destroy_process_group()


def average_gradients(parameters: Iterable[nn.Parameter], processes: int) -> None:
    """Makes every process's gradients their mean, in one message."""
    if processes == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= processes
    offset = 0
    for gradient in gradients:
        gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
        offset += gradient.numel()


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes the state so that a kill at any moment leaves the old or the new file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state last saved there, or None."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def assert_all_trained(model: nn.Module, before: dict[str, torch.Tensor]) -> None:
    """Raises RuntimeError naming the parameters that have no gradient or have not moved from `before`."""
    still = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or torch.equal(parameter.detach(), before[name]))
    ]
    if still:
        raise RuntimeError(f"{len(still)} parameters are not being trained: {', '.join(still[:8])}")


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the parameters, for `assert_all_trained`."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
