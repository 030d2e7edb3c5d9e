"""`python -m dreamctl.training RUN_DIR`: the trainer's process. It owns the run's lock, its events and its exit code.

Exit codes: 0 succeeded, or stopped as asked; otherwise the error's own (see `dreamctl.errors`).
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from dreamctl.domain.run import FINAL, State, state_of
from dreamctl.errors import DreamctlError, NotFound
from dreamctl.files import locked, os_hint, os_reason, write_text
from dreamctl.runfolder import EventWriter, RunFolder
from dreamctl.training.device import devices_held, leader, prepare_environment, process_number
from dreamctl.training.progress import Reporter
from dreamctl.training.stop import Stop, Stopped


def main(arguments: list[str]) -> int:
    """Train the run in the folder that is the one argument."""
    if len(arguments) != 1:
        print("usage: python -m dreamctl.training RUN_DIR", file=sys.stderr)
        return 2
    run = RunFolder(Path(arguments[0]).absolute())
    stop = Stop(run.path)
    stop.listen()
    prepare_environment()
    try:
        if process_number() > 0:
            return _follow(run, stop)
        return lead(run, stop)
    except DreamctlError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code


def lead(run: RunFolder, stop: Stop) -> int:
    """The main process: the only one that locks, and that writes events."""
    if not (run.path / "run.json").is_file():
        raise NotFound(f"{run.path} is not a run folder: run.json is missing")

    def busy() -> None:
        raise DreamctlError(f"another trainer works on run {run.id}", hint=f"dreamctl status {run.id} --follow")

    with locked(run.lock_file, f"run {run.id}", check=busy):
        write_text(run.leader_file, f"{leader()}\n")
        if state_of(run.events()) in FINAL:
            print(f"run {run.id} is {state_of(run.events())}: nothing to do", file=sys.stderr)
            return 0
        writer = EventWriter(run.events_file)
        try:
            return _told(run, Reporter(writer), stop)
        finally:
            writer.close()


def _told(run: RunFolder, reporter: Reporter, stop: Stop) -> int:
    """Train, and tell how it ended as a change of state."""

    def waiting(device: str, holder: str) -> None:
        reporter.state(State.queued)
        reporter.note(f"waiting for {device}, which is used by {holder}")

    try:
        with devices_held(f"run {run.id}", waiting, stop):
            reporter.state(State.running)
            _train(run, reporter, stop)
        reporter.state(State.succeeded)
    except Stopped as stopped:
        reporter.state(stopped.state, message=f"{stopped.state.value} as asked")
    except Exception as error:
        traceback.print_exc()
        failure = explained(error)
        reporter.state(State.failed, message=failure.message, **({"hint": failure.hint} if failure.hint else {}))
        return failure.exit_code
    return 0


def _follow(run: RunFolder, stop: Stop) -> int:
    """Any other process: the same training, in silence."""
    try:
        _train(run, Reporter(None), stop)
    except Stopped:
        return 0
    return 0


def _train(run: RunFolder, reporter: Reporter, stop: Stop) -> None:
    stop.check()
    from dreamctl.training.session import Session

    Session(run, reporter, stop).train()


def explained(error: Exception) -> DreamctlError:
    """Any error as one sentence for the user; the traceback is in train.log."""
    import torch

    if isinstance(error, DreamctlError):
        return error
    text = str(error).strip().splitlines()
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return DreamctlError(
            "out of memory" + (f": {text[0]}" if text else ""),
            hint="a smaller training.batch_size with more training.accumulation, training.gradient_checkpointing, "
            "training.precision = bf16, or method.name = lora",
        )
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return DreamctlError(where + os_reason(error), hint=os_hint(error))
    return DreamctlError(
        f"unexpected {type(error).__name__}: {text[0] if text else error!r}; train.log has the details"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
