"""Runs at RunPod's old DreamBooth worker: pickles, kept and not opened; results that RunPod has forgotten."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dreamctl.context import Context
from dreamctl.domain.run import State
from dreamctl.errors import InvalidInput
from dreamctl.workflows.generate import Order, generate
from dreamctl.workflows.lesson import Wish
from dreamctl.workflows.runs import one_status
from dreamctl.workflows.train import Taught, train
from tests.clouds.runpod import RunPodCloud, runpod_cloud
from tests.fakes import Recorder, write_dataset
from tests.servers.base import S3Server
from tests.servers.ceph import Ceph
from tests.storage.stores import client_of, new_bucket, use_keys

BASE = "stable-diffusion-v1-5/stable-diffusion-v1-5"
PICKLE = b"PK\x03\x04" + bytes(26) + b"archive/data.pkl" + bytes(200)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunPodCloud]:
    with runpod_cloud() as running:
        monkeypatch.setenv("RUNPOD_API_KEY", running.token)
        yield running


class Booth:
    """The user's project, endpoint and bucket."""

    def __init__(self, cloud: RunPodCloud, server: S3Server, bucket: str) -> None:
        self.cloud, self.server, self.bucket = cloud, server, bucket
        self.person = Recorder()

    def context(self, **flags: Any) -> Context:
        given = {
            "backend": "runpod", "runpod_url": self.cloud.url, "runpod_endpoint": self.cloud.endpoint,
            "runpod_schema": "dream-booth-v1", "storage": f"s3://{self.bucket}/data", "base_model": BASE,
            "s3_endpoint": self.server.endpoint,
        }  # fmt: skip
        return Context.open(None, {**given, **flags}, self.person)

    def taught(self, **wish: Any) -> Taught:
        return train(self.context(), Wish(**{"category": "person", "yes": True, "detach": True, **wish}))

    def leave(self, job: str) -> str:
        """What that worker does in the end: a pickle in the bucket's root, and a presigned URL."""
        client = client_of(self.server)
        client.put_object(Bucket=self.bucket, Key=f"{job}.ckpt", Body=PICKLE)
        place = {"Bucket": self.bucket, "Key": f"{job}.ckpt"}
        return str(client.generate_presigned_url("get_object", place, ExpiresIn=604800))


@pytest.fixture
def booth(cloud: RunPodCloud, ceph_servers: Ceph, user: Path, monkeypatch: pytest.MonkeyPatch) -> Booth:
    write_dataset(user / "processed", count=3, size=512)
    server = ceph_servers.plain
    use_keys(server, monkeypatch)
    return Booth(cloud, server, new_bucket(server))


def test_a_pickle_is_announced_fetched_kept_and_not_opened(booth: Booth, tmp_path: Path) -> None:
    run = booth.taught().run
    assert run is not None
    assert any("models convert --trust" in note for note in booth.person.notes), "said before it is paid"
    (body,) = booth.cloud.submissions
    asked = body["input"]["train"]
    assert (asked["concept_name"], asked["hf_model"]) == ("sks", BASE)
    assert asked["unet_epochs"] == -(-run.recipe().training.steps // 3)
    assert set(body["s3Config"]) == {"accessId", "accessSecret", "bucketName", "endpointUrl"}
    assert body["policy"]["ttl"] > body["policy"]["executionTimeout"]
    packed = tmp_path / "data.zip"
    packed.write_bytes(httpx.get(asked["data_url"]).content)
    with zipfile.ZipFile(packed) as archive:
        assert sum(name.endswith(".jpg") for name in archive.namelist()) == 3
    job = booth.cloud.newest
    booth.cloud.finish(job, output={"train": {"checkpoint_url": booth.leave(job)}, "inference": []})
    told = one_status(booth.context(), run.id)
    assert told.state is State.succeeded and [version.name for version in told.versions] == ["sks@1"]
    (kept,) = run.model.rglob("*.ckpt")
    assert kept.read_bytes() == PICKLE
    with pytest.raises(InvalidInput, match=r"is a pickle") as refused:
        generate(booth.context(), Order("a photo of sks person"))
    assert "models convert --trust" in str(refused.value.hint)
    held = b"".join(path.read_bytes() for path in run.path.rglob("*") if path.is_file())
    assert booth.server.secret_key.encode() not in held and b"X-Amz-Signature" not in held


def test_what_runpod_has_forgotten_is_in_the_bucket(booth: Booth) -> None:
    run = booth.taught().run
    assert run is not None
    job = booth.cloud.newest
    booth.leave(job)
    booth.cloud.forget(job)
    told = one_status(booth.context(), run.id)
    assert told.state is State.succeeded and told.versions


@pytest.mark.parametrize("url", ["local_upload/x.ckpt", None, 7])
def test_an_answer_without_a_usable_url_is_a_failure(booth: Booth, url: object) -> None:
    run = booth.taught().run
    assert run is not None
    booth.cloud.finish(booth.cloud.newest, output={"train": {"checkpoint_url": url}})
    told = one_status(booth.context(), run.id)
    assert told.state is State.failed and told.message and "model" in told.message


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("unet_epochs=-5", "unet_epochs"),
        ("unet_lr_scheduler=zzz", "cosine"),
        ("unet_epocs=5", "unet_epochs"),
        ("text_steps=1.5", "text_steps"),
        ("offset_noise=perhaps", "offset_noise"),
    ],
)
def test_fields_are_checked_here_since_the_worker_does_not(booth: Booth, given: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        booth.taught(inputs=[given])
    assert said in f"{refused.value.message} {refused.value.hint}"
    assert booth.cloud.submissions == []


def test_the_builtin_model_is_not_there(booth: Booth) -> None:
    with pytest.raises(Exception, match="builtin"):
        booth.taught(base_model="builtin")
    assert booth.cloud.submissions == []
