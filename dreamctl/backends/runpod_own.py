"""The contract `dreamctl` with an endpoint of RunPod: our own worker gets an errand and leaves an outcome."""

from __future__ import annotations

import base64
import binascii
import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from dreamctl.backends import runpod_bucket as bucket
from dreamctl.backends.base import OwnBase, Support, Wishes
from dreamctl.backends.provider import NotYetKnown, Order
from dreamctl.backends.runpod_contract import Carries, ended, kept_until, known_times, lost
from dreamctl.backends.runpod_describe import check_worker
from dreamctl.backends.runpod_endpoint import Endpoint, Health, Status, is_job_id, sentence
from dreamctl.backends.sizes import outcome_bytes
from dreamctl.domain.errand import (
    INLINE_DATASET,
    INLINE_MODEL,
    Answer,
    Archive,
    Errand,
    News,
    Outcome,
    Place,
    claim_key,
    outcome_key,
    result_key,
)
from dreamctl.domain.quantities import bytes_text
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.remote import ENDED, RemoteJob, Report, Result
from dreamctl.errors import DreamctlError, InvalidInput
from dreamctl.http import printable
from dreamctl.hub import HUB_ID
from dreamctl.runfolder import RunFolder
from dreamctl.storage.base import Storage, travelling

_LOOKS_APART = 2.0  # seconds between two looks at a queue
_LOG_LINES, _LONGEST_LINE = 200, 500
_BUCKET = "name a bucket that the worker can write to: `dreamctl config set storage s3://bucket/folder`"


