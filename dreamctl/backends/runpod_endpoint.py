"""An endpoint of RunPod's serverless API: its requests, and what their answers say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dreamctl import http
from dreamctl.domain.remote import Told
from dreamctl.errors import CredentialsError, NotFound, ProviderError
from dreamctl.http import AnswerLost, printable

if TYPE_CHECKING:
    import httpx

LARGEST_BODY = 10_000_000
"""Bytes that RunPod takes in one request."""

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_TOLD: Mapping[str, Told] = {
    "IN_QUEUE": "queued",
    "IN_PROGRESS": "running",
    "RUNNING": "running",
    "COMPLETED": "succeeded",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
    "TIMED_OUT": "timed_out",
}
_LONGEST = 600  # characters of an error
_REFUSED = "`dreamctl auth login runpod` stores another; RunPod's console shows which tokens may use which endpoint"


def is_job_id(text: object) -> bool:
    """Whether it can be a job's id, and stand in a URL."""
    return isinstance(text, str) and bool(_JOB_ID.fullmatch(text))


@dataclass(frozen=True)
class Health:
    """How many jobs wait and run, of whomever, and how many workers are in which state."""

    queued: int
    running: int
    workers: Mapping[str, int]

    @property
    def scaled_to_none(self) -> bool:
        return not any(self.workers.values())

    @property
    def only_bad(self) -> bool:
        """Whether there are workers, and none that could take a job."""
        bad = sum(self.workers.get(name, 0) for name in ("unhealthy", "throttled"))
        return bad > 0 and not any(self.workers.get(name) for name in ("idle", "ready", "running", "initializing"))

    def __str__(self) -> str:
        found = ", ".join(f"{count} {name}" for name, count in self.workers.items() if count)
        return found or "none"


@dataclass(frozen=True)
class Status:
    """What RunPod says of a job. `delay`: seconds that it waited, `ran`: seconds that it ran, where that is told."""

    id: str
    state: str
    output: Any = field(default=None, repr=False)
    error: Any = None
    delay: float | None = None
    ran: float | None = None

    @property
    def told(self) -> Told:
        """In the words of no provider; a state that nobody knows is not the end."""
        return _TOLD.get(self.state, "running")

    @property
    def unknown(self) -> bool:
        return self.state not in _TOLD


class Endpoint:
    """The endpoint `place` below the API's `url`. Foreign errors leave it as DreamctlError."""

    def __init__(self, url: str, place: str, token: str) -> None:
        self.place = place
        self.url = f"{url.rstrip('/')}/{place}"
        self._token = token

    def health(self) -> Health:
        """Raises NotFound for an endpoint that is not there."""
        try:
            said = _table(self._ask("GET", "health", retries=2), "health")
        except NotFound as error:
            raise NotFound(
                f"RunPod has no endpoint {self.place!r} for this token ({error.message})",
                field="runpod_endpoint",
                hint="`dreamctl config set runpod_endpoint ID`: RunPod's console shows the id in the endpoint's URL",
            ) from None
        jobs, workers = _counts(said.get("jobs")), _counts(said.get("workers"))
        return Health(jobs.get("inQueue", 0), jobs.get("inProgress", 0), workers)

    def run(self, body: Mapping[str, Any]) -> str:
        """Submit a job, once; returns its id. Raises AnswerLost where nobody knows whether it was accepted."""
        answer = self._ask("POST", "run", json=body, once=True, timeout=http.SUBMISSION, within=http.SUBMISSION)
        try:
            said = answer.json()
        except ValueError:
            said = None
        job_id = said.get("id") if isinstance(said, dict) else None
        if not is_job_id(job_id):
            raise AnswerLost("RunPod accepted the request, and answered with no job's id that could be read")
        return str(job_id)

    def status(self, job_id: str) -> Status | None:
        """What RunPod says of the job; None where it knows no such job, or none any more."""
        try:
            said = _table(self._ask("GET", f"status/{job_id}", retries=2), "status")
        except NotFound:
            return None
        state = said.get("status")
        return Status(
            job_id,
            printable(state)[:40] if isinstance(state, str) else "without a state",
            said.get("output"),
            said.get("error"),
            _seconds(said.get("delayTime")),
            _seconds(said.get("executionTime")),
        )

    def cancel(self, job_id: str) -> None:
        """Ask for the job's end; one that is not there, or has ended, is none the worse for it."""
        try:
            self._ask("POST", f"cancel/{job_id}", repeatable=True)
        except NotFound:
            return

    def _ask(self, method: str, route: str, **how: Any) -> httpx.Response:
        try:
            return http.request(method, f"{self.url}/{route}", token=self._token, **how)
        except CredentialsError as error:
            raise CredentialsError(error.message, hint=_REFUSED) from None


def _table(answer: httpx.Response, route: str) -> dict[str, Any]:
    try:
        said = answer.json()
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise ProviderError(
            f"{answer.request.url.host} answered /{route} with something that is not RunPod's",
            hint="check the setting runpod_url, then try again",
        )
    return said


def _counts(table: Any) -> dict[str, int]:
    found = table.items() if isinstance(table, dict) else ()
    return {printable(str(name))[:40]: count for name, count in found if isinstance(count, int)}


def _seconds(milliseconds: Any) -> float | None:
    known = isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool) and 0 <= milliseconds < 1e12
    return milliseconds / 1000 if known else None


def sentence(error: Any) -> str:
    """A job's error as one printable sentence: of a text, a JSON text (the SDK's), a table, a list of any of them."""
    if isinstance(error, str):
        try:
            inner = json.loads(error) if error.lstrip()[:1] in ("{", "[") else None
        except ValueError:
            inner = None
        return sentence(inner) if inner else _short(error)
    if isinstance(error, Mapping):
        for name in ("error_message", "message", "error", "detail", "error_type"):
            if error.get(name):
                return sentence(error[name])
        return _short(json.dumps(error, default=str)) if error else ""
    if isinstance(error, list | tuple):
        return _short("; ".join(found for found in map(sentence, error[:10]) if found))
    return "" if error is None else _short(str(error))


def _short(text: str) -> str:
    """Its end where it is long: that is where a traceback says what happened."""
    said = printable(text)
    return said if len(said) <= _LONGEST else f"… {said[-_LONGEST:]}"
