"""Which device and which share of the work this process has, and the lock that lets only one training have a device.

Importing it loads no torch, so that the trainer can lock its run at once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from dreamctl import paths
from dreamctl.errors import InvalidInput
from dreamctl.files import locked
from dreamctl.training.stop import Stop


def process_number() -> int:
    """This process's rank; 0 is the main process. Set by `accelerate launch`."""
    return int(os.environ.get("RANK", "0"))


def process_count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def leader() -> int:
    """The process group that a signal to this training must reach: its launcher's, where it has one."""
    return os.getpgid(os.getppid() if process_count() > 1 else 0)


def prepare_environment() -> None:
    """Tell torch, before it is loaded, how threads wait, and which device `DREAMCTL_DEVICE` (cpu, cuda:1 …) means.

    Raises InvalidInput for a device that is hidden from this process.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # see generation/pipeline.py
    wanted = os.environ.get("DREAMCTL_DEVICE", "")
    if wanted == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    kind, _, number = wanted.partition(":")
    if kind == "cuda" and number:
        visible = _visible()
        place = int(number)
        if visible and place >= len(visible):  # the computer's own number would be a card that was hidden on purpose
            raise InvalidInput(
                f"there is no {wanted} among the devices of CUDA_VISIBLE_DEVICES={','.join(visible)}",
                field="device",
                hint=f"0 to {len(visible) - 1} are there",
            )
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[place] if visible else number


def _visible() -> list[str]:
    return [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]


def device_names() -> list[str]:
    """The devices that this training will use, by the computer's own numbers: `cuda-0`, `mps`, `cpu`. Loads torch."""
    import torch

    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return ["cpu"]
    if torch.cuda.is_available():
        visible = _visible()
        count = min(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count())
        return [f"cuda-{visible[place] if place < len(visible) else place}" for place in range(count)]
    found = "mps" if torch.backends.mps.is_available() else "cpu"
    wanted = os.environ.get("DREAMCTL_DEVICE", "").partition(":")[0]
    if wanted and wanted != found:
        raise InvalidInput(f"there is no {wanted} device here", field="device", hint="`dreamctl doctor` lists devices")
    return [found]


def device_lock(name: str) -> Path:
    return paths.locks_dir() / f"{name.replace('/', '-')}.lock"


@contextlib.contextmanager
def devices_held(holder: str, waiting: Callable[[str, str], None], stop: Stop) -> Iterator[None]:
    """Hold this training's devices until the block ends.

    `waiting` is told a device and who has it. Raises Stopped when asked to stop while waiting.
    """
    with contextlib.ExitStack() as stack:
        for name in sorted(device_names()):  # one order for all, so that two trainings cannot wait for each other

            def on_wait(other: str, name: str = name) -> None:
                waiting(name, other)

            stack.enter_context(locked(device_lock(name), holder, on_wait, stop.check))
        yield
