"""Runs as `status` tells them: all of them from the registry, one with its curve and the end of its log."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dreamctl.context import Context
from dreamctl.domain.concept import Concept, Kind
from dreamctl.domain.run import WORKING, Event, State, Target, newest
from dreamctl.domain.versions import RunRow, Version
from dreamctl.errors import (
    DreamctlError,
    RunFailed,
    StillRunning,
)
from dreamctl.runfolder import RunFolder, resolve_run_id
from dreamctl.workflows import shared_runs
from dreamctl.workflows.harvest import harvest, run_names, steps_done
from dreamctl.workflows.looking import look_at, look_at_all

_BLOCKS = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 48
_LOG_LINES = 10


@dataclass(frozen=True)
class RunStatus:
    """One run, as `status` shows it. `loss`: means of the curve's pieces, oldest first; `log`: the last lines.

    Both are empty where many runs are told. `remote_id`, `place`: its job at a provider, and where that runs;
    `keep_until`: when the provider deletes what it made, where that is not here yet.
    """

    id: str
    name: str | None
    concept: Concept
    target: Target
    base: str
    method: str
    backend: str
    remote_id: str | None
    place: str | None
    keep_until: str | None
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
            "run_name": self.name,
            "identifier": self.concept.identifier,
            "category": self.concept.category,
            "kind": self.concept.kind.value,
            "name": self.concept.name,
            "target": self.target.value,
            "base": self.base,
            "method": self.method,
            "backend": self.backend,
            "remote_id": self.remote_id,
            "place": self.place,
            "keep_until": self.keep_until,
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
    """The run that an id, a unique prefix, `last`, or the name of `train --name` means."""
    ids = run_names(context.runs)
    if wanted not in ids and (named := [row.id for row in context.registry.runs_named(wanted) if row.id in ids]):
        return RunFolder(context.runs / named[0])
    return RunFolder(context.runs / resolve_run_id(wanted, ids))


def all_status(context: Context) -> list[RunStatus]:
    """Every run, newest first. Those at a provider are asked about; of what has ended no file is opened."""
    shared_runs.pull(context)
    harvest(context)
    look_at_all(context)
    versions: dict[str, list[Version]] = {}
    for version in context.registry.versions():
        versions.setdefault(version.run_id, []).append(version)
    rows = list(reversed(context.registry.runs()))
    present = set(run_names(context.runs, {row.id for row in rows}))
    concept_of = functools.cache(_concept_of)
    told = []
    for row in rows:
        if row.id not in present or not row.method:
            continue
        live = _live_status(context, row) if row.state in WORKING else None
        concept = concept_of(row.identifier, row.category, row.kind, row.human_name)
        told.append(live or _row_status(row, concept, versions.get(row.id, [])))
    return told


def _live_status(context: Context, row: RunRow) -> RunStatus | None:
    """A run that is at work, as its folder tells; None where that is too damaged."""
    run = RunFolder(context.runs / row.id)
    try:
        return replace(run_status(context, run, run.last_events()), loss=[], log=[])
    except DreamctlError as error:
        context.reporter.warn(f"run {row.id} is told as it was last known: {error.message}")
        return None


def one_status(context: Context, wanted: str) -> RunStatus:
    """One run with its curve and the end of its log; its provider is asked how it is."""
    shared_runs.pull(context)
    harvest(context)
    run = find_run(context, wanted)
    look_at(context, run)
    return run_status(context, run, run.events())


def run_status(context: Context, run: RunFolder, events: Sequence[Event]) -> RunStatus:
    """One run, all of whose events have been read."""
    record, recipe, job = run.record(), run.recipe(), run.remote()
    step, state, change = newest(events, "step"), run.state(events), newest(events, "state")
    done = steps_done(events, state, recipe.training.steps)
    pace = step.fields.get("seconds") if step and state is State.running else None
    return RunStatus(
        id=run.id,
        name=record.name,
        concept=run.concept(),
        target=record.target,
        base=recipe.base.source,
        method=recipe.method.name,
        backend=record.backend,
        remote_id=job.id if job else None,
        place=job.place if job else None,
        keep_until=job.keep_until if job and run.at_work() else None,
        state=state,
        step=done,
        steps=recipe.training.steps,
        seconds_left=round(pace * (recipe.training.steps - done), 1) if pace else None,
        created=record.created,
        message=change.fields.get("message") if change else None,
        versions=context.registry.versions_of_run(run.id),
        loss=_curve(events),
        log=run.log_tail(_LOG_LINES),
    )


def _concept_of(identifier: str, category: str, kind: Kind, name: str | None) -> Concept:
    return Concept(identifier=identifier, category=category, kind=kind, name=name)


def _row_status(row: RunRow, concept: Concept, versions: list[Version]) -> RunStatus:
    """One run as the registry knows it."""
    return RunStatus(
        id=row.id,
        name=row.name,
        concept=concept,
        target=row.target,
        base=row.base,
        method=row.method,
        backend=row.backend,
        remote_id=row.remote_id if row.backend != "local" else None,
        place=None,
        keep_until=None,
        state=row.state,
        step=row.step,
        steps=row.steps,
        seconds_left=None,
        created=row.created,
        message=row.message,
        versions=versions,
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


def _curve(events: Sequence[Event]) -> list[float]:
    by_step = {event.fields["step"]: float(event.fields["loss"]) for event in events if event.type == "step"}
    losses = [by_step[step] for step in sorted(by_step)]  # a resumed run tells some steps twice
    size = max(1, -(-len(losses) // _CURVE_WIDTH))
    pieces = [losses[start : start + size] for start in range(0, len(losses), size)]
    return [round(sum(piece) / len(piece), 5) for piece in pieces]
