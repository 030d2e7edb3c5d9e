"""The storages of the shared suite: each on an empty bucket."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamctl.storage.base import Storage
from dreamctl.storage.local import LocalStorage
from tests.servers.gcs import GcsServer


@pytest.fixture
def local(tmp_path: Path) -> Storage:
    return LocalStorage((tmp_path / "a bücket").as_uri())


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A fake of Google Cloud Storage with the bucket `bucket`, for whoever asks Google's client."""
    pytest.importorskip("google.cloud.storage")
    from tests.storage.fake_gcs import fake_gcs

    with fake_gcs() as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
        yield running


@pytest.fixture
def gcs(fake: object) -> Storage:
    from dreamctl.storage.gcs import GcsStorage

    return GcsStorage("gs://bucket/some/prefix")


@pytest.fixture
def emulated_bucket(gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new bucket in the emulator."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.endpoint)
    name = f"bucket-{secrets.token_hex(4)}"
    gcs_server.client().create_bucket(name)
    return f"gs://{name}"


@pytest.fixture
def gcs_emulated(emulated_bucket: str) -> Storage:
    from dreamctl.storage.gcs import GcsStorage

    return GcsStorage(f"{emulated_bucket}/some/prefix")
