"""An upload that is killed or told to stop at any moment: nothing half-visible; `--resume` and `--clean` do their work.

A few moments in `make test`, fifty of each kind in `make soak`.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers.ceph import Ceph
from tests.servers.proxy import Proxy, proxy
from tests.storage.stores import new_bucket, random_file

SIZE = 24 << 20
PIECE_SECONDS = 0.02  # a piece of the proxy's; an upload then takes about two seconds


@dataclass
class Slow:
    """A bucket behind a slow proxy, the environment that leads there, and a file to send."""

    client: Any
    bucket: str
    line: Proxy
    environment: dict[str, str]
    file: Path
    digest: str

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "dreamctl", "upload", *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        started = self.start(*words)
        out, err = started.communicate(timeout=120)
        return started.returncode, out.strip(), err

    def visible(self) -> bytes | None:
        """What everybody sees: the whole object, or nothing."""
        listed = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        if not listed:
            return None
        (item,) = listed
        return bytes(self.client.get_object(Bucket=self.bucket, Key=item["Key"])["Body"].read())

    def left(self) -> list[Any]:
        return list(self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", []))

    def empty(self) -> None:
        for item in self.client.list_objects_v2(Bucket=self.bucket).get("Contents", []):
            self.client.delete_object(Bucket=self.bucket, Key=item["Key"])


@pytest.fixture
def slow(ceph_servers: Ceph, tmp_path: Path) -> Iterator[Slow]:
    server = ceph_servers.plain
    file, digest = random_file(tmp_path / "weights.safetensors", SIZE)
    with proxy(server.endpoint) as line:
        line.delay = PIECE_SECONDS
        environment = {
            **os.environ,
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "DREAMCTL_S3_ENDPOINT": line.url,
            "DREAMCTL_STORAGE": "s3://" + (bucket := new_bucket(server)),
        }
        yield Slow(server.client(), bucket, line, environment, file, digest)


def test_killed_it_goes_on_where_it_was(slow: Slow) -> None:
    started = slow.start(str(slow.file))
    _until(lambda: bool(_parts(slow)))
    started.kill()
    started.wait()
    assert slow.visible() is None and len(slow.left()) == 1
    there, before = sum(part["Size"] for part in _parts(slow)), slow.line.passed
    slow.line.delay = 0
    code, url, err = slow.run("--resume")
    assert code == 0 and "going on with weights.safetensors" in err
    assert slow.line.passed - before < SIZE - there + (2 << 20)
    assert hashlib.sha256(httpx.get(url).content).hexdigest() == slow.digest
    assert not slow.left() and not list(_tickets(slow))


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_leaves_nothing(slow: Slow, kind: signal.Signals) -> None:
    started = slow.start(str(slow.file))
    _until(lambda: bool(_parts(slow)))
    started.send_signal(kind)
    out, err = started.communicate(timeout=60)
    assert started.returncode == 128 + kind and out == ""
    assert "nothing of it is left in the storage" in err and "Traceback" not in err
    assert slow.visible() is None and not slow.left() and not list(_tickets(slow))
    assert slow.run("--resume")[0] == 3


def test_what_a_kill_left_is_cleaned(slow: Slow) -> None:
    slow.line.delay = 0.3
    started = slow.start(str(slow.file))
    _until(lambda: bool(_parts(slow)))
    assert slow.run("--clean")[0] == 0 and len(slow.left()) == 1  # it runs: it is left alone
    started.kill()
    started.wait()
    slow.line.delay = 0
    code, out, _ = slow.run("--clean")
    assert code == 0 and "removed what was left of s3://" in out
    assert slow.visible() is None and not slow.left() and not list(_tickets(slow))
    assert slow.run("--clean")[1] == "nothing was left in a storage"


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_at_a_few_random_moments(slow: Slow, kind: signal.Signals) -> None:
    _rounds(slow, kind, 3, random.Random())


@pytest.mark.soak
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_at_fifty_random_moments(slow: Slow, kind: signal.Signals) -> None:
    _rounds(slow, kind, 50, random.Random(4))


def _rounds(slow: Slow, kind: signal.Signals, count: int, chance: random.Random) -> None:
    slow.line.delay = PIECE_SECONDS
    start = time.monotonic()
    assert slow.run(str(slow.file))[0] == 0
    whole = time.monotonic() - start
    told: dict[str, int] = {}
    for number in range(count):
        slow.empty()
        started = slow.start(str(slow.file))
        time.sleep(chance.uniform(0, whole * 1.1))
        started.send_signal(kind)
        _, err = started.communicate(timeout=60)
        seen = slow.visible()
        assert seen is None or hashlib.sha256(seen).hexdigest() == slow.digest
        if kind == signal.SIGTERM:
            assert started.returncode in (0, 143, -15), err
            assert "Traceback" not in err
            assert not slow.left() and not list(_tickets(slow)), err
        state = "done" if seen else "begun" if slow.left() else "nothing"
        told[state] = told.get(state, 0) + 1
        if number % 2 or not list(_tickets(slow)):
            code, _, err = slow.run("--clean")
            assert code == 0, err
        else:
            code, url, err = slow.run("--resume")
            assert code == 0, err
            assert hashlib.sha256(httpx.get(url).content).hexdigest() == slow.digest
        assert not slow.left() and not list(_tickets(slow)), (number, state)
    print(f"{kind.name}: {told}")


def _parts(slow: Slow) -> list[Any]:
    return [
        part
        for upload in slow.left()
        for part in slow.client.list_parts(Bucket=slow.bucket, Key=upload["Key"], UploadId=upload["UploadId"]).get(
            "Parts", []
        )
    ]


def _tickets(slow: Slow) -> Iterator[Path]:
    return Path(slow.environment["DREAMCTL_HOME"]).glob("uploads/*")


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
