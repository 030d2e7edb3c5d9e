"""Recipes refuse what cannot be meant, and say what was probably meant."""

from __future__ import annotations

from typing import Any

import pytest

from dreamctl.domain.recipe import Recipe, merged, parse_assignment
from dreamctl.errors import InvalidInput

BASE = {"base": {"source": "builtin"}}


def test_the_smallest_recipe_is_complete() -> None:
    recipe = Recipe.parse(BASE, "r.toml")
    assert Recipe.parse(recipe.plain(), "again") == recipe


@pytest.mark.parametrize(
    ("table", "field", "message"),
    [
        ({"training": {"stepz": 3}}, "training.stepz", r"unknown key 'training.stepz' \(did you mean 'steps'\?\)"),
        ({"trainig": {}}, "trainig", r"unknown key 'trainig' \(did you mean 'training'\?\)"),
        ({"training": {"resolution": 100}}, "training.resolution", "resolution = 100: .*multiple of 8"),
        ({"training": {"steps": "many"}}, "training.steps", "steps = 'many'"),
        ({"method": {"name": "lokr"}}, "method.name", "'lora' or 'full'"),
        ({"prompt": "a photo of {category}"}, None, "{identifier} is missing"),
        ({"prompt": "{identifier} {colour}"}, None, "may hold only"),
        ({"prior": {"prompts": ["a {x}"]}}, None, "prior.prompts"),
        ({"prior": {"prompts": []}}, None, "prior.prompts: empty"),
    ],
)
def test_a_wrong_recipe_names_file_field_and_way_out(table: dict[str, Any], field: str | None, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as raised:
        Recipe.parse(BASE | table, "r.toml")
    assert raised.value.message.startswith("r.toml: ")
    assert raised.value.field == field


def test_every_knob_is_documented_under_its_field() -> None:
    silent = []
    for table, field in Recipe.model_fields.items():
        inner = getattr(field.annotation, "model_fields", {})
        silent += [f"{table}.{name}" for name, knob in inner.items() if not knob.description]
    assert not silent


def test_tables_merge_and_lists_are_replaced() -> None:
    assert merged({"a": {"x": 1, "y": [1, 2]}, "b": 1}, {"a": {"y": [3]}, "c": 2}) == {
        "a": {"x": 1, "y": [3]}, "b": 1, "c": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("training.steps=400", {"training": {"steps": 400}}),
        ("base.source=owner/name", {"base": {"source": "owner/name"}}),
        ("method.targets=['to_q']", {"method": {"targets": ["to_q"]}}),
        ("prompt = a=b", {"prompt": "a=b"}),
        ("method.train_text_encoder=true", {"method": {"train_text_encoder": True}}),
    ],
)
def test_assignments_are_read_as_toml_or_as_text(text: str, table: dict[str, Any]) -> None:
    assert parse_assignment(text) == table


@pytest.mark.parametrize("text", ["steps", "=3", "a..b=1"])
def test_what_is_no_assignment_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not KEY=VALUE"):
        parse_assignment(text)