class OwnWorker:
    """See `dreamctl.backends.runpod_contract.Contract`."""

    carrier = True
    own_base: OwnBase | None = None

    def __init__(self, support: Support) -> None:
        self._support = support

    @property
    def _storage(self) -> str | None:
        return bucket.reachable(self._support.settings.storage)

    def problems(self, recipe: Recipe) -> list[str]:
        source = recipe.base.source
        if source == "builtin" or (HUB_ID.fullmatch(source) and not Path(source).expanduser().exists()):
            return []
        return [
            f"base.source = {source} is a folder of this computer, which the worker cannot read: "
            "name a model of the hub (owner/name)"
        ]

    def offer(self, recipe: Recipe, wishes: Wishes, archive_bytes: int) -> tuple[Carries, list[str]]:
        if wishes.inputs:
            raise InvalidInput(
                "--input is for trainers of others: dreamctl's own worker follows the recipe",
                field="--input",
                hint="--set KEY=VALUE changes the recipe",
            )
        small = archive_bytes <= INLINE_DATASET and not wishes.at_url
        carries: Carries = "inline" if small else "url"
        storage, source = self._storage, recipe.base.source
        if storage is None:
            notes = [self._without_storage(recipe, carries, archive_bytes, wishes.at_url)]
        elif storage.startswith("gs://"):
            notes = [f"the worker needs a Google account that may write to {storage}: a secret of the endpoint"]
        else:
            notes = [f"the request lends the worker the keys of {storage} (s3Config)"]
        if source != "builtin":
            notes.append(f"the worker fetches {source}; for a gated model HF_TOKEN must be a secret of the endpoint")
        return carries, notes

    def _without_storage(self, recipe: Recipe, carries: Carries, archive_bytes: int, at_url: bool) -> str:
        """What is to be known of a training whose outcome comes back in the answer. Raises InvalidInput."""
        named = self._support.settings.storage
        where = f"storage = {named} is on this computer" if named else "no storage is set"
        if carries == "url" and not named and not at_url:
            raise InvalidInput(
                f"the dataset has {bytes_text(archive_bytes)}, {bytes_text(INLINE_DATASET)} fit into a request, and "
                f"{where}",
                field="storage",
                hint=_BUCKET,
            )
        size = outcome_bytes(recipe)
        if size is None or size > INLINE_MODEL:
            expected = "how large the model will be is not known" if size is None else f"about {bytes_text(size)}"
            raise InvalidInput(
                f"{bytes_text(INLINE_MODEL)} fit into RunPod's answer, and {where}: what will be trained has to go "
                f"somewhere else ({expected})",
                field="storage",
                hint=_BUCKET,
            )
        return f"{where}: the model comes back in RunPod's answer, which RunPod keeps for 30 minutes after the end"

    def ready(self, endpoint: Endpoint, recipe: Recipe) -> None:
        check_worker(endpoint, recipe, self._support.reporter)

    def input(self, order: Order, endpoint: Endpoint) -> dict[str, Any]:
        self._lift_claim(order, endpoint)
        run, parcel = order.run, order.parcel
        url: str | None = parcel.url
        data: str | None = None
        if parcel.file and (order.terms.carries == "inline" or not url):
            url, data = None, base64.b64encode(parcel.file.read_bytes()).decode()
        errand = Errand(
            op="train",
            run=run.record(),
            recipe=run.recipe(),
            concept=run.concept(),
            dataset=run.data.manifest(),
            archive=Archive(sha256=parcel.sha256, bytes=parcel.bytes, url=url, data=data),
            storage=self._place(order),
        )
        return errand.plain()

    def _place(self, order: Order) -> Place | None:
        url = bucket.reachable(order.storage)
        return Place(url=url, access=travelling(order.access or {})) if url else None

    def facts(self, storage: str | None) -> dict[str, Any]:
        return {}

    def _lift_claim(self, order: Order, endpoint: Endpoint) -> None:
        """Let a new job have the run that an earlier one claimed, and did not release when it ended or was killed.

        Only where the earlier job is known: one whose answer was lost keeps its claim, so that never two train it.
        """
        before = order.run.remote()
        url = bucket.reachable(order.storage)
        if before is None or before.id is None or url is None:
            return
        storage = bucket.opened(self._support, url, order.access)
        holder = _claimed(storage, order.run.id)
        status = endpoint.status(holder) if holder else None
        if status is None or status.told in ENDED:
            for key in (claim_key(order.run.id), result_key(order.run.id)):
                storage.delete(key)

    # afterwards

    def find(self, run: RunFolder, job: RemoteJob, endpoint: Endpoint) -> str | None:
        storage = bucket.storage_of(self._support, job)
        if storage is None:
            raise lost(run, job)
        for look in range(2):
            if look:
                time.sleep(_LOOKS_APART)
            holder = _claimed(storage, run.id)
            if holder:
                return holder
            health = endpoint.health()
            if health.queued or health.running:
                raise _not_yet_known(run, health)
        return _claimed(storage, run.id)

    def report(self, run: RunFolder, job: RemoteJob, endpoint: Endpoint, status: Status | None) -> Report:
        storage = bucket.storage_of(self._support, job)
        other = _other(status)
        if status is None and storage is not None:
            answer = _left(storage, run.id)
            if answer:
                return _of_outcome(run, job, answer.outcome, None)
            other = _claimed(storage, run.id)
        if other and other != job.id:
            status = endpoint.status(other)  # which has the run, as two were sent and one of them was quicker
        if status is None:
            return ended("expired")
        if status.told not in ENDED:
            return self._going_on(job, status)
        made = _outcome(status)
        if made is None and storage is not None:
            try:
                left = _left(storage, run.id)
            except DreamctlError:
                if status.told == "succeeded":
                    raise
                left = None  # a job that failed since its storage cannot be reached has failed all the same
            made = left.outcome if left else None
        if made is None:
            return _without_outcome(status)
        return _of_outcome(run, job, made, status)

    def _going_on(self, job: RemoteJob, status: Status) -> Report:
        message = f"RunPod calls the job's state {status.state}" if status.unknown else ""
        started, seconds = known_times(job, status)
        news = _news(status.output)
        return Report(
            status.told,
            message,
            started=started,
            seconds=seconds,
            events=news.events,
            log=tuple(printable(line)[:_LONGEST_LINE] for line in news.log[-_LOG_LINES:]),
        )

    def accomplice(self, job: RemoteJob, endpoint: Endpoint) -> str | None:
        status = endpoint.status(job.id) if job.id else None
        return _other(status)


