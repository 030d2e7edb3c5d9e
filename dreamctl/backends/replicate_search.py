"""A submission whose answer was lost, looked for in Replicate's list: found, surely not there, or left to the user."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from dreamctl.backends.provider import NotYetKnown, Unknowable
from dreamctl.backends.replicate_api import Api, Training, moment
from dreamctl.backends.replicate_trainings import Dialect
from dreamctl.domain.remote import RemoteJob
from dreamctl.errors import NotFound, ProviderError
from dreamctl.runfolder import RunFolder

_BEFORE = datetime.timedelta(minutes=2)
"""How far before the journal's moment a training may seem to have been made, by other clocks."""
_SETTLED = datetime.timedelta(seconds=150)
"""After so long a training that is not in the list will not come."""


def found(api: Api, dialect: Dialect, run: RunFolder, job: RemoteJob) -> str | None:
    """The id of the training; None where it surely did not arrive. Raises Unknowable.

    Known by destination, version and trigger word, or by the run's id where it shows.
    """
    matches = {str(item["id"]): dialect.match(item, run, job) for item in _since(api, dialect, job)}
    matches = {name: match for name, match in matches.items() if match != "no" and not _another_runs(name, run)}
    sure = [name for name, match in matches.items() if match == "yes"]
    if len(sure) == len(matches) == 1:
        return sure[0]
    if matches:
        named = ", ".join(f"replicate:{training_id}" for training_id in list(matches)[:5])
        raise Unknowable(
            f"the answer to run {run.id}'s submission was lost, and it may be any of {named}",
            hint="https://replicate.com/trainings shows them; `dreamctl train --attach replicate:ID` takes one, "
            f"`dreamctl train --resume {run.id} --resubmit` pays again",
        )
    began = moment(job.began)
    if began and datetime.datetime.now(datetime.UTC) - began > _SETTLED:
        return None
    raise NotYetKnown(
        f"run {run.id}'s submission is not in Replicate's list yet, and may still come", hint="ask again in a minute"
    )


def _since(api: Api, dialect: Dialect, job: RemoteJob) -> Iterator[Training]:
    """The trainings since shortly before the job was submitted, by Replicate's clock."""
    began = moment(job.began)
    try:
        for page in api.pages():
            for training in page.trainings:
                created = moment(training.get("created_at"))
                skew = datetime.timedelta(seconds=page.skew)
                if began and created and created < began + skew - _BEFORE:
                    return
                yield training
    except (NotFound, ProviderError) as error:
        if dialect.contract == "trainings":
            raise
        raise Unknowable(
            f"this server does not list its trainings: {error.message}",
            hint="`dreamctl train --attach replicate:ID` takes one over, `--resubmit` sends it again",
        ) from None


def _another_runs(training_id: str, run: RunFolder) -> bool:
    """Whether another run on this computer has that training: one of the same concept, a moment ago."""
    for path in run.path.parent.glob("*/remote.json"):
        try:
            if path.parent != run.path and f'"{training_id}"' in path.read_text(encoding="utf-8", errors="replace"):
                return True
        except OSError:  # it was just removed
            continue
    return False
