"""Runs: states go forward only, and the key tells two trainings apart."""

from __future__ import annotations

from typing import Any

import pytest

from dreamctl.domain.base import digest
from dreamctl.domain.concept import Concept, Kind
from dreamctl.domain.dataset import captions_digest, pictures_digest
from dreamctl.domain.recipe import Base, Recipe, Training
from dreamctl.domain.run import FINAL, Event, State, Target, may_follow, run_key, state_of

RECIPE = Recipe(base=Base(source="builtin"))
CONCEPT = Concept(identifier="sks", category="person")


def events(*states: str) -> list[Event]:
    return [
        Event(seq=number, attempt=1, time="", type="state", fields={"state": state})
        for number, state in enumerate(states, 1)
    ]


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ((), State.created),
        (("running",), State.running),
        (("running", "interrupted", "running", "succeeded"), State.succeeded),
        (("running", "succeeded", "running"), State.succeeded),
        (("running", "failed", "running"), State.running),
        (("cancelled", "running"), State.cancelled),
    ],
)
def test_the_state_is_what_the_events_tell(told: tuple[str, ...], state: State) -> None:
    assert state_of(events(*told)) is state


def test_a_final_state_never_goes_back() -> None:
    assert not any(may_follow(final, after) for final in FINAL for after in State)
    assert all(not may_follow(before, State.created) for before in State)


@pytest.mark.parametrize(
    "change",
    [
        {"pictures": "other"},
        {"captions": "other"},
        {"recipe": RECIPE.model_copy(update={"training": Training(steps=1)})},
        {"concept": CONCEPT.model_copy(update={"identifier": "zwx"})},
        {"concept": CONCEPT.model_copy(update={"kind": Kind.style})},
        {"target": Target.private_meta},
    ],
)
def test_the_key_tells_trainings_apart(change: dict[str, Any]) -> None:
    same: dict[str, Any] = {
        "pictures": "p", "captions": "c", "recipe": RECIPE, "concept": CONCEPT, "target": Target.private,
    }  # fmt: skip
    assert run_key(**same) != run_key(**{**same, **change})


def test_a_human_name_does_not_change_the_key() -> None:
    named = CONCEPT.model_copy(update={"name": "Luna"})
    assert run_key("p", "c", RECIPE, CONCEPT, Target.private) == run_key("p", "c", RECIPE, named, Target.private)


def test_digests_ignore_equal_repeats_and_outer_space() -> None:
    files = [("a", "1"), ("b", "2")]
    assert pictures_digest(files) == digest(files) != pictures_digest(files[:1])
    assert pictures_digest(files, {"a": 10, "b": 10}) == pictures_digest(files), "all ten times are all once"
    assert pictures_digest(files, {"a": 10, "b": 1}) != pictures_digest(files)
    assert captions_digest({"a": "x\n"}) == captions_digest({"a": "x"})
    assert captions_digest({"a": "x"}) != captions_digest({"a": "y"})
