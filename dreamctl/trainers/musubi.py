"""kohya-ss/musubi-tuner: its own dialect of the dataset TOML, without subsets and with other names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamctl.errors import InvalidInput
from dreamctl.trainers.base import Description, Material, Trainer
from dreamctl.trainers.keys import Key, Schema, table_of, unknown_tables
from dreamctl.trainers.layout import dotted, lay_out
from dreamctl.trainers.look import caption_problems, folder_problems, pictures_in
from dreamctl.trainers.texts import command, refused, toml

_ANY = ("general", "datasets")
_BELOW = ("datasets", "general")
_OWN = ("datasets",)
_VIDEO = "a dreamctl dataset holds no videos"
_FOLDER = "name the dataset: dreamctl config dataset DATASET"

KEYS: Mapping[str, Key] = {
    "resolution": Key("size", _ANY, least=16),
    "caption_extension": Key("text", _ANY),
    "batch_size": Key("int", _ANY, least=1),
    "enable_bucket": Key("bool", _ANY),
    "bucket_no_upscale": Key("bool", _ANY),
    "num_repeats": Key("int", _BELOW, least=1),
    "image_directory": Key("text", _OWN, fixed=_FOLDER),
    "image_jsonl_file": Key("text", _OWN, fixed=_FOLDER),
    "cache_directory": Key("text", _OWN),
    "control_directory": Key("text", _OWN),
    "multiple_target": Key("bool", _OWN),
    "fp_latent_window_size": Key("int", _OWN, least=1),
    "fp_1f_clean_indices": Key("ints", _OWN),
    "fp_1f_target_index": Key("int", _OWN),
    "fp_1f_no_post": Key("bool", _OWN),
    "no_resize_control": Key("bool", _OWN),
    "control_resolution": Key("size", _OWN, least=16),
    "video_directory": Key("text", _OWN, fixed=_VIDEO),
    "video_jsonl_file": Key("text", _OWN, fixed=_VIDEO),
    "target_frames": Key("ints", _OWN, fixed=_VIDEO),
    "frame_extraction": Key("text", _OWN, fixed=_VIDEO, choices=("head", "chunk", "slide", "uniform", "full")),
    "frame_stride": Key("int", _OWN, fixed=_VIDEO, least=1),
    "frame_sample": Key("int", _OWN, fixed=_VIDEO, least=1),
    "max_frames": Key("int", _OWN, fixed=_VIDEO, least=1),
    "source_fps": Key("float", _OWN, fixed=_VIDEO),
}
SCHEMA = Schema(
    "musubi",
    KEYS,
    labels={"general": "[general]", "datasets": "[[datasets]]"},
    places={"general": "general", "datasets": "datasets"},
)
_SOURCES = ("image_directory", "image_jsonl_file", "video_directory", "video_jsonl_file")
_VIDEO_KEYS = {name for name, key in KEYS.items() if key.fixed == _VIDEO}
_BOTH = {"cache_directory", "control_directory", "fp_latent_window_size"}
_STEP = 16  # of every architecture but HiDream-O1's, which has 32


def describe(material: Material) -> Description:
    """A dataset for each count of repeats, each with a cache of its own, as the trainer demands."""
    if material.regularisation:
        raise InvalidInput("musubi-tuner knows no regularisation pictures", field="--reg", hint="leave --reg out")
    given = SCHEMA.assign(material.options)
    general = {
        "resolution": material.resolution,
        "caption_extension": ".txt",
        "batch_size": material.batch_size,
        "enable_bucket": not material.square,
        **given["general"],
    }
    above = {**general, **given["datasets"]}
    layout = lay_out(material, 1, above.get("num_repeats"), above["caption_extension"], "none")
    datasets = [
        {
            "image_directory": str(material.folder / group.folder),
            "cache_directory": str(material.folder / group.folder.replace("pictures", "cache")),
            "num_repeats": group.repeats,
            **given["datasets"],
        }
        for group in layout.groups
    ]
    content = {"general": general, "datasets": datasets}
    refused(SCHEMA.trainer, table_problems(content))
    notes = ("musubi-tuner knows no masks: margins and backgrounds are taught too",)
    masked = any(item.mask for item in material.items)
    return Description(
        toml(SCHEMA.trainer, material, content), layout.files, _command(material), notes if masked else ()
    )


def recognises(file: Path, content: Any) -> bool:
    """A TOML or JSON file whose datasets name their pictures in this dialect, and have no subsets."""
    datasets = content.get("datasets") if isinstance(content, Mapping) else None
    tables = [item for item in datasets if isinstance(item, Mapping)] if isinstance(datasets, list) else []
    named = any(key in table for table in tables for key in _SOURCES)
    return file.suffix in (".toml", ".json") and named and not any("subsets" in table for table in tables)


def problems(file: Path, content: Any) -> list[str]:
    """Everything that would stop the trainer, or make it leave something out in silence."""
    return table_problems(content) + folders_problems(content)


def table_problems(content: Mapping[str, Any]) -> list[str]:
    """What is wrong in the tables themselves."""
    found = [*unknown_tables(content), *SCHEMA.problems("[general]", "general", content.get("general", {}))]
    general, caches = table_of(content.get("general")), set()
    for number, dataset in enumerate(content["datasets"], 1):
        where, table = f"[[datasets]] {number}", table_of(dataset)
        video = "video_directory" in table or "video_jsonl_file" in table
        left_out = set(KEYS) - _VIDEO_KEYS - _BOTH - _general() if video else _VIDEO_KEYS
        keys = {name: key for name, key in KEYS.items() if name not in left_out}
        found += SCHEMA.problems(where, "datasets", dataset, keys)
        if not any(key in table for key in _SOURCES):
            found.append(f"{where}: none of {', '.join(_SOURCES)} is there")
        cache = table.get("cache_directory") or table.get("image_directory") or table.get("video_directory")
        if cache is None and any(key in table for key in _SOURCES):
            found.append(f"{where}: cache_directory is missing: pictures named in a jsonl file need one")
        elif cache is not None and str(cache) in caches:
            found.append(f"{where}: cache_directory {str(cache)!r} again: each dataset needs its own")
        caches.add(str(cache))
        found += _size_problems(where, {**general, **table})
    return found


def folders_problems(content: Mapping[str, Any]) -> list[str]:
    """What is wrong with the folders and files that the description names."""
    general, found = table_of(content.get("general")), []
    for number, dataset in enumerate(content["datasets"], 1):
        where, table = f"[[datasets]] {number}", table_of(dataset)
        for key in ("image_directory", "video_directory", "control_directory"):
            found += folder_problems(where, key, table.get(key))
        folder, listed = table.get("image_directory"), table.get("image_jsonl_file")
        if isinstance(folder, str) and Path(folder).is_dir():
            found += _picture_problems(where, Path(folder), {**general, **table}.get("caption_extension"))
        if isinstance(listed, str):
            found += _listed_problems(where, Path(listed))
    return found


def _general() -> set[str]:
    return {name for name, key in KEYS.items() if "general" in key.levels}


def _size_problems(where: str, values: Mapping[str, Any]) -> list[str]:
    size = values.get("resolution")
    sides = size if isinstance(size, list) else [size]
    wrong = any(isinstance(side, int) and side % _STEP for side in sides)
    return [f"{where}: resolution = {size!r} is not a multiple of {_STEP}"] if wrong else []


def _picture_problems(where: str, folder: Path, extension: Any) -> list[str]:
    pictures = pictures_in(folder)
    if not pictures:
        return [f"{where}: image_directory = {str(folder)!r} holds no picture"]
    if not isinstance(extension, str):
        return [f"{where}: caption_extension is missing here and in [general]: the trainer reads no caption without it"]
    return caption_problems(where, pictures, dotted(extension), "the trainer leaves a picture without caption out")


def _listed_problems(where: str, file: Path) -> list[str]:
    """Lines of an `image_jsonl_file` that are no picture with a caption."""
    if not file.is_file():
        return [f"{where}: image_jsonl_file = {str(file)!r} is not a file on this computer"]
    found = []
    for number, text in enumerate(file.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n"), 1):
        try:
            row = json.loads(text)
        except ValueError:
            row = None
        if not isinstance(row, dict) or "caption" not in row:
            found.append(f"{where}: {file.name}, line {number}: not an object with image_path and caption")
            continue
        paths = [value for key, value in row.items() if key.startswith("image_path")]
        gone = [path for path in paths if not Path(str(path)).is_file()]
        found += [f"{where}: {file.name}, line {number}: {path} does not exist" for path in gone]
        found += [] if paths else [f"{where}: {file.name}, line {number}: image_path is missing"]
    return found


def _command(material: Material) -> str:
    """The three steps; which architecture's scripts they are is the user's to say."""
    flags = {"--dataset_config": material.file}
    steps = [
        command("python", f"ARCHITECTURE_{script}.py", flags)
        for script in ("cache_latents", "cache_text_encoder_outputs")
    ]
    return " && ".join([*steps, command("accelerate launch", "ARCHITECTURE_train_network.py", flags)])


TRAINER = Trainer("musubi", "{name}.musubi.toml", describe, recognises, problems)
