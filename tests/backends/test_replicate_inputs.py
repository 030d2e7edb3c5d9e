"""A recipe in the words of Replicate's trainers: each known one's inputs, values that do not fit, what has no name."""

from __future__ import annotations

from typing import Any

import pytest

from dreamctl import recipes
from dreamctl.backends.replicate_dreambooth import SCHEMA as DREAMBOOTH
from dreamctl.backends.replicate_inputs import Translation, require, translated
from dreamctl.backends.replicate_schema import Schema, assignments, fitted, read_schema
from dreamctl.domain.concept import Concept, Kind
from dreamctl.domain.recipe import parse_assignment
from dreamctl.errors import InvalidInput
from dreamctl.http import redact
from tests.clouds import replicate_trainers as trainers
from tests.fakes import CONCEPT

STYLE = Concept(identifier="van sks", category="painting", kind=Kind.style)


def schema_of(schemas: trainers.Schema) -> Schema:
    schema = read_schema({"openapi": "3.0.2", "components": {"schemas": schemas}})
    assert schema
    return schema


def in_words(
    schemas: trainers.Schema,
    recipe: str,
    *changes: str,
    concept: Concept | None = CONCEPT,
    given: tuple[str, ...] = (),
    captions: bool = True,
) -> Translation:
    table = recipes.resolve(recipe, [parse_assignment(change) for change in changes])
    return translated(schema_of(schemas), table, given, concept, captions)


# every known trainer


def test_flux_dev_lora_trainer_gets_every_knob_that_it_has() -> None:
    found = in_words(trainers.FLUX, "replicate-flux")
    assert found == Translation(
        inputs={
            "trigger_word": "sks",
            "autocaption": False,
            "steps": 1000,
            "learning_rate": 4e-4,
            "batch_size": 1,
            "resolution": "512,768,1024",
            "lora_rank": 16,
            "caption_dropout_rate": 0.05,
            "gradient_checkpointing": False,
        },
        unsaid=(),
        problems=(),
        missing=(),
        pictures="input_images",
    )
    assert not list(trainers.complaints(trainers.FLUX, dict(found.inputs)))


def test_without_captions_the_trainer_writes_them() -> None:
    assert in_words(trainers.FLUX, "replicate-flux", captions=False).inputs["autocaption"] is True


def test_fast_flux_trainer_takes_steps_and_the_concept_and_decides_the_rest() -> None:
    found = in_words(trainers.FAST_FLUX, "replicate-flux-style", "training.steps=700", concept=STYLE)
    assert found.inputs == {"trigger_word": "van sks", "lora_type": "style", "training_steps": 700}
    assert found.unsaid == (
        "training.resolution = 1024",
        "training.caption_dropout = 0.1",
        "optimizer.learning_rate = 0.0004",
        "method.rank = 16",
    )
    assert in_words(trainers.FAST_FLUX, "replicate-flux").inputs["lora_type"] == "subject"


def test_sdxl_learns_an_adapter_or_all_weights() -> None:
    found = in_words(trainers.SDXL, "replicate-sdxl")
    assert found.inputs == {
        "token_string": "sks",
        "caption_prefix": "a photo of sks person, ",
        "max_train_steps": 1000,
        "train_batch_size": 4,
        "resolution": 768,
        "seed": 0,
        "is_lora": True,
        "lora_lr": 1e-4,
        "lora_rank": 32,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 100,
        "input_images_filetype": "zip",
    }
    assert (found.unsaid, found.problems, found.missing) == ((), (), ())
    whole = in_words(trainers.SDXL, "replicate-sdxl", "method.name=full", "optimizer.learning_rate=1e-6").inputs
    assert (whole["is_lora"], whole["unet_learning_rate"]) == (False, 1e-6)
    assert not {"lora_lr", "lora_rank"} & set(whole)


