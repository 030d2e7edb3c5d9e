"""The main job by the commands, at RunPod: its real worker loop with dreamctl's worker, and a real object store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clouds.runpod import RunPodCloud, runpod_cloud, worker
from tests.fakes import write_pictures
from tests.servers.ceph import Ceph
from tests.storage.stores import client_of, new_bucket, use_keys

KNOBS = (
    "training.steps=2", "training.resolution=64", "prior.pictures=0", "samples.prompts=[]", "sampling.steps=2",
    "training.batch_size=1",
)  # fmt: skip


@pytest.fixture
def cloud(clouds_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunPodCloud]:
    """RunPod with one worker, this user's own endpoint."""
    with runpod_cloud() as running:
        monkeypatch.setenv("RUNPOD_API_KEY", running.token)
        monkeypatch.setenv("DREAMCTL_RUNPOD_URL", running.url)
        monkeypatch.setenv("DREAMCTL_RUNPOD_ENDPOINT", running.endpoint)
        monkeypatch.setenv("DREAMCTL_BACKEND", "runpod")
        away = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DREAMCTL_"))}
        env = {**away, "DREAMCTL_WORKER_ALLOW_PRIVATE": "1", "DREAMCTL_HOME": str(tmp_path / "worker")}
        with worker(running, clouds_python, "dreamctl.workers.runpod_worker", env, tmp_path / "worker.log"):
            yield running


def dreamctl(*words: str, code: int = 0) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "dreamctl", *words, "--json"], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def train(*words: str) -> list[str]:
    return ["train", *words, *(word for knob in KNOBS for word in ("--set", knob))]


def test_from_pictures_to_a_picture_through_a_bucket(
    cloud: RunPodCloud, ceph_servers: Ceph, user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ceph_servers.plain
    bucket = new_bucket(server)
    use_keys(server, monkeypatch)
    monkeypatch.setenv("DREAMCTL_S3_ENDPOINT", server.endpoint)
    (user / "dreamctl.toml").write_text(
        f'storage = "s3://{bucket}/team"\nrecipe = "builtin-lora"\nbase_model = "builtin"\n'
    )
    write_pictures(user / "original", 3, size=100)
    dreamctl("prepare", "original", "--size", "64", "--upload")

    taught = dreamctl(*train("--category", "person", "--yes"))
    assert (taught["state"], taught["versions"]) == ("succeeded", ["sks@1"])
    told = dreamctl("status", "last")
    assert (told["backend"], told["place"], told["step"], told["steps"]) == ("runpod", cloud.endpoint, 2, 2)
    assert any("step 2/2" in line for line in told["log"])
    (picture,) = dreamctl("generate", "a photo of sks person", "--steps", "2", "--size", "64")["pictures"]
    assert Path(picture).is_file()
    keys = {item["Key"] for item in client_of(server).list_objects_v2(Bucket=bucket)["Contents"]}
    assert {f"team/models/{told['id']}/outcome.zip", f"team/models/{told['id']}/result.json"} <= keys
    assert dreamctl(*train("--category", "person", "--yes"))["before"], "nothing is paid twice"
    assert sum(body["input"]["op"] == "train" for body in cloud.submissions) == 1

    # neither the keys of the bucket nor the token lie anywhere on either computer
    held = [path.read_bytes() for place in (tmp_path / "home", tmp_path / "worker.log", user) for path in files(place)]
    for secret in (server.secret_key, cloud.token, "X-Amz-Signature="):
        assert not any(secret.encode() in data for data in held), secret


def files(place: Path) -> list[Path]:
    return [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]


def test_ten_photos_without_any_bucket_where_project_and_profile_name_all(
    cloud: RunPodCloud, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BACKEND", "RUNPOD_ENDPOINT", "RUNPOD_URL"):
        monkeypatch.delenv(f"DREAMCTL_{name}")
    write_pictures(user / "original", 2, size=100)
    dreamctl("prepare", "original", "--size", "64")
    knobs = "".join(f"{knob}\n" for knob in KNOBS)
    (user / "quick.toml").write_text(f'schema = 1\nextends = "builtin-lora"\n{knobs}')
    (user / "dreamctl.toml").write_text('category = "person"\nbase_model = "builtin"\nrecipe = "./quick.toml"\n')
    config = Path(os.environ["DREAMCTL_HOME"]) / "config.toml"
    config.write_text(
        f'default_profile = "ci"\n[profiles.ci]\nrunpod_url = "{cloud.url}"\nrunpod_endpoint = "{cloud.endpoint}"\n'
        "price_per_hour = 0.5\nmax_cost = 3.0\n"
    )
    taught = dreamctl("train", "--backend", "runpod")
    assert taught["versions"] == ["sks@1"] and (Path(taught["model"]) / "model.json").is_file()
    report = dreamctl("doctor", "--backend", "runpod")
    assert {look["name"]: look["state"] for look in report["checks"]}["worker"] == "ok"