_UNUSABLE = "RunPod calls the job completed, and it made no model that can be used"


def _not_yet_known(run: RunFolder, health: Health) -> NotYetKnown:
    return NotYetKnown(
        f"whether run {run.id} arrived at RunPod is not known yet: {health.queued} jobs wait and {health.running} run "
        "there, and none has claimed it",
        hint="try again in a minute: a job claims its run when it begins. `dreamctl train --resume "
        f"{run.id} --resubmit` sends it again: of two, the first to begin trains it",
    )


def _without_outcome(status: Status) -> Report:
    """The report of a job that made nothing; our worker says why in one line, and what to do in another."""
    report = ended(status.told, status, _UNUSABLE)
    if status.told == "failed" and isinstance(status.error, str) and status.error.lstrip()[:1] not in ("{", "["):
        message, _, hint = status.error.partition("\n")
        return replace(report, message=sentence(message), hint=sentence(hint))
    return report


def _claimed(storage: Storage, run_id: str) -> str | None:
    """The job that has the run; one that has released it has not."""
    told = bucket.note(storage, claim_key(run_id)) or {}
    holder = told.get("job")
    return str(holder) if is_job_id(holder) and not told.get("ended") else None


def _left(storage: Storage, run_id: str) -> Answer | None:
    """What the worker wrote beside its outcome, so that nothing is lost when RunPod forgets the job."""
    answer = _answer(bucket.note(storage, result_key(run_id)))
    return answer if answer and answer.outcome else None


def _answer(told: Any) -> Answer | None:
    if not isinstance(told, dict):
        return None
    try:
        return Answer.parse(told, "the worker's answer")
    except InvalidInput:
        return None


def _other(status: Status | None) -> str | None:
    """The job that this one left the run to."""
    answer = _answer(status.output) if status and status.told == "succeeded" else None
    return answer.claimed_by if answer and is_job_id(answer.claimed_by) else None


def _outcome(status: Status) -> Outcome | None:
    answer = _answer(status.output) if status.told == "succeeded" else None
    return answer.outcome if answer else None


def _of_outcome(run: RunFolder, job: RemoteJob, outcome: Outcome | None, status: Status | None) -> Report:
    """The report of a job that left `outcome`, in the storage, inside of the answer or at a URL."""
    if outcome is None:
        return ended("succeeded", status, _UNUSABLE)
    result: Result | None = None
    if outcome.key and bucket.reachable(job.storage):
        if outcome.key == outcome_key(run.id):
            result = Result("run", key=outcome.key, sha256=outcome.sha256, bytes=outcome.bytes)
    elif outcome.data:
        with contextlib.suppress(binascii.Error, ValueError):
            data = base64.b64decode(outcome.data, validate=True)
            result = Result("run", data=data, sha256=outcome.sha256, bytes=outcome.bytes)
    elif outcome.url and outcome.url.startswith(("https://", "http://")):
        result = Result("run", url=outcome.url, sha256=outcome.sha256, bytes=outcome.bytes)
    if result is None:
        return ended("succeeded", status, _UNUSABLE)
    started, seconds = known_times(job, status)
    # What lies in the storage stays there, whatever RunPod forgets.
    until = None if result.key else kept_until(job, status)
    return Report("succeeded", started=started, seconds=seconds, result=result, keep_until=until)


def _news(output: Any) -> News:
    """What the worker told while it worked; nothing where it is something else."""
    try:
        return News.parse(output, "news") if isinstance(output, dict) else News()
    except InvalidInput:
        return News()
