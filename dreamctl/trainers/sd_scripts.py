"""kohya-ss/sd-scripts: the TOML of `--dataset_config`, with the types and levels that its validation has (v0.10.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dreamctl.trainers import musubi
from dreamctl.trainers.base import Description, Material, Trainer
from dreamctl.trainers.keys import Key, Schema, table_of, unknown_tables
from dreamctl.trainers.layout import REGULARISATION, dotted, lay_out
from dreamctl.trainers.look import caption_problems, folder_problems, pictures_in
from dreamctl.trainers.texts import command, refused, toml

_SUBSET = ("subsets", "datasets", "general")
_DATASET = ("datasets", "general")
_BATCH = ("datasets", "subsets", "general")  # a batch may mix subsets: put above them, they cannot differ
_OWN = ("subsets",)
_RESIZE = ("lanczos", "nearest", "bilinear", "linear", "bicubic", "cubic", "area", "box")
_OTHER_KIND = "a dreamctl dataset is of the DreamBooth kind: pictures with captions beside them"

KEYS: Mapping[str, Key] = {
    "resolution": Key("size", _DATASET, least=8),
    "batch_size": Key("int", _DATASET, least=1),
    "enable_bucket": Key("bool", _DATASET),
    "min_bucket_reso": Key("int", _DATASET, least=1),
    "max_bucket_reso": Key("int", _DATASET, least=1),
    "bucket_reso_steps": Key("int", _DATASET, least=8, step=8),
    "bucket_no_upscale": Key("bool", _DATASET),
    "validation_split": Key("float", _DATASET, least=0, most=1),
    "validation_seed": Key("int", _DATASET),
    "network_multiplier": Key("float", _DATASET),
    "resize_interpolation": Key("text", ("datasets", "subsets", "general"), choices=_RESIZE),
    "caption_extension": Key("text", ("general", "datasets", "subsets")),
    "class_tokens": Key("text", _SUBSET),
    "num_repeats": Key("int", _SUBSET, least=1),
    "color_aug": Key("bool", _BATCH),
    "flip_aug": Key("bool", _BATCH),
    "random_crop": Key("bool", _BATCH),
    "face_crop_aug_range": Key("range", _SUBSET, least=1),
    "shuffle_caption": Key("bool", _SUBSET),
    "caption_separator": Key("text", _SUBSET),
    "keep_tokens": Key("int", _SUBSET, least=0),
    "keep_tokens_separator": Key("text", _SUBSET),
    "secondary_separator": Key("text", _SUBSET),
    "enable_wildcard": Key("bool", _SUBSET),
    "caption_prefix": Key("text", _SUBSET),
    "caption_suffix": Key("text", _SUBSET),
    "caption_dropout_rate": Key("number", _SUBSET, least=0, most=1),
    "caption_dropout_every_n_epochs": Key("int", _SUBSET, least=0),
    "caption_tag_dropout_rate": Key("number", _SUBSET, least=0, most=1),
    "token_warmup_min": Key("int", _SUBSET, least=0),
    "token_warmup_step": Key("number", _SUBSET, least=0),
    "custom_attributes": Key("table", _SUBSET),
    "cache_info": Key("bool", _SUBSET),
    "alpha_mask": Key("bool", _OWN),
    "image_dir": Key("text", _OWN, fixed="name the dataset: dreamctl config dataset DATASET"),
    "is_reg": Key("bool", _OWN, fixed="name the folder of regularisation pictures with --reg FOLDER"),
    "metadata_file": Key("text", _OWN, fixed=_OTHER_KIND),
    "conditioning_data_dir": Key("text", _OWN, fixed=_OTHER_KIND),
}
SCHEMA = Schema(
    "sd-scripts",
    KEYS,
    labels={"general": "[general]", "datasets": "[[datasets]]", "subsets": "[[datasets.subsets]]"},
    places={"general": "general", "datasets": "datasets", "subsets": "subsets", "reg": "subsets"},
)
# A dataset's kind is decided by a key that all of its subsets have; then these keys have no meaning.
_FOREIGN = {
    "DreamBooth": {"metadata_file", "conditioning_data_dir"},
    "fine-tuning": {"conditioning_data_dir", "class_tokens", "caption_extension", "cache_info", "is_reg"},
    "ControlNet": {"metadata_file", "class_tokens", "is_reg", "alpha_mask"},
}
_DEFAULTS = {"min_bucket_reso": 256, "max_bucket_reso": 1024, "bucket_reso_steps": 64, "caption_extension": ".caption"}
_SCRIPTS = {"sd15": "train_network.py", "sdxl": "sdxl_train_network.py"}


def describe(material: Material) -> Description:
    """One dataset; a subset for each count of repeats, and one of regularisation pictures.

    The trainer takes a caption file's first line as it stands and `class_tokens` only where there is none; it adds no
    identifier. A mask is the picture's alpha channel, since the other way, a folder of masks, excludes regularisation.
    """
    given = SCHEMA.assign(material.options)
    general = {"caption_extension": ".txt", **given["general"]}
    above, subset, reg = {**general, **given["datasets"]}, given["subsets"], given["reg"]
    extension = subset.get("caption_extension", above["caption_extension"])
    repeats = subset.get("num_repeats", above.get("num_repeats"))
    masked = {"alpha_mask": True} if subset.get("alpha_mask", any(item.mask for item in material.items)) else {}
    reg = {"caption_extension": extension, **reg} if "caption_extension" in subset else reg
    reg_extension = reg.get("caption_extension", extension)
    layout = lay_out(material, 10, repeats, extension, "alpha" if masked else "none", reg_extension)
    concept = material.concept
    shared = {} if "class_tokens" in above else {"class_tokens": f"{concept.identifier} {concept.category}"}
    subsets: list[dict[str, Any]] = [
        {"image_dir": str(material.folder / group.folder), **shared, "num_repeats": group.repeats, **masked, **subset}
        for group in layout.groups
    ]
    if material.regularisation:
        folder = str(material.folder / REGULARISATION)
        shared = {"class_tokens": concept.category}
        subsets.append({"image_dir": folder, "is_reg": True, **shared, "num_repeats": 1, **masked, **reg})
    dataset = {**_dataset(material, general, given["datasets"]), "subsets": subsets}
    content = {"general": general, "datasets": [dataset]}
    refused(SCHEMA.trainer, table_problems(content))
    script = _SCRIPTS.get(material.recipe.family if material.recipe else "sd15", "train_network.py")
    return Description(toml(SCHEMA.trainer, material, content), layout.files, _command(script, material))


def recognises(file: Path, content: Any) -> bool:
    """A TOML or JSON file with datasets in it, unless they are in musubi-tuner's dialect."""
    if file.suffix not in (".toml", ".json") or not isinstance(content, Mapping):
        return False
    return bool({"general", "datasets"} & content.keys()) and not musubi.recognises(file, content)