def test_qwen_takes_a_dataset_and_a_caption_for_all() -> None:
    found = in_words(trainers.QWEN, "replicate-flux")
    assert found.pictures == "dataset"
    assert found.inputs["default_caption"] == "a photo of sks person"
    assert found.inputs["lora_rank"] == 16
    require(found, "qwen/qwen-image-lora")


def test_the_old_dreambooth_trainer_learns_all_weights_with_class_pictures() -> None:
    recipe = recipes.resolve("sd15-dreambooth")
    found = translated(DREAMBOOTH, recipe, (), CONCEPT)
    expected = {
        "instance_prompt": "a photo of sks person",
        "class_prompt": "a photo of a person",
        "max_train_steps": 800,
        "learning_rate": 2e-6,
        "num_class_images": 200,
        "with_prior_preservation": True,
        "prior_loss_weight": 1.0,
        "train_text_encoder": True,
        "resolution": 512,
    }
    assert expected.items() <= found.inputs.items()
    assert found.pictures == "instance_data"
    assert not [text for text in found.unsaid if text.startswith(("method.name", "prior"))]
    adapter = translated(DREAMBOOTH, recipes.resolve("sd15"), (), CONCEPT)
    assert "method.name = lora (it teaches all weights)" in adapter.unsaid
    off = translated(DREAMBOOTH, recipes.resolve("sd15-style"), (), STYLE)
    assert off.inputs["with_prior_preservation"] is False


# what has no name, and what does not fit


def test_what_differs_and_has_no_name_is_said() -> None:
    changes = [
        "training.accumulation=4",
        "training.snr_gamma=5",
        "method.alpha=8",
        "prior.weight=1",
        "prior.pictures=9",
    ]
    found = in_words(trainers.FLUX, "replicate-flux", *changes, "optimizer.betas=[0.9,0.99]", 'method.targets=["to_q"]')
    assert set(found.unsaid) == {
        "training.accumulation = 4",
        "training.snr_gamma = 5.0",
        "method.alpha = 8.0",
        "method.targets = to_q",
        "optimizer.betas = 0.9, 0.99",
        "prior preservation (it makes no class pictures)",
    }


@pytest.mark.parametrize(
    ("schemas", "change", "problem"),
    [
        (trainers.FLUX, "training.steps=2", "training.steps = 2: the trainer's steps must be 3 at least"),
        (trainers.FLUX, "training.steps=6001", "training.steps = 6001: the trainer's steps must be 6000 at most"),
        (trainers.FLUX, "method.rank=200", "method.rank = 200: the trainer's lora_rank must be 128 at most"),
        (
            trainers.SDXL,
            'optimizer.schedule="cosine"',
            "optimizer.schedule = cosine: the trainer's lr_scheduler must be one of constant, linear",
        ),
    ],
)
def test_a_value_out_of_range_is_told_with_field_and_limit(schemas: Any, change: str, problem: str) -> None:
    found = in_words(schemas, "replicate-flux", change)
    assert found.problems == (problem,)
    with pytest.raises(InvalidInput, match="must be"):
        require(found, "a trainer")


def test_a_trainer_without_a_place_for_pictures_or_with_other_needs_is_refused() -> None:
    blind = in_words({"TrainingInput": {"properties": {"steps": {"type": "integer"}}}}, "replicate-flux")
    with pytest.raises(InvalidInput, match="me/it has no input that dreamctl knows to take pictures"):
        require(blind, "me/it")
    odd = {"properties": {"photos": trainers.FILE, "size": trainers.TEXT}, "required": ["photos", "size"]}
    found = in_words({"TrainingInput": odd}, "replicate-flux")
    assert (found.pictures, found.missing) == ("photos", ("size",))
    with pytest.raises(InvalidInput, match="me/it needs size") as raised:
        require(found, "me/it")
    assert raised.value.hint == "--input size=…"
    require(in_words({"TrainingInput": odd}, "replicate-flux", given=("size=xl",)), "me/it")


# --input


