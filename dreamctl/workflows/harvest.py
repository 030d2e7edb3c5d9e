"""Bring what run folders tell into the registry, idempotently: a closed terminal or a lost registry loses nothing."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection

from dreamctl.context import Context
from dreamctl.domain.run import RUN_ID, State, last_step, newest
from dreamctl.domain.versions import Progress, RunRow, Version
from dreamctl.errors import DreamctlError
from dreamctl.runfolder import RUN_JSON, RunFolder

_STALE_SECONDS = 24 * 3600.0


def harvest(context: Context) -> None:
    """Record every run folder whose state the registry does not know yet. Runs without news cost one look.

    A damaged run is passed over with a warning, so that it stands in nobody's way.
    """
    _sweep(context)
    known = {row.id: row for row in context.registry.runs()}
    made = {version.run_id for version in context.registry.versions()}
    news = []
    for run in run_folders(context, known):
        row = known.get(run.id)
        if row and row.method and _settled(row, run, made):
            continue
        try:
            if row is None or not row.method or row.stamp != stamp(run) or run.state() is not row.state:
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
        step=last_step(events),
        steps=recipe.training.steps,
        message=change.fields.get("message") if change else None,
        stamp=stamp(run),
    )
    versions = context.registry.harvest(
        run.record(), run.concept(), recipe.base.source, state, model, last_change(run), progress
    )
    if job and job.id:
        context.registry.set_remote_id(run.id, job.id)
    return versions


def stamp(run: RunFolder) -> str:
    """Of the run's events as they are now: as long as it is the same, so is what they tell."""
    try:
        status = run.events_file.stat()
    except FileNotFoundError:
        return "none"
    return f"{status.st_size} {status.st_mtime_ns}"


def _settled(row: RunRow, run: RunFolder, made: Collection[str]) -> bool:
    """Whether the registry knows all that there is to know, without a file being opened."""
    if row.state is State.succeeded:
        return run.id in made or not (run.model / "model.json").exists()
    if row.state is State.cancelled:
        return True
    return row.state is State.failed and row.stamp == stamp(run) and not run.alive()


def last_change(run: RunFolder) -> str:
    """When the run last told something."""
    events = run.events()
    return events[-1].time if events else run.record().created


def run_folders(context: Context, known: Collection[str] = ()) -> list[RunFolder]:
    """All whole run folders, oldest first; those in `known` were seen to be whole before."""
    if not context.runs.is_dir():
        return []
    names = sorted(name for name in os.listdir(context.runs) if RUN_ID.fullmatch(name))
    folders = (RunFolder(context.runs / name) for name in names)
    return [run for run in folders if run.id in known or (run.path / RUN_JSON).is_file()]


def _sweep(context: Context) -> None:
    """Remove what a killed `train` or `rm` left half made or half deleted a day ago."""
    if context.runs.is_dir():
        for path in context.runs.glob(".*"):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _tell_damaged(context: Context, run: RunFolder, error: DreamctlError) -> None:
    context.reporter.warn(f"run {run.id} is passed over: {error.message} (`dreamctl rm {run.id}` deletes it)")
