"""What each trainer would teach a picture with, read from its description as that trainer reads it.

The rules are those of the trainers' own code: which files they take for pictures, and where a text comes from.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import yaml

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


def pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)


def sd_scripts(file: Path) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Each subset with its inherited values, and text by picture: a caption file's first line, else class_tokens."""
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    found = []
    for dataset in content["datasets"]:
        above = {**content.get("general", {}), **{key: dataset[key] for key in dataset if key != "subsets"}}
        for subset in dataset["subsets"]:
            values = {"caption_extension": ".caption", "class_tokens": "", **above, **subset}
            texts = {}
            for picture in pictures(Path(values["image_dir"])):
                beside = picture.with_suffix(values["caption_extension"])
                text = beside.read_text().splitlines()[0].strip() if beside.exists() else values["class_tokens"]
                words = (values.get("caption_prefix"), text, values.get("caption_suffix"))
                texts[picture.name] = " ".join(word for word in words if word)
            found.append((values, texts))
    return found


def musubi(file: Path) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Each dataset; only pictures that have a caption file count."""
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    found = []
    for dataset in content["datasets"]:
        values = {**content["general"], **dataset}
        captions = {
            picture: picture.with_suffix(values["caption_extension"])
            for picture in pictures(Path(values["image_directory"]))
        }
        found.append((values, {key.name: text.read_text().strip() for key, text in captions.items() if text.exists()}))
    return found


def ai_toolkit(file: Path) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Each dataset; sub-folders are walked too."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    found = []
    for dataset in content["config"]["process"][0]["datasets"]:
        texts = {}
        for picture in sorted(path for path in Path(dataset["folder_path"]).rglob("*") if path.suffix in SUFFIXES):
            beside = picture.with_suffix("." + dataset["caption_ext"])
            texts[picture.name] = beside.read_text().strip() if beside.exists() else dataset.get("default_caption", "")
        found.append((dataset, texts))
    return found


def diffusers(file: Path) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """The one ImageFolder."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert {row["file_name"] for row in rows} == {path.name for path in pictures(file.parent)}
    return [({}, {row["file_name"]: row["text"] for row in rows})]


READERS = {"sd-scripts": sd_scripts, "musubi": musubi, "ai-toolkit": ai_toolkit, "diffusers": diffusers}
