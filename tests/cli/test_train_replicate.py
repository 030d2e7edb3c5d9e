"""The main job by the commands, at Replicate: our own trainer in the real Cog server, and another's trainer."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clouds.replicate import ReplicateCloud, cog, replicate_cloud
from tests.clouds.robot import weights
from tests.fakes import write_dataset, write_pictures
from tests.workers.errand_kit import cog_project

KNOBS = (
    "training.steps=2", "training.resolution=64", "prior.pictures=0", "samples.prompts=[]", "sampling.steps=2",
    "training.batch_size=1",
)  # fmt: skip
FLUX = "ostris/flux-dev-lora-trainer"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[ReplicateCloud]:
    """Replicate, with this user's own account."""
    with replicate_cloud() as running:
        monkeypatch.setenv("REPLICATE_API_TOKEN", running.token)
        monkeypatch.setenv("DREAMCTL_REPLICATE_URL", running.url)
        monkeypatch.setenv("DREAMCTL_BACKEND", "replicate")
        yield running


def dreamctl(*words: str, code: int = 0) -> tuple[dict[str, Any], str]:
    done = subprocess.run([sys.executable, "-m", "dreamctl", *words, "--json"], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout), done.stderr


def test_from_pictures_to_a_picture_by_our_own_trainer(
    cloud: ReplicateCloud, clouds_python: Path, user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(user / "original", 3, size=100)
    dreamctl("prepare", "original", "--size", "64")
    with cog(clouds_python, cog_project(tmp_path / "trainer")) as server:
        cloud.run_on(server, "tester/dreamctl-trainer")
        monkeypatch.setenv("DREAMCTL_REPLICATE_TRAINER", "tester/dreamctl-trainer")
        sets = [word for knob in KNOBS for word in ("--set", knob)]
        words = ["train", "--category", "person", "--base-model", "builtin", "--recipe", "builtin-lora", "--yes", *sets]
        taught, _ = dreamctl(*words)
        assert (taught["state"], taught["versions"]) == ("succeeded", ["sks@1"])
        again, _ = dreamctl(*words)
    assert again["before"] and len(cloud.submissions) == 1
    told, _ = dreamctl("status", "last")
    assert (told["backend"], told["place"], told["step"]) == ("replicate", "tester/dreamctl-sks", 2)
    made, _ = dreamctl("generate", "a photo of sks person", "--steps", "2", "--size", "64")
    assert Path(made["pictures"][0]).is_file()


def flux_archive() -> bytes:
    """What ostris's trainer leaves: an uncompressed tar below output/."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in (("lora.safetensors", weights()), ("config.yaml", b"job: extension\n")):
            entry = tarfile.TarInfo(f"output/flux_train_replicate/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def test_somebody_else_s_trainer_maps_the_recipe_and_says_what_it_cannot(
    cloud: ReplicateCloud, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(user / "processed", size=512)
    monkeypatch.setenv("DREAMCTL_REPLICATE_TRAINER", FLUX)
    words = ["train", "--category", "person", "--identifier", "ohwx", "--set", "training.steps=12", "--yes"]
    words += ["--set", "training.resolution=512", "--set", "prior.pictures=50", "--set", "prior.weight=1.0"]
    begun, said = dreamctl(*words, "--input", "autocaption=true", "--detach")
    assert begun["state"] == "queued" and "replicate:" in said
    (asked,) = cloud.submissions
    assert asked["destination"] == "tester/dreamctl-ohwx"
    assert (asked["input"]["trigger_word"], asked["input"]["steps"]) == ("ohwx", 12)
    assert asked["input"]["autocaption"] is True
    assert "prior" in said and "hour" in said, "what does not map, and how long results stay"
    cloud.finish(cloud.newest, weights=flux_archive())
    told, _ = dreamctl("status", "last")
    assert (told["state"], told["versions"]) == ("succeeded", ["ohwx@1"])
    assert told["base"] == "black-forest-labs/FLUX.1-dev"
    _, refused = dreamctl("generate", "a photo of ohwx person", code=5)
    assert "FLUX.1-dev" in refused
    assert len(cloud.submissions) == 1
    _, wrong = dreamctl(*words, "--again", "--input", "steps=99999", code=2)
    assert "steps" in wrong and "6000" in wrong
