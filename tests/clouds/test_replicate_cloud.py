"""Replicate's own client accepts the control plane, and Cog's own server works behind it: so it speaks the API."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.clouds.replicate import ReplicateCloud, cog, replicate_cloud, signature
from tests.clouds.replicate_trainers import complaints
from tests.clouds.replicate_wire import Blob, Request, served

FLUX = "ostris/flux-dev-lora-trainer"

CLIENT = """
import io, json, sys, replicate
from replicate.exceptions import ReplicateError

client = replicate.Client(api_token=sys.argv[1])
told = {"account": client.accounts.current().username, "skus": [item.sku for item in client.hardware.list()]}
try:
    replicate.Client(api_token="r8_wrong").accounts.current()
except ReplicateError as error:
    told["refused"] = [error.status, error.title, error.detail]

trainer = client.models.get("ostris/flux-dev-lora-trainer")
version = trainer.versions.get(trainer.latest_version.id)
told["inputs"] = sorted(version.openapi_schema["components"]["schemas"]["TrainingInput"]["properties"])
told["versions"] = [item.id for item in trainer.versions.list()] == [version.id]

made = client.models.create("tester", "mine", visibility="private", hardware="gpu-t4")
told["made"] = [made.owner, made.name, made.visibility]
file = client.files.create(io.BytesIO(b"PK a zip"), filename="data.zip", content_type="application/zip")
told["file"] = [file.name, file.size, file.content_type, client.files.get(file.id).checksums["sha256"][:8]]

def create(destination="tester/mine", **inputs):
    given = {"input_images": file.urls["get"], **inputs}
    return client.trainings.create(model=trainer, version=version, input=given, destination=destination)

for name, arguments in {"nowhere": {"destination": "tester/no"}, "range": {"steps": 2}, "kind": {"steps": "x"}}.items():
    try:
        create(**arguments)
    except ReplicateError as error:
        told[name] = [error.status, error.detail]

first, second = create(steps=10), create(optimizer="prodigy")
told["begun"] = [first.status, first.destination, first.output, first.error]
second.cancel()
told["cancelled"] = second.status
print(json.dumps(told), flush=True)
input()  # the test plays the trainer
first.reload()
told["ended"] = [first.status, first.logs, sorted(first.output), client.trainings.get(second.id).status]
page = client.trainings.list()
told["pages"] = [[item.id for item in each] for each in (page, client.trainings.list(page.next))]
told["pages"] = told["pages"] == [[second.id], [first.id]]
client.files.delete(file.id)
told["files"] = len(client.files.list())
told["secret"] = client.webhooks.default.secret().key
print(json.dumps(told))
"""


@pytest.fixture
def cloud() -> Iterator[ReplicateCloud]:
    with replicate_cloud() as cloud:
        yield cloud


def test_replicates_own_client_makes_uploads_trains_polls_and_cancels(
    cloud: ReplicateCloud, clouds_python: Path
) -> None:
    cloud.page = 1
    client = subprocess.Popen(
        [clouds_python, "-c", CLIENT, cloud.token],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "REPLICATE_BASE_URL": cloud.origin},
    )
    assert client.stdin and client.stdout
    told = json.loads(client.stdout.readline())
    assert (told["account"], told["skus"][0]) == ("tester", "cpu")
    assert told["refused"] == [401, "Unauthenticated", "You did not pass a valid authentication token"]
    assert {"input_images", "trigger_word", "steps", "lora_rank"} < set(told["inputs"])
    assert told["versions"]
    assert told["made"] == ["tester", "mine", "private"]
    assert told["file"][:3] == ["data.zip", 8, "application/zip"]
    assert told["nowhere"] == [404, "The specified training destination does not exist"]
    assert told["range"] == [422, "- input.steps: Must be greater than or equal to 3"]
    assert told["kind"] == [422, "- input.steps: Invalid type. Expected: integer"]
    assert told["begun"] == ["starting", "tester/mine", None, None]
    assert told["cancelled"] == "canceled"
    assert [body["input"].get("steps") for body in cloud.submissions] == [10, None]
    first = next(iter(cloud.trainings))
    cloud.log(first, "1/10\n")
    cloud.finish(first, weights=b"a tar")
    rest, _ = client.communicate("\n", timeout=60)
    told = json.loads(rest)
    assert client.returncode == 0
    assert told["ended"] == ["succeeded", "1/10\n", ["version", "weights"], "canceled"]
    assert told["pages"], "newest first, one a page"
    assert told["files"] == 0
    assert told["secret"] == cloud.webhook_secret


TRAINER = """
import time
from cog import BaseModel, Input, Path

