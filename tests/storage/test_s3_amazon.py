"""What is sent to Amazon itself, where checksums follow the bodies: seen by an Amazon in memory, without a network."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("boto3")

from dreamctl.storage import patience
from dreamctl.storage.base import Access
from dreamctl.storage.s3 import S3Storage
from tests.storage.stores import Memory, random_file

MIB = 1 << 20


class Amazon:
    """Answers a client's requests, and takes bodies apart as Amazon does; `breaks` bodies are cut in their middle."""

    def __init__(self, storage: S3Storage, breaks: int = 0) -> None:
        self._breaks = iter(range(breaks))
        self.hosts: set[str] = set()
        self.sent: list[str] = []
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self._parts: dict[int, bytes] = {}
        self._about: dict[str, str] = {}
        storage._bucket.service.client.meta.events.register("before-send.s3", self._answer)

    def _answer(self, request: Any, event_name: str, **_: Any) -> Any:
        from botocore.awsrequest import AWSResponse

        parts = urlsplit(request.url)
        self.hosts.add(parts.netloc)
        operation = event_name.rpartition(".")[2]
        self.sent.append(operation)
        headers = {name.lower(): _text(value) for name, value in request.headers.items()}
        answer: Callable[[str, dict[str, list[str]], dict[str, str], Any], tuple[int, str, dict[str, str]]]
        answer = getattr(self, operation)
        status, body, about = answer(parts.path, parse_qs(parts.query), headers, request.body)
        raw = SimpleNamespace(stream=lambda: iter([body.encode()]))
        return AWSResponse(request.url, status, {"Content-Type": "application/xml", **about}, raw)

    def HeadBucket(self, *_: Any) -> Any:  # noqa: N802
        return 200, "", {}

    def HeadObject(self, path: str, *_: Any) -> Any:  # noqa: N802
        data, about = self.objects[path]
        about = {name: value for name, value in about.items() if name.startswith("x-amz-meta-")}
        return 200, "", {"Content-Length": str(len(data)), "ETag": '"e"', **about}

    def PutObject(self, path: str, query: Any, headers: dict[str, str], body: Any) -> Any:  # noqa: N802
        self.objects[path] = self._taken_apart(headers, body), headers
        return 200, "", {"ETag": '"e"'}

    def CreateMultipartUpload(self, path: str, query: Any, headers: dict[str, str], body: Any) -> Any:  # noqa: N802
        self._about = headers
        return 200, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>", {}

    def UploadPart(self, path: str, query: Any, headers: dict[str, str], body: Any) -> Any:  # noqa: N802
        data = self._taken_apart(headers, body)
        self._parts[int(query["partNumber"][0])] = data
        return 200, "", {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}

    def CompleteMultipartUpload(self, path: str, query: Any, headers: Any, body: Any) -> Any:  # noqa: N802
        listed = re.findall(r'<ETag>(?:"|&quot;)(\w+)(?:"|&quot;)</ETag>', _text(body))
        assert listed == [hashlib.md5(self._parts[number]).hexdigest() for number in sorted(self._parts)]
        self.objects[path] = b"".join(self._parts[number] for number in sorted(self._parts)), self._about
        return 200, "<CompleteMultipartUploadResult><Key>k</Key></CompleteMultipartUploadResult>", {}

    def _taken_apart(self, headers: dict[str, str], body: Any) -> bytes:
        """The content of a body in chunks, whose checksum comes behind it."""
        from botocore.exceptions import ConnectionClosedError

        assert headers["x-amz-content-sha256"] == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        assert (headers["content-encoding"], headers["x-amz-trailer"]) == ("aws-chunked", "x-amz-checksum-crc32")
        if next(self._breaks, None) is not None:
            body.read(MIB)
            raise ConnectionClosedError(endpoint_url="https://amazon.example")
        rest, content = b"".join(iter(lambda: body.read(16384), b"")), b""
        while True:
            size, _, rest = rest.partition(b"\r\n")
            if size == b"0":
                break
            content, rest = content + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        assert len(content) == int(headers["x-amz-decoded-content-length"])
        checksum = base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()
        assert rest.decode().strip() == f"x-amz-checksum-crc32:{checksum}"
        return content


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> S3Storage:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOFMINE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-mine")
    monkeypatch.setattr(patience, "backoff", lambda attempt: 0.001)
    return S3Storage("s3://bucket/folder", Access(s3_region="eu-central-1"))


@pytest.mark.parametrize("breaks", [0, 3])
@pytest.mark.parametrize("size", [1000, 12 * MIB])
def test_every_body_carries_its_checksum_also_when_it_is_sent_again(
    storage: S3Storage, size: int, breaks: int, tmp_path: Path
) -> None:
    amazon = Amazon(storage, breaks)
    file, digest = random_file(tmp_path / "file", size)
    told: list[int] = []
    stored = storage.put("key.zip", file, digest, ticket=Memory(), progress=lambda done, total: told.append(done))
    content, headers = amazon.objects["/folder/key.zip"]
    assert content == file.read_bytes() and stored.sha256 == digest
    assert headers["content-type"] == "application/zip" and told == sorted(told) and told[-1] == size
    assert amazon.hosts == {"bucket.s3.eu-central-1.amazonaws.com"}
    assert amazon.sent.count("UploadPart" if size > MIB else "PutObject") >= (3 if size > MIB else 1) + breaks