def problems(file: Path, content: Any) -> list[str]:
    """Everything that would stop the trainer, or make it leave something out in silence."""
    return table_problems(content) + folders_problems(content)


def table_problems(content: Mapping[str, Any]) -> list[str]:
    """What is wrong in the tables themselves."""
    found = [*unknown_tables(content), *SCHEMA.problems("[general]", "general", content.get("general", {}))]
    general = table_of(content.get("general"))
    datasets = content.get("datasets")
    if not isinstance(datasets, list) or not datasets:
        return [*found, "[[datasets]] is missing: there is nothing to train on"]
    for number, dataset in enumerate(datasets, 1):
        where = f"[[datasets]] {number}"
        if not isinstance(dataset, Mapping):
            found.append(f"{where} = {dataset!r} must be a table")
        else:
            found += _dataset_problems(where, general, dataset)
    return found


def folders_problems(content: Mapping[str, Any]) -> list[str]:
    """What is wrong with the folders and files that the description names."""
    general, found = table_of(content.get("general")), []
    for where, dataset, subset in _subsets(content):
        values = {**_DEFAULTS, **general, **dataset, **subset}
        for key in ("image_dir", "conditioning_data_dir"):
            if key in subset:
                found += folder_problems(where, key, subset[key])
        metadata = subset.get("metadata_file")
        if isinstance(metadata, str) and not Path(metadata).is_file():
            found.append(f"{where}: metadata_file = {metadata!r} is not a file on this computer")
        folder = subset.get("image_dir")
        if metadata is None and isinstance(folder, str) and Path(folder).is_dir():
            found += _picture_problems(where, Path(folder), values)
    return found


