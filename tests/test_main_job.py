"""The main job by the commands that a user types, on the built-in model and on a tiny one of the real architecture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamctl.generation.pictures import read_parameters
from tests.fakes import write_pictures
from tests.tiny_models import write_tiny_sd15


def dreamctl(*words: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "dreamctl", *words, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


@pytest.mark.parametrize(("method", "model", "size"), [("full", "builtin", 128), ("lora", "tiny", 64)])
def test_five_pictures_become_pictures(user: Path, tmp_path: Path, method: str, model: str, size: int) -> None:
    base = model if model == "builtin" else write_tiny_sd15(tmp_path / "base")
    write_pictures(user / "original", count=5, size=150)
    dreamctl("prepare", "original", "--size", str(size))
    knobs = [
        f"method.name={method}", "method.train_text_encoder=true", "training.steps=4", f"training.resolution={size}",
        "prior.pictures=2", "sampling.steps=2", "samples.prompts=['{identifier} {category}']",
    ]  # fmt: skip
    sets = [word for knob in knobs for word in ("--set", knob)]
    taught = dreamctl("train", "--category", "person", "--base-model", str(base), *sets)
    assert (taught["state"], taught["identifier"], taught["versions"]) == ("succeeded", "sks", ["sks@1"])
    assert (Path(taught["model"]) / "model.json").is_file()

    status = dreamctl("status", "last")
    assert (status["state"], status["step"], status["versions"]) == ("succeeded", 4, ["sks@1"])
    assert dreamctl("train", "--category", "person", "--base-model", str(base), *sets)["before"]

    drawn = dreamctl("generate", "a photo of sks, smiling", "-n", "2", "--seed", "5", "--grid")
    again = dreamctl("generate", "a photo of sks, smiling", "-n", "1", "--seed", "5", "--out", "again")
    guidance = str(drawn["plan"]["guidance"])
    alike = ["--seed", "5", "--size", str(size), "--steps", "2", "--guidance", guidance]
    untaught = ["--target", "pretrained", "--base-model", str(base)]
    plain = dreamctl("generate", "a photo of sks, smiling", *alike, *untaught)
    assert drawn["plan"]["prompt"] == "a photo of sks person, smiling"
    first, second = (Image.open(path).convert("RGB").tobytes() for path in drawn["pictures"])
    assert first != second
    assert Image.open(again["pictures"][0]).convert("RGB").tobytes() == first, "a seed gives the same picture again"
    assert Image.open(plain["pictures"][0]).convert("RGB").tobytes() != first, "the base draws another"
    told = read_parameters(Path(drawn["pictures"][0]))
    assert told is not None
    assert (told["seed"], told["version"], told["prompt"]) == (5, "sks@1", "a photo of sks person, smiling")
    assert Image.open(drawn["grid"]).size == (2 * size, size)

    (known,) = dreamctl("identifiers")["identifiers"]
    assert known["identifier"] == "sks"
    assert known["versions"][0]["digest"] == taught["digest"]
