"""Whether a job is asked for where it was sent, and whether a provider that knows no such job is believed."""

from __future__ import annotations

import datetime
from urllib.parse import urlsplit

from dreamctl.domain.remote import RemoteJob, Report, Told
from dreamctl.errors import InvalidInput

_BELIEVED = 120.0  # seconds for which a provider must say so: one 404 may be a proxy's, or a database's that lags
_API = "api"


def origin(url: str) -> dict[str, str]:
    """For a job's `facts`: the server that it is sent to, without path, user or password."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port and (parts.scheme, parts.port) not in (("https", 443), ("http", 80)) else ""
    return {_API: f"{parts.scheme}://{parts.hostname}{port}"}


def check_server(job: RemoteJob, url: str, setting: str) -> None:
    """Raises InvalidInput where the job was sent to another server than `url`, which `setting` names now."""
    sent, now = job.facts.get(_API), origin(url)[_API]
    if isinstance(sent, str) and sent != now:
        raise InvalidInput(
            f"the job was sent to {sent}, and {setting} names {now} now, which does not know it",
            field=setting,
            hint=f"name that server again, with its path: `dreamctl config set {setting} URL`",
        )


def forgotten(job: RemoteJob) -> bool:
    """Whether it is plausible that the provider has forgotten the job which it says it does not know.

    The run fails for good then, and the next `train` pays again.
    """
    if any(_ago(moment) > 0 for moment in (job.forgotten, job.keep_until)):
        return True
    if job.told is not None and job.keep_until is None:
        return True
    return _ago(job.missing_since) >= _BELIEVED


def missing(job: RemoteJob, title: str) -> Report:
    """The report of a job that is not to be found just now: it stands as it did."""
    told: Told = "running" if job.started or job.seen_running or job.told else "queued"
    return Report(told, f"{title} does not find the job just now", missing=True)


def _ago(moment: str | None) -> float:
    """Seconds since an ISO time; minus infinity where there is none."""
    try:
        then = datetime.datetime.fromisoformat(moment) if moment else None
    except ValueError:
        then = None
    if then is None:
        return float("-inf")
    return (datetime.datetime.now(datetime.UTC) - then.replace(tzinfo=then.tzinfo or datetime.UTC)).total_seconds()
