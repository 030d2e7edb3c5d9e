"""A run's job at a provider: the journal that is kept of it (`remote.json`), and what the provider says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from dreamctl.domain.base import Stored

Told = Literal["queued", "running", "succeeded", "failed", "cancelled", "timed_out", "expired"]
"""How a job stands, in the words of no provider. `expired`: the provider has forgotten it, or its result."""

ENDED: frozenset[str] = frozenset({"succeeded", "failed", "cancelled", "timed_out", "expired"})


class RemoteJob(Stored):
    """`remote.json`: written before the job is submitted, and after each thing that is learnt of it.

    No URL under which anybody fetches something, and no secret in it. `place`: where it runs (an endpoint's id, a
    destination `owner/name`); `contract`: how the two talk (`dreamctl`, `dream-booth-v1`, `trainings`, `dreambooth`).
    `by`: which computer submits it (see `paths.computer`). `id` is the provider's, None as long as no answer to the
    submission came. Times are UTC, ISO 8601. `seconds`: the most that it may run; `limited_by`: who sees to that.
    `started` is the provider's word; `seen_running`: when a follower first saw it run, by its own clock. `forgotten`:
    when the provider forgets the job itself, `keep_until`: its result. `missing_since`: since when the provider says
    that it knows no such job, None while it does. `seen`: the last event of our own trainer that was taken over.
    `storage` and `access`: where our own worker leaves what it made; of the access only what means the same on every
    computer. `facts`: what only this provider's adapter knows how to read.
    """

    backend: str
    place: str
    contract: str
    began: str
    attempt: int = 1
    by: str | None = None
    payload: str = ""
    id: str | None = None
    accepted: str | None = None
    started: str | None = None
    seen_running: str | None = None
    ended: str | None = None
    told: Told | None = None
    seconds: int | None = None
    limited_by: Literal["provider", "follower"] | None = None
    price_per_hour: float | None = None
    forgotten: str | None = None
    keep_until: str | None = None
    missing_since: str | None = None
    seen: int = 0
    storage: str | None = None
    access: dict[str, Any] | None = None
    facts: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What a finished job made, fetched from one of `url` (a secret), `key` (in the job's storage) and `data`.

    `kind`: "run" is our own trainer's archive (see dreamctl.cargo), "foreign" whatever another trainer made: an archive
    or one file. `with_token`: the provider's token opens the URL. `sha256`, `bytes`: "" and 0 where nobody said them.
    """

    kind: Literal["run", "foreign"]
    url: str = field(default="", repr=False)
    key: str = ""
    data: bytes = field(default=b"", repr=False)
    with_token: bool = False
    sha256: str = ""
    bytes: int = 0


@dataclass(frozen=True)
class Report:
    """What a provider says of a job now.

    `events`: newest events of our own trainer as it wrote them (lines of its events.jsonl as plain data). Of a foreign
    trainer only `step` (step, of how many, loss or None) is known. `log`: the newest lines of its log. `result` comes
    with `succeeded` alone; without one the job made nothing usable, and `message` says why. `started`: UTC, ISO 8601.
    `seconds`: how long it has run, or did, where the provider says so. `missing`: the provider says that it knows no
    such job, which is not believed yet; `told` is what was known before.
    """

    told: Told
    message: str = ""
    hint: str = ""
    started: str | None = None
    seconds: float | None = None
    events: tuple[dict[str, Any], ...] = ()
    step: tuple[int, int, float | None] | None = None
    log: tuple[str, ...] = ()
    result: Result | None = None
    keep_until: str | None = None
    missing: bool = False
