"""The storages of the shared suite, and the servers behind them."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamctl.storage.base import Storage
from tests.storage.fake_gcs import FakeGcs, fake_gcs


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    """A fake of Google Cloud Storage with the bucket `bucket`, for whoever asks Google's client."""
    pytest.importorskip("google.cloud.storage")
    with fake_gcs() as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
        yield running


@pytest.fixture
def gcs(fake: FakeGcs) -> Storage:
    from dreamctl.storage.gcs import GcsStorage

    return GcsStorage("gs://bucket/some/prefix")


@pytest.fixture(scope="session")
def emulator() -> Iterator[str]:
    """The URL of a running gcp-storage-emulator."""
    pytest.importorskip("google.cloud.storage")
    program = shutil.which("gcp-storage-emulator", path=os.environ.get("DREAMCTL_TEST_SERVERS_BIN"))
    if program is None:
        pytest.skip("needs gcp-storage-emulator")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [program, "start", "--host=127.0.0.1", f"--port={port}", "--in-memory", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


@pytest.fixture
def emulated_bucket(emulator: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new bucket in the emulator."""
    from google.cloud import storage

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    name = f"bucket-{secrets.token_hex(4)}"
    storage.Client(project="project").create_bucket(name)
    return f"gs://{name}"


@pytest.fixture
def gcs_emulated(emulated_bucket: str) -> Storage:
    from dreamctl.storage.gcs import GcsStorage

    return GcsStorage(f"{emulated_bucket}/some/prefix")


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """The key file of a service account that does not exist."""
    from tests.storage.accounts import service_account

    return service_account(tmp_path)
