"""What Replicate says of a training, in dreamctl's words: how it stands, how far it is, and where its weights are."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from dreamctl import http
from dreamctl.backends.replicate_api import Training, moment, written
from dreamctl.domain.errand import News
from dreamctl.domain.remote import RemoteJob, Report, Result, Told

NEWS = "dreamctl-news "
"""How a line of our own trainer begins; a News in JSON follows."""
KEPT = datetime.timedelta(hours=1)
"""How long Replicate keeps what a training made, from its end."""
_TOLD: Mapping[str, Told] = {
    "starting": "queued", "processing": "running", "succeeded": "succeeded", "failed": "failed",
    "canceled": "cancelled", "cancelled": "cancelled", "aborted": "timed_out",
}  # fmt: skip
_HOSTS = ("replicate.com", "replicate.delivery")
_LINES = 1000
_LOSS = re.compile(r"\bloss['\"]?\s*[:=]\s*([0-9.]+(?:e[+-]?[0-9]+)?)", re.IGNORECASE)


def reported(training: Training, job: RemoteJob, api_url: str) -> Report:
    """The report of a training. A state that nobody knows yet is taken for one that does not end."""
    status = training.get("status")
    started, completed = moment(training.get("started_at")), moment(training.get("completed_at"))
    told = _TOLD.get(status if isinstance(status, str) else "", "running" if started else "queued")
    ours = job.contract == "dreamctl"
    lines = _lines(training.get("logs"), told not in ("queued", "running"))
    message, hint, result = "", "", None
    keep_until = written(completed + KEPT) if completed else None
    if told == "succeeded":
        told, message, hint, result = _made(training, api_url, "run" if ours else "foreign")
    elif told == "failed":
        message = _sentence(training.get("error")) or "the trainer failed and said no more"
    elif told == "timed_out":
        message, hint = "Replicate gave it up before it began", "train it again later"
    return Report(
        told,
        message,
        hint,
        started=written(started),
        seconds=_seconds(training, started, completed),
        events=tuple(_events(lines)) if ours else (),
        step=None if ours else _step(str(training.get("logs") or ""), job.facts.get("steps")),
        log=tuple(line for line in lines if not line.startswith(NEWS))[-_LINES:],
        result=result,
        keep_until=keep_until,
    )


def _made(training: Training, api_url: str, kind: Any) -> tuple[Told, str, str, Result | None]:
    """What a training that succeeded made: how it is told, why there is nothing, advice, and the result."""
    output = training.get("output")
    version = output.get("version") if isinstance(output, Mapping) else None
    again = "train it again with --again, and follow it, or fetch it within the hour"
    if isinstance(version, str):
        again += f" (Replicate itself still runs {http.printable(version)[:120]})"
    if output is None or training.get("data_removed") is True:
        return "expired", "Replicate has deleted what the training made: it keeps it for an hour", again, None
    url = _weights(output)
    if url is None:
        return "succeeded", "it ended without the URL of any weights", again, None
    if not http.may_carry_token(url):
        return "succeeded", "its weights are at a URL that is not https, and are not fetched", "", None
    http.remember_secret(url)
    return "succeeded", "", "", Result(kind, url=url, with_token=opened_by_token(url, api_url))


def _weights(output: Any) -> str | None:
    """The URL in an output: a text, a list of them, or a table with `weights`."""
    if isinstance(output, Mapping):
        output = output.get("weights")
    if isinstance(output, list) and len(output) == 1:
        output = output[0]
    usable = isinstance(output, str) and urlsplit(output).scheme in ("http", "https") and urlsplit(output).hostname
    return output if usable else None


def opened_by_token(url: str, api_url: str) -> bool:
    """Whether Replicate's token may go to `url`: to Replicate's own hosts, and to where the API itself is."""
    parts, own = urlsplit(url), urlsplit(api_url)
    host = parts.hostname or ""
    at_home = parts.scheme == "https" and any(host == name or host.endswith(f".{name}") for name in _HOSTS)
    return at_home or (parts.scheme, parts.netloc) == (own.scheme, own.netloc)


def _seconds(
    training: Training, started: datetime.datetime | None, completed: datetime.datetime | None
) -> float | None:
    metrics = training.get("metrics")
    told = metrics.get("predict_time") if isinstance(metrics, Mapping) else None
    if isinstance(told, int | float) and not isinstance(told, bool):
        return float(told)
    return (completed - started).total_seconds() if started and completed else None


def _sentence(text: Any) -> str:
    return http.printable(text)[:500] if isinstance(text, str) else ""


def _lines(logs: Any, ended: bool) -> list[str]:
    """The whole lines of a log. Of what a progress bar wrote over itself the last is left, once its line has ended."""
    if not isinstance(logs, str):
        return []
    *whole, rest = logs.split("\n")
    shown = [line.rstrip("\r").rpartition("\r")[2] for line in (*whole, *([rest] if ended else []))]
    return [line for line in shown if line.strip()]


def _events(lines: Sequence[str]) -> list[dict[str, Any]]:
    """The events that our own trainer told, each once, in their order. Lines that are no news are passed over."""
    found: dict[int, dict[str, Any]] = {}
    for line in lines:
        if not line.startswith(NEWS):
            continue
        try:
            news = News.model_validate(json.loads(line.removeprefix(NEWS)))
        except (ValueError, ValidationError, RecursionError):
            continue
        found |= {event["seq"]: event for event in news.events if isinstance(event.get("seq"), int)}
    return [found[number] for number in sorted(found)]


def _step(logs: str, steps: Any) -> tuple[int, int, float | None] | None:
    """The newest `120/1000` of a foreign trainer's log, where the second number is what was asked, and its loss."""
    if not isinstance(steps, int):
        return None
    found = re.findall(rf"(?<![\d.])([0-9]{{1,9}})\s*/\s*{steps}(?!\d)([^\r\n]*)", logs)
    if not found:
        return None
    done, rest = found[-1]
    return min(int(done), steps), steps, _loss(rest)


def _loss(text: str) -> float | None:
    found = _LOSS.findall(text)
    try:
        loss = float(found[-1])
    except (IndexError, ValueError):
        return None
    return loss if math.isfinite(loss) else None
