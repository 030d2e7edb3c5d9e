"""The schema `dream-booth-v1` of RunPod's DreamBooth worker: every field, and what of a recipe becomes which.

The worker knows no ranges and passes some values to a shell, so whatever is wrong is found here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamctl.domain.concept import Concept, Kind
from dreamctl.domain.recipe import Recipe
from dreamctl.errors import InvalidInput, did_you_mean
from dreamctl.http import remember_secret
from dreamctl.hub import HUB_ID

SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
"""Of the pictures that the worker looks at; it passes over others, and over captions."""

_SCHEDULERS = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")
_HTTP = re.compile(r"https?://[^\s\"'<>]+")
_SHELL_SAFE = re.compile(r"https?://[A-Za-z0-9:/?=%._~+@,-]+")  # this one the worker passes to a shell as it is
_FILE_NAME = re.compile(r"[^\x00-\x1f/\\]{1,100}")  # pictures are called so
_TOKEN = re.compile(r"[A-Za-z0-9_-]+")  # it too goes to a shell


@dataclass(frozen=True)
class Field:
    """One field of `input.train`: its type, the worker's default, and what it may be, of which the worker knows none.

    `form` is what a text must look like, and `wanted` says so.
    """

    type: type
    default: Any = None
    least: float | None = None
    most: float | None = None
    multiple: int = 1
    choices: tuple[str, ...] = ()
    form: re.Pattern[str] | None = None
    wanted: str = ""


def _stage(name: str, rate: float) -> dict[str, Field]:
    """The fields that both stages have, the text encoder's and the denoiser's."""
    return {
        f"{name}_seed": Field(int, 555, 0, 2**32 - 1),
        f"{name}_batch_size": Field(int, 1, 1, 64),
        f"{name}_resolution": Field(int, 512, 64, 2048, multiple=8),
        f"{name}_learning_rate": Field(float, rate, 1e-12, 1.0),
        f"{name}_lr_scheduler": Field(str, "linear", choices=_SCHEDULERS),
        f"{name}_8_bit_adam": Field(bool, False),
    }


FIELDS: Mapping[str, Field] = {
    "data_url": Field(str, form=_HTTP, wanted="an http(s) URL of a zip archive"),
    "concept_name": Field(str, form=_FILE_NAME, wanted="up to 100 characters without slashes"),
    "hf_model": Field(str, form=HUB_ID, wanted="a hub id such as owner/name"),
    "hf_token": Field(str, form=_TOKEN, wanted="a token of the hub"),
    "ckpt_link": Field(str, form=_SHELL_SAFE, wanted="an http(s) URL without spaces, quotes, & and ;"),
    "offset_noise": Field(bool, False),
    "pndm_scheduler": Field(bool, False),
    "text_steps": Field(int, 350, 1, 1_000_000),
    **_stage("text", 1e-6),
    "unet_epochs": Field(int, 150, 1, 100_000),
    **_stage("unet", 2e-6),
}
"""Every field of `input.train`."""


def train_input(
    recipe: Recipe, concept: Concept, pictures: int, data_url: str, inputs: Mapping[str, Any]
) -> dict[str, Any]:
    """`input.train` for a run of so many pictures: the worker's defaults, over them the recipe, over it `inputs`.

    Raises InvalidInput that names the field.
    """
    values = {name: field.default for name, field in FIELDS.items()}
    values |= _of_recipe(recipe, concept, pictures)
    if inputs.get("ckpt_link"):
        values["hf_model"] = None  # it is the base then; the worker takes no two
    values |= inputs
    values["data_url"] = data_url
    if values["hf_model"] and values["ckpt_link"]:
        raise InvalidInput("hf_model and ckpt_link are two bases: name one", field="--input")
    return {name: checked(name, value) for name, value in values.items() if value is not None}


def _of_recipe(recipe: Recipe, concept: Concept, pictures: int) -> dict[str, Any]:
    training, optimizer = recipe.training, recipe.optimizer
    rates: dict[str, Any] = {}
    if recipe.method.name == "full":  # an adapter's rates would ruin whole weights in a few steps
        rates["unet_learning_rate"] = float(optimizer.learning_rate)
        rates["text_learning_rate"] = float(optimizer.text_encoder_learning_rate)
    both = {
        "seed": training.seed,
        "batch_size": training.batch_size,
        "resolution": training.resolution,
        "lr_scheduler": optimizer.schedule,
    }
    return {
        "concept_name": concept.identifier,
        "hf_model": recipe.base.source,
        "offset_noise": concept.kind is Kind.style or training.offset_noise > 0,
        "text_steps": text_steps(recipe),
        "unet_epochs": epochs(training.steps, pictures, training.batch_size),
        **{f"{stage}_{name}": value for stage in ("text", "unet") for name, value in both.items()},
        **rates,
    }


def epochs(steps: int, pictures: int, batch_size: int) -> int:
    """How often all pictures are shown so that there are at least so many optimiser steps."""
    return math.ceil(steps / max(1, math.ceil(pictures / batch_size)))


def text_steps(recipe: Recipe) -> int:
    """Steps of the text encoder's stage. The worker always has one: a single step is next to none."""
    return recipe.training.steps if recipe.method.train_text_encoder else 1


