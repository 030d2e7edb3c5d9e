"""What dreamctl asks of its own worker on somebody else's computer, and what the worker answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dreamctl.domain.base import Noun, Stored
from dreamctl.domain.concept import Concept
from dreamctl.domain.dataset import Dataset
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.run import RunRecord

INLINE_DATASET = 6_000_000
"""Bytes of a dataset's archive that may travel inside of a request: RunPod takes 10 MB, and base64 adds a third."""
INLINE_MODEL = 6_000_000
"""Bytes of an outcome's archive that may travel inside of an answer."""
MOST_EVENTS = 60
"""Events that a worker tells at a time: the newest."""


class Archive(Noun):
    """A zip archive: at `url` (a secret), or `data` in base64."""

    sha256: str
    bytes: int
    url: str | None = Field(None, repr=False)
    data: str | None = Field(None, repr=False)


class Place(Noun):
    """A storage, and how it is reached (the fields of dreamctl.storage.base.Access). Keys come apart from it."""

    url: str
    access: dict[str, Any] = Field(default_factory=dict)


class Errand(Stored):
    """The request: `describe` asks what the worker accepts; `train` trains the run that the other fields are.

    `archive` holds the dataset's files: pictures, captions, and masks where there are some (see dreamctl.cargo).
    `storage`: where the outcome goes; without one it comes back in the answer.
    """

    op: Literal["describe", "train"]
    run: RunRecord | None = None
    recipe: Recipe | None = None
    concept: Concept | None = None
    dataset: Dataset | None = None
    archive: Archive | None = None
    storage: Place | None = None


class Abilities(Stored):
    """The answer to `describe`: what a worker is and accepts. `accepts`: the newest schema number of each noun."""

    dreamctl: str
    accepts: dict[str, int]
    families: tuple[str, ...]
    device: str


class News(Stored):
    """How far a training is: the trainer's newest events (plain lines of events.jsonl) and log lines."""

    events: tuple[dict[str, Any], ...] = ()
    log: tuple[str, ...] = ()


class Outcome(Noun):
    """What a training ended with, as an archive: in the storage under `key` (and at `url`, a secret), or as `data`.

    In it: `model/`, `samples/`, `events.jsonl`, `train.log` (see dreamctl.cargo).
    """

    sha256: str
    bytes: int
    key: str | None = None
    url: str | None = Field(None, repr=False)
    data: str | None = Field(None, repr=False)


class Answer(Stored):
    """How a training ended well: with an outcome, or since another job has this run already (its id)."""

    outcome: Outcome | None = None
    claimed_by: str | None = None


def outcome_key(run_id: str) -> str:
    """Where a worker leaves the archive of a run's outcome; `result.json` beside it is the Answer."""
    return f"models/{run_id}/outcome.zip"


def result_key(run_id: str) -> str:
    return f"models/{run_id}/result.json"


def claim_key(run_id: str) -> str:
    """Whoever creates this object first trains the run. It holds `{"schema": 1, "job": ID}`."""
    return f"claims/{run_id}.json"
