"""How dreamctl and a worker at RunPod talk: the door of the two contracts, and what both need to report a job."""

from __future__ import annotations

import datetime
from typing import Any, Literal, Protocol

from dreamctl.backends.base import OwnBase, Wishes
from dreamctl.backends.provider import Order, Unknowable
from dreamctl.backends.runpod_endpoint import Endpoint, Status, sentence
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.remote import RemoteJob, Report, Told
from dreamctl.runfolder import RunFolder

Carries = Literal["inline", "url"]

_KEPT = 1800.0  # seconds that RunPod keeps a result


class Contract(Protocol):
    """What differs from worker to worker. `carrier`, `own_base`: as in `RemoteBackend`."""

    carrier: bool
    own_base: OwnBase | None

    def problems(self, recipe: Recipe) -> list[str]:
        """What stands against the recipe with this worker, without asking anybody."""

    def offer(self, recipe: Recipe, wishes: Wishes, archive_bytes: int) -> tuple[Carries, list[str]]:
        """How the dataset travels, and the notes of the terms. Raises InvalidInput."""

    def ready(self, endpoint: Endpoint, recipe: Recipe) -> None:
        """As `Provider.ready`."""

    def input(self, order: Order, endpoint: Endpoint) -> dict[str, Any]:
        """The request's `input`."""

    def facts(self, storage: str | None) -> dict[str, Any]:
        """For the journal: what the contract must know of the storage's URL later."""

    def find(self, run: RunFolder, job: RemoteJob, endpoint: Endpoint) -> str | None:
        """As `Provider.find`."""

    def report(self, run: RunFolder, job: RemoteJob, endpoint: Endpoint, status: Status | None) -> Report:
        """As `Provider.report`; `status`: what RunPod says, None where it has forgotten the job."""

    def accomplice(self, job: RemoteJob, endpoint: Endpoint) -> str | None:
        """The job that trains this one's run in its place, if there is one: it is to be cancelled too."""


def ended(told: Told, status: Status | None = None, unusable: str = "") -> Report:
    """The report of a job that made nothing. `unusable`: what a job is told that calls itself completed."""
    said = sentence(status.error) if status else ""
    seconds = status.ran if status else None
    if told == "succeeded":
        return Report("failed", f"{unusable}: {said}" if said else unusable, _RETRY, seconds=seconds)
    if told == "expired":
        return Report(
            "expired", "RunPod has forgotten the job, and no result of it was found", "train it again with --again"
        )
    usual = {
        "failed": "the worker failed, and did not say why",
        "cancelled": "the job was cancelled at RunPod",
        "timed_out": "RunPod stopped the job at its time limit",
    }[told]
    hint = "a higher --max-hours or --max-cost allows more" if told == "timed_out" else ""
    if told == "failed" and said:
        return Report(told, said, seconds=seconds)
    return Report(told, usual, hint, seconds=seconds)


_RETRY = "RunPod's console shows the worker's log; `dreamctl train` again begins a new job"


def known_times(job: RemoteJob, status: Status | None) -> tuple[str | None, float | None]:
    """When the job began to run (UTC, ISO 8601), and how many seconds it ran, as far as RunPod says."""
    if status is None:
        return None, None
    accepted = _moment(job.accepted)
    started = accepted + datetime.timedelta(seconds=status.delay) if accepted and status.delay is not None else None
    return (iso(started) if started else None), status.ran


def kept_until(job: RemoteJob, status: Status | None) -> str:
    """Until when RunPod keeps the result: 30 minutes from the end, which it does not tell.

    The end is reckoned from when the job was accepted here and how long it waited and ran by RunPod's clock; without
    that, it is now, when it is seen first: the journal keeps the first answer.
    """
    present = datetime.datetime.now(datetime.UTC)
    kept, end = datetime.timedelta(seconds=_KEPT), present
    accepted = _moment(job.accepted)
    if accepted and status and status.delay is not None and status.ran is not None:
        reckoned = accepted + datetime.timedelta(seconds=status.delay + status.ran)
        end = reckoned if present - kept < reckoned < present else present
    return iso(end + kept)


def lost(run: RunFolder, job: RemoteJob) -> Unknowable:
    """Nobody can say whether the submission arrived: RunPod finds no job by anything but its id."""
    return Unknowable(
        f"whether run {run.id} arrived at RunPod cannot be found out: its answer was lost, and RunPod knows jobs by "
        "their ids alone",
        hint=f"look for it in RunPod's console (endpoint {job.place}): `dreamctl train --attach runpod:ID` follows it; "
        f"`dreamctl train --resume {run.id} --resubmit` sends it again, and pays twice if it had arrived",
    )


def iso(moment: datetime.datetime) -> str:
    """UTC, ISO 8601 with milliseconds."""
    return moment.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment(text: str | None) -> datetime.datetime | None:
    try:
        moment = datetime.datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
