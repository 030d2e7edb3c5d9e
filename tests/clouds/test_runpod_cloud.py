"""The control plane speaks RunPod's API: RunPod's own client uses it, and the worker loop of RunPod's SDK serves it."""

from __future__ import annotations

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

from tests.clouds.environment import clouds_python_or_skip  # noqa: F401 (a fixture)
from tests.clouds.runpod import RunPodCloud, runpod_cloud, worker

ECHO = """
import asyncio
import runpod

async def handler(job):
    given = job["input"]
    if "told" in given:
        runpod.serverless.progress_update(job, given["told"])
        await asyncio.sleep(600)
    if "error" in given:
        raise ValueError(given["error"])
    return {"echo": given, "others": sorted(set(job) - {"id", "input"}), "bucket": job.get("s3Config", {})}

runpod.serverless.start({"handler": handler})
"""

CLIENT = """
import json, time, runpod

runpod.api_key = TOKEN
endpoint = runpod.Endpoint(ENDPOINT)
said = {"health": endpoint.health()}
more = {"policy": {"executionTimeout": 60000}, "s3Config": {"bucketName": "b"}}
done = endpoint.run({"input": {"n": 7}, **more})
said["output"] = done.output(timeout=60)
said["status"] = done.status()
broken = endpoint.run({"input": {"error": "no luck"}})
broken.output(timeout=60)
said["broken"] = broken.status()
long = endpoint.run({"input": {"told": {"step": 3}}})
while (shown := long._fetch_job()).get("output") is None:
    time.sleep(0.05)
said["running"] = shown
said["cancelled"] = long.cancel()
said["after"] = endpoint.run_sync({"input": {"n": 8}}, timeout=60)
said["ids"] = [done.job_id, broken.job_id, long.job_id]
said["purged"] = endpoint.purge_queue()
try:
    runpod.Endpoint("another").health()
except Exception as error:
    said["another"] = str(error)
try:
    runpod.Endpoint(ENDPOINT, api_key="wrong").health()
except RuntimeError as error:
    said["wrong"] = str(error)
print("SAID " + json.dumps(said))
"""


@pytest.fixture
def cloud() -> Iterator[RunPodCloud]:
    with runpod_cloud() as running:
        yield running


