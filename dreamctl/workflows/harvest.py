"""Bring what run folders tell into the registry, idempotently: a closed terminal or a lost registry loses nothing."""

from __future__ import annotations

import shutil
import time

from dreamctl.context import Context
from dreamctl.domain.run import FINAL, RUN_ID, State
from dreamctl.domain.versions import Version
from dreamctl.errors import DreamctlError
from dreamctl.runfolder import RUN_JSON, RunFolder

_STALE_SECONDS = 24 * 3600.0


def harvest(context: Context) -> None:
    """Record every run folder whose state the registry does not know yet. Runs without news cost one look.

    A damaged run is passed over with a warning, so that it stands in nobody's way.
    """
    _sweep(context)
    known = {row.id: row.state for row in context.registry.runs()}
    made = {version.run_id for version in context.registry.versions()}
    news = []
    for run in run_folders(context):
        state = known.get(run.id)
        if state in FINAL and (state is State.cancelled or run.id in made):
            continue
        try:
            told = run.state()
            if told is not state or (told is State.succeeded and run.id not in made):
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
    state = run.state()
    model = run.model_file() if state is State.succeeded else None
    if state is State.succeeded and model is None:
        raise DreamctlError(f"{run.model} holds no model.json", hint=f"dreamctl rm {run.id}")
    base = run.recipe().base.source
    return context.registry.harvest(run.record(), run.concept(), base, state, model, last_change(run))


def last_change(run: RunFolder) -> str:
    """When the run last told something."""
    events = run.events()
    return events[-1].time if events else run.record().created


def run_folders(context: Context) -> list[RunFolder]:
    """All whole run folders, oldest first."""
    if not context.runs.is_dir():
        return []
    names = sorted(path for path in context.runs.iterdir() if RUN_ID.fullmatch(path.name))
    return [RunFolder(path) for path in names if (path / RUN_JSON).is_file()]


def _sweep(context: Context) -> None:
    """Remove what a killed `train` or `rm` left half made or half deleted a day ago."""
    if context.runs.is_dir():
        for path in context.runs.glob(".*"):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _tell_damaged(context: Context, run: RunFolder, error: DreamctlError) -> None:
    context.reporter.warn(f"run {run.id} is passed over: {error.message} (`dreamctl rm {run.id}` deletes it)")
