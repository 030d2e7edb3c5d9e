"""ostris/ai-toolkit: the YAML of a job; a whole one where the recipe says enough, else its datasets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamctl.domain.concept import Concept
from dreamctl.domain.dataset import IMAGE_SUFFIXES
from dreamctl.domain.recipe import Recipe
from dreamctl.errors import InvalidInput, did_you_mean
from dreamctl.trainers.base import Description, Material, Trainer
from dreamctl.trainers.keys import Key, Schema
from dreamctl.trainers.layout import REGULARISATION, dotted, lay_out
from dreamctl.trainers.look import caption_problems, folder_problems, pictures_in
from dreamctl.trainers.texts import refused, yaml

_OWN = ("datasets",)
_FOLDER = "name the dataset: dreamctl config dataset DATASET"


def _all(kind: str, names: str) -> dict[str, Key]:
    return {name: Key(kind, _OWN) for name in names.split()}


KEYS: Mapping[str, Key] = {
    "folder_path": Key("text", _OWN, fixed=_FOLDER),
    "dataset_path": Key("text", _OWN, fixed=_FOLDER),
    "is_reg": Key("bool", _OWN, fixed="name the folder of regularisation pictures with --reg FOLDER"),
    "resolution": Key("sizes", _OWN, least=64),
    "batch_size": Key("int", _OWN, least=1),
    "num_repeats": Key("int", _OWN, least=1),
    "caption_dropout_rate": Key("number", _OWN, least=0, most=1),
    "token_dropout_rate": Key("number", _OWN, least=0, most=1),
    "mask_min_value": Key("number", _OWN, least=0, most=1),
    "keep_tokens": Key("int", _OWN, least=0),
    "type": Key("text", _OWN, choices=("image", "slider", "reference")),
    **_all("text", "default_caption trigger_word caption_ext caption_type mask_path unconditional_path"),
    **_all("text", "diff_output_preservation_class guidance_type clip_image_path"),
    **_all("text", "control_path_1 control_path_2 control_path_3"),
    **_all("texts", "random_triggers augments control_path inpaint_path replacements controls"),
    **_all("bool", "random_scale random_crop buckets prior_reg shuffle_tokens flip_x flip_y alpha_mask invert_mask"),
    **_all("bool", "cache_latents cache_latents_to_disk cache_tensors_to_disk cache_clip_vision_to_disk"),
    **_all("bool", "cache_text_embeddings load_image_when_caching_latents standardize_images use_short_captions"),
    **_all("bool", "diff_output_preservation control_from_same_folder full_size_control_images square_crop"),
    **_all("bool", "shuffle_augmentations clip_image_from_same_folder clip_image_shuffle_augmentations"),
    **_all("bool", "replay_transforms shrink_video_to_frames auto_frame_count trim_auto_frame_count_tail debug"),
    **_all("bool", "fast_image_size do_i2v do_audio audio_preserve_pitch audio_normalize"),
    **_all("int", "random_triggers_max bucket_tolerance num_controls_from_same_folder num_workers prefetch_factor"),
    **_all("int", "cache_latents_num_workers num_frames fps"),
    **_all("number", "scale network_weight loss_multiplier"),
    **_all("ints", "control_transparent_color"),
    **_all("numbers", "extra_values"),
    **_all("tables", "augmentations clip_image_augmentations"),
}
SCHEMA = Schema("ai-toolkit", KEYS, labels={"datasets": "datasets"}, places={"datasets": "datasets", "reg": "datasets"})
_SECTIONS = ("network", "train", "model", "save", "sample")
_FAMILIES = ("sd15",)  # families whose recipe can be told in this trainer's words
_MADE_INTO_OTHERS = re.compile(r"\$\{|\[name\]")


def describe(material: Material) -> Description:
    """A dataset for each count of repeats, and one of regularisation pictures; the job around them from the recipe.

    Texts hold the identifier already, so no trigger word is named. A mask is a picture's namesake in `mask_path`; a
    picture without one would count as masked whole in a batch with others, so it gets a white one.
    """
    if _MADE_INTO_OTHERS.search(str(material.folder)):
        raise InvalidInput(
            f"ai-toolkit replaces ${{…}} and [name] in every text, so it would not find {material.folder}",
            field="--out",
            hint="choose another folder with --out",
        )
    given = SCHEMA.assign(material.options)
    shared = {
        "caption_ext": "txt",
        "resolution": [material.resolution],
        "batch_size": material.batch_size,
        "cache_latents_to_disk": True,
        **given["datasets"],
    }
    layout = lay_out(material, 1, shared.get("num_repeats"), str(shared["caption_ext"]), "folder")
    datasets = [
        {
            "folder_path": str(material.folder / group.folder),
            **({"mask_path": str(material.folder / group.masks)} if group.masks else {}),
            **shared,
            "num_repeats": group.repeats,
        }
        for group in layout.groups
    ]
    if material.regularisation:
        own = {"folder_path": str(material.folder / REGULARISATION), "is_reg": True}
        common = {key: shared[key] for key in ("caption_ext", "resolution", "batch_size", "cache_latents_to_disk")}
        datasets.append({**own, "default_caption": material.concept.category, **common, **given["reg"]})
    recipe = material.recipe
    whole = recipe if recipe and recipe.family in _FAMILIES and recipe.base.source != "builtin" else None
    process: dict[str, Any] = {"type": "sd_trainer", "training_folder": "output", "device": "cuda:0"}
    process |= {"datasets": datasets, **(_sections(whole, material.concept) if whole else {})}
    name = re.sub(r"\W+", "_", material.concept.identifier)
    content = {"job": "extension", "config": {"name": name, "process": [process]}}
    refused(SCHEMA.trainer, table_problems(content))
    run = f"python run.py {shlex.quote(str(material.file))}"
    return Description(yaml(SCHEMA.trainer, material, content), layout.files, run, _notes(whole))


def recognises(file: Path, content: Any) -> bool:
    """Every YAML file, and a JSON file that holds a job."""
    return file.suffix in (".yaml", ".yml") or (
        file.suffix == ".json" and isinstance(content, Mapping) and "job" in content
    )


def problems(file: Path, content: Any) -> list[str]:
    """What is wrong with the job's frame and its datasets. The trainer itself passes over unknown keys in silence."""
    if not isinstance(content, Mapping):
        return ["the file is no table: job and config are missing"]
    return table_problems(content) + folders_problems(content)


