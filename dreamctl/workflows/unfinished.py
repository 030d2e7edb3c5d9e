"""Uploads that were interrupted: go on with one, or remove what is left of all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dreamctl.context import Context
from dreamctl.errors import DreamctlError, InvalidInput, NotFound
from dreamctl.workflows.scratch import sweep
from dreamctl.workflows.tickets import FileTicket, tickets
from dreamctl.workflows.upload import UploadReport, source_place, upload

_STALE = timedelta(days=1)  # an upload of somebody else that is older is no live one


@dataclass(frozen=True)
class CleanReport:
    """The objects whose parts were removed, those that stay (with reason and exit code), the bytes freed here."""

    removed: tuple[str, ...]
    kept: tuple[tuple[str, str, int], ...]
    freed: int


def resume(
    context: Context, source: Path | None = None, expires: str | None = None, public: bool = False
) -> UploadReport:
    """Go on with the upload that was interrupted, of `source` or the only one there is.

    Raises NotFound where there is none, InvalidInput where there are several and none is named, or where the source
    has changed.
    """
    path = str(source_place(context, source)) if source else None
    found = [ticket for ticket in tickets() if path in (None, ticket.journey.source)]
    if not found:
        of = f" of {path}" if path else ""
        raise NotFound(f"there is no unfinished upload{of}", field="--resume", hint="`dreamctl upload` begins one")
    if len(found) > 1:
        names = ", ".join(f"{ticket.journey.source} to {ticket.journey.storage}" for ticket in found)
        raise InvalidInput(
            f"there are {len(found)} unfinished uploads: {names}", field="SOURCE", hint="name one of them"
        )
    journey = found[0].journey
    if not Path(journey.source).exists():
        raise NotFound(f"{journey.source} is gone", field="--resume", hint="`dreamctl upload --clean` removes the rest")
    return upload(context, Path(journey.source), journey.storage, expires, public, unfinished=found[0])


def clean(context: Context, to: str | None = None) -> CleanReport:
    """Remove what interrupted uploads from here left; at the storage `to` also those of others, older than a day.

    An upload that runs is left alone. Raises nothing for one that cannot be removed now: it is told, and kept.
    """
    removed: list[str] = []
    kept: list[tuple[str, str, int]] = []
    for ticket in list(tickets()):
        name = f"{ticket.journey.storage.rstrip('/')}/{ticket.journey.key}"
        if ticket.busy:
            kept.append((name, "is being uploaded at this moment", 0))
            continue
        try:
            _remove(context, ticket)
            removed.append(name)
        except DreamctlError as error:
            kept.append((name, error.message, error.exit_code))
    if to:
        storage = context.storage(to)
        for item in list(storage.unfinished()):
            if datetime.now(UTC) - item.started > _STALE and storage.abandon(item.key, item.state):
                removed.append(f"{to.rstrip('/')}/{item.key}")
    return CleanReport(tuple(removed), tuple(kept), sweep())


def _remove(context: Context, ticket: FileTicket) -> None:
    journey = ticket.journey
    with ticket.held():
        ticket.refresh()
        if ticket.state is not None:
            try:
                context.storage(journey.storage, journey.access).abandon(journey.key, ticket.state)
            except NotFound:
                context.reporter.note(f"{journey.storage} is gone, and what was sent with it")
        ticket.drop()
