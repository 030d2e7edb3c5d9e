"""Commands that deal with a run at RunPod, as processes: signals, exit codes, webhooks, what people read."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.clouds.robot import Robot, robot
from tests.clouds.runpod import RunPodCloud, runpod_cloud
from tests.fakes import write_dataset

KNOBS = ("training.steps=3", "training.resolution=64", "prior.pictures=0", "samples.prompts=[]")
TRAIN = ["train", "--category", "person", "--recipe", "builtin-lora", *(w for knob in KNOBS for w in ("--set", knob))]


@pytest.fixture
def worker(user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Robot]:
    """A worker that does not begin before it is let."""
    write_dataset(user / "processed", count=2)
    with runpod_cloud() as cloud, robot(cloud, tmp_path / "worker") as working:
        settings = {
            "BACKEND": "runpod", "RUNPOD_URL": cloud.url, "RUNPOD_ENDPOINT": cloud.endpoint, "BASE_MODEL": "builtin",
            "PRICE_PER_HOUR": "1", "MAX_COST": "50",
        }  # fmt: skip
        for name, value in settings.items():
            monkeypatch.setenv(f"DREAMCTL_{name}", value)
        monkeypatch.setenv("RUNPOD_API_KEY", cloud.token)
        working.hold.set()
        yield working


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dreamctl", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )


def run(*words: str, code: int = 0) -> tuple[str, str]:
    process = start(*words)
    out, err = process.communicate(timeout=90)
    assert process.returncode == code, err
    return out, err


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def begun(process: subprocess.Popen[str]) -> str:
    """The run's id, once the command follows it."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"run (\S+) is at RunPod", line):
            return found[1]
    raise AssertionError("it never followed")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_the_run_alone_and_says_so(worker: Robot, number: int, code: int) -> None:
    process = start(*TRAIN)
    run_id = begun(process)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert "which goes on at RunPod" in said and f"dreamctl cancel {run_id}" in said
    assert worker.cloud.jobs[worker.cloud.newest].status == "IN_QUEUE"
    out, _ = run("status", run_id, "--exit-status", code=8)
    assert "queued" in out
    worker.hold.clear()
    out, _ = run("train", "--resume", run_id)
    assert "sks@1" in out and worker.submitted == 1


def test_it_is_cancelled_where_that_was_asked_for(worker: Robot) -> None:
    process = start(*TRAIN, "--cancel-on-interrupt")
    run_id = begun(process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "is cancelled" in said
    assert worker.cloud.jobs[worker.cloud.newest].status == "CANCELLED"
    run("status", run_id, "--exit-status", code=6)


def test_exit_codes_for_scripts(worker: Robot, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = worker.cloud
    monkeypatch.delenv("DREAMCTL_MAX_COST")
    out, said = run(*TRAIN, "--json", code=2)
    assert json.loads(out)["error"]["code"] == "consent_required" and "--yes" in said and "max_cost" in said
    run("status", "nothing", code=3)
    run(*TRAIN, "--yes", "--runpod-endpoint", "other", code=3)
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_0000000000000000wrong")
    _, said = run(*TRAIN, "--yes", code=4)
    assert "dreamctl auth" in said
    monkeypatch.setenv("RUNPOD_API_KEY", cloud.token)
    monkeypatch.setenv("DREAMCTL_RUNPOD_URL", "http://127.0.0.1:9/v2")
    run(*TRAIN, "--yes", code=5)
    monkeypatch.setenv("DREAMCTL_RUNPOD_URL", cloud.url)
    assert cloud.submissions == []
    process = start(*TRAIN, "--yes")
    begun(process)
    cloud.fail(cloud.newest, json.dumps({"error_message": "CUDA out of memory", "error_traceback": "…"}))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 6 and "CUDA out of memory" in said and "Traceback" not in said


def test_a_webhook_brings_it_home_at_once(worker: Robot) -> None:
    listening = start("status", "--listen", "127.0.0.1:0", "--json")
    assert listening.stderr is not None and listening.stdout is not None
    port, path = 0, ""
    while not path.startswith("/runpod/"):
        line = listening.stderr.readline()
        port = int(found[1]) if (found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", line)) else port
        path = line.split()[-1] if "/runpod/" in line else path
    assert httpx.post(f"http://127.0.0.1:{port}/runpod/guessed", json={"id": "x"}).status_code == 404
    run(*TRAIN, "--detach", "--webhook", f"http://127.0.0.1:{port}{path}")
    worker.hold.clear()
    states = []
    while "succeeded" not in states:
        states.append(json.loads(listening.stdout.readline())["state"])
    assert worker.cloud.webhooks[-1][1] == 200
    listening.send_signal(signal.SIGTERM)
    assert listening.wait(20) == 143


def test_the_log_comes_home(worker: Robot) -> None:
    run(*TRAIN, "--detach")
    cloud: RunPodCloud = worker.cloud
    cloud.start(cloud.newest)
    cloud.progress(cloud.newest, {"schema": 1, "events": [], "log": ["one", "two \x1b[31mred"]})
    out, _ = run("logs", "last")
    assert out.splitlines() == ["one", "two [31mred"]
    following = start("logs", "last", "--follow")
    assert following.stdout is not None
    assert following.stdout.readline() == "one\n"
    cloud.progress(cloud.newest, {"schema": 1, "events": [], "log": ["two [31mred", "three"]})
    assert [following.stdout.readline(), following.stdout.readline()] == ["two [31mred\n", "three\n"]
    cloud.fail(cloud.newest, "it broke")
    assert following.wait(60) == 0


def test_no_secret_lies_anywhere(worker: Robot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.hold.clear()
    _, said = run(*TRAIN, "--webhook", "https://example.com/hook?token=verysecret1234", "--log-level", "debug")
    held = said + "".join(
        path.read_bytes().decode("latin-1") for path in Path(os.environ["DREAMCTL_HOME"]).rglob("*") if path.is_file()
    )
    for secret in (worker.cloud.token, "verysecret1234"):
        assert secret not in held