def table_problems(content: Mapping[str, Any]) -> list[str]:
    """What is wrong in the tables themselves."""
    known = ("job", "config", "meta")
    found = [f"unknown key {name!r} ({did_you_mean(str(name), known)})" for name in content if name not in known]
    found += [f"{name} is missing" for name in ("job", "config") if name not in content]
    config = content.get("config")
    if not isinstance(config, Mapping):
        return found
    found += [] if config.get("name") else ["config: name is missing"]
    processes = config.get("process")
    if not isinstance(processes, list) or not processes:
        return [*found, "config: process is missing: a list of what to do"]
    for number, process in enumerate(processes, 1):
        where = f"config.process {number}"
        if not isinstance(process, Mapping):
            found.append(f"{where} = {process!r} must be a table")
        elif not isinstance(process.get("datasets"), list) or not process["datasets"]:
            near = did_you_mean("datasets", [str(name) for name in process])
            found.append(f"{where}: datasets is missing: there is nothing to train on ({near})")
        else:
            for inner, dataset in enumerate(process["datasets"], 1):
                found += _dataset_problems(f"{where}, dataset {inner}", dataset)
    return found


def folders_problems(content: Mapping[str, Any]) -> list[str]:
    """What is wrong with the folders that the job names."""
    config = content.get("config")
    processes = config.get("process") if isinstance(config, Mapping) else None
    found = []
    for number, process in enumerate(processes if isinstance(processes, list) else [], 1):
        datasets = process.get("datasets") if isinstance(process, Mapping) else None
        for inner, dataset in enumerate(datasets if isinstance(datasets, list) else [], 1):
            if isinstance(dataset, Mapping):
                found += _folder_problems(f"config.process {number}, dataset {inner}", dataset)
    return found


