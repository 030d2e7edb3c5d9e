"""The images' steps, proved without Docker: the Dockerfile's in a root laid over this one, Cog's runner in its server.

`make soak`: they install torch anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dreamctl.cargo import take_outcome
from dreamctl.domain.errand import Abilities, Answer, Errand, Place
from dreamctl.files import sha256_file
from dreamctl.workers.errands import carry_out
from tests.clouds.runpod import runpod_cloud, worker
from tests.servers.base import PATIENCE, ROOT, Daemons
from tests.workers.errand_kit import errand_of, quick_run
from tests.workers.test_runpod_worker import Endpoint

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

DOCKERFILE = ROOT / "dreamctl" / "workers" / "Dockerfile"
PYTHON = "/opt/python"  # stands for the base image's /usr/local
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Image:
    """A root that Dockerfile steps change, and what they have set so far."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    user: str = "root"
    folder: str = "/"
    command: list[str] = field(default_factory=list)

    def line(self, *command: str) -> list[str]:
        """The command line that runs a command inside."""
        home = "/root" if self.user == "root" else f"/home/{self.user}"
        ours = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}  # where packages are
        env = {"PATH": f"{PYTHON}/bin:{SYSTEM_PATH}", "HOME": home, **ours, **self.env}
        there = ["sh", "-c", 'cd "$0" && exec "$@"', self.folder]
        inside = ["chroot", f"--userspec={self.user}:{self.user}", str(self.root)]
        return [*inside, "env", "-i", *(f"{name}={value}" for name, value in env.items()), *there, *command]

    def step(self, instruction: str, rest: str) -> None:
        match instruction:
            case "FROM":
                assert rest.startswith("python:3.11."), "the base image that is played here"
                assert rest.endswith("-slim-bookworm")
            case "ENV":
                self.env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
            case "WORKDIR":
                self.folder = rest
                subprocess.run(self.line("true"), capture_output=True)
                (self.root / rest[1:]).mkdir(parents=True, exist_ok=True)
            case "COPY":
                *sources, target = shlex.split(rest)
                for source in sources:
                    self._copy(ROOT / source, self.root / self.folder[1:] / target, target.endswith("/"))
            case "RUN":
                done = subprocess.run(self.line("sh", "-c", rest), capture_output=True, text=True, timeout=1500)
                assert done.returncode == 0, f"{rest}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            case "USER":
                self.user = rest
            case "CMD":
                self.command = json.loads(rest)
            case _:
                raise AssertionError(f"a step that nobody proves: {instruction}")

    def _copy(self, source: Path, target: Path, into: bool) -> None:
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(parents=True, exist_ok=True) if into or target.is_dir() else None
            shutil.copy(source, target / source.name if target.is_dir() else target)