class TrainingOutput(BaseModel):
    weights: Path

def train(input_images: Path = Input(), trigger_word: str = Input(default="TOK")) -> TrainingOutput:
    print("1/2 loss: 0.5", flush=True)
    if trigger_word == "broken":
        raise ValueError("no pictures in it")
    while trigger_word == "endless":
        time.sleep(0.02)
    print("2/2 loss: 0.25", flush=True)
    made = Path("made.tar")
    made.write_bytes(trigger_word.encode() + b" was taught with " + open(input_images, "rb").read())
    return TrainingOutput(weights=made)
"""


def post(cloud: ReplicateCloud, path: str, body: Any) -> Any:
    headers = {"Authorization": f"Bearer {cloud.token}", "Content-Type": "application/json"}
    request = urllib.request.Request(cloud.url + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def test_the_real_cog_server_trains_fails_and_is_cancelled_behind_it(
    cloud: ReplicateCloud, clouds_python: Path, tmp_path: Path
) -> None:
    name = "tester/own-trainer"
    properties = {
        "input_images": {"type": "string", "format": "uri", "x-order": 0},
        "trigger_word": {"type": "string", "default": "TOK", "x-order": 1},
    }
    schema = {"title": "TrainingInput", "type": "object", "required": ["input_images"], "properties": properties}
    whole = {"openapi": "3.0.2", "info": {"title": "Cog", "version": "1"}, "paths": {}}
    (tmp_path / ".cog").mkdir()
    (tmp_path / "train.py").write_text(TRAINER)
    (tmp_path / ".cog" / "openapi_schema.json").write_text(
        json.dumps({**whole, "components": {"schemas": {"TrainingInput": schema}}})
    )
    cloud.add_model("tester/mine")
    with cog(clouds_python, tmp_path) as server:
        version = cloud.run_on(server, name)
        pictures = {"input_images": "data:application/zip;base64,UEsDBA=="}

        def train(word: str) -> str:
            body = {"destination": "tester/mine", "input": {**pictures, "trigger_word": word}}
            return str(post(cloud, f"/models/{name}/versions/{version}/trainings", body)["id"])

        done = cloud.wait_for(train("sks"))
        assert (done.status, done.logs, done.error) == ("succeeded", "1/2 loss: 0.5\n2/2 loss: 0.25\n", None)
        assert cloud.blobs[cloud.output_path(done.id)].data == b"sks was taught with PK\x03\x04"
        failed = cloud.wait_for(train("broken"))
        assert (failed.status, failed.output) == ("failed", None)
        assert "no pictures in it" in (failed.error or "")
        endless = train("endless")
        cloud.wait_for(endless, "processing")
        assert post(cloud, f"/trainings/{endless}/cancel", {})["status"] == "canceled"
        assert cloud.wait_for(train("sks")).status == "succeeded", "the server is free again"


def test_a_webhook_is_signed_and_tried_again_with_the_same_id(cloud: ReplicateCloud) -> None:
    answers = iter([500, 200])

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(next(answers))
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        hook = f"http://127.0.0.1:{receiver.server_address[1]}/told"
        training = cloud.accept(FLUX, "v", "tester/mine", {}, webhook=hook, events=("completed",))
        cloud.log(training.id, "not told\n")
        cloud.finish(training.id)
        with cloud.changed:
            assert cloud.changed.wait_for(lambda: len(cloud.webhooks) == 2, 30)
        receiver.shutdown()
    (_, headers, body, refused), (_, again, _, taken) = cloud.webhooks
    assert (refused, taken) == (500, 200)
    assert headers["webhook-id"] == again["webhook-id"]
    assert headers == signature(cloud.webhook_secret, headers["webhook-id"], int(headers["webhook-timestamp"]), body)
    assert json.loads(body)["status"] == "succeeded"


def test_faults_come_in_their_order_and_a_lost_answer_was_accepted(cloud: ReplicateCloud) -> None:
    cloud.add_model("tester/mine")
    (version,) = cloud.models[FLUX].schemas
    body = {"destination": "tester/mine", "input": {}}
    cloud.throttle("submit", 30)
    cloud.fault("submit", 503, headers={"Retry-After": "1"})
    cloud.fault("submit", 0)
    cloud.lose_answer()
    seen = []
    for _ in range(4):
        try:
            post(cloud, f"/models/{FLUX}/versions/{version}/trainings", body)
        except urllib.error.HTTPError as error:
            seen.append((error.code, error.headers["Retry-After"], json.loads(error.read())["detail"]))
        except OSError:
            seen.append((0, None, str(len(cloud.submissions))))
    assert seen == [
        (429, None, "Request was throttled. Your rate limit resets in ~30s."),
        (503, "1", "the test wants it so"),
        (0, None, "0"),
        (0, None, "1"),
    ]
    assert cloud.requests == ["POST submit"] * 4


def ranged(value: str, **headers: str) -> Request:
    return Request("GET", "/", {}, {"range": value, **headers}, b"")


def test_files_are_served_in_ranges_with_an_etag() -> None:
    blob = Blob(b"0123456789")
    part = served(blob, ranged("bytes=4-"), True)
    assert (part.status, part.body, part.headers["Content-Range"]) == (206, b"456789", "bytes 4-9/10")
    assert served(blob, ranged("bytes=10-"), True).status == 416
    same = {"if-range": blob.etag}
    assert served(blob, ranged("bytes=4-", **same), True).status == 206
    assert served(blob, ranged("bytes=4-", **{"if-range": '"old"'}), True).status == 200
    assert served(blob, ranged("bytes=4-", **{"if-range": '"old"'}), False).status == 206, "as moto does"


def test_downloads_want_the_token_and_break_as_told(cloud: ReplicateCloud) -> None:
    training = cloud.accept(FLUX, "v", "tester/mine", {})
    cloud.finish(training.id, b"0123456789")
    url = cloud.origin + cloud.output_path(training.id)

    def fetch(**headers: str) -> tuple[int, bytes, str]:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return answer.status, answer.read(), answer.headers["ETag"]

    token = {"Authorization": f"Bearer {cloud.token}"}
    with pytest.raises(urllib.error.HTTPError, match="401"):
        fetch()
    whole = fetch(**token)
    assert whole[:2] == (200, b"0123456789")
    cloud.fault("output", None, cut=4)
    with pytest.raises(http.client.IncompleteRead) as broken:
        fetch(**token)
    assert broken.value.partial == b"0123"
    cloud.change_output(training.id, b"9876543210")
    assert fetch(**token, Range="bytes=4-", **{"If-Range": whole[2]})[:2] == (200, b"9876543210")
    cloud.heeds_if_range = False
    status, rest, etag = fetch(**token, Range="bytes=4-", **{"If-Range": whole[2]})
    assert (status, rest) == (206, b"543210") and etag != whole[2]


def test_inputs_are_checked_as_replicate_does(cloud: ReplicateCloud) -> None:
    (schema,) = cloud.models["stability-ai/sdxl"].schemas.values()
    right = {"input_images": "https://a.example/b.zip", "max_train_steps": 3}
    assert not list(complaints(schema, {**right, "lr_scheduler": "linear", "unheard": 1}))
    (missing, wrong) = complaints(schema, {"lr_scheduler": "cosine"})
    assert missing == "- input: input_images is required"
    assert "must be one of the following" in wrong
