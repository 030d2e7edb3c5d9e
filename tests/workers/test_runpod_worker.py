"""Our worker in the loop of RunPod's own SDK, against RunPod's queue on loopback."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dreamctl.cargo import take_outcome
from dreamctl.domain.errand import Abilities, Answer, Errand, News, Place, claim_key, outcome_key, result_key
from dreamctl.files import read_json, sha256_file
from dreamctl.storage.base import Access
from dreamctl.workers import outbox
from tests.clouds.runpod import Job, RunPodCloud, runpod_cloud, worker
from tests.servers.ceph import Ceph
from tests.storage.stores import new_bucket, random_file
from tests.workers.errand_kit import ENDLESS, errand_of, processes_in, quick_recipe, quick_run, states


@dataclass(frozen=True)
class Endpoint:
    """The queue, with our worker on it. `log`: what the worker prints; `folder`: where it makes its own."""

    cloud: RunPodCloud
    log: Path
    folder: Path

    def submit(self, errand: Errand | Any, **more: Any) -> str:
        given = errand.plain() if isinstance(errand, Errand) else errand
        request = urllib.request.Request(
            f"{self.cloud.url}/{self.cloud.endpoint}/run", json.dumps({"input": given, **more}).encode()
        )
        request.add_header("Authorization", f"Bearer {self.cloud.token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(json.loads(answer.read())["id"])

    def done(self, errand: Errand | Any, **more: Any) -> Job:
        return self.cloud.wait_for(self.submit(errand, **more))


@pytest.fixture(scope="module")
def endpoint(clouds_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    place = tmp_path_factory.mktemp("endpoint")
    folder = place / "tmp"
    folder.mkdir()
    env = {"TMPDIR": str(folder), "DREAMCTL_HOME": str(place / "home")}
    with (
        runpod_cloud() as cloud,
        worker(cloud, clouds_python, "dreamctl.workers.runpod_worker", env=env, log=place / "log"),
    ):
        yield Endpoint(cloud, place / "log", folder)


@pytest.mark.soak  # the chain of tests/cli/test_train_runpod.py goes through the same
def test_it_trains_a_run_once_into_the_storage(endpoint: Endpoint, tmp_path: Path) -> None:
    told = Abilities.parse(endpoint.done(Errand(op="describe")).told["output"], "output")
    assert told.accepts["run"] == 1

    run, bucket = quick_run(tmp_path), tmp_path / "bucket"
    errand = errand_of(run, Place(url=bucket.as_uri()))
    heard: list[dict[str, Any]] = []
    endpoint.cloud.before["job-done"] = lambda _: heard.append(endpoint.cloud.jobs[endpoint.cloud.newest].told)
    job = endpoint.done(errand)
    assert job.status == "COMPLETED", job.told
    answer = Answer.parse(job.told["output"], "output")
    assert answer.outcome is not None
    assert (answer.outcome.key, answer.outcome.url, answer.outcome.data) == (outcome_key(run.id), None, None)
    file = bucket / outcome_key(run.id)
    assert (file.stat().st_size, sha256_file(file)) == (answer.outcome.bytes, answer.outcome.sha256)
    assert Answer.parse(read_json(bucket / result_key(run.id)), "") == answer
    assert read_json(bucket / claim_key(run.id)) == {"schema": 1, "job": job.id}

    last = News.parse(heard[-1]["output"], "the last progress before the answer")
    assert states([last]) == ["running", "succeeded"]
    assert [event["step"] for event in last.events if event["type"] == "step"] == [1, 2]
    assert last.log[-1].endswith("succeeded")
    assert f"{last.log[-1]}\n" in endpoint.log.read_text(), "RunPod keeps what a worker prints"
    assert list(endpoint.folder.glob("dreamctl-*")) == []

    took = take_outcome(file, run)
    assert [event["type"] for event in took][-2:] == ["phase", "state"]
    assert run.model_file() is not None
    assert "succeeded" in run.log_tail(1)[0]

    endpoint.cloud.requeue(job.id)
    assert endpoint.cloud.wait_for(job.id).told["output"] == answer.plain(), "not trained again when run again"
    assert endpoint.done(errand).told["output"] == answer.plain()
    assert endpoint.log.read_text().count(last.log[-1]) == 1


def test_a_cancelled_job_ends_its_training(endpoint: Endpoint, tmp_path: Path) -> None:
    cloud = endpoint.cloud
    job = endpoint.submit(errand_of(quick_run(tmp_path, quick_recipe(ENDLESS))))
    with cloud.changed:
        assert cloud.changed.wait_for(lambda: "output" in cloud.jobs[job].told, 60)
    assert cloud.jobs[job].told["output"]["events"][0]["state"] == "running"
    assert processes_in(endpoint.folder)
    cloud.cancel(job)
    assert endpoint.done(Errand(op="describe")).status == "COMPLETED", "the worker takes the next job"
    assert cloud.jobs[job].status == "CANCELLED"
    assert processes_in(endpoint.folder) == []
    assert list(endpoint.folder.glob("dreamctl-*")) == []


def test_what_fails_is_one_text(endpoint: Endpoint, tmp_path: Path) -> None:
    job = endpoint.done({"op": "train", "schema": 9})
    assert (job.status, job.told["error"].partition(",")[0]) == ("FAILED", "the errand has schema 9")
    assert "newer dreamctl" in job.told["error"].splitlines()[1]
    errand = errand_of(quick_run(tmp_path), url="http://127.0.0.1:9/x.zip?X-Amz-Signature=verysecret")
    job = endpoint.done(errand)
    assert job.status == "FAILED"
    assert "http://127.0.0.1:9/x.zip?*** " in job.told["error"]
    assert "verysecret" not in endpoint.log.read_text()
    assert "error: the dataset at" in endpoint.log.read_text()


def test_it_opens_the_users_bucket_with_the_keys_that_came_along(
    endpoint: Endpoint, ceph_servers: Ceph, tmp_path: Path
) -> None:
    server = ceph_servers.plain
    place = Place(url=f"s3://{new_bucket(server)}/a prefix", access={"s3_endpoint": server.endpoint})
    keys = {
        "accessId": server.access_key,
        "accessSecret": server.secret_key,
        "bucketName": "b",
        "endpointUrl": server.endpoint,
    }
    run = quick_run(tmp_path)
    storage = outbox.open_storage(place, keys)
    assert storage.access == Access(s3_endpoint=server.endpoint, s3_region="us-east-1")
    assert outbox.claim(storage, run.id, "job-1", tmp_path) is None
    assert outbox.claim(storage, run.id, "job-2", tmp_path) == "job-1"

    errand = errand_of(run, place)
    job = endpoint.done(errand, s3Config=keys)
    assert job.told["output"] == Answer(claimed_by="job-1").plain()

    file, digest = random_file(tmp_path / "outcome", 5000)
    outbox.leave(storage, run.id, file)
    job = endpoint.done(errand, s3Config=keys)
    outcome = Answer.parse(job.told["output"], "output").outcome
    assert outcome is not None
    assert (outcome.key, outcome.sha256, outcome.bytes) == (outcome_key(run.id), digest, 5000)
    with urllib.request.urlopen(outcome.url or "", timeout=30) as answer:
        assert answer.read() == file.read_bytes()

    outbox.release(storage, run.id, "job-1", tmp_path)
    storage.delete(outcome_key(run.id))
    assert outbox.claim(storage, run.id, "job-2", tmp_path) is None
    assert storage.head(claim_key(run.id)) is not None
    job = endpoint.done(errand, s3Config={**keys, "accessSecret": "x" * 40})
    assert job.status == "FAILED"
    log = endpoint.log.read_text()
    assert server.secret_key not in log
    assert "X-Amz-Signature=" not in log.replace("X-Amz-Signature=***", "")
    assert "the secret key is wrong" in job.told["error"]
