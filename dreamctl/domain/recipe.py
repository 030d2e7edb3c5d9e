"""A recipe: everything that decides a training except the data. Each knob is documented once, under its field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dreamctl.domain.base import Noun, Stored
from dreamctl.errors import InvalidInput

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=64, le=4096, multiple_of=8)]


class Base(Noun):
    """The model that the training starts from."""

    source: str = Field(description="`builtin`, a hub id (owner/name), a diffusers folder")
    revision: str | None = Field(None, description="the hub's branch, tag or commit; stored resolved to a commit")
    variant: str | None = Field(None, description="the hub's file variant, such as fp16")
    digest: str | None = Field(None, description="what `source` held when the run was made; filled in, never written")


class Method(Noun):
    """What is trained."""

    name: Literal["lora", "full"] = Field("lora", description="`lora`: small adapter matrices; `full`: all weights")
    rank: Positive = Field(16, description="LoRA: inner dimension of the adapters")
    alpha: Annotated[float, Field(gt=0)] = Field(16.0, description="LoRA: scale is alpha / rank")
    dropout: Fraction = Field(0.0, description="LoRA: dropout on the adapters' input")
    targets: tuple[str, ...] = Field(
        ("to_q", "to_k", "to_v", "to_out.0"), description="LoRA: ends of the module names that get an adapter"
    )
    train_text_encoder: bool = Field(False, description="teach the text encoder too")


class Prior(Noun):
    """Prior preservation: pictures of the category, made once by the base model, keep the category what it was."""

    weight: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the class pictures' loss; 0 turns it off")
    pictures: Annotated[int, Field(ge=0)] = Field(100, description="how many class pictures")
    prompts: tuple[str, ...] = Field(("a photo of a {category}",), description="their prompts, used in turn")


class Optimizer(Noun):
    """AdamW and its schedule."""

    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-4, description="for the denoiser")
    text_encoder_learning_rate: Annotated[float, Field(gt=0)] = Field(5e-6, description="for the text encoder")
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.999), description="AdamW's running averages")
    epsilon: Annotated[float, Field(gt=0)] = Field(1e-8, description="AdamW's epsilon")
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-2, description="AdamW's decoupled weight decay")
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(1.0, description="gradients are clipped to this norm")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="learning rate after warm-up")
    warmup_steps: Annotated[int, Field(ge=0)] = Field(0, description="steps of linear warm-up")


class Training(Noun):
    """The loop."""

    steps: Positive = Field(800, description="optimiser steps")
    batch_size: Positive = Field(1, description="pictures in a forward pass, over all processes")
    accumulation: Positive = Field(1, description="forward passes for one optimiser step")
    resolution: Side = Field(512, description="side of the square pictures, in pixels")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of the forward pass; weights stay fp32")
    gradient_checkpointing: bool = Field(False, description="less memory, about a fifth slower")
    offset_noise: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="one random shift a channel, for styles much darker or brighter than the base's (0.1 is usual)"
    )
    snr_gamma: Annotated[float, Field(gt=0)] | None = Field(None, description="Min-SNR weighting, 5 is usual")
    caption_dropout: Fraction = Field(0.0, description="share of the captions that are left empty")
    seed: int = Field(0, ge=0, lt=2**32, description="of noise, timesteps, order and adapters")


class Checkpoints(Noun):
    """What a killed training goes on from."""

    every: Positive = Field(100, description="steps between checkpoints")
    keep: Positive = Field(2, description="how many stay")
    keep_when_done: bool = Field(False, description="leave them in the run folder when the training has succeeded")


class Samples(Noun):
    """Pictures made while training, to look at."""

    every: Annotated[int, Field(ge=0)] = Field(0, description="steps between samples; 0: at the end only")
    prompts: tuple[str, ...] = Field(("a photo of {identifier} {category}",), description="empty: no samples")


class Sampling(Noun):
    """How pictures are made with this base where the command line does not say."""

    steps: Positive = Field(30, description="denoising steps")
    guidance: Annotated[float, Field(ge=0)] = Field(7.5, description="classifier-free guidance scale; up to 1: off")


class Recipe(Stored):
    """A complete training recipe."""

    family: str = Field("sd15", description="model architecture")
    prompt: str = Field("a photo of {identifier} {category}, {caption}", description="what a picture is taught with")
    base: Base
    method: Method = Method()
    prior: Prior = Prior()
    optimizer: Optimizer = Optimizer()
    training: Training = Training()
    checkpoints: Checkpoints = Checkpoints()
    samples: Samples = Samples()
    sampling: Sampling = Sampling()

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        for field, texts in (
            ("prompt", (self.prompt,)),
            ("prior.prompts", self.prior.prompts),
            ("samples.prompts", self.samples.prompts),
        ):
            for text in texts:
                try:
                    text.format(identifier="", category="", caption="")
                except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
                    raise ValueError(
                        f"{field}: {text!r} may hold only {{identifier}}, {{category}} and {{caption}}"
                    ) from error
        if "{identifier}" not in self.prompt:
            raise ValueError("prompt: {identifier} is missing, so nothing would be tied to it")
        if self.prior.weight > 0 and self.prior.pictures > 0 and not self.prior.prompts:
            raise ValueError("prior.prompts: empty, but prior.pictures asks for class pictures")
        return self


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`: tables merge key by key, everything else (lists too) is replaced."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        both_tables = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = merged(old, value) if both_tables else value  # type: ignore[arg-type]
    return result


def parse_assignment(text: str) -> dict[str, Any]:
    """`training.steps=400` as a nested table. The value is read as TOML, and as plain text where it is not TOML."""
    import tomllib

    path, equals, value = text.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise InvalidInput(
            f"--set {text!r} is not KEY=VALUE", field="--set", hint="for example --set training.steps=400"
        )
    try:
        parsed: Any = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    for key in reversed(keys):
        parsed = {key: parsed}
    return dict(parsed)
