"""RunPod's serverless endpoints: a run trains as a job of an endpoint's queue."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dreamctl import credentials
from dreamctl.backends import runpod_bucket as bucket
from dreamctl.backends.base import Look, OwnBase, Support, Terms, Wishes
from dreamctl.backends.provider import Draft, Order
from dreamctl.backends.remote import Remote
from dreamctl.backends.runpod_booth import DreamBooth
from dreamctl.backends.runpod_contract import Contract, iso
from dreamctl.backends.runpod_describe import describe, remembered
from dreamctl.backends.runpod_endpoint import LARGEST_BODY, Endpoint, Health, is_job_id
from dreamctl.backends.runpod_own import OwnWorker
from dreamctl.backends.runpod_terms import LONGEST, lifetime, limits
from dreamctl.backends.whereabouts import check_server, forgotten, missing, origin
from dreamctl.domain.base import digest
from dreamctl.domain.quantities import bytes_text
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.remote import RemoteJob, Report
from dreamctl.errors import DreamctlError, InvalidInput, NotFound
from dreamctl.runfolder import RunFolder, now
from dreamctl.storage.base import travelling

_CONTRACTS: Mapping[str, Callable[[Support], Contract]] = {"dreamctl": OwnWorker, "dream-booth-v1": DreamBooth}
_SECRET = frozenset({"s3Config", "webhook", "hf_token", "policy"})  # or of no account for what the request is
_NAME_ONE = "`dreamctl config set runpod_endpoint ID`; the README says how to make one"
_NO_WORKERS = (
    "endpoint {} has no workers, so a job would wait for ever: RunPod takes them from an endpoint that was idle for a "
    "week. Raise its max workers in RunPod's console"
)


class RunPod:
    """See `dreamctl.backends.provider.Provider`."""

    name = "runpod"
    title = "RunPod"

    def __init__(self, support: Support) -> None:
        self._support = support
        self._settings = support.settings
        self._contract: Contract = _CONTRACTS[support.settings.runpod_schema](support)
        self._health: Health | None = None

    @property
    def carrier(self) -> bool:
        return self._contract.carrier

    @property
    def own_base(self) -> OwnBase | None:
        return self._contract.own_base

    def _endpoint(self, place: str | None = None) -> Endpoint:
        """The endpoint `place`, or that of the settings. Raises InvalidInput, and CredentialsError without a token."""
        place = place or self._settings.runpod_endpoint
        if not place:
            raise InvalidInput("no endpoint of RunPod is named", field="runpod_endpoint", hint=_NAME_ONE)
        return Endpoint(self._settings.runpod_url, place, credentials.required("runpod", self._support.project))

    def _sent_to(self, job: RemoteJob) -> Endpoint:
        """The endpoint that the job was sent to. Raises InvalidInput where the settings name another server now."""
        check_server(job, self._settings.runpod_url, "runpod_url")
        return self._endpoint(job.place)

    # before

    def problems(self, recipe: Recipe) -> list[str]:
        credentials.required("runpod", self._support.project)
        found = self._contract.problems(recipe)
        if not self._settings.runpod_endpoint:
            return [f"runpod_endpoint names no endpoint: {_NAME_ONE}", *found]
        health = self._health = self._endpoint().health()
        if health.scaled_to_none:
            found.append(_NO_WORKERS.format(self._settings.runpod_endpoint))
        url = bucket.reachable(self._settings.storage)
        if url:
            bucket.lent(self._support.storage(url, None))
        return found

    def terms(self, recipe: Recipe, wishes: Wishes, archive_bytes: int) -> Terms:
        settings = self._settings
        carries, notes = self._contract.offer(recipe, wishes, archive_bytes)
        limit = limits(recipe, wishes.max_hours or settings.max_hours, settings.max_cost, settings.price_per_hour)
        health = self._health
        if health and health.only_bad:
            notes.append(f"no worker of the endpoint can take a job now ({health}): the run may wait long")
        elif health and health.queued:
            notes.append(f"{health.queued} jobs wait at the endpoint already")
        return Terms(
            who=f"RunPod, endpoint {settings.runpod_endpoint}",
            carries=carries,
            notes=(*notes, *limit.notes),
            hours=limit.hours,
            seconds=limit.seconds,
            limited_by="provider",
            price_per_hour=settings.price_per_hour,
        )

    def ready(self, recipe: Recipe) -> None:
        self._contract.ready(self._endpoint(), recipe)

    # submitting

    def draft(self, order: Order) -> Draft:
        endpoint = self._endpoint()
        settings = self._settings
        seconds = order.terms.seconds or LONGEST
        ttl = lifetime(seconds)
        body: dict[str, Any] = {
            "input": self._contract.input(order, endpoint),
            "policy": {"executionTimeout": seconds * 1000, "ttl": ttl * 1000},
        }
        if webhook := order.wishes.webhook or settings.webhook:
            body["webhook"] = webhook
        url = bucket.reachable(order.storage)
        keys = bucket.lent(bucket.opened(self._support, url, order.access)) if url else None
        if keys:
            body["s3Config"] = keys
        size = len(json.dumps(body).encode())
        if size > LARGEST_BODY:
            raise InvalidInput(
                f"the request has {bytes_text(size)}, and RunPod takes {bytes_text(LARGEST_BODY)}",
                field="storage",
                hint="with a bucket the dataset goes there instead: `dreamctl config set storage s3://bucket/folder`",
            )
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=ttl)
        return Draft(
            place=endpoint.place,
            contract=settings.runpod_schema,
            body=body,
            digest=digest(_plain(body)),
            forgotten=iso(end),
            facts=self._contract.facts(order.storage) | origin(settings.runpod_url),
        )

    def submit(self, draft: Draft) -> str:
        return self._endpoint(draft.place).run(draft.body)

    def find(self, run: RunFolder, job: RemoteJob) -> str | None:
        return self._of(job).find(run, job, self._sent_to(job))

    # afterwards

    def report(self, run: RunFolder, job: RemoteJob) -> Report:
        endpoint = self._sent_to(job)
        report = self._of(job).report(run, job, endpoint, endpoint.status(_id(job)))
        if report.told != "expired" or forgotten(job):
            return report
        endpoint.health()  # what is not there, or cannot be asked, says nothing of the job
        return missing(job, self.title)

    def cancel(self, job: RemoteJob) -> None:
        endpoint = self._sent_to(job)
        endpoint.cancel(_id(job))
        if other := self._of(job).accomplice(job, endpoint):
            endpoint.cancel(other)

    def adopt(self, remote_id: str) -> RemoteJob:
        endpoint = self._endpoint()
        status = endpoint.status(remote_id) if is_job_id(remote_id) else None
        if status is None:
            raise NotFound(
                f"endpoint {endpoint.place} of RunPod knows no job {remote_id!r}",
                field="--attach",
                hint="RunPod forgets jobs 30 minutes after their end; runpod_endpoint must be the job's endpoint",
            )
        url = bucket.reachable(self._settings.storage)
        return RemoteJob(
            backend=self.name,
            place=endpoint.place,
            contract=self._settings.runpod_schema,
            began=now(),
            id=remote_id,
            limited_by="provider",
            storage=url,
            access=travelling(self._support.storage(url, None).access) if url else None,
            facts=self._contract.facts(url) | origin(self._settings.runpod_url),
        )

    def _of(self, job: RemoteJob) -> Contract:
        """The contract that the job was sent by, whatever the settings say now."""
        if job.contract not in _CONTRACTS:
            raise DreamctlError(f"the run's journal names a contract {job.contract!r}, which this dreamctl cannot read")
        return _CONTRACTS[job.contract](self._support)

    # for people

    def examine(self, ask_worker: bool) -> list[Look]:
        """Token, endpoint, workers, what the worker accepts, storage; stops where the next cannot be looked at."""
        token = credentials.find("runpod", self._support.project)
        if token is None:
            return [("token", "missing", "there is no token", "dreamctl auth login runpod")]
        looks: list[Look] = [("token", "ok", token.origin, None)]
        if not self._settings.runpod_endpoint:
            return [*looks, ("endpoint", "missing", "none is named", _NAME_ONE)]
        endpoint = self._endpoint()
        try:
            health = endpoint.health()
        except DreamctlError as error:
            return [*looks, ("endpoint", "missing", error.message, error.hint)]
        looks.append(("endpoint", "ok", f"{endpoint.place}, schema {self._settings.runpod_schema}", None))
        looks.append(_workers(endpoint, health))
        if self.carrier:
            looks.append(_worker(endpoint, ask_worker))
        return [*looks, self._bucket()]

    def _bucket(self) -> Look:
        url = bucket.reachable(self._settings.storage)
        if url is None:
            small = "small models come back in RunPod's answer; larger ones need: dreamctl config set storage s3://…"
            return "storage", "warn" if self.carrier else "missing", "none that a worker can reach", small
        try:
            bucket.lent(self._support.storage(url, None))
        except DreamctlError as error:
            return "storage", "missing", error.message, error.hint
        return "storage", "ok", url, None


def _workers(endpoint: Endpoint, health: Health) -> Look:
    jobs = f"{health}; {health.queued} jobs wait, {health.running} run"
    if health.scaled_to_none:
        return "workers", "missing", "none", _NO_WORKERS.format(endpoint.place)
    if health.only_bad:
        return "workers", "warn", jobs, "wait, or look at RunPod's console: another GPU type may be free"
    return "workers", "ok", jobs, None


def _worker(endpoint: Endpoint, ask: bool) -> Look:
    """What our own worker said it is."""
    try:
        abilities = describe(endpoint) if ask else remembered(endpoint)
    except DreamctlError as error:
        return "worker", "missing", error.message, error.hint
    if abilities is None:
        return "worker", "warn", "not asked yet: a job of a second tells", "it is asked before the next training"
    accepts = ", ".join(f"{name} {number}" for name, number in sorted(abilities.accepts.items()))
    families = ", ".join(abilities.families)
    return "worker", "ok", f"dreamctl {abilities.dreamctl} on {abilities.device}: {families}; accepts {accepts}", None


def _id(job: RemoteJob) -> str:
    if not is_job_id(job.id):
        raise DreamctlError("the run's journal names no job at RunPod")
    return str(job.id)


def _plain(value: Any) -> Any:
    """A request without secrets, and without what varies from one try to another: URLs' queries."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items() if name not in _SECRET}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, str) and value.startswith(("https://", "http://")):
        parts = urlsplit(value)
        return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    return value


def backend(support: Support) -> Remote:
    """RunPod as a backend."""
    return Remote(RunPod(support), support)
