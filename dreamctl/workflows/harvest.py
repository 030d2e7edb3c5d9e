"""Bring what run folders tell into the registry, idempotently: a closed terminal or a lost registry loses nothing."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Container, Sequence
from pathlib import Path

from dreamctl.context import Context
from dreamctl.domain.run import RUN_ID, Event, State, last_step, newest
from dreamctl.domain.versions import Progress, Version
from dreamctl.errors import DreamctlError
from dreamctl.runfolder import RUN_JSON, RunFolder

_STALE_SECONDS = 24 * 3600.0


def harvest(context: Context) -> None:
    """Record every run folder whose state the registry does not know yet. Runs without news cost one look.

    A damaged run is passed over with a warning, so that it stands in nobody's way.
    """
    _sweep(context)
    known, made = context.registry.looks(), context.registry.runs_with_versions()
    news, runs = [], context.runs
    for name in run_names(runs, known):
        look = known.get(name)
        if look and _settled(*look, name in made, f"{runs}/{name}"):
            continue
        run = RunFolder(runs / name)
        try:
            if look is None or look[1] != stamp(run.events_file) or run.state() is not look[0]:
                news.append((last_change(run), run))
        except DreamctlError as error:
            _tell_damaged(context, run, error)
    for _, run in sorted(news, key=lambda item: (item[0], item[1].id)):
        try:
            record_run(context, run)
        except DreamctlError as error:
            _tell_damaged(context, run, error)


def record_run(context: Context, run: RunFolder) -> list[Version]:
    """Bring one run up to date; one that succeeded registers its model version. Returns what it made."""
    events = run.events()
    state, change = run.state(events), newest(events, "state")
    model = run.model_file() if state is State.succeeded else None
    job = run.remote()
    if state is State.succeeded and model is None and job is None:
        raise DreamctlError(f"{run.model} holds no model.json", hint=f"dreamctl rm {run.id}")
    recipe = run.recipe()
    progress = Progress(
        method=recipe.method.name,
        step=steps_done(events, state, recipe.training.steps),
        steps=recipe.training.steps,
        message=change.fields.get("message") if change else None,
        stamp=stamp(run.events_file),
    )
    versions = context.registry.harvest(
        run.record(), run.concept(), recipe.base.source, state, model, last_change(run), progress
    )
    if job and job.id:
        context.registry.set_remote_id(run.id, job.id)
    return versions


def steps_done(events: Sequence[Event], state: State, steps: int) -> int:
    """How many steps a run has taken. A foreign trainer may tell none; one that succeeded has taken all."""
    return last_step(events) or (steps if state is State.succeeded else 0)


def stamp(events_file: str | Path) -> str:
    """Of a run's events as they are now: as long as it is the same, so is what they tell."""
    try:
        status = os.stat(events_file)  # noqa: PTH116 - of thousands of runs, for which no Path is made
    except FileNotFoundError:
        return "none"
    return f"{status.st_size} {status.st_mtime_ns}"


def _settled(state: State, known: str, made: bool, folder: str) -> bool:
    """Whether the registry knows all that there is to know, without a file being opened."""
    if state is State.succeeded:
        return made or not os.path.exists(f"{folder}/model/model.json")  # noqa: PTH110 - as above
    return state is State.cancelled or (state is State.failed and known == stamp(f"{folder}/events.jsonl"))


def last_change(run: RunFolder) -> str:
    """When the run last told something."""
    events = run.events()
    return events[-1].time if events else run.record().created


def run_folders(context: Context) -> list[RunFolder]:
    """All whole run folders, oldest first."""
    return [RunFolder(context.runs / name) for name in run_names(context.runs)]


def run_names(runs: Path, known: Container[str] = ()) -> list[str]:
    """The names of all whole run folders, oldest first; those in `known` were seen to be whole before."""
    if not runs.is_dir():
        return []
    names = sorted(filter(RUN_ID.fullmatch, os.listdir(runs)))
    return [name for name in names if name in known or (runs / name / RUN_JSON).is_file()]


def _sweep(context: Context) -> None:
    """Remove what a killed `train` or `rm` left half made or half deleted a day ago."""
    if context.runs.is_dir():
        for path in context.runs.glob(".*"):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _tell_damaged(context: Context, run: RunFolder, error: DreamctlError) -> None:
    context.reporter.warn(f"run {run.id} is passed over: {error.message} (`dreamctl rm {run.id}` deletes it)")