def _dataset(material: Material, general: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The dataset's own keys, with buckets where the pictures are not square, and bounds that hold the resolution."""
    table: dict[str, Any] = {
        key: value
        for key, value in (("resolution", material.resolution), ("batch_size", material.batch_size))
        if key not in general
    }
    if not material.square and "enable_bucket" not in general:
        table["enable_bucket"] = True
    table |= given
    above = {**_DEFAULTS, **general, **table}
    if above.get("enable_bucket"):
        sides = _sides(above.get("resolution"))
        if "max_bucket_reso" not in {**general, **given} and max(sides) > above["max_bucket_reso"]:
            table["max_bucket_reso"] = max(sides)
        if "min_bucket_reso" not in {**general, **given} and min(sides) < above["min_bucket_reso"]:
            table["min_bucket_reso"] = min(sides)
    return table


def _dataset_problems(where: str, general: Mapping[str, Any], dataset: Mapping[str, Any]) -> list[str]:
    own = {key: value for key, value in dataset.items() if key != "subsets"}
    found = SCHEMA.problems(where, "datasets", own)
    subsets = dataset.get("subsets")
    if not isinstance(subsets, list) or not subsets:
        return [*found, f"{where}: [[datasets.subsets]] is missing: there is nothing to train on"]
    tables = [table_of(subset) for subset in subsets]
    kind = _kind(tables)
    if kind is None:
        found.append(f"{where}: some subsets have metadata_file and some have not: put them into datasets of their own")
    keys = {name: key for name, key in KEYS.items() if name not in _FOREIGN.get(kind or "", set())}
    for number, subset in enumerate(subsets, 1):
        place = f"{where}, subset {number}"
        found += SCHEMA.problems(place, "subsets", subset, keys)
        if kind != "fine-tuning" and not table_of(subset).get("image_dir"):
            found.append(f"{place}: image_dir is missing")
    found += _size_problems(where, {**_DEFAULTS, **general, **own})
    return found + _together(where, {**general, **own}, tables)


def _together(where: str, above: Mapping[str, Any], subsets: list[Mapping[str, Any]]) -> list[str]:
    """What holds only between the subsets of a dataset."""
    found, seen = [], set()
    for number, subset in enumerate(subsets, 1):
        folder = str(subset.get("image_dir"))
        if folder in seen:
            found.append(f"{where}, subset {number}: image_dir {folder!r} again: the trainer takes the first alone")
        seen.add(folder)
    for key in ("flip_aug", "alpha_mask", "random_crop"):
        if len({bool(subset.get(key, above.get(key, False))) for subset in subsets}) > 1:
            found.append(f"{where}: {key} differs between its subsets: the trainer stops at a batch that mixes them")
    if all(subset.get("is_reg") is True for subset in subsets):
        found.append(f"{where}: all subsets are regularisation (is_reg): there is nothing to teach")
    return found


def _size_problems(where: str, values: Mapping[str, Any]) -> list[str]:
    """A resolution that does not fit the buckets. Values of a wrong type are told of elsewhere."""
    sides, low, high = _sides(values.get("resolution")), values["min_bucket_reso"], values["max_bucket_reso"]
    buckets = values.get("enable_bucket") is True
    step = values["bucket_reso_steps"] if buckets else 8
    if not sides or not all(isinstance(number, int) and number > 0 for number in (low, high, step)):
        return []
    label = f"{where}: resolution = {values['resolution']!r}"
    name = "bucket_reso_steps = " if buckets else ""
    found = [f"{label} is not a multiple of {name}{step}"] if any(side % step for side in sides) else []
    if buckets and min(sides) < low - low % step:
        found.append(f"{label} is below min_bucket_reso = {low}")
    if buckets and max(sides) > high + -high % step:
        found.append(f"{label} is above max_bucket_reso = {high}")
    return found


def _picture_problems(where: str, folder: Path, values: Mapping[str, Any]) -> list[str]:
    pictures = pictures_in(folder)
    if not pictures:
        return [f"{where}: image_dir = {str(folder)!r} holds no picture, so the trainer leaves the subset out"]
    otherwise = "" if values.get("class_tokens") else "without class_tokens the trainer takes an empty text"
    found = caption_problems(where, pictures, dotted(str(values["caption_extension"])), otherwise)
    masks = values.get("conditioning_data_dir")
    if isinstance(masks, str) and Path(masks).is_dir():
        there = {path.stem for path in pictures_in(Path(masks))}
        without = [path.name for path in pictures if path.stem not in there]
        found += [f"{where}: no picture in conditioning_data_dir for {', '.join(without[:3])}"] if without else []
    return found


def _subsets(content: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    datasets = content.get("datasets")
    for number, dataset in enumerate(datasets if isinstance(datasets, list) else [], 1):
        subsets = table_of(dataset).get("subsets")
        for inner, subset in enumerate(subsets if isinstance(subsets, list) else [], 1):
            yield f"[[datasets]] {number}, subset {inner}", table_of(dataset), table_of(subset)


def _kind(subsets: list[Mapping[str, Any]]) -> str | None:
    if all("conditioning_data_dir" in subset for subset in subsets):
        return "ControlNet"
    described = ["metadata_file" in subset for subset in subsets]
    return "fine-tuning" if all(described) else None if any(described) else "DreamBooth"


def _sides(value: Any) -> list[int]:
    sides = value if isinstance(value, list) else [value]
    return sides if all(isinstance(side, int) and not isinstance(side, bool) for side in sides) else []


def _command(script: str, material: Material) -> str:
    flags: dict[str, object] = {
        "--pretrained_model_name_or_path": material.base,
        "--dataset_config": material.file,
        "--network_module": "networks.lora",
        "--output_dir": "OUTPUT",
    }
    if material.regularisation and material.recipe:
        flags["--prior_loss_weight"] = material.recipe.prior.weight
    return command("accelerate launch --num_cpu_threads_per_process 1", script, flags)


TRAINER = Trainer("sd-scripts", "{name}.sd-scripts.toml", describe, recognises, problems)
