"""Storages on empty buckets of real servers, for tests."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest

from dreamctl.files import sha256_file
from dreamctl.storage.base import Access
from dreamctl.storage.s3 import S3Storage
from tests.servers.base import S3Server


def new_bucket(server: S3Server) -> str:
    name = f"bucket-{secrets.token_hex(6)}"
    server.client().create_bucket(Bucket=name)
    return name


def use_keys(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's keys as this user's own, in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    if server.certificate:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(server.certificate))


def s3_storage(server: S3Server, monkeypatch: pytest.MonkeyPatch, bucket: str = "", **access: Any) -> S3Storage:
    """A storage in a new bucket, or in one that there is, below a prefix."""
    use_keys(server, monkeypatch)
    url = f"s3://{bucket or new_bucket(server)}/a prefix"
    return S3Storage(url, Access(s3_endpoint=server.endpoint, **access))


def random_file(path: Path, size: int) -> tuple[Path, str]:
    """A file of so many random bytes, and its digest."""
    path.write_bytes(secrets.token_bytes(size))
    return path, sha256_file(path)


class Memory:
    """A ticket that lives in the test."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.state = state
        self.kept: list[dict[str, Any]] = []

    def keep(self, state: dict[str, Any]) -> None:
        self.state = state
        self.kept.append(state)
