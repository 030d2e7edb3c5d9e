"""An upload that is killed or told to stop at any moment: nothing half-visible; `--resume` and `--clean` do their work.

A moment of each kind in `make test`, fifty of each kind in `make soak`.
"""

from __future__ import annotations

import hashlib
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers.ceph import Ceph
from tests.servers.gcs import GcsServer, service_account
from tests.servers.proxy import Proxy, proxy
from tests.storage.stores import new_bucket, random_file

SIZE = 48 << 20  # more parts than are sent at a time
PIECE_SECONDS = 0.02  # a piece of the proxy's; an upload then takes about two seconds


@dataclass
class Slow:
    """A bucket behind a slow proxy, the environment that leads there, and a file to send.

    `objects` gives all that everybody sees in the bucket, `empty` removes it, `left` are the unfinished uploads.
    """

    line: Proxy
    environment: dict[str, str]
    file: Path
    digest: str
    objects: Callable[[], list[bytes]]
    empty: Callable[[], None]
    left: Callable[[], list[Any]]
    parts: Callable[[], list[Any]]

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
        """The one object that everybody sees, whole, or nothing."""
        found = self.objects()
        assert len(found) < 2
        return found[0] if found else None


@pytest.fixture
def slow(ceph_servers: Ceph, tmp_path: Path) -> Iterator[Slow]:
    """Ceph."""
    server = ceph_servers.plain
    client, bucket = server.client(), new_bucket(server)
    file, digest = random_file(tmp_path / "weights.safetensors", SIZE)

    def keys() -> list[str]:
        return [item["Key"] for item in client.list_objects_v2(Bucket=bucket).get("Contents", [])]

    def objects() -> list[bytes]:
        return [client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys()]

    def empty() -> None:
        for key in keys():
            client.delete_object(Bucket=bucket, Key=key)

    def left() -> list[Any]:
        return list(client.list_multipart_uploads(Bucket=bucket).get("Uploads", []))

    def parts() -> list[Any]:
        found = []
        for upload in left():
            listed = client.list_parts(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
            found += listed.get("Parts", [])
        return found

    with proxy(server.endpoint) as line:
        line.delay = PIECE_SECONDS
        environment = {
            **os.environ,
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "DREAMCTL_S3_ENDPOINT": line.url,
            "DREAMCTL_STORAGE": f"s3://{bucket}",
        }
        yield Slow(line, environment, file, digest, objects, empty, left, parts)


@pytest.fixture
def slow_gcs(gcs_server: GcsServer, tmp_path: Path) -> Iterator[Slow]:
    """The emulator of Google Cloud Storage, whose sessions nobody lists; there is nothing to clean."""
    name = f"bucket-{secrets.token_hex(6)}"
    client = gcs_server.client()
    client.create_bucket(name)
    file, digest = random_file(tmp_path / "weights.safetensors", SIZE // 4)

    def objects() -> list[bytes]:
        return [blob.download_as_bytes() for blob in client.list_blobs(name)]

    def empty() -> None:
        for blob in client.list_blobs(name):
            blob.delete()

    with proxy(gcs_server.endpoint) as line:
        line.delay = PIECE_SECONDS
        environment = {
            **os.environ,
            "STORAGE_EMULATOR_HOST": line.url,
            "DREAMCTL_GCS_CREDENTIALS": str(service_account(tmp_path)),
            "DREAMCTL_STORAGE": f"gs://{name}",
        }
        yield Slow(line, environment, file, digest, objects, empty, list, list)


def test_killed_it_goes_on_where_it_was(slow: Slow) -> None:
    started = slow.start(str(slow.file))
    _until(lambda: bool(slow.parts()))
    slow.line.stalled = True
    started.kill()
    started.wait()
    slow.line.stalled = False
    _until_nothing_passes(slow.line)  # what the killed one had sent is still under way
    assert slow.visible() is None and len(slow.left()) == 1
    there, before = sum(part["Size"] for part in slow.parts()), slow.line.passed
    slow.line.delay = 0
    code, url, err = slow.run("--resume")
    assert code == 0 and "going on with weights.safetensors" in err
    assert slow.line.passed - before < SIZE - there + (2 << 20)
    assert hashlib.sha256(httpx.get(url).content).hexdigest() == slow.digest
    assert not slow.left() and not list(_tickets(slow))


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_leaves_nothing(slow: Slow, kind: signal.Signals) -> None:
    slow.line.delay = 0.2
    started = slow.start(str(slow.file))
    _until(lambda: bool(slow.parts()))
    started.send_signal(kind)
    out, err = started.communicate(timeout=60)
    assert started.returncode == 128 + kind and out == ""
    assert "nothing of it is left in the storage" in err and "Traceback" not in err
    assert slow.visible() is None and not slow.left() and not list(_tickets(slow))
    assert slow.run("--resume")[0] == 3


def test_what_a_kill_left_is_cleaned(slow: Slow) -> None:
    started = slow.start(str(slow.file))
    _until(lambda: bool(slow.parts()))
    slow.line.stalled = True
    assert slow.run("--clean")[0] == 0 and len(slow.left()) == 1  # it runs: it is left alone
    started.kill()
    started.wait()
    slow.line.stalled, slow.line.delay = False, 0
    code, out, _ = slow.run("--clean")
    assert code == 0 and "removed what was left of s3://" in out
    assert slow.visible() is None and not slow.left() and not list(_tickets(slow))
    assert slow.run("--clean")[1] == "nothing was left in a storage"


@pytest.mark.parametrize("store", ["slow", "slow_gcs"])
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_at_a_random_moment(request: pytest.FixtureRequest, store: str, kind: signal.Signals) -> None:
    _rounds(request.getfixturevalue(store), kind, 1, random.randrange(1 << 32))


@pytest.mark.soak
@pytest.mark.parametrize("store", ["slow", "slow_gcs"])
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_at_fifty_random_moments(request: pytest.FixtureRequest, store: str, kind: signal.Signals) -> None:
    _rounds(request.getfixturevalue(store), kind, 50, 4)


def _rounds(slow: Slow, kind: signal.Signals, count: int, seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
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


def _tickets(slow: Slow) -> Iterator[Path]:
    return Path(slow.environment["DREAMCTL_HOME"]).glob("uploads/*")


def _until_nothing_passes(line: Proxy) -> None:
    passed = -1
    while line.passed != passed:
        passed = line.passed
        time.sleep(0.5)


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
