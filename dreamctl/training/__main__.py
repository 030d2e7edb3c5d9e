"""`python -m dreamctl.training RUN_DIR`: the trainer's process. It owns the run's lock, its events and its exit code.

Exit codes: 0 succeeded, or stopped as asked; otherwise the error's own (see `dreamctl.errors`). Where several processes
train, one that stops by itself ends with 75, by which the launcher ends the others.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from dreamctl.domain.run import FINAL, State, state_of
from dreamctl.errors import DreamctlError, NotFound
from dreamctl.files import locked, os_hint, os_reason, read_json, write_json, write_text
from dreamctl.http import redact
from dreamctl.runfolder import EventWriter, RunFolder
from dreamctl.training.device import devices_held, leader, prepare_environment, process_count, process_number
from dreamctl.training.progress import Reporter
from dreamctl.training.stop import Stop, Stopped

FAILURE_FILE = "failure.json"
"""Why another process than the main one failed: the main one sees no more than a broken connection."""

_ALONE = 75


def main(arguments: list[str]) -> int:
    """Train the run in the folder that is the one argument."""
    if len(arguments) != 1:
        print("usage: python -m dreamctl.training RUN_DIR", file=sys.stderr)
        return 2
    run = RunFolder(Path(arguments[0]).absolute())
    stop = Stop(run.path)
    stop.listen()
    try:
        prepare_environment()
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
        state = state_of(run.events())
        if state in FINAL:
            print(f"run {run.id} is {state}: nothing to do", file=sys.stderr)
            return 0
        (run.path / FAILURE_FILE).unlink(missing_ok=True)
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
        return 0
    except Stopped as stopped:
        failure = _of_another(run)
        if failure is None:
            reporter.state(stopped.state, message=f"{stopped.state.value} as asked")
            return _code(stopped)
    except Exception as error:
        _print_traceback()
        failure = _of_another(run) or explained(error)
    reporter.state(State.failed, message=failure.message, **({"hint": failure.hint} if failure.hint else {}))
    return failure.exit_code


def _follow(run: RunFolder, stop: Stop) -> int:
    """Any other process: the same training, in silence."""
    try:
        _train(run, Reporter(None), stop)
    except Stopped as stopped:
        return _code(stopped)
    except Exception as error:
        _print_traceback()
        failure = explained(error)
        write_json(run.path / FAILURE_FILE, {"message": failure.message, "hint": failure.hint})
        return failure.exit_code
    return 0


def _code(stopped: Stopped) -> int:
    return 0 if stopped.together or process_count() == 1 else _ALONE


def _of_another(run: RunFolder) -> DreamctlError | None:
    """What another process failed of, if one did."""
    file = run.path / FAILURE_FILE
    if not file.exists():
        return None
    told = read_json(file)
    return DreamctlError(told["message"], hint=told["hint"])


def _print_traceback() -> None:
    print(redact(traceback.format_exc()), end="", file=sys.stderr, flush=True)


def _train(run: RunFolder, reporter: Reporter, stop: Stop) -> None:
    stop.check()
    from dreamctl.training.session import Session

    Session(run, reporter, stop).train()


def explained(error: Exception) -> DreamctlError:
    """Any error as one sentence for the user, without secrets; the traceback is in train.log."""
    told = _told_as(error)
    told.message = redact(told.message)
    return told


def _told_as(error: Exception) -> DreamctlError:
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
