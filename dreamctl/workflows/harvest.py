"""Bring what run folders tell into the registry, idempotently: a closed terminal or a lost registry loses nothing."""

from __future__ import annotations

from dreamctl.context import Context
from dreamctl.domain.run import FINAL, RUN_ID, Event, RunRecord, State
from dreamctl.errors import DreamctlError
from dreamctl.registry import Version
from dreamctl.runfolder import RUN_JSON, RunFolder, now


def harvest(context: Context) -> set[str]:
    """Record every run folder whose state the registry does not know yet; returns the ids of damaged ones.

    A damaged run is passed over with a warning, so that it stands in nobody's way.
    """
    damaged = set()
    settled = {row.id: row.state for row in context.registry.runs()}
    news = []
    for run in run_folders(context):
        known = settled.get(run.id)
        if known in FINAL:
            continue
        try:
            events = run.events()
            state = run.state()
            if state is not known:
                record, _, _ = run.record(), run.concept(), run.recipe()  # all must be readable
                news.append((events[-1].time if events else record.created, run, state))
        except DreamctlError as error:
            damaged.add(run.id)
            context.reporter.warn(f"run {run.id} is damaged and passed over: {error.message}")
    for _, run, _ in sorted(news, key=lambda item: (item[0], item[1].id)):
        record_run(context, run)
    return damaged


def record_run(context: Context, run: RunFolder, backend: str = "local") -> list[Version]:
    """Bring one run's row up to date; a run that succeeded registers its model version. Returns what it made."""
    record, concept, state = run.record(), run.concept(), run.state()
    known = context.registry.run(run.id)
    context.registry.record_run(
        record, concept, run.recipe().base.source, known.backend if known else backend, state, now()
    )
    model = run.model_file() if state is State.succeeded else None
    return context.registry.add_version(run.id, record.target, model, _ended(run.events(), record)) if model else []


def run_folders(context: Context) -> list[RunFolder]:
    """All whole run folders, oldest first."""
    if not context.runs.is_dir():
        return []
    names = sorted(path for path in context.runs.iterdir() if RUN_ID.fullmatch(path.name))
    return [RunFolder(path) for path in names if (path / RUN_JSON).is_file()]


def _ended(events: list[Event], record: RunRecord) -> str:
    return events[-1].time if events else record.created
