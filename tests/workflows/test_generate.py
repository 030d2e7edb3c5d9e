"""`generate` plans from what the registry knows: which version, which prompt, which size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamctl.context import Context
from dreamctl.domain.run import Target
from dreamctl.errors import InvalidInput, NotFound
from dreamctl.generation.plan import Plan
from dreamctl.workflows.generate import Order, make_plan
from dreamctl.workflows.lesson import Wish
from dreamctl.workflows.train import train
from tests.fakes import Recorder, write_dataset
from tests.tiny_models import write_tiny_sd15
from tests.workflows.conftest import Open

SMALL = ["training.resolution=64", "training.steps=3", "prior.pictures=0", "sampling.steps=7", "sampling.guidance=3"]


@pytest.fixture
def taught(open_context: Open, user: Path) -> Context:
    """A registry that knows `sks` (person, named Luna) and `zwx` (mug)."""
    for identifier, category, name in (("sks", "person", "Luna"), ("zwx", "mug", None)):
        dataset = write_dataset(user / identifier, count=5 if name else 6)
        wish = Wish(dataset.path, identifier=identifier, category=category, called=name, overrides=SMALL)
        train(open_context(), wish)
    return open_context()


def plan(context: Context, prompt: str, **values: Any) -> Plan:
    return make_plan(context, Order(prompt, **values))


def test_the_identifier_chooses_the_version_and_brings_the_category(taught: Context) -> None:
    chosen = plan(taught, "a photo of sks on a beach")
    assert chosen.prompt == "a photo of sks person on a beach"
    assert (chosen.version, chosen.target) == ("sks@1", Target.private)
    assert chosen.model is not None
    assert (chosen.model / "model.json").exists()
    assert (chosen.steps, chosen.guidance, chosen.width, chosen.height) == (7, 3, 64, 64)


@pytest.mark.parametrize("prompt", ["Luna at night", "a photo of LUNA, smiling"])
def test_a_human_name_stands_for_its_token(taught: Context, prompt: str) -> None:
    chosen = plan(taught, prompt)
    assert chosen.version == "sks@1"
    assert "sks person" in chosen.prompt
    assert "una" not in chosen.prompt


def test_the_newest_version_is_taken_and_an_older_one_by_name(taught: Context, open_context: Open) -> None:
    train(open_context(), Wish(Path("sks"), identifier="sks", overrides=[*SMALL, "training.seed=5"]))
    assert plan(taught, "sks").version == "sks@2"
    assert plan(taught, "sks", version="sks@1").version == "sks@1"
    assert plan(taught, "a photo of a person", version="sks").version == "sks@2"


def test_nothing_named_is_drawn_by_the_base_and_said(open_context: Open, taught: Context) -> None:
    person = Recorder()
    chosen = plan(open_context(person), "a photo of skz person")
    assert (chosen.version, chosen.model, chosen.target) == (None, None, Target.pretrained)
    assert chosen.prompt == "a photo of skz person"
    assert person.notes == ["the prompt names nothing that was taught, so the base model draws; did you mean 'sks'?"]


def test_target_pretrained_leaves_prompt_and_base_alone(taught: Context) -> None:
    chosen = plan(taught, "a photo of sks", target=Target.pretrained)
    assert (chosen.prompt, chosen.version) == ("a photo of sks", None)


@pytest.mark.parametrize(
    ("prompt", "values", "error", "message"),
    [
        ("a photo of qev person", {}, NotFound, "no identifier 'qev' that has been taught"),
        ("a photo of a person", {"target": Target.private}, NotFound, "no identifier in the prompt"),
        ("sks beside zwx", {}, InvalidInput, r"several concepts \(sks, zwx\)"),
        ("sks", {"target": Target.private_meta}, NotFound, "'sks' has no model version yet for target private_meta"),
        ("sks", {"version": "sks@9"}, NotFound, "no version 'sks@9'"),
        ("sks", {"base_model": "/nowhere"}, NotFound, "/nowhere does not exist"),
        ("sks", {"seed": -1}, InvalidInput, "--seed -1 is out of range"),
    ],
)
def test_what_cannot_be_drawn_is_told(
    taught: Context, prompt: str, values: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        plan(taught, prompt, **values)


def test_seeds_count_up_from_the_first(taught: Context) -> None:
    assert plan(taught, "sks", seed=2**32 - 2, count=3).seeds == (2**32 - 2, 2**32 - 1, 0)
    assert plan(taught, "sks").seeds != plan(taught, "sks").seeds


def test_a_plan_names_no_place(taught: Context, base: Path, tmp_path: Path) -> None:
    chosen = plan(taught, "sks", target=Target.private)
    assert str(tmp_path) not in str(chosen.data())
    assert str(base) not in str(chosen.data())


def test_the_base_of_the_line_chooses_among_versions(taught: Context, base: Path, tmp_path: Path) -> None:
    assert plan(taught, "sks", base_model=str(base)).version == "sks@1"
    other = write_tiny_sd15(tmp_path / "other", seed=3)
    with pytest.raises(NotFound, match=r"'sks' has no model version yet on .*other"):
        plan(taught, "sks", base_model=str(other))