def _dataset_problems(where: str, dataset: Any) -> list[str]:
    found = SCHEMA.problems(where, "datasets", dataset)
    if isinstance(dataset, Mapping) and not (dataset.get("folder_path") or dataset.get("dataset_path")):
        found.append(f"{where}: folder_path is missing")
    return found


def _folder_problems(where: str, dataset: Mapping[str, Any]) -> list[str]:
    found = folder_problems(where, "mask_path", dataset.get("mask_path"))
    path = dataset.get("dataset_path") or dataset.get("folder_path")
    if not isinstance(path, str):
        return found
    if dataset.get("dataset_path") and Path(path).is_file():
        return found  # a JSON file that lists pictures and captions
    found += folder_problems(where, "folder_path", path)
    if Path(path).is_dir():
        pictures = pictures_in(Path(path), recursive=True, suffixes=IMAGE_SUFFIXES)
        found += [] if pictures else [f"{where}: folder_path = {path!r} holds no picture"]
        otherwise = "" if dataset.get("default_caption") else "without default_caption the trainer takes an empty text"
        extension = dotted(str(dataset.get("caption_type") or dataset.get("caption_ext") or "txt"))
        found += caption_problems(where, pictures, extension, otherwise)
    return found


def _sections(recipe: Recipe, concept: Concept) -> dict[str, Any]:
    """The job's other sections, from the recipe."""
    training, optimizer = recipe.training, recipe.optimizer
    words = {"identifier": concept.identifier, "category": concept.category, "caption": ""}
    lora = {"network": {"type": "lora", "linear": recipe.method.rank, "linear_alpha": recipe.method.alpha}}
    return {
        **(lora if recipe.method.name == "lora" else {}),
        "train": {
            "batch_size": training.batch_size,
            "steps": training.steps,
            "gradient_accumulation_steps": training.accumulation,
            "train_unet": True,
            "train_text_encoder": recipe.method.train_text_encoder,
            "gradient_checkpointing": training.gradient_checkpointing,
            "noise_scheduler": "ddpm",
            "optimizer": "adamw",
            "lr": optimizer.learning_rate,
            "lr_scheduler": optimizer.schedule,
            "optimizer_params": {
                "betas": list(optimizer.betas), "eps": optimizer.epsilon, "weight_decay": optimizer.weight_decay,
            },
            "max_grad_norm": optimizer.max_grad_norm,
            "noise_offset": training.offset_noise,
            **({"min_snr_gamma": training.snr_gamma} if training.snr_gamma else {}),
            "reg_weight": recipe.prior.weight,
            "dtype": training.precision,
        },
        "model": {"name_or_path": recipe.base.source},
        "save": {
            "dtype": "float16", "save_every": recipe.checkpoints.every,
            "max_step_saves_to_keep": recipe.checkpoints.keep,
        },
        "sample": {
            "sampler": "ddpm",
            "sample_every": recipe.samples.every or training.steps,
            "width": training.resolution,
            "height": training.resolution,
            "prompts": [prompt.format(**words) for prompt in recipe.samples.prompts],
            "seed": training.seed,
            "guidance_scale": recipe.sampling.guidance,
            "sample_steps": recipe.sampling.steps,
        },
    }  # fmt: skip


def _notes(recipe: Recipe | None) -> tuple[str, ...]:
    if recipe is None:
        return (f"the job holds datasets only, since no recipe for it is configured: add {', '.join(_SECTIONS)}",)
    if recipe.optimizer.warmup_steps:
        return (f"ai-toolkit has no optimizer.warmup_steps for {recipe.optimizer.schedule!r}: it is left out",)
    return ()


TRAINER = Trainer("ai-toolkit", "{name}.ai-toolkit.yaml", describe, recognises, problems)
