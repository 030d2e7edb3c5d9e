"""What this computer has: GPUs, cores, memory. Works without torch, which it asks only where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CGROUP = Path("/sys/fs/cgroup/memory.max")
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Gpu:
    """A GPU: the name that `device` takes, the maker's name, and its memory in bytes where it can be asked."""

    device: str
    name: str
    free: int | None
    total: int | None


@dataclass(frozen=True)
class Torch:
    """What torch says of this computer. `error`: why it cannot be imported, though it is installed."""

    gpus: tuple[Gpu, ...] = ()
    error: str | None = None


def ask_torch() -> Torch | None:
    """The GPUs that torch can use, or None where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    try:
        torch: Any = importlib.import_module("torch")
        return Torch(tuple(_torch_gpus(torch)))
    except Exception as error:  # a build for other libraries or another driver raises whatever its loader does
        return Torch(error=(str(error) or type(error).__name__).splitlines()[0])


def ask_driver() -> tuple[Gpu, ...]:
    """The GPUs that NVIDIA's own tool lists, for computers without torch."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, "--query-gpu=index,name,memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
        return tuple(_driver_gpu(line) for line in answer.stdout.splitlines() if line.strip())
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()


def choose_device(wanted: str | None, gpus: tuple[Gpu, ...]) -> str | None:
    """The device that local work takes: the wanted one, else the first GPU, else the CPU; None where it is not here."""
    known = {"cpu", *(gpu.device for gpu in gpus)}
    if any(gpu.device.startswith("cuda") for gpu in gpus):
        known.add("cuda")
    if wanted:
        return wanted if wanted in known else None
    return gpus[0].device if gpus else "cpu"


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> tuple[int | None, int | None]:
    """Free and total bytes of main memory, within the limit of a container; None where the system does not say."""
    try:
        total: int | None = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        total = None
    free = _available()
    limit = _CGROUP.read_text().strip() if _CGROUP.is_file() else ""
    if limit.isdigit():
        total = min(total or int(limit), int(limit))
        free = min(free, total) if free is not None else None
    return free, total


def _torch_gpus(torch: Any) -> list[Gpu]:
    if torch.cuda.is_available():
        return [
            Gpu(f"cuda:{number}", torch.cuda.get_device_name(number), *torch.cuda.mem_get_info(number))
            for number in range(torch.cuda.device_count())
        ]
    if torch.backends.mps.is_available():
        return [Gpu("mps", "Apple GPU", None, int(torch.mps.recommended_max_memory()))]
    return []


def _driver_gpu(line: str) -> Gpu:
    number, name, free, total = (part.strip() for part in line.split(","))
    return Gpu(f"cuda:{number}", name, _mebibytes(free), _mebibytes(total))


def _mebibytes(text: str) -> int | None:
    return int(text) << 20 if text.isdigit() else None  # "[N/A]" where GPU and CPU share memory


def _available() -> int | None:
    if not _MEMINFO.is_file():
        return None
    for line in _MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return None
