"""The inputs of trainers at Replicate, as the OpenAPI schemas of their versions show them, and a check of values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = dict[str, Any]
"""A `TrainingInput`, and the schemas that it refers to, by name (`components.schemas`)."""


def _schema(
    required: tuple[str, ...] = (), enums: Mapping[str, tuple[str, ...]] | None = None, **inputs: Any
) -> Schema:
    """A value that is no dictionary is an input's default, and says its type."""
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    properties = {}
    for order, (name, given) in enumerate(inputs.items()):
        one = given if isinstance(given, dict) else {"type": kinds[type(given)], "default": given}
        properties[name] = {"title": name.replace("_", " ").title(), "x-order": order, **one}
    schemas: Schema = {}
    for name, values in (enums or {}).items():
        schemas[name] = {"title": name, "type": "string", "enum": list(values), "description": "An enumeration."}
        properties[name] = {"allOf": [{"$ref": f"#/components/schemas/{name}"}], **properties[name]}
        del properties[name]["type"], properties[name]["title"]
    whole = {"title": "TrainingInput", "type": "object", "properties": properties}
    return {"TrainingInput": {**whole, **({"required": list(required)} if required else {})}, **schemas}


def _number(kind: str, default: float, least: float | None = None, most: float | None = None) -> Schema:
    found = {"type": kind, "default": default, "minimum": least, "maximum": most}
    return {name: value for name, value in found.items() if value is not None}


TEXT: Schema = {"type": "string"}
FILE: Schema = {"type": "string", "format": "uri"}
SECRET: Schema = {"type": "string", "format": "password", "writeOnly": True, "x-cog-secret": True}

FLUX = _schema(
    enums={
        "optimizer": ("prodigy", "adam8bit", "adamw8bit", "lion8bit", "adam", "adamw", "lion", "adagrad", "adafactor")
    },
    input_images=FILE,
    trigger_word="TOK",
    autocaption=True,
    autocaption_prefix=TEXT,
    autocaption_suffix=TEXT,
    steps=_number("integer", 1000, 3, 6000),
    learning_rate=0.0004,
    batch_size=1,
    resolution="512,768,1024",
    lora_rank=_number("integer", 16, 1, 128),
    caption_dropout_rate=_number("number", 0.05, 0, 1),
    optimizer="adamw8bit",
    cache_latents_to_disk=False,
    layers_to_optimize_regex=TEXT,
    gradient_checkpointing=False,
    hf_repo_id=TEXT,
    hf_token=SECRET,
    wandb_api_key=SECRET,
    wandb_project="flux_train_replicate",
    wandb_run=TEXT,
    wandb_entity=TEXT,
    wandb_sample_interval=_number("integer", 100, 1),
    wandb_sample_prompts=TEXT,
    wandb_save_interval=_number("integer", 100, 1),
    skip_training_and_use_pretrained_hf_lora_url=TEXT,
)
"""ostris/flux-dev-lora-trainer, from its source."""

FAST_FLUX = _schema(
    required=("input_images", "trigger_word"),
    enums={"lora_type": ("subject", "style")},
    input_images=FILE,
    trigger_word=TEXT,
    lora_type="subject",
    training_steps=_number("integer", 1000, 1, 2000),
)
"""replicate/fast-flux-trainer: the names are its own; the source is not public, and the ranges are made up."""

SDXL = _schema(
    required=("input_images",),
    enums={"lr_scheduler": ("constant", "linear"), "input_images_filetype": ("zip", "tar", "infer")},
    input_images=FILE,
    seed={"type": "integer"},
    resolution=768,
    train_batch_size=4,
    num_train_epochs=4000,
    max_train_steps=1000,
    is_lora=True,
    unet_learning_rate=1e-6,
    ti_lr=3e-4,
    lora_lr=1e-4,
    lora_rank=32,
    lr_scheduler="constant",
    lr_warmup_steps=100,
    token_string="TOK",
    caption_prefix="a photo of TOK, ",
    mask_target_prompts=TEXT,
    crop_based_on_salience=True,
    use_face_detection_instead=False,
    clipseg_temperature=1.0,
    verbose=True,
    checkpointing_steps=999999,
    input_images_filetype="infer",
)
"""stability-ai/sdxl, from its source."""

QWEN = _schema(
    required=("dataset",),
    dataset=FILE,
    default_caption=TEXT,
    steps=_number("integer", 1000, 100, 6000),
    learning_rate=_number("number", 2e-4, 1e-5, 1e-3),
    lora_rank=_number("integer", 32, 4, 128),
    batch_size=_number("integer", 1, 1, 4),
)
"""As of qwen/qwen-image-lora: of its names `dataset` and `default_caption` are known."""

OURS = _schema(required=("input_images", "dreamctl"), input_images=FILE, dreamctl=TEXT)
"""dreamctl's own trainer."""

TRAINERS: Mapping[str, Schema] = {
    "ostris/flux-dev-lora-trainer": FLUX,
    "replicate/fast-flux-trainer": FAST_FLUX,
    "stability-ai/sdxl": SDXL,
    "qwen/qwen-image-lora": QWEN,
    "tester/dreamctl-trainer": OURS,
}

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,),
}  # fmt: skip


def complaints(schema: Schema, given: Mapping[str, Any]) -> Iterator[str]:
    """What Replicate would say of a training's input."""
    form = schema["TrainingInput"]
    yield from (f"- input: {name} is required" for name in form.get("required", ()) if name not in given)
    for name, value in given.items():
        rule = form["properties"].get(name)
        if rule is None:
            if form.get("additionalProperties") is False:
                yield f"- input: Additional property {name} is not allowed"
            continue
        for part in rule.get("allOf", ()):
            rule = {**rule, **schema[part["$ref"].rpartition("/")[2]]}
        kinds = _TYPES[rule["type"]]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            yield f"- input.{name}: Invalid type. Expected: {rule['type']}"
        elif "enum" in rule and value not in rule["enum"]:
            yield f"- input.{name}: {name} must be one of the following: {rule['enum']}"
        elif "minimum" in rule and value < rule["minimum"]:
            yield f"- input.{name}: Must be greater than or equal to {rule['minimum']}"
        elif "maximum" in rule and value > rule["maximum"]:
            yield f"- input.{name}: Must be less than or equal to {rule['maximum']}"