def test_inputs_of_the_line_are_read_by_their_types_and_beat_the_recipe() -> None:
    given = ("steps=20", "autocaption=True", "learning_rate=1", "optimizer=prodigy", "layers_to_optimize_regex=a=b")
    found = in_words(trainers.FLUX, "replicate-flux", "training.steps=1", given=given)
    assert found.problems == (), "the recipe's own value is not sent"
    wanted = {"steps": 20, "autocaption": True, "learning_rate": 1.0, "layers_to_optimize_regex": "a=b"}
    assert wanted.items() <= found.inputs.items()


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("step=20", "the trainer has no input 'step'", "did you mean 'steps'?"),
        ("steps", "--input 'steps' is not KEY=VALUE", "for example --input steps=1000"),
        ("steps=many", "--input steps=many: must be a whole number", None),
        ("steps=20.5", "--input steps=20.5: must be a whole number", None),
        ("steps=true", "--input steps=true: must be a whole number", None),
        ("steps=1e999", "--input steps=1e999: must be a whole number", None),
        ("learning_rate=NaN", "--input learning_rate=NaN: must be a finite number", None),
        ("autocaption=1", "--input autocaption=1: must be true or false", None),
        ("caption_dropout_rate=2", "--input caption_dropout_rate=2: must be 1 at most", None),
        ("input_images=http://x", "--input input_images: dreamctl fills this one in itself", None),
    ],
)
def test_an_input_that_does_not_fit_is_told(text: str, message: str, hint: str | None) -> None:
    with pytest.raises(InvalidInput) as raised:
        assignments(schema_of(trainers.FLUX), [text], ("input_images",))
    assert (raised.value.message, raised.value.hint, raised.value.field) == (message, hint, "--input")


def test_a_secret_input_is_hidden_from_then_on() -> None:
    assert assignments(schema_of(trainers.FLUX), ["hf_token=secretvalue123"]) == {"hf_token": "secretvalue123"}
    assert "secretvalue123" not in redact("it was secretvalue123")


# schemas


def test_schemas_are_read_in_the_forms_that_cog_writes() -> None:
    rules = {
        "plain": {"type": "integer", "minimum": 1, "maximum": 9},
        "enum": {"allOf": [{"$ref": "#/components/schemas/enum"}], "default": "a"},
        "optional": {"anyOf": [{"type": "null"}, {"type": "number", "maximum": 2}]},
        "listed": {"type": ["null", "boolean"]},
        "secret": {"type": "string", "format": "password"},
        "loop": {"$ref": "#/components/schemas/loop"},
        "odd": "no rule at all",
    }
    enum = {"type": "string", "enum": ["a", "b"]}
    loop = {"$ref": "#/components/schemas/loop"}
    schema = schema_of({"TrainingInput": {"properties": rules, "required": ["plain", 5]}, "enum": enum, "loop": loop})
    found = schema.properties
    assert (found["plain"].kind, found["plain"].least, found["plain"].most) == ("integer", 1, 9)
    assert found["enum"].choices == ("a", "b")
    assert (found["optional"].kind, found["optional"].most) == ("number", 2)
    assert found["listed"].kind == "boolean"
    assert found["secret"].secret
    assert (found["loop"].kind, found["odd"].kind) == ("string", "string")
    assert schema.required == {"plain"}


@pytest.mark.parametrize("broken", [None, [], "x", {}, {"components": {"schemas": {"TrainingInput": {}}}}])
def test_what_is_no_schema_is_none(broken: Any) -> None:
    assert read_schema(broken) is None


def test_numbers_become_what_the_input_takes() -> None:
    properties = schema_of(trainers.FLUX).properties
    assert fitted(properties["lora_rank"], 16.0) == 16
    assert type(fitted(properties["learning_rate"], 1)) is float
    assert fitted(properties["resolution"], 512) == "512"
    with pytest.raises(ValueError, match="whole number"):
        fitted(properties["lora_rank"], 16.5)
