"""Class pictures: made once, kept by content, continued after a stop, the same each time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dreamctl.domain.concept import Concept
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.run import State
from dreamctl.families.sources import resolve_base
from dreamctl.files import sha256_file
from dreamctl.runfolder import EventWriter, read_events
from dreamctl.training.data import Example
from dreamctl.training.prior import GROUP, class_examples, class_folder, class_prompt, uses_prior
from dreamctl.training.progress import Reporter
from dreamctl.training.stop import Stop, Stopped
from tests.training.school import make_recipe

CPU = torch.device("cpu")
PERSON = Concept(identifier="sks", category="person")
PROMPTS = {"prior": {"pictures": 6, "prompts": ["a photo of a {category}", "a {category}, beach"]}}


@pytest.fixture
def recipe(tiny: Path) -> Recipe:
    return make_recipe(tiny, PROMPTS)


def make(recipe: Recipe, folder: Path, stop: Stop | None = None) -> list[Example]:
    reporter = Reporter(EventWriter(folder / "events.jsonl"))
    resolved = resolve_base(recipe.base)
    return class_examples(recipe, PERSON, resolved, CPU, reporter, stop or Stop(folder))


def digests(examples: list[Example]) -> list[str]:
    return [sha256_file(example.path) for example in examples]


def test_prompts_are_used_in_turn_and_pictures_made_once(tmp_path: Path, recipe: Recipe) -> None:
    examples = make(recipe, tmp_path)
    assert [example.text for example in examples] == ["a photo of a person", "a person, beach"] * 3
    assert len(set(digests(examples))) == 6
    before = [example.path.stat().st_mtime_ns for example in examples]
    told = len(list(read_events(tmp_path / "events.jsonl")))
    assert [example.path.stat().st_mtime_ns for example in make(recipe, tmp_path)] == before
    assert len(list(read_events(tmp_path / "events.jsonl"))) == told  # not even the model was loaded


def test_an_interrupted_generation_goes_on_and_gives_the_same(tmp_path: Path, recipe: Recipe) -> None:
    whole = make(recipe, tmp_path)
    before = digests(whole)
    times = [example.path.stat().st_mtime_ns for example in whole]
    whole[GROUP + 1].path.unlink()
    again = make(recipe, tmp_path)
    assert digests(again) == before
    assert [example.path.stat().st_mtime_ns for example in again][:GROUP] == times[:GROUP]


def test_more_pictures_continue_the_same_sequence(tmp_path: Path, tiny: Path, recipe: Recipe) -> None:
    few = digests(make(recipe, tmp_path))
    many = make(make_recipe(tiny, PROMPTS, {"prior": {"pictures": 9}}), tmp_path)
    assert digests(many)[:6] == few and len(many) == 9


def test_what_decides_the_pictures_decides_the_folder(tiny: Path, tiny_v: Path, recipe: Recipe) -> None:
    resolved = resolve_base(recipe.base)
    same = class_folder(recipe, PERSON, resolved, CPU)
    assert same == class_folder(
        make_recipe(tiny, PROMPTS, {"optimizer": {"learning_rate": 1.0}}), PERSON, resolved, CPU
    )
    others = [
        class_folder(recipe, Concept(identifier="sks", category="dog"), resolved, CPU),
        class_folder(recipe, PERSON, resolve_base(make_recipe(tiny_v).base), CPU),
        class_folder(make_recipe(tiny, PROMPTS, {"sampling": {"steps": 9}}), PERSON, resolved, CPU),
        class_folder(make_recipe(tiny, PROMPTS, {"training": {"seed": 9}}), PERSON, resolved, CPU),
        class_folder(make_recipe(tiny, PROMPTS, {"training": {"resolution": 128}}), PERSON, resolved, CPU),
        class_folder(make_recipe(tiny), PERSON, resolved, CPU),
    ]
    assert len({same, *others}) == 7


def test_a_wish_to_stop_is_heard_between_groups(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "cancel").touch()
    with pytest.raises(Stopped) as stopped:
        make(recipe, tmp_path)
    assert stopped.value.state is State.cancelled


def test_no_weight_or_no_pictures_is_no_prior(tiny: Path) -> None:
    assert uses_prior(make_recipe(tiny))
    assert not uses_prior(make_recipe(tiny, {"prior": {"weight": 0.0}}))
    assert not uses_prior(make_recipe(tiny, {"prior": {"pictures": 0}}))


def test_an_identifier_in_a_class_prompt_is_left_out(tiny: Path) -> None:
    recipe = make_recipe(tiny, {"prior": {"prompts": ["a photo of {identifier} {category}"]}})
    assert class_prompt(recipe, PERSON, 0) == "a photo of person"