def steps() -> Iterator[tuple[str, str]]:
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            instruction, _, rest = line.partition(" ")
            yield instruction, rest.strip()


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    """This computer's root with an empty layer over it, and a Python without packages."""
    layer = tmp_path / "layer"
    layer.mkdir()
    mounted: list[Path] = []

    def mount(target: Path, *options: str) -> None:
        done = subprocess.run(["mount", *options, str(target)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"needs root and the right to mount: {done.stderr.strip()}")
        mounted.append(target)

    with contextlib.ExitStack() as stack:
        stack.callback(
            lambda: [subprocess.run(["umount", "--lazy", str(path)], check=True) for path in reversed(mounted)]
        )
        mount(layer, "-t", "tmpfs", "-o", "size=8g", "tmpfs")
        upper, work, root = layer / "upper", layer / "work", layer / "root"
        for folder in (upper, work, root):
            folder.mkdir()
        mount(root, "-t", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", "overlay")
        for name in ("dev", "proc"):
            mount(root / name, "--rbind", f"/{name}")
        for folder in Path(sys.base_prefix).parents:  # a Python in somebody's home must be open to others here
            inside = root / str(folder)[1:]
            inside.chmod(inside.stat().st_mode | 0o011)
        made = [f"{sys.base_prefix}/bin/python3", "-m", "venv", PYTHON]
        subprocess.run(["chroot", str(root), *made], check=True, capture_output=True)
        yield Image(root)


def test_the_dockerfile_makes_a_worker_that_trains(image: Image, tmp_path: Path) -> None:
    began, took = time.monotonic(), dict[str, float]()
    for instruction, rest in steps():
        start = time.monotonic()
        image.step(instruction, rest)
        took[f"{instruction} {rest[:40]}"] = time.monotonic() - start
    assert image.user != "root"
    program, log = tmp_path / "worker.sh", tmp_path / "log"
    passed = " ".join(f'{name}="${name}"' for name in _GIVEN)
    line = shlex.join(image.line("env"))
    program.write_text(f"#!/bin/sh\nexec {line} {passed} {shlex.join(image.command)}\n")
    program.chmod(0o755)
    with runpod_cloud() as cloud, worker(cloud, program, "what CMD says instead", log=log) as process:
        endpoint = Endpoint(cloud, log, tmp_path)
        told = Abilities.parse(endpoint.done(Errand(op="describe")).told["output"], "output")
        owner = subprocess.run(["ps", "-o", "user=", "--ppid", str(process.pid)], capture_output=True, text=True)
        job = cloud.wait_for(endpoint.submit(errand_of(quick_run(tmp_path))), seconds=300)
    assert job.status == "COMPLETED", f"{job.told}\n{log.read_text()[-3000:]}"
    answer = Answer.parse(job.told["output"], "output")
    assert answer.outcome is not None
    assert "sd15" in told.families
    size = sum(file.lstat().st_size for file in (image.root / PYTHON[1:]).rglob("*"))
    print(f"\n{time.monotonic() - began:.0f} s, {size / 1e9:.1f} GB installed, worker of {owner.stdout.split()}")
    print("\n".join(f"{seconds:7.1f} s  {step}" for step, seconds in took.items()))


_GIVEN = (
    "RUNPOD_AI_API_KEY", "RUNPOD_POD_ID", "RUNPOD_ENDPOINT_ID", "RUNPOD_PING_INTERVAL", "RUNPOD_WEBHOOK_GET_JOB",
    "RUNPOD_WEBHOOK_PING", "RUNPOD_WEBHOOK_POST_OUTPUT", "RUNPOD_WEBHOOK_POST_STREAM", "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS",
    "RUNPOD_SKIP_GPU_CHECK",
)  # fmt: skip


def test_what_was_trained_draws_in_cogs_server(clouds_python: Path, tmp_path: Path) -> None:
    run = quick_run(tmp_path)
    answer = carry_out(errand_of(run, Place(url=(tmp_path / "bucket").as_uri())), "job", lambda _: None)
    assert isinstance(answer, Answer)
    assert answer.outcome is not None
    weights = tmp_path / "bucket" / str(answer.outcome.key)
    with runner(clouds_python, tmp_path / "with", {"COG_WEIGHTS": str(weights)}) as url:
        drawn = predict(url, prompt="a photo of sks", num_outputs=2, num_inference_steps=2, seed=3)
        assert drawn["status"] == "succeeded", drawn
        assert len(set(drawn["output"])) == 2
        assert all(picture.startswith("data:image/png;base64,") for picture in drawn["output"])
        again = predict(url, prompt="a photo of sks person", num_inference_steps=2, seed=3)
        assert again["output"] == drawn["output"][:1], "the category is added, and a seed gives the same picture"
    with runner(clouds_python, tmp_path / "without", {}) as url:
        refused = predict(url, prompt="a photo of sks")
        assert "a trainer without weights" in refused["error"]
        other = predict(url, prompt="x", replicate_weights="data:application/zip;base64,UEsDBA==", seed=3)
        assert "no archive of dreamctl's" in other["error"]
    assert sha256_file(weights) == answer.outcome.sha256
    take_outcome(weights, run)


@contextlib.contextmanager
def runner(python: Path, folder: Path, env: dict[str, str]) -> Iterator[str]:
    """Cog's server on our runner; its URL."""
    folder.mkdir()
    with Daemons(folder) as daemons:
        port = daemons.port()
        given = {
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "PORT": str(port),
            "COG_PREDICT_TYPE_STUB": str(ROOT / "dreamctl" / "workers" / "cog" / "predict.py") + ":Runner",
            **env,
        }
        daemons.start(
            "cog", "env", *(f"{name}={value}" for name, value in given.items()),
            python, "-m", "cog.server.http", "--host", "127.0.0.1",
        )  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        daemons.wait(f"{url}/health-check")
        deadline = time.monotonic() + PATIENCE
        while (status := ask(f"{url}/health-check")["status"]) != "READY":
            assert status == "STARTING", (folder / "cog.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield url


def predict(url: str, **given: Any) -> Any:
    return ask(f"{url}/predictions", json.dumps({"input": given}).encode())


def ask(url: str, body: bytes | None = None) -> Any:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return json.loads(error.read())
