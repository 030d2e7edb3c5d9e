"""Look at runs, stop them and remove them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dreamctl.context import Context
from dreamctl.domain.concept import Concept
from dreamctl.domain.run import FINAL, WORKING, Event, State, Target, last_step, newest
from dreamctl.domain.versions import Version, find_version
from dreamctl.errors import ConsentRequired, DreamctlError, InvalidInput, RunFailed, StillRunning
from dreamctl.runfolder import RunFolder, resolve_run_id
from dreamctl.workflows.harvest import harvest, record_run, run_folders

_BLOCKS = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 48
_LOG_LINES = 10


@dataclass(frozen=True)
class RunStatus:
    """One run, as `status` shows it. `loss`: means of the curve's pieces, oldest first; `log`: the last lines.

    Both are empty where many runs are told.
    """

    id: str
    concept: Concept
    target: Target
    base: str
    method: str
    backend: str
    state: State
    step: int
    steps: int
    seconds_left: float | None
    created: str
    message: str | None
    versions: list[Version]
    loss: list[float]
    log: list[str]

    @property
    def progress(self) -> str:
        return f"{self.step}/{self.steps}"

    def data(self) -> dict[str, Any]:
        """JSON-ready; its keys are an interface."""
        return {
            "id": self.id,
            "state": self.state.value,
            **self.concept.model_dump(mode="json"),
            "target": self.target.value,
            "base": self.base,
            "method": self.method,
            "backend": self.backend,
            "step": self.step,
            "steps": self.steps,
            "seconds_left": self.seconds_left,
            "created": self.created,
            "message": self.message,
            "versions": [version.name for version in self.versions],
            "loss": self.loss,
            "log": self.log,
        }


def find_run(context: Context, wanted: str) -> RunFolder:
    """The run that an id, a unique prefix or `last` means."""
    return RunFolder(context.runs / resolve_run_id(wanted, [run.id for run in run_folders(context)]))


def all_status(context: Context) -> list[RunStatus]:
    """Every run, newest first."""
    harvest(context)
    told = []
    for run in reversed(run_folders(context)):
        try:
            told.append(_status(context, run, run.last_events()))
        except DreamctlError as error:
            context.reporter.warn(f"run {run.id} cannot be shown: {error.message}")
    return told


def one_status(context: Context, wanted: str) -> RunStatus:
    """One run with its curve and the end of its log."""
    harvest(context)
    run = find_run(context, wanted)
    return run_status(context, run, run.events())


def run_status(context: Context, run: RunFolder, events: Sequence[Event]) -> RunStatus:
    """One run, all of whose events have been read."""
    return replace(_status(context, run, events), loss=_curve(events), log=run.log_tail(_LOG_LINES))


def _status(context: Context, run: RunFolder, events: Sequence[Event]) -> RunStatus:
    """One run, of whose events the last have been read."""
    record, recipe = run.record(), run.recipe()
    step, state, change = newest(events, "step"), run.state(events), newest(events, "state")
    done = last_step(events)
    pace = step.fields.get("seconds") if step and state is State.running else None
    return RunStatus(
        id=run.id,
        concept=run.concept(),
        target=record.target,
        base=recipe.base.source,
        method=recipe.method.name,
        backend=record.backend,
        state=state,
        step=done,
        steps=recipe.training.steps,
        seconds_left=round(pace * (recipe.training.steps - done), 1) if pace else None,
        created=record.created,
        message=change.fields.get("message") if change else None,
        versions=context.registry.versions_of_run(run.id),
        loss=[],
        log=[],
    )


def unfinished(status: RunStatus) -> DreamctlError | None:
    """For `--exit-status`: StillRunning (8) or RunFailed (6) where the run has not succeeded."""
    if status.state in WORKING:
        return StillRunning(f"run {status.id} is still {status.state} ({status.progress})")
    if status.state is State.succeeded:
        return None
    return RunFailed(f"run {status.id} is {status.state}" + (f": {status.message}" if status.message else ""))


def sparkline(values: list[float]) -> str:
    """The values as one line of blocks, lowest to highest."""
    if not values:
        return ""
    low, high = min(values), max(values)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0
    return "".join(_BLOCKS[round((value - low) * scale)] for value in values)


def cancel(context: Context, wanted: str) -> RunFolder:
    """Stop a run for good; its folder stays. Raises InvalidInput where it has ended already."""
    harvest(context)
    run = find_run(context, wanted)
    state = run.state()
    if state in FINAL:
        raise InvalidInput(f"run {run.id} is {state} already", field="RUN")
    context.backend(run.record().backend).cancel(run)
    record_run(context, run)
    return run


@dataclass(frozen=True)
class Removed:
    """What `rm` took away."""

    name: str
    versions: list[str]


def remove(context: Context, wanted: str, yes: bool) -> Removed:
    """Delete a run (`20261120-…`, `last`) or a model version (`sks@2`) with its files.

    Raises ConsentRequired where nobody said yes, InvalidInput while a trainer works on it.
    """
    harvest(context)
    version = find_version(context.registry.versions(), wanted) if "@" in wanted else None
    run = RunFolder(context.runs / version.run_id) if version else find_run(context, wanted)
    if run.alive():
        raise InvalidInput(f"run {run.id} is at work", field="RUN", hint=f"stop it first: dreamctl cancel {run.id}")
    lost = [item.name for item in context.registry.versions_of_run(run.id)]
    what = f"run {run.id}" + (f" and its model version {', '.join(lost)}" if lost else "")
    if not yes and context.reporter.confirm(f"Delete {what}?") is not True:
        raise ConsentRequired(f"{what} not deleted", hint="say --yes to delete it")
    context.registry.remove_run(run.id)
    if run.path.exists():
        # The folder leaves the list of runs in one step, so that a deletion cut short leaves no half run behind.
        doomed = run.path.with_name(f".{run.id}.removed")
        run.path.rename(doomed)
        shutil.rmtree(doomed)
    return Removed(run.id, lost)


def _curve(events: Sequence[Event]) -> list[float]:
    by_step = {event.fields["step"]: float(event.fields["loss"]) for event in events if event.type == "step"}
    losses = [by_step[step] for step in sorted(by_step)]  # a resumed run tells some steps twice
    size = max(1, -(-len(losses) // _CURVE_WIDTH))
    pieces = [losses[start : start + size] for start in range(0, len(losses), size)]
    return [round(sum(piece) / len(piece), 5) for piece in pieces]
