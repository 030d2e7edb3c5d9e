"""Uploads that were interrupted: go on with one, or remove what is left of all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dreamctl.context import Context
from dreamctl.errors import ConsentRequired, DreamctlError, InvalidInput, NotFound
from dreamctl.storage.base import Unfinished
from dreamctl.workflows.scratch import sweep
from dreamctl.workflows.tickets import FileTicket, Journey, sweep_tickets, tickets
from dreamctl.workflows.upload import UploadReport, source_place, upload

_STALE = timedelta(days=1)  # an upload of somebody else that is older is hardly a live one
_OURS = re.compile(r"(datasets|files)/[0-9a-f]{16}/")


@dataclass(frozen=True)
class CleanReport:
    """The objects whose parts were removed, those that stay (with reason and exit code), the bytes freed here."""

    removed: tuple[str, ...]
    kept: tuple[tuple[str, str, int], ...]
    freed: int


def resume(
    context: Context,
    source: Path | None = None,
    to: str | None = None,
    expires: str | None = None,
    public: bool = False,
) -> UploadReport:
    """Go on with the upload that was interrupted, of `source` and to `to` where they are given, or the only one.

    Raises NotFound where there is none, InvalidInput where there are several, or where the source has changed.
    """
    path, place = (str(source_place(context, source)) if source else None), context.storage_url(to) if to else None
    found = [
        ticket
        for ticket in tickets()[0]
        if path in (None, ticket.journey.source) and place in (None, ticket.journey.storage)
    ]
    if not found:
        of = f" of {path}" if path else ""
        raise NotFound(f"there is no unfinished upload{of}", field="--resume", hint="`dreamctl upload` begins one")
    if len(found) > 1:
        names = ", ".join(f"{ticket.journey.source} to {ticket.journey.storage}" for ticket in found)
        raise InvalidInput(
            f"there are {len(found)} unfinished uploads: {names}",
            field="SOURCE",
            hint="name one, with --to where needed",
        )
    journey = found[0].journey
    if not Path(journey.source).exists():
        raise NotFound(f"{journey.source} is gone", field="--resume", hint="`dreamctl upload --clean` removes the rest")
    asked = journey.expires if expires is None else expires
    wanted = public or (journey.public and expires is None)
    return upload(context, Path(journey.source), journey.storage, None if wanted else asked, wanted, found[0])


def clean(context: Context, to: str | None = None, yes: bool = False) -> CleanReport:
    """Remove what interrupted uploads from here left; at the storage `to` also dreamctl's own older than a day.

    An upload that runs is left alone; one that cannot be removed now is told, and kept. Raises ConsentRequired before
    others' are removed without `yes` where nobody can be asked, and what the storage `to` raises.
    """
    strangers = _strangers(context, to, yes) if to else []
    removed: list[str] = []
    found, bad = tickets()
    kept = [(error.message, error.hint or "delete it", error.exit_code) for error in bad]
    for ticket in found:
        name = f"{ticket.journey.storage}/{ticket.journey.key}"
        if ticket.busy:
            kept.append((name, "is being uploaded at this moment", 0))
            continue
        try:
            if _remove(context, ticket):
                removed.append(name)
        except DreamctlError as error:
            kept.append((name, error.message, error.exit_code))
    if strangers:
        storage = context.storage(to)
        removed += [
            f"{context.storage_url(to)}/{each.key}" for each in strangers if storage.abandon(each.key, each.state)
        ]
    sweep_tickets()
    return CleanReport(tuple(removed), tuple(kept), sweep())


def _strangers(context: Context, to: str | None, yes: bool) -> list[Unfinished]:
    """Old uploads under keys as dreamctl makes them, when it is agreed to remove them."""
    mine = {ticket.journey.key for ticket in tickets()[0]}
    found = [
        each
        for each in context.storage(to).unfinished()
        if _OURS.match(each.key) and each.key not in mine and datetime.now(UTC) - each.started > _STALE
    ]
    if not found:
        return []
    question = (
        f"remove {len(found)} unfinished uploads of others, such as {found[0].key} of {found[0].started:%Y-%m-%d}?"
    )
    agreed = yes or context.reporter.confirm(question)
    if agreed is None:
        raise ConsentRequired(
            f"{context.storage_url(to)} holds {len(found)} unfinished uploads of others", field="--yes",
            hint="add --yes to remove them",
        )  # fmt: skip
    return found if agreed else []


def _remove(context: Context, ticket: FileTicket) -> bool:
    """Whether there was something. Raises DreamctlError where it cannot be known, and keeps the ticket."""
    journey = ticket.journey
    with ticket.held(lambda holder: None):
        ticket.refresh()
        there = ticket.state is not None and _abandoned(context, journey, ticket.state)
        ticket.drop()
    return there


def _abandoned(context: Context, journey: Journey, state: dict[str, Any]) -> bool:
    storage = context.storage(journey.storage, journey.access)
    place = storage.place(journey.key)
    if place != journey.place:
        raise InvalidInput(f"what was sent to {journey.place} would be looked for at {place}")
    try:
        return storage.abandon(journey.key, state)
    except NotFound as error:
        context.reporter.note(f"{error.message}: what was sent is gone with it")
        return False
