"""Storages on empty buckets of real servers, for tests."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dreamctl.files import sha256_file
from dreamctl.storage.base import Access
from dreamctl.storage.s3 import S3Storage
from tests.servers.base import S3Server


@functools.cache
def client_of(server: S3Server) -> Any:
    """The server's client; making one takes long."""
    return server.client()


def new_bucket(server: S3Server) -> str:
    name = f"bucket-{secrets.token_hex(6)}"
    client_of(server).create_bucket(Bucket=name)
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


class Answers:
    """What a client gets instead of the server's answers, by operation; `given` counts how often."""

    def __init__(self, storage: S3Storage) -> None:
        self.given = 0
        self._refusals: dict[str, tuple[int, str, dict[str, str], Iterator[int]]] = {}
        self._events = storage._bucket.service.client.meta.events
        self._events.register("before-send.s3", self._answer)

    def give(
        self, operation: str, status: int, code: str = "", headers: dict[str, str] | None = None, times: int = 1000
    ) -> None:
        """The next `times` requests of the operation are refused in the words of S3."""
        self._refusals[operation] = status, code, headers or {}, iter(range(times))

    def lose(self, operation: str, times: int = 1) -> None:
        """The next `times` answers of the server to the operation do not arrive."""
        from botocore.exceptions import ConnectionClosedError

        left = iter(range(times))

        def lose(**_: Any) -> None:
            if next(left, None) is not None:
                self.given += 1
                raise ConnectionClosedError(endpoint_url="http://lost.example/?X-Amz-Signature=abc")

        self._events.register(f"after-call.s3.{operation}", lose)

    def _answer(self, request: Any, event_name: str, **_: Any) -> Any:
        from botocore.awsrequest import AWSResponse

        status, code, headers, left = self._refusals.get(event_name.rpartition(".")[2], (0, "", {}, iter(())))
        if next(left, None) is None:
            return None
        self.given += 1
        body = f"<Error><Code>{code}</Code><Message>in other words</Message></Error>" if code else ""
        raw = SimpleNamespace(stream=lambda: iter([b"" if request.method == "HEAD" else body.encode()]))
        return AWSResponse(request.url, status, {"Content-Type": "application/xml", **headers}, raw)
