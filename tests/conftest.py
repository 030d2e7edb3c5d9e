"""What every test has: a user and a project of its own, and no setting of the person who runs the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamctl import http
from tests.clouds.environment import clouds_python_or_skip  # noqa: F401 (a fixture of every test)
from tests.servers.fixtures import ceph_servers, gcs_server, swift_server  # noqa: F401 (fixtures of every test)

# Set before any library reads them: nothing in a test may reach a hub, and processes share the cores.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")

# What cloud libraries read beside the settings of dreamctl: credentials, addresses, proxies.
CLOUDS = ("AWS_", "BOTO_", "GOOGLE_", "GCE_", "GCLOUD_", "CLOUDSDK_", "STORAGE_EMULATOR_HOST")
PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh `DREAMCTL_HOME` and a fresh current folder; returns the project's folder."""
    monkeypatch.setattr(http, "_secrets", set())  # what one test's keys hide is no secret in the next
    for name in [key for key in os.environ if key.startswith("DREAMCTL_") and not key.startswith("DREAMCTL_TEST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    for name in (
        "HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "RUNPOD_API_KEY", "REPLICATE_API_TOKEN", "OPENAI_API_KEY",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    for name in [key for key in os.environ if key.startswith(CLOUDS) or key.upper() in PROXIES]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "BOTO_CONFIG", "CLOUDSDK_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / "no-cloud" / name))  # instead of a file below the home folder
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.setenv("DREAMCTL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(project)
    return project


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of 64 KiB, or of the size that the test's parameter says."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={getattr(request, 'param', '64k')}", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs root and the right to mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a failed test may hold a file
