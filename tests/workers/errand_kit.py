"""Errands that take seconds, for tests: three pictures, two steps on the built-in model."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

from dreamctl.cargo import pack_data
from dreamctl.domain.errand import Archive, Errand, News, Place
from dreamctl.domain.recipe import Recipe
from dreamctl.files import sha256_file
from dreamctl.recipes import resolve
from dreamctl.runfolder import RunFolder
from tests.fakes import write_dataset, write_run

QUICK: dict[str, Any] = {
    "training": {"resolution": 64, "steps": 2},
    "prior": {"weight": 0.0, "pictures": 0},
    "samples": {"prompts": []},
}
ENDLESS: dict[str, Any] = {"training": {"resolution": 64, "steps": 3_000}}  # minutes, should nobody end it


def quick_recipe(*changes: dict[str, Any]) -> Recipe:
    """A LoRA of the built-in model in two steps, with changes."""
    return resolve("builtin-lora", [QUICK, *changes])


def quick_run(folder: Path, recipe: Recipe | None = None) -> RunFolder:
    """The run as the client has it."""
    return write_run(folder / "runs", write_dataset(folder / "dataset", count=3), recipe or quick_recipe())


def pack(run: RunFolder) -> Path:
    """The run's packed pictures, beside its folder."""
    archive = run.path.with_suffix(".zip")
    pack_data(run.data, archive)
    return archive


def errand_of(run: RunFolder, storage: Place | None = None, url: str | None = None) -> Errand:
    """What the client asks of a worker: the pictures inline, or at `url`."""
    archive = pack(run)
    data = None if url else base64.b64encode(archive.read_bytes()).decode()
    return Errand(
        op="train",
        run=run.record(),
        recipe=run.recipe(),
        concept=run.concept(),
        dataset=run.manifest(),
        archive=Archive(sha256=sha256_file(archive), bytes=archive.stat().st_size, url=url, data=data),
        storage=storage,
    )


def cog_project(folder: Path) -> Path:
    """A folder for `tests.clouds.replicate.cog`: our trainer, and the schema that `cog build` makes of it."""
    import dreamctl.workers

    trainer = Path(dreamctl.workers.__file__).parent / "cog" / "train.py"
    (folder / ".cog").mkdir(parents=True)
    (folder / "train.py").symlink_to(trainer)
    properties = {
        "input_images": {"title": "Input Images", "type": "string", "format": "uri", "x-order": 0},
        "dreamctl": {"title": "Dreamctl", "type": "string", "x-order": 1},
    }
    inputs = {"title": "TrainingInput", "type": "object", "required": list(properties), "properties": properties}
    whole = {"openapi": "3.0.2", "info": {"title": "Cog", "version": "0.1.0"}, "paths": {}}
    (folder / ".cog" / "openapi_schema.json").write_text(
        json.dumps({**whole, "components": {"schemas": {"TrainingInput": inputs}}})
    )
    return folder


def states(news: list[News]) -> list[str]:
    """The states that the news tell, each once, in order."""
    told = {event["seq"]: event["state"] for one in news for event in one.events if event["type"] == "state"}
    return [told[number] for number in sorted(told)]


def processes_in(folder: Path) -> list[int]:
    """Processes whose command line names something below `folder`."""
    done = subprocess.run(["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True)
    return [int(line.split()[0]) for line in done.stdout.splitlines() if str(folder) in line]