def problems(recipe: Recipe) -> list[str]:
    """What of a recipe this worker cannot do at all."""
    source = recipe.base.source
    if source == "builtin":
        return ["base.source = builtin: RunPod's dream-booth worker trains models of the hub (owner/name)"]
    if Path(source).expanduser().exists() or not HUB_ID.fullmatch(source):
        return [f"base.source = {source} is no hub id: RunPod's dream-booth worker fetches its base from the hub"]
    if recipe.family != "sd15":
        return [f"family = {recipe.family}: RunPod's dream-booth worker trains Stable Diffusion 1.5"]
    return []


def notes(recipe: Recipe) -> list[str]:
    """What of the recipe does not map, and what comes back; to be read before anything is paid."""
    found = [
        "the worker returns a .ckpt, which is a pickle: it is stored, and cannot be loaded without "
        "`dreamctl models convert --trust`",
        "pictures are taught with the identifier alone: prompt, category and captions do not map",
        f"training.steps = {recipe.training.steps} are rounded up to whole rounds through the pictures (unet_epochs)",
        f"{recipe.base.source} must have weights as .bin files (unet/diffusion_pytorch_model.bin) on its main branch",
    ]
    if recipe.method.name == "lora":
        found.append(
            "method.name = lora does not map: all weights are taught, at the worker's own learning rates (2e-6 and, "
            "for the text encoder, 1e-6); --input unet_learning_rate=… sets another"
        )
    if not recipe.method.train_text_encoder:
        found.append("the worker always teaches the text encoder first: it gets a single step (text_steps = 1)")
    left = _unmapped(recipe)
    if left:
        found.append(f"left out, as the worker knows nothing like it: {', '.join(left)}")
    return found


def _unmapped(recipe: Recipe) -> list[str]:
    """Settings of the recipe that say something and that no field takes, by name."""
    training, optimizer, prior = recipe.training, recipe.optimizer, recipe.prior
    plain = type(optimizer)()
    said = {
        "base.revision": recipe.base.revision is not None,
        "base.variant": recipe.base.variant is not None,
        "prior": prior.weight > 0 and prior.pictures > 0,
        "optimizer.warmup_steps": optimizer.warmup_steps > 0,
        **{
            f"optimizer.{name}": getattr(optimizer, name) != getattr(plain, name)
            for name in ("betas", "epsilon", "weight_decay", "max_grad_norm")
        },
        "training.accumulation": training.accumulation > 1,
        "training.precision (it is fp16)": training.precision != "fp16",
        "training.gradient_checkpointing": training.gradient_checkpointing,
        "training.offset_noise's amount": training.offset_noise > 0,
        "training.snr_gamma": training.snr_gamma is not None,
        "training.caption_dropout": training.caption_dropout > 0,
        "checkpoints": True,
        "samples": bool(recipe.samples.prompts),
    }
    return [name for name, is_said in said.items() if is_said]


def parse_inputs(inputs: Sequence[str]) -> dict[str, Any]:
    """`--input KEY=VALUE`s as values of the fields. Raises InvalidInput that names the nearest field."""
    values = {}
    for text in inputs:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals:
            raise InvalidInput(f"--input {name!r} is not KEY=VALUE", field="--input", hint="such as unet_epochs=100")
        if name not in FIELDS:
            raise InvalidInput(
                f"dream-booth-v1 has no field {name!r}", field="--input", hint=did_you_mean(name, FIELDS)
            )
        if name == "data_url":
            raise InvalidInput(
                "data_url is where the dataset is", field="--input", hint="`dreamctl train --data-url URL` names it"
            )
        values[name] = checked(name, _typed(name, value.strip()))
    return values


def _typed(name: str, value: str) -> Any:
    field = FIELDS[name]
    if field.type is bool:
        known = {"true": True, "false": False}
        if value.lower() not in known:
            raise _wrong(name, value, "must be true or false")
        return known[value.lower()]
    try:
        return field.type(value)
    except ValueError:
        raise _wrong(name, value, "must be a whole number" if field.type is int else "must be a number") from None


def checked(name: str, given: Any) -> Any:
    """The value of a field. Raises InvalidInput where the field cannot have it."""
    field = FIELDS[name]
    if name == "hf_token":
        remember_secret(str(given))
    if type(given) is not field.type:  # a bool would pass for an int
        raise _wrong(name, given, f"must be {_KINDS[field.type]}")
    value: Any = given
    if field.choices and value not in field.choices:
        raise _wrong(name, value, did_you_mean(value, field.choices))
    if field.form and not field.form.fullmatch(value):
        raise _wrong(name, value, f"must be {field.wanted}")
    if field.least is not None and field.most is not None and not field.least <= value <= field.most:
        raise _wrong(name, value, f"must be from {field.least:g} to {field.most:g}")
    if field.multiple > 1 and value % field.multiple:
        raise _wrong(name, value, f"must be a multiple of {field.multiple}")
    return value


_KINDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_SECRET = frozenset({"hf_token", "data_url", "ckpt_link"})


def _wrong(name: str, value: Any, why: str) -> InvalidInput:
    shown = "" if name in _SECRET else f" = {value!r}"
    return InvalidInput(f"{name}{shown}: {why}", field=name)
