"""Training on this computer: a child process in a session of its own, so that a closed terminal does not end it."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dreamctl.backends.base import Support
from dreamctl.credentials import hub_environment
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.run import State
from dreamctl.errors import RunFailed
from dreamctl.files import locked, write_text
from dreamctl.machine import ask_driver
from dreamctl.runfolder import EventWriter, RunFolder

_NEEDED = ("torch", "diffusers", "transformers", "accelerate", "peft")
_START_SECONDS = 120.0
POLL_SECONDS = 0.2


class LocalBackend:
    """See `dreamctl.backends.base.Backend`."""

    name = "local"
    remote = False

    def __init__(self, support: Support) -> None:
        self._settings = support.settings
        self._child: subprocess.Popen[bytes] | None = None

    def check(self, recipe: Recipe) -> list[str]:
        missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            return [f'{", ".join(missing)} not installed: pip install "dreamctl[local]"']
        count, size = self._settings.processes, recipe.training.batch_size
        if count == 1:
            return []
        problems = []
        if size % count:
            problems.append(f"training.batch_size = {size} cannot be shared by {count} processes: choose a multiple")
        if not self._on_cpu() and (self._settings.device or "").count(":"):
            problems.append(f"device = {self._settings.device} is one GPU, and processes = {count} want {count}")
        elif not self._on_cpu() and len(ask_driver()) < count:
            problems.append(f"processes = {count}, and there are {len(ask_driver())} GPUs: one process a GPU")
        return problems

    def submit(self, run: RunFolder) -> str:
        """Start `python -m dreamctl.training RUN` and wait until it holds the run's lock."""
        told = len(run.events())
        if not run.alive():
            run.leader_file.unlink(missing_ok=True)  # a dead trainer's number must not be taken for the new one's
        with open(run.log_file, "ab") as log:
            child = self._child = subprocess.Popen(
                [*self._command(), str(run.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while self._leader(run) != child.pid:
            if child.poll() is not None:
                if run.alive() or len(run.events()) > told:
                    break  # another command's trainer was first, or this one has already said how it ended
                raise RunFailed(f"the trainer of {run.id} ended at once", hint=f"see `dreamctl logs {run.id}`")
            if time.monotonic() > deadline:
                raise RunFailed(f"the trainer of {run.id} did not start", hint=f"see `dreamctl logs {run.id}`")
            time.sleep(0.02)
        return str(child.pid)

    def poll(self, run: RunFolder) -> bool:
        """The trainer writes into the very folder."""
        return False

    def fetch(self, run: RunFolder) -> None:
        return None

    def pause(self, run: RunFolder) -> float:
        return POLL_SECONDS

    def interrupt(self, run: RunFolder) -> bool:
        """SIGTERM to the trainer's session; it saves and stops."""
        begun = self._child.pid if self._child and self._child.poll() is None else None
        leader = self._leader(run) or begun
        if leader is None:
            return False
        try:
            os.killpg(leader, signal.SIGTERM)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _leader(self, run: RunFolder) -> int | None:
        """The process group of the trainer that holds the run's lock."""
        if not run.alive() or not run.leader_file.exists():
            return None
        return int(run.leader_file.read_text())

    def cancel(self, run: RunFolder) -> None:
        """Leave word for a living trainer; write the last event in the place of a dead one."""
        write_text(run.path / "cancel", "")
        if run.alive():
            return
        with locked(run.lock_file, "cancelling"):
            events = EventWriter(run.events_file)
            events.state(State.cancelled, message="cancelled while no trainer was at work")
            events.close()

    def _command(self) -> list[str]:
        if self._settings.processes == 1:
            return [sys.executable, "-m", "dreamctl.training"]
        count = str(self._settings.processes)
        if self._on_cpu():
            # On CPUs `accelerate launch` wants MPI, and without it starts one process in silence (accelerate 1.15).
            launch = ["torch.distributed.run", "--standalone", "--nproc_per_node", count]
        else:
            # `--multi_gpu`: a file of the user's own (accelerate config) must not choose another way
            launch = ["accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--num_processes", count]
            launch += ["--dynamo_backend", "no", "--mixed_precision", "no"]
        return [sys.executable, "-m", *launch, "-m", "dreamctl.training"]

    def _on_cpu(self) -> bool:
        return self._settings.device == "cpu" or (self._settings.device is None and not ask_driver())

    def _environment(self) -> dict[str, str]:
        """This process's environment, and what the settings say about device and hub."""
        extra = {
            "PYTHONUNBUFFERED": "1",
            "DREAMCTL_DEVICE": self._settings.device,
            "PYTHONPATH": _source_path(),
            # the launcher of several processes kills them so many seconds after a signal, be they saving or not
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "120",
            **hub_environment(self._settings.hub_endpoint),
        }
        return {**os.environ, **{key: value for key, value in extra.items() if value}}


def _source_path() -> str:
    """So that the trainer is this very dreamctl, also when it runs from a checkout that is not installed."""
    package = str(Path(__file__).parents[2])
    before = os.environ.get("PYTHONPATH")
    return f"{package}{os.pathsep}{before}" if before else package
