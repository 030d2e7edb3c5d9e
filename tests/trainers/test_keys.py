"""A trainer's keys: typed, bounded, put where they belong, and every problem of a table told with its place."""

from __future__ import annotations

from typing import Any

import pytest

from dreamctl.errors import InvalidInput
from dreamctl.trainers import ai_toolkit, image_folder, musubi, sd_scripts
from dreamctl.trainers.keys import Key, Schema, complaint

SCHEMAS: list[Schema] = [sd_scripts.SCHEMA, musubi.SCHEMA, ai_toolkit.SCHEMA, image_folder.SCHEMA]
EXAMPLES = {
    "bool": "true", "int": "64", "float": "0.5", "number": "1", "text": "a word", "texts": "a word", "size": "64",
    "sizes": "[512, 768]", "range": "[1.0, 2]", "ints": "[1, 2]", "numbers": "[1, 0.5]", "table": "{a = 1}",
    "tables": "[{a = 1}]",
}  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "name"), [(schema, name) for schema in SCHEMAS for name, key in schema.keys.items() if not key.fixed]
)
def test_every_key_can_be_set(schema: Schema, name: str) -> None:
    key = schema.keys[name]
    text = key.choices[0] if key.choices else "1" if key.most == 1 and key.kind != "float" else EXAMPLES[key.kind]
    found = schema.assign([f"{name}={text}"])
    (place,) = [place for place, values in found.items() if values]
    assert schema.places[place] == key.levels[0]
    assert complaint(key, found[place][name]) is None


@pytest.mark.parametrize(
    ("text", "place", "name", "value"),
    [
        ("num_repeats=5", "subsets", "num_repeats", 5),
        ("reg.num_repeats=2", "reg", "num_repeats", 2),
        ("general.num_repeats=5", "general", "num_repeats", 5),
        ("resolution=[512, 768]", "datasets", "resolution", [512, 768]),
        ("flip_aug=true", "datasets", "flip_aug", True),
        ("class_tokens=123", "subsets", "class_tokens", "123"),
        ("class_tokens='a \"b\"'", "subsets", "class_tokens", 'a "b"'),
        ("caption_prefix=", "subsets", "caption_prefix", ""),
        ("validation_split=0", "datasets", "validation_split", 0.0),
        ("face_crop_aug_range=[1, 2.5]", "subsets", "face_crop_aug_range", [1.0, 2.5]),
        ("token_warmup_step=1", "subsets", "token_warmup_step", 1),
    ],
)
def test_a_value_is_typed_and_put_where_it_belongs(text: str, place: str, name: str, value: Any) -> None:
    found = sd_scripts.SCHEMA.assign([text])[place][name]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("num_repeat=5", "sd-scripts has no key 'num_repeat'", "did you mean 'num_repeats'?"),
        ("num_repeats", "is not KEY=VALUE", "for example"),
        ("num_repeats=0", "must be at least 1", "num_repeats=VALUE"),
        ("num_repeats=true", "must be a whole number", "num_repeats=VALUE"),
        ("num_repeats=two", "must be a whole number", "num_repeats=VALUE"),
        ("caption_dropout_rate=1.5", "must be at most 1", "caption_dropout_rate=VALUE"),
        ("caption_dropout_rate=nan", "must be at least 0", "caption_dropout_rate=VALUE"),
        ("bucket_reso_steps=60", "must be a multiple of 8", "bucket_reso_steps=VALUE"),
        ("resolution=[512, 512, 512]", "or [width, height]", "resolution=VALUE"),
        ("resize_interpolation=lanczos4", "must be one of lanczos, nearest", "VALUE"),
        ("subsets.batch_size=2", "may not stand in [[datasets.subsets]]", "it belongs into [[datasets]] or [general]"),
        ("general.alpha_mask=true", "may not stand in [general]", "it belongs into [[datasets.subsets]]"),
        ("genral.flip_aug=true", "no table 'genral'", "did you mean 'general'?"),
        ("is_reg=true", "dreamctl writes 'is_reg' itself", "--reg FOLDER"),
        ("image_dir=/x", "dreamctl writes 'image_dir' itself", "DATASET"),
        ("metadata_file=x.json", "dreamctl writes 'metadata_file' itself", "DreamBooth"),
    ],
)
def test_a_wrong_assignment_is_one_sentence_with_a_way_out(text: str, said: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        sd_scripts.SCHEMA.assign([text])
    assert said in raised.value.message
    assert hint in str(raised.value.hint)


def test_every_problem_of_a_table_is_told_with_its_place() -> None:
    schema = Schema(
        "x", {"a": Key("int", ("low",)), "bold": Key("bool", ("low", "high"))}, {"low": "[low]", "high": "[high]"}, {}
    )
    table = {"a": 1, "bold": 1, "bald": True}
    assert schema.problems("here", "high", table) == [
        "here: 'a' belongs into [low]",
        "here: bold = 1: must be true or false",
        "here: unknown key 'bald' (did you mean 'bold'?)",
    ]
    assert schema.problems("here", "high", 3) == ["here = 3 must be a table"]


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("int", [0, -1], [True, 1.0, "1"]), ("float", [0.0], [0, True]), ("number", [0, 0.5], [True, "1"]),
        ("size", [8, [8, 16]], [[8], [8, 8, 8], 8.0, [8, True]]), ("sizes", [8, [8, 16, 24]], [[], "8"]),
        ("range", [[1.0, 2.0]], [[1, 2], [1.0]]), ("texts", ["a", ["a"]], [[1], 1]), ("table", [{}], [[]]),
        ("tables", [[], [{}]], [{}, [1]]), ("ints", [[], [1]], [[1.0], 1]), ("bool", [True], [1, "true"]),
        ("numbers", [[1, 0.5]], [1]), ("text", [""], [1]),
    ],
)  # fmt: skip
def test_kinds(kind: str, right: list[Any], wrong: list[Any]) -> None:
    key = Key(kind, ("here",))
    assert [complaint(key, value) for value in right] == [None] * len(right)
    assert all("must be" in str(complaint(key, value)) for value in wrong)