def ask(cloud: RunPodCloud, method: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, Any]:
    """The status and the JSON that a client gets."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(f"{cloud.url}/{cloud.endpoint}/{path}", data, method=method)
    request.add_header("Authorization", f"Bearer {token or cloud.token}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status), json.load(answer)
    except urllib.error.HTTPError as error:
        text = error.read()
        return error.code, json.loads(text) if text else None


def submit(cloud: RunPodCloud, **more: Any) -> str:
    status, said = ask(cloud, "POST", "run", {"input": {"n": 1}, **more})
    assert (status, said["status"]) == (200, "IN_QUEUE")
    return str(said["id"])


def test_runpods_client_and_runpods_worker_meet_here(cloud: RunPodCloud, tmp_path: Path, clouds_python: Path) -> None:
    program, log = tmp_path / "echo.py", tmp_path / "worker.log"
    program.write_text(ECHO)
    script = CLIENT.replace("TOKEN", repr(cloud.token)).replace("ENDPOINT", repr(cloud.endpoint))
    environment = {**os.environ, "RUNPOD_ENDPOINT_BASE_URL": cloud.url, "HOME": str(tmp_path)}
    with worker(cloud, clouds_python, program, log=log):
        client = subprocess.run(
            [clouds_python, "-c", script], env=environment, capture_output=True, text=True, timeout=120
        )
    assert client.returncode == 0, f"{client.stderr}\n{log.read_text()}"
    said = json.loads(client.stdout.rpartition("SAID ")[2])
    done, broken, cancelled = said["ids"]

    assert said["health"]["workers"]["idle"] == 1
    assert said["output"] == {"echo": {"n": 7}, "others": ["policy", "s3Config"], "bucket": {"bucketName": "b"}}
    assert said["status"] == "COMPLETED"
    assert said["broken"] == "FAILED"
    assert json.loads(cloud.jobs[broken].told["error"])["error_message"] == "no luck"
    assert (said["running"]["status"], said["running"]["output"]) == ("IN_PROGRESS", {"step": 3})
    assert said["cancelled"] == {"id": cancelled, "status": "CANCELLED"}
    assert said["after"]["echo"] == {"n": 8}, "the worker stopped the cancelled job, and took the next one"
    assert said["purged"] == {"removed": 0, "status": "completed"}
    assert "404" in said["another"]
    assert "401" in said["wrong"]
    assert len(cloud.submissions) == 4
    assert "s3Config" not in cloud.jobs[done].shown()
    assert "w1" in cloud.pings


def test_what_is_no_request_is_refused(cloud: RunPodCloud) -> None:
    assert ask(cloud, "POST", "run", {"input": {}}, token="wrong")[0] == 401
    assert ask(cloud, "POST", "run", {"inputs": {}})[0] == 400
    assert ask(cloud, "POST", "run", {"input": {"data": "x" * 10_000_000}})[0] == 400
    assert ask(cloud, "POST", "run", {"input": {}, "policy": {"executionTimeout": 4_999}})[0] == 400
    assert ask(cloud, "GET", "run")[0] == 405
    assert ask(cloud, "GET", "status/unknown")[0] == 404
    assert ask(cloud, "GET", "nothing")[0] == 404
    assert cloud.submissions == []


def test_a_job_told_step_by_step(cloud: RunPodCloud) -> None:
    job = submit(cloud)
    assert ask(cloud, "GET", f"status/{job}")[1] == {"id": job, "status": "IN_QUEUE"}
    cloud.start(job)
    cloud.progress(job, {"step": 1})
    shown = ask(cloud, "GET", f"status/{job}")[1]
    assert (shown["status"], shown["output"], shown["workerId"]) == ("IN_PROGRESS", {"step": 1}, "w0")
    cloud.finish(job, output={"fine": True})
    cloud.progress(job, {"step": 2})  # late
    shown = ask(cloud, "GET", f"status/{job}")[1]
    assert (shown["status"], shown["output"]) == ("COMPLETED", {"fine": True})
    assert {"delayTime", "executionTime"} <= set(shown)
    assert ask(cloud, "POST", f"cancel/{job}")[1] == {"id": job, "status": "COMPLETED"}


def test_time_ends_and_forgets_jobs(cloud: RunPodCloud) -> None:
    late = submit(cloud, policy={"executionTimeout": 60_000})
    expired = submit(cloud, policy={"ttl": 30_000})
    cloud.start(late)
    cloud.pass_time(61)
    assert ask(cloud, "GET", f"status/{late}")[1]["status"] == "TIMED_OUT"
    assert ask(cloud, "GET", f"status/{expired}")[0] == 404
    assert ask(cloud, "POST", f"retry/{late}")[1] == {"id": late, "status": "IN_QUEUE"}
    cloud.finish(late)
    assert "output" not in ask(cloud, "GET", f"status/{late}")[1]
    cloud.pass_time(1801)
    assert ask(cloud, "GET", f"status/{late}")[0] == 404


def test_what_is_broken_is_broken_as_told(cloud: RunPodCloud) -> None:
    cloud.fault("run", 503, handled=True)
    cloud.fault("run", 429, headers={"Retry-After": "3"}, body='{"error": "slowly"}')
    assert ask(cloud, "POST", "run", {"input": {}})[0] == 503
    assert len(cloud.submissions) == 1
    assert ask(cloud, "POST", "run", {"input": {}}) == (429, {"error": "slowly"})
    assert len(cloud.submissions) == 1
    cloud.lose_answer()
    with pytest.raises((OSError, urllib.error.URLError)):
        ask(cloud, "POST", "run", {"input": {}})
    assert len(cloud.submissions) == 2
    submit(cloud)
    assert cloud.requests == ["POST run"] * 4
    job = cloud.newest
    cloud.before["cancel"] = lambda job_id: cloud.finish(job_id, output={})
    assert ask(cloud, "POST", f"cancel/{job}")[1]["status"] == "COMPLETED"
    cloud.odd_errors_complete = True
    odd = submit(cloud)
    cloud.fail(odd, ["a", "b"])
    assert set(ask(cloud, "GET", f"status/{odd}")[1]) >= {"id", "status"}
    assert cloud.jobs[odd].status == "COMPLETED"


def test_webhooks_get_the_whole_envelope_and_two_more_tries(cloud: RunPodCloud) -> None:
    heard: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200 if len(heard) > 2 else 500)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    cloud.webhook_pause = 0.01
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        hook = f"http://127.0.0.1:{receiver.server_address[1]}/hook"
        job = submit(cloud, webhook=hook)
        cloud.finish(job, output={"fine": True})
        with cloud.changed:
            assert cloud.changed.wait_for(lambda: len(cloud.webhooks) == 3, 30)
        receiver.shutdown()
    assert cloud.webhooks == [(job, 500), (job, 500), (job, 200)]
    assert heard[0] == heard[2]
    told = {key: heard[0][key] for key in ("id", "status", "input", "output", "webhook")}
    assert told == {"id": job, "status": "COMPLETED", "input": {"n": 1}, "output": {"fine": True}, "webhook": hook}
