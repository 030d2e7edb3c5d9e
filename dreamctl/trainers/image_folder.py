"""The example scripts of diffusers: an ImageFolder with `metadata.jsonl` (`file_name`, `text`)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dreamctl.errors import InvalidInput
from dreamctl.trainers.base import Content, Copied, Description, Item, Material, Trainer
from dreamctl.trainers.keys import Key, Schema
from dreamctl.trainers.layout import grouped
from dreamctl.trainers.look import pictures_in
from dreamctl.trainers.texts import command

FILE = "metadata.jsonl"
_FLAG = ("flags",)
# What other trainers read from the description stands on the command line of these scripts.
KEYS: Mapping[str, Key] = {
    "resolution": Key("int", _FLAG, least=8, step=8),
    "batch_size": Key("int", _FLAG, least=1),
    "num_repeats": Key("int", _FLAG, least=1),
    "caption_column": Key("text", _FLAG),
}
SCHEMA = Schema("diffusers", KEYS, labels={"flags": "the command"}, places={"flags": "flags"})
# A script, and its flag for the folder. SD 1.5's DreamBooth script reads no captions, so it is not the one for them.
_DREAMBOOTH = ("train_dreambooth_lora_sdxl.py", "--dataset_name")
_TEXT_TO_IMAGE = ("train_text_to_image_lora.py", "--train_data_dir")
_SCRIPTS = {"sd15": _TEXT_TO_IMAGE, "sdxl": _DREAMBOOTH}


def describe(material: Material) -> Description:
    """Pictures beside the list, which has one row a picture: one that is repeated more often lies there more often."""
    if material.regularisation and _script(material) is not _DREAMBOOTH:
        script = _script(material)[0]
        raise InvalidInput(f"{script} knows no regularisation pictures", field="--reg", hint="leave --reg out")
    given = SCHEMA.assign(material.options)["flags"]
    column = given.get("caption_column", "text")
    groups = grouped(material.items, 1, given.get("num_repeats"))
    common = math.gcd(*groups)
    files: dict[str, Content] = {}
    rows = []
    for repeats, items in groups.items():
        for name, item in _copies(items, repeats // common):
            files[name] = Copied(item.file)
            rows.append({"file_name": name, column: item.text})
    text = "".join(
        json.dumps(row, ensure_ascii=False) + "\n" for row in sorted(rows, key=lambda row: str(row["file_name"]))
    )
    return Description(text, files, _command(material, given, column, common), tuple(_notes(material)))


def recognises(file: Path, content: Any) -> bool:
    return file.suffix == ".jsonl"


def problems(file: Path, content: list[str]) -> list[str]:
    """Everything that would stop `datasets`, or leave a picture or its text out."""
    found = [] if file.name == FILE else [f"{file.name}: the ImageFolder of `datasets` reads {FILE} alone"]
    rows: list[tuple[int, dict[str, Any]]] = []
    for number, text in enumerate(content, 1):
        row = _row(text)
        if row is None:
            found.append(f"line {number}: not a JSON object")
        else:
            rows.append((number, row))
    if not content:
        found.append("there is no line in it")
    names: dict[str, int] = {}
    for number, row in rows:
        found += _row_problems(file.parent, number, row, rows[0][1], names)
    there = {path.relative_to(file.parent).as_posix() for path in pictures_in(file.parent, recursive=True)}
    return found + [f"{name} lies in the folder and in no line" for name in sorted(there - set(names))]


def _row_problems(
    folder: Path, number: int, row: dict[str, Any], first: dict[str, Any], names: dict[str, int]
) -> Iterator[str]:
    where, name = f"line {number}", row.get("file_name")
    if not isinstance(name, str) or not name:
        yield f"{where}: file_name = {name!r} must be the picture's path from this folder"
    elif name in names:
        yield f"{where}: {name} stands in line {names[name]} already"
    elif not (folder / name).is_file():
        yield f"{where}: {name} does not exist"
    if isinstance(name, str):
        names.setdefault(name, number)
    if row.keys() != first.keys():
        yield f"{where}: keys {', '.join(row)}; the first line has {', '.join(first)}"
    texts = {key: value for key, value in row.items() if key != "file_name"}
    if not texts:
        yield f"{where}: there is no text beside file_name"
    for key, value in texts.items():
        if key == "text" and not (isinstance(value, str) and value.strip()):
            yield f"{where}: text = {value!r} must be the picture's text"


def _copies(items: list[Item], count: int) -> Iterator[tuple[str, Item]]:
    for item in items:
        for number in range(1, count + 1):
            ending = f"-{number}" if number > 1 else ""
            yield f"{item.stem}{ending}{item.file.suffix.lower()}", item


def _notes(material: Material) -> Iterator[str]:
    if any(item.mask for item in material.items):
        yield "the scripts of diffusers know no masks: margins and backgrounds are taught too"
    if not material.square:
        yield "most scripts of diffusers crop to a square: prepare the pictures square"
    if material.regularisation:
        folder = material.regularisation[0].file.parent
        yield f"the script opens every file in {folder} as a picture: nothing else may lie there"


def _script(material: Material) -> tuple[str, str]:
    return _SCRIPTS.get(material.recipe.family, _DREAMBOOTH) if material.recipe else _DREAMBOOTH


def _command(material: Material, given: Mapping[str, Any], column: str, repeats: int) -> str:
    script, folder_flag = _script(material)
    concept = material.concept
    flags: dict[str, object] = {
        "--pretrained_model_name_or_path": material.base,
        folder_flag: material.folder,
        "--caption_column": column,
        "--resolution": given.get("resolution", material.resolution),
        "--train_batch_size": given.get("batch_size", material.batch_size),
        "--output_dir": "OUTPUT",
    }
    if script == _DREAMBOOTH[0]:
        flags |= {"--instance_prompt": f"a photo of {concept.identifier} {concept.category}", "--repeats": repeats}
        if material.regularisation:
            flags |= {
                "--with_prior_preservation": True,
                "--class_data_dir": material.regularisation[0].file.parent,
                "--class_prompt": f"a photo of a {concept.category}",
                "--num_class_images": len(material.regularisation),
            }
    return command("accelerate launch", script, flags)


def _row(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


TRAINER = Trainer("diffusers", FILE, describe, recognises, problems)
