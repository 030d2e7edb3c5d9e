"""A recipe in the words of a trainer at Replicate: one table of names, and what of the recipe has no name there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dreamctl.backends.replicate_schema import Property, Schema, assignments, fitted
from dreamctl.domain.concept import Concept, compose_caption
from dreamctl.domain.recipe import Recipe
from dreamctl.errors import InvalidInput

CARRIED = "dreamctl"
"""The input of our own trainer: an errand."""
PICTURES = ("input_images", "dataset", "instance_data", "images", "input_zip", "zip_url")


def _adapter(recipe: Recipe) -> bool:
    return recipe.method.name == "lora"


def _prior(recipe: Recipe) -> bool:
    return recipe.prior.weight > 0 and recipe.prior.pictures > 0


def _always(_: Recipe) -> bool:
    return True


@dataclass(frozen=True)
class Knob:
    """A field of the recipe and the inputs that mean the same, the likeliest first.

    `applies`: whether the recipe uses the field at all. `matters`: it is said to be without a name even where the
    recipe leaves it as dreamctl's default, since the trainer's own would be another.
    """

    field: str
    names: tuple[str, ...]
    applies: Callable[[Recipe], bool] = _always
    matters: bool = False

    def value(self, recipe: Recipe) -> Any:
        table, _, name = self.field.partition(".")
        return getattr(getattr(recipe, table), name)

    def changed(self, recipe: Recipe) -> bool:
        """Whether the recipe says something else than dreamctl does of itself."""
        table, _, name = self.field.partition(".")
        described = type(getattr(recipe, table)).model_fields[name]
        return bool(self.value(recipe) != described.default)


_KNOBS = (
    Knob("training.steps", ("steps", "max_train_steps", "training_steps"), matters=True),
    Knob("training.batch_size", ("batch_size", "train_batch_size")),
    Knob("training.accumulation", ("gradient_accumulation_steps",)),
    Knob("training.resolution", ("resolution",), matters=True),
    Knob("training.gradient_checkpointing", ("gradient_checkpointing",)),
    Knob("training.offset_noise", ("offset_noise", "noise_offset")),
    Knob("training.snr_gamma", ("snr_gamma", "min_snr_gamma")),
    Knob("training.caption_dropout", ("caption_dropout_rate", "caption_dropout")),
    Knob("training.seed", ("seed",)),
    Knob("optimizer.learning_rate", ("lora_lr", "learning_rate", "unet_learning_rate"), _adapter, matters=True),
    Knob("optimizer.learning_rate", ("unet_learning_rate", "learning_rate"), lambda recipe: not _adapter(recipe), True),
    Knob(
        "optimizer.text_encoder_learning_rate",
        ("text_encoder_learning_rate", "text_encoder_lr"),
        lambda recipe: recipe.method.train_text_encoder,
    ),
    Knob("optimizer.epsilon", ("adam_epsilon",)),
    Knob("optimizer.weight_decay", ("adam_weight_decay", "weight_decay")),
    Knob("optimizer.max_grad_norm", ("max_grad_norm",)),
    Knob("optimizer.schedule", ("lr_scheduler",)),
    Knob("optimizer.warmup_steps", ("lr_warmup_steps",)),
    Knob("method.rank", ("lora_rank", "network_dim", "rank"), _adapter, matters=True),
    Knob(
        "method.alpha",
        ("lora_alpha", "network_alpha", "alpha"),
        lambda recipe: _adapter(recipe) and recipe.method.alpha != recipe.method.rank,
    ),
    Knob("method.dropout", ("lora_dropout", "network_dropout"), _adapter),
    Knob("method.targets", (), _adapter),
    Knob("method.train_text_encoder", ("train_text_encoder",)),
    Knob("prior.weight", ("prior_loss_weight",), _prior),
    Knob("prior.pictures", ("num_class_images",), _prior),
)
_ADAPTERS = ("lora_rank", "lora_type", "lora_lr", "network_dim")
"""Inputs that only a trainer of adapters has."""


@dataclass(frozen=True)
class Translation:
    """What a recipe and a line become. `unsaid`: what of the recipe the trainer has no input for, as "FIELD = VALUE".

    `problems`: values that an input does not take. `missing`: inputs that the trainer needs and nobody gives.
    """

    inputs: Mapping[str, Any]
    unsaid: tuple[str, ...]
    problems: tuple[str, ...]
    missing: tuple[str, ...]
    pictures: str | None


def translated(
    schema: Schema, recipe: Recipe, given: tuple[str, ...] = (), concept: Concept | None = None, captions: bool = True
) -> Translation:
    """The recipe in the trainer's words; KEY=VALUE texts of the line beat it. Without a `concept` its inputs are left
    out, though not missed. `captions`: the archive has them. Raises InvalidInput for a text that does not fit.
    """
    pictures = pictures_input(schema)
    said = assignments(schema, given, [pictures] if pictures else ())
    inputs: dict[str, Any] = {}
    unsaid: list[str] = []
    problems: list[str] = []
    wanted = [*_knobs(schema, recipe, unsaid), *_of_the_whole(schema, recipe, unsaid)]
    if concept:
        wanted += _of_the_concept(schema, recipe, concept, captions)
    for field, named, value in wanted:
        if named.name in said:
            continue
        try:
            inputs[named.name] = fitted(named, value)
        except ValueError as error:
            problems.append(f"{field} = {value}: the trainer's {named.name} {error}")
    known = {*inputs, *said, *([pictures] if pictures else []), *_CONCEPTS, "class_prompt"}
    missing = tuple(sorted(schema.required - known))
    return Translation({**inputs, **said}, tuple(unsaid), tuple(problems), missing, pictures)


def pictures_input(schema: Schema) -> str | None:
    """The input that takes the archive: one that is known, else the only file that the trainer needs."""
    known = schema.first(PICTURES)
    if known:
        return known.name
    files = [name for name in schema.required if schema.properties[name].file]
    return files[0] if len(files) == 1 else None


def _knobs(schema: Schema, recipe: Recipe, unsaid: list[str]) -> Iterator[tuple[str, Property, Any]]:
    for knob in _KNOBS:
        if not knob.applies(recipe):
            continue
        named, value = schema.first(knob.names), knob.value(recipe)
        if named and named.name == "resolution" and named.kind == "string":
            value = _resolutions(named, value)
        if named and value is not None:
            yield knob.field, named, value
        elif not named and (knob.matters or knob.changed(recipe)) and knob.applies is not _prior:
            unsaid.append(f"{knob.field} = {_shown(value)}")


def _resolutions(named: Property, side: int) -> str:
    """A trainer that takes a list of sides keeps those of its own that are smaller."""
    own = str(named.default or "").split(",")
    return ",".join([*(text.strip() for text in own if text.strip().isdigit() and int(text) < side), str(side)])


def _of_the_whole(schema: Schema, recipe: Recipe, unsaid: list[str]) -> Iterator[tuple[str, Property, Any]]:
    """What is more than one field of the recipe, or less."""
    switch = schema.first(("is_lora",))
    adapters = schema.first(_ADAPTERS) is not None
    if switch:
        yield "method.name", switch, _adapter(recipe)
    elif adapters != _adapter(recipe) and (adapters or schema.first(("instance_prompt",))):
        unsaid.append(f"method.name = {recipe.method.name} (it teaches {'adapters' if adapters else 'all weights'})")
    names = ("adam_beta1", "adam_beta2")
    betas = [schema.first((name,)) for name in names]
    for beta, value in zip(betas, recipe.optimizer.betas, strict=True):
        if beta:
            yield "optimizer.betas", beta, value
    if not any(betas) and recipe.optimizer.betas != (0.9, 0.999):
        unsaid.append(f"optimizer.betas = {_shown(recipe.optimizer.betas)}")
    preserving = schema.first(("with_prior_preservation",))
    if preserving:
        yield "prior", preserving, _prior(recipe)
    elif _prior(recipe) and not schema.first(("prior_loss_weight", "num_class_images")):
        unsaid.append("prior preservation (it makes no class pictures)")
    filetype = schema.first(("input_images_filetype",))
    if filetype:
        yield "the archive's type", filetype, "zip"


_CONCEPTS: Mapping[str, Callable[[Recipe, Concept], str]] = {
    "trigger_word": lambda recipe, concept: concept.identifier,
    "token_string": lambda recipe, concept: concept.identifier,
    "lora_type": lambda recipe, concept: concept.kind.value,
    "instance_prompt": lambda recipe, concept: compose_caption(recipe.prompt, concept, ""),
    "default_caption": lambda recipe, concept: compose_caption(recipe.prompt, concept, ""),
    "caption_prefix": lambda recipe, concept: compose_caption(recipe.prompt, concept, "") + ", ",
}


def _of_the_concept(
    schema: Schema, recipe: Recipe, concept: Concept, captions: bool
) -> Iterator[tuple[str, Property, Any]]:
    for name, value in _CONCEPTS.items():
        if name in schema.properties:
            yield "the concept", schema.properties[name], value(recipe, concept)
    classes = schema.first(("class_prompt",))
    if classes and recipe.prior.prompts:
        text = recipe.prior.prompts[0].format(identifier="", category=concept.category, caption="")
        yield "prior.prompts", classes, " ".join(text.split())
    writing = schema.first(("autocaption",))
    if writing:
        yield "the captions", writing, not captions


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else f"{value}"


def require(translation: Translation, trainer: str) -> None:
    """Raises InvalidInput where the translation cannot be sent."""
    if translation.problems:
        raise InvalidInput("; ".join(translation.problems), hint="change the recipe, as in --set training.steps=1000")
    if translation.pictures is None:
        raise InvalidInput(
            f"{trainer} has no input that dreamctl knows to take pictures ({', '.join(PICTURES[:3])} …)",
            field="replicate_trainer",
            hint="choose another trainer",
        )
    if translation.missing:
        names = ", ".join(translation.missing)
        raise InvalidInput(
            f"{trainer} needs {names}, which no recipe has",
            field="--input",
            hint=" ".join(f"--input {name}=…" for name in translation.missing),
        )
