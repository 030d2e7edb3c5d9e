"""The schema dream-booth-v1: every field's default and range, what of a recipe becomes which, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from dreamctl import recipes
from dreamctl.backends import dream_booth
from dreamctl.backends.dream_booth import FIELDS, checked, epochs, notes, parse_inputs, problems, train_input
from dreamctl.domain.concept import Concept, Kind
from dreamctl.domain.recipe import Recipe
from dreamctl.errors import InvalidInput
from dreamctl.http import redact
from tests.fakes import CONCEPT

URL = "https://bucket.example.com/data.zip?X-Amz-Signature=abc"

# The worker's own table (its src/rp_schemas.py): type and default of each field.
WORKER = {
    "data_url": (str, None), "concept_name": (str, None), "hf_model": (str, None), "hf_token": (str, None),
    "ckpt_link": (str, None), "offset_noise": (bool, False), "pndm_scheduler": (bool, False),
    "text_steps": (int, 350), "text_seed": (int, 555), "text_batch_size": (int, 1), "text_resolution": (int, 512),
    "text_learning_rate": (float, 1e-6), "text_lr_scheduler": (str, "linear"), "text_8_bit_adam": (bool, False),
    "unet_seed": (int, 555), "unet_batch_size": (int, 1), "unet_resolution": (int, 512), "unet_epochs": (int, 150),
    "unet_learning_rate": (float, 2e-6), "unet_lr_scheduler": (str, "linear"), "unet_8_bit_adam": (bool, False),
}  # fmt: skip


def recipe(name: str = "sd15-dreambooth", **tables: Any) -> Recipe:
    return recipes.resolve(name, [tables])


def test_the_table_is_the_workers() -> None:
    assert {name: (field.type, field.default) for name, field in FIELDS.items()} == WORKER
    for name, field in FIELDS.items():
        if field.default is not None:
            assert checked(name, field.default) == field.default


def test_a_recipe_becomes_the_fields() -> None:
    taught = recipe(training={"steps": 800, "seed": 7, "batch_size": 2}, optimizer={"schedule": "cosine"})
    made = train_input(taught, CONCEPT, 5, URL, {})
    assert made == {
        "data_url": URL,
        "concept_name": "sks",
        "hf_model": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "offset_noise": False,
        "pndm_scheduler": False,
        "text_steps": 800,
        "text_seed": 7,
        "text_batch_size": 2,
        "text_resolution": 512,
        "text_learning_rate": 1e-6,
        "text_lr_scheduler": "cosine",
        "text_8_bit_adam": False,
        "unet_seed": 7,
        "unet_batch_size": 2,
        "unet_resolution": 512,
        "unet_epochs": 267,  # five pictures are three steps
        "unet_learning_rate": 2e-6,
        "unet_lr_scheduler": "cosine",
        "unet_8_bit_adam": False,
    }


@pytest.mark.parametrize(
    ("steps", "pictures", "batch", "expected"), [(800, 5, 1, 160), (801, 5, 1, 161), (1, 30, 1, 1), (100, 5, 8, 100)]
)
def test_epochs_give_at_least_the_steps(steps: int, pictures: int, batch: int, expected: int) -> None:
    assert epochs(steps, pictures, batch) == expected


def test_an_adapters_rates_stay_away_from_whole_weights() -> None:
    made = train_input(recipe("sd15"), CONCEPT, 5, URL, {})
    assert (made["unet_learning_rate"], made["text_learning_rate"], made["text_steps"]) == (2e-6, 1e-6, 1)
    assert any("method.name = lora does not map" in note for note in notes(recipe("sd15")))


def test_a_style_gets_offset_noise() -> None:
    style = Concept(identifier="sks", category="painting", kind=Kind.style)
    assert train_input(recipe(), style, 5, URL, {})["offset_noise"] is True
    assert train_input(recipe(training={"offset_noise": 0.1}), CONCEPT, 5, URL, {})["offset_noise"] is True


def test_inputs_set_any_field() -> None:
    inputs = parse_inputs(
        ["unet_epochs=100", "unet_learning_rate=1", "pndm_scheduler=true", "concept_name=a dog", "unet_8_bit_adam=True"]
    )
    assert inputs == {
        "unet_epochs": 100, "unet_learning_rate": 1.0, "pndm_scheduler": True, "concept_name": "a dog",
        "unet_8_bit_adam": True,
    }  # fmt: skip
    made = train_input(recipe(), CONCEPT, 5, URL, inputs)
    assert made.items() >= inputs.items()
    assert type(made["unet_learning_rate"]) is float, "the worker's own check refuses whole numbers there"


def test_a_checkpoint_takes_the_place_of_the_base() -> None:
    link = "https://example.com/model.ckpt"
    made = train_input(recipe(), CONCEPT, 5, URL, parse_inputs([f"ckpt_link={link}"]))
    assert made["ckpt_link"] == link
    assert "hf_model" not in made
    with pytest.raises(InvalidInput, match="two bases"):
        train_input(recipe(), CONCEPT, 5, URL, parse_inputs([f"ckpt_link={link}", "hf_model=a/b"]))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("steps=400", "no field 'steps'"),
        ("unet_epochs", "not KEY=VALUE"),
        ("unet_epochs=0", "from 1 to 100000"),
        ("unet_epochs=-5", "from 1"),
        ("unet_epochs=10.0", "whole number"),
        ("unet_epochs=true", "whole number"),
        ("unet_lr_scheduler=zzz", "unet_lr_scheduler = 'zzz'"),
        ("unet_learning_rate=0", "from"),
        ("unet_learning_rate=nan", "from"),
        ("unet_learning_rate=fast", "a number"),
        ("unet_resolution=500", "multiple of 8"),
        ("unet_resolution=32", "from 64"),
        ("text_seed=4294967296", "from 0"),
        ("offset_noise=1", "true or false"),
        ("hf_model=a/b; rm -rf x", "hub id"),
        ("ckpt_link=https://example.com/a;rm", "without spaces"),
        ("ckpt_link=https://example.com/a?b=1&c", "without spaces"),
        ("hf_token=$(env)", "a token of the hub"),
        ("concept_name=../x", "without slashes"),
        ("data_url=https://example.com/a.zip", "--data-url"),
    ],
)
def test_what_the_worker_would_not_notice_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_inputs([text])
    assert says in f"{caught.value.message} {caught.value.hint}"


def test_a_misspelt_field_is_told_the_nearest() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_inputs(["unet_epoch=5"])
    assert caught.value.hint == "did you mean 'unet_epochs'?"


def test_a_token_is_in_no_sentence() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_inputs(["hf_token=hf_secretsecret$"])
    assert "secretsecret" not in caught.value.message
    parse_inputs(["hf_token=plainlookingtoken"])
    assert "plainlookingtoken" not in redact("it was plainlookingtoken")


@pytest.mark.parametrize("source", ["builtin", "some-folder", "."])
def test_bases_that_are_not_on_the_hub_are_refused(source: str) -> None:
    assert problems(recipe(base={"source": source}))
    assert not problems(recipe())


def test_nothing_of_the_recipe_is_dropped_in_silence() -> None:
    said = " | ".join(notes(recipe("sd15", training={"snr_gamma": 5.0, "accumulation": 4}, base={"revision": "v1"})))
    for name in (
        "pickle", "models convert --trust", "prompt, category and captions", "unet_epochs", ".bin", "single step",
        "prior", "training.snr_gamma", "training.accumulation", "base.revision", "training.precision", "checkpoints",
        "samples",
    ):  # fmt: skip
        assert name in said
    assert "optimizer.betas" not in said


def test_every_setting_of_a_recipe_is_mapped_or_told() -> None:
    mapped = {
        "base.source", "method.name", "method.train_text_encoder", "optimizer.learning_rate",
        "optimizer.text_encoder_learning_rate", "optimizer.schedule", "training.steps", "training.batch_size",
        "training.resolution", "training.offset_noise", "training.seed",
    }  # fmt: skip
    moot = {"base.digest", "method.rank", "method.alpha", "method.dropout", "method.targets"}  # of LoRA, as a note says
    drawing = {"sampling.steps", "sampling.guidance"}  # how pictures are made afterwards, which happens here
    told = [name.split("'")[0].split(" ")[0] for name in dream_booth._unmapped(_loud())]
    tables = ("base", "method", "prior", "optimizer", "training", "checkpoints", "samples", "sampling")
    settings = {f"{table}.{name}" for table in tables for name in type(getattr(_loud(), table)).model_fields}
    known = mapped | moot | drawing
    assert [name for name in settings - known if name not in told and name.split(".")[0] not in told] == []


def _loud() -> Recipe:
    """A recipe in which every setting says something."""
    return recipe(
        "sd15",
        base={"revision": "v1", "variant": "fp16"},
        optimizer={"betas": [0.8, 0.9], "epsilon": 1e-6, "weight_decay": 0.5, "max_grad_norm": 2.0, "warmup_steps": 5},
        training={
            "accumulation": 2, "gradient_checkpointing": True, "snr_gamma": 5.0, "caption_dropout": 0.1,
            "offset_noise": 0.1,
        },
    )  # fmt: skip
