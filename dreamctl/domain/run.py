"""A run: its record, its states and how they follow each other, its events, and the model that comes out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dreamctl.domain.base import Noun, Stored, digest
from dreamctl.domain.concept import Concept
from dreamctl.domain.recipe import Recipe

RUN_ID = re.compile(r"\d{8}-\d{6}-[0-9a-z]{4}")


class Target(StrEnum):
    """Which model is meant."""

    pretrained = "pretrained"
    private = "private"
    meta = "meta"
    private_meta = "private_meta"


class State(StrEnum):
    """A run's state. `interrupted` means stopped with a checkpoint or dead: `train` goes on from there."""

    created = "created"
    submitting = "submitting"
    queued = "queued"
    running = "running"
    interrupted = "interrupted"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"


FINAL = frozenset({State.succeeded, State.cancelled})
WORKING = frozenset({State.submitting, State.queued, State.running})

# A failed run may be started again (a full disk was freed): it is settled, yet not final.
_NEXT: Mapping[State, frozenset[State]] = {
    State.created: frozenset(State) - {State.created},
    State.submitting: frozenset(State) - {State.created},
    State.queued: frozenset(State) - {State.created, State.submitting},
    State.running: frozenset(State) - {State.created, State.submitting, State.running},
    State.interrupted: frozenset(State) - {State.created, State.interrupted},
    State.failed: frozenset({State.submitting, State.queued, State.running, State.cancelled}),
    State.succeeded: frozenset(),
    State.cancelled: frozenset(),
}


def may_follow(before: State, after: State) -> bool:
    """Whether a run in state `before` may enter `after`. A final state never goes back."""
    return after in _NEXT[before]


class RunRecord(Stored):
    """`run.json`: what the run is. No absolute path and no URL in it."""

    id: str
    project: str
    target: Target
    backend: str
    key: str
    pictures: str  # the digest of the dataset's pictures
    created: str
    parent: str | None = None
    name: str | None = None  # what `train --name` called it


@dataclass(frozen=True, slots=True)
class Event:
    """A line of `events.jsonl`. `fields` depends on `type`.

    state: state, message?, hint?, cause? (timed_out, expired) · phase: name, total?, done?
    · step: step, steps, loss, seconds · checkpoint: step, file · sample: step, file · note: message

    No `Noun`: a run has thousands, and `status` reads those of all runs.
    """

    seq: int
    attempt: int
    time: str
    type: str
    fields: dict[str, Any]
    v: int = 1


class Weights(Noun):
    """One file of a model, relative to the folder of `model.json`."""

    file: str
    sha256: str
    bytes: int


class ModelFile(Stored):
    """`model.json`: what the trainer made. `format`: "diffusers" (components in folders) or "peft" (an adapter)."""

    digest: str
    family: str
    format: str
    base: str
    base_digest: str
    steps: int
    final_loss: float
    concepts: tuple[Concept, ...]
    files: tuple[Weights, ...]
    parent: str | None = None


def unpinned(base: str) -> str:
    """The base digest of a model whose trainer, somebody else's, took a base of that name and told no digest of it."""
    return f"unpinned:{base}"


def model_digest(files: Iterable[Weights]) -> str:
    """One digest for all files of a model."""
    return digest(sorted((item.file, item.sha256) for item in files))


def run_key(pictures: str, captions: str, recipe: Recipe, concept: Concept, target: Target) -> str:
    """What makes two trainings the same: data, captions, recipe, concept and target (not the concept's human name)."""
    taught = concept.model_dump(mode="json", exclude={"name"})
    return digest([pictures, captions, recipe.model_dump(mode="json"), taught, target])


def newest(events: Sequence[Event], type_: str) -> Event | None:
    """The last event of that type."""
    return next((event for event in reversed(events) if event.type == type_), None)


def last_step(events: Sequence[Event]) -> int:
    """The newest optimiser step that the events tell, 0 before the first."""
    step = newest(events, "step")
    return int(step.fields["step"]) if step else 0


def state_of(events: Iterable[Event]) -> State:
    """The state that a run's events tell. Raises ValueError for a state that this program does not know."""
    state = State.created
    for event in events:
        if event.type == "state":
            after = State(event.fields["state"])
            if may_follow(state, after):
                state = after
    return state
