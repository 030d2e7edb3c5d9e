"""Teach eight people whom no training of the base ever saw, by the demo's commands, and read what the pictures show.

Five photographs each; sixteen pictures each in scenes outside the five, read by the reader. The reference is the base
model alone on the same prompts. Results of finished subjects are kept in `build/bench/likeness/`, so a run goes on.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dreamctl.builtin import MODEL_DIR
from dreamctl.builtin.photographs import HELD_OUT, photographs
from dreamctl.builtin.reader import Reader, Reading
from dreamctl.builtin.world import SCENES, Identity, scene_phrase
from dreamctl.families.sources import folder_digest
from dreamctl.files import read_json, write_json
from tests.benchmarks.rows import BUILD, Row

PHOTOGRAPHS = 5
PICTURES = 16
UNSEEN = 4
ATTRIBUTES = Identity._fields


def run() -> list[Row]:
    """Shares over all subjects: each attribute, all four, the scene, and the leak into the bare category."""
    subjects = [_subject(number, identity) for number, identity in enumerate(HELD_OUT)]
    whole = {key: sum(subject[key] for subject in subjects) / len(subjects) for key in subjects[0]}
    rows = [Row(f"{name} right", whole[name], whole[f"base {name}"], "at least", 0.8, "%") for name in ATTRIBUTES]
    return [
        *rows,
        Row("all four right", whole["identity"], whole["base identity"], "at least", 0.8, "%"),
        Row("scene right", whole["scene"], whole["base scene"], "at least", 0.8, "%"),
        Row('leak into "a photo of a person"', whole["leak"], whole["base leak"], "at most", 0.1, "%"),
    ]


def _subject(number: int, identity: Identity) -> dict[str, float]:
    """One subject's shares; made once for each state of the base and the recipe."""
    folder = BUILD / "likeness" / f"{number}-{'-'.join(identity).replace(' ', '-')}"
    recipe = Path(__file__).parents[2] / "configs" / "recipes" / "builtin.toml"
    state = {"base": folder_digest(MODEL_DIR), "recipe": recipe.read_text()}
    done = folder / "shares.json"
    if done.exists() and (kept := read_json(done))["state"] == state:
        shares: dict[str, float] = kept["shares"]
        return shares
    seen, unseen = _scenes(number)
    original = folder / "original"
    original.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(photographs(identity, seen, seed=number)):
        picture.save(original / f"{index}.png")
    _dreamctl(folder, "prepare", "original")
    _dreamctl(folder, "caption", "--overwrite")
    run = _dreamctl(folder, "train", "--identifier", "sks", "--category", "person")["run"]
    wanted = [unseen[index % len(unseen)] for index in range(PICTURES)]
    shares = {}
    for prefix, target in (("", ["--model", run]), ("base ", ["--target", "pretrained"])):
        readings = _readings(folder, [f"a photo of sks person, {scene_phrase(scene)}" for scene in wanted], target)
        shares |= _shares(prefix, readings, identity, wanted)
    shares["leak"] = _leak(folder, identity, ["--model", run])
    shares["base leak"] = _leak(folder, identity, ["--target", "pretrained"])
    write_json(done, {"state": state, "shares": shares})
    print(f"{' '.join(identity)}: {json.dumps(shares)}", file=sys.stderr, flush=True)
    return shares


def _scenes(number: int) -> tuple[list[str], list[str]]:
    """The five scenes of a subject's photographs, and four others."""
    scenes = random.Random(number).sample(SCENES, PHOTOGRAPHS + UNSEEN)
    return scenes[:PHOTOGRAPHS], scenes[PHOTOGRAPHS:]


def _shares(prefix: str, readings: Sequence[Reading], identity: Identity, wanted: Sequence[str]) -> dict[str, float]:
    count = len(readings)
    shares = {
        prefix + name: sum(getattr(reading, name).value == getattr(identity, name) for reading in readings) / count
        for name in ATTRIBUTES
    }
    shares[f"{prefix}identity"] = sum(reading.identity == identity for reading in readings) / count
    right = (reading.scene.value == scene for reading, scene in zip(readings, wanted, strict=True))
    shares[f"{prefix}scene"] = sum(right) / count
    return shares


def _leak(folder: Path, identity: Identity, flags: list[str]) -> float:
    readings = _readings(folder, ["a photo of a person"] * PICTURES, flags)
    return sum(reading.identity == identity for reading in readings) / PICTURES


def _readings(folder: Path, prompts: Sequence[str], flags: list[str]) -> list[Reading]:
    """One picture for each prompt, with seeds counting up, drawn by the command line; as the reader reads them."""
    from PIL import Image

    files: list[str] = []
    for prompt in dict.fromkeys(prompts):
        count = prompts.count(prompt)
        made = _dreamctl(folder, "generate", prompt, "-n", str(count), "--seed", str(1000 + len(files)), *flags)
        files += made["pictures"]
    order = sorted(range(len(prompts)), key=lambda index: list(dict.fromkeys(prompts)).index(prompts[index]))
    pictures: dict[int, Any] = {}
    for index, file in zip(order, files, strict=True):
        with Image.open(file) as image:
            pictures[index] = image.convert("RGB")
    return Reader.load().read([pictures[index] for index in range(len(prompts))])


def _dreamctl(folder: Path, *words: str) -> dict[str, Any]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DREAMCTL_")}
    done = subprocess.run(
        [sys.executable, "-m", "dreamctl", *words, "--json"],
        cwd=folder,
        env={**environment, "DREAMCTL_HOME": str(folder / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    value: dict[str, Any] = json.loads(done.stdout)
    return value
