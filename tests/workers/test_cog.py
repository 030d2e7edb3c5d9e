"""Replicate's worker: the real Cog server trains, is cancelled, fails; what it made draws pictures."""

from __future__ import annotations

import base64
import json
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import dreamctl.workers
from dreamctl.cargo import take_outcome
from dreamctl.domain.errand import News
from dreamctl.runfolder import RunFolder
from tests.clouds.replicate import Cog, ReplicateCloud, cog, replicate_cloud
from tests.servers.base import ROOT
from tests.workers.errand_kit import (
    ENDLESS,
    cog_project,
    errand_of,
    pack,
    processes_in,
    quick_recipe,
    quick_run,
    states,
)

FOLDER = Path(dreamctl.workers.__file__).parent / "cog"
TRAINER, DESTINATION = "tester/dreamctl-trainer", "tester/mine"


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


@pytest.fixture
def server(clouds_python: Path, tmp_path: Path, temporary: Path) -> Iterator[Cog]:
    env = {"TMPDIR": str(temporary), "DREAMCTL_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    with cog(clouds_python, cog_project(tmp_path / "project"), env) as running:
        yield running


def submit(cloud: ReplicateCloud, version: str, run: RunFolder, **changes: Any) -> str:
    data = base64.b64encode(pack(run).read_bytes()).decode()
    given = {
        "input_images": f"data:application/zip;base64,{data}",
        "dreamctl": json.dumps({**errand_of(run).plain(), "archive": None, **changes}),
    }
    body = {"destination": DESTINATION, "input": given}
    request = urllib.request.Request(
        f"{cloud.url}/models/{TRAINER}/versions/{version}/trainings", json.dumps(body).encode()
    )
    request.add_header("Authorization", f"Bearer {cloud.token}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(json.loads(answer.read())["id"])


def told(logs: str) -> list[News]:
    lines = [line for line in logs.splitlines() if line.startswith("dreamctl-news ")]
    return [News.parse(json.loads(line.partition(" ")[2]), "log") for line in lines]


def test_the_real_cog_server_trains_is_cancelled_and_fails(server: Cog, temporary: Path, tmp_path: Path) -> None:
    run = quick_run(tmp_path)
    with replicate_cloud() as cloud:
        cloud.add_model(DESTINATION)
        version = cloud.run_on(server, TRAINER)
        done = cloud.wait_for(submit(cloud, version, run))
        assert done.status == "succeeded", done.error
        news = told(done.logs)
        numbers = [event["seq"] for one in news for event in one.events]
        assert numbers == sorted(set(numbers)), "each event once"
        assert states(news) == ["running", "succeeded"]
        archive = tmp_path / "outcome.zip"
        archive.write_bytes(cloud.blobs[cloud.output_path(done.id)].data)
        take_outcome(archive, run)
        assert run.model_file() is not None

        failed = cloud.wait_for(submit(cloud, version, run, recipe={"schema": 5}))
        assert failed.status == "failed"
        assert "the recipe has schema 5, and this worker" in (failed.error or "")
        assert "Traceback" not in (failed.error or "")

        endless = submit(cloud, version, quick_run(tmp_path / "endless", quick_recipe(ENDLESS)))
        with cloud.changed:
            assert cloud.changed.wait_for(lambda: told(cloud.trainings[endless].logs), 60)
        assert processes_in(temporary)
        cloud.cancel(endless)
        again = cloud.wait_for(submit(cloud, version, run, op="describe"))
        assert again.status == "failed", "the server is free again"
        assert processes_in(temporary) == []
        assert not [path for path in temporary.iterdir() if path.name.startswith("dreamctl-") and path.is_dir()]


def test_its_files_say_what_the_program_needs() -> None:
    build = yaml.safe_load((FOLDER / "cog.yaml").read_text())
    for stub in (build["train"], build["run"]):
        file, _, name = stub.partition(":")
        assert f" {name}(" in (ROOT / file).read_text()
    required = _pins(ROOT / build["build"]["python_requirements"])
    pinned = _pins(ROOT / "configs" / "constraints.txt")
    assert required.items() <= pinned.items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted in [*project["dependencies"], *project["optional-dependencies"]["local"]]:
        assert _normal(wanted.partition(">=")[0]) in required
    others = _pins(ROOT / "configs" / "clouds.txt")
    assert not set(others) & set(pinned), "what the tests' environment has already is not installed a second time"
    assert others["cog"] == others["coglet"] == build["build"]["sdk_version"]


def _pins(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return {_normal(line.partition("==")[0]): line.partition("==")[2] for line in lines}


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
