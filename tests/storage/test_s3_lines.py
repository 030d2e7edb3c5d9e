"""Bad lines to S3, and answers that are lost on them: what can end right does, and nothing is told that is not so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("boto3")

from dreamctl.errors import ProviderError
from dreamctl.storage import patience, s3_client
from dreamctl.storage.base import Changed
from dreamctl.storage.s3 import S3Storage
from tests.servers.ceph import Ceph
from tests.servers.proxy import Proxy, proxy
from tests.storage.stores import Answers, Memory, client_of, new_bucket, random_file, s3_storage, unfinished

MIB = 1 << 20
MIBS = {"just one part": 4.5, "large": 24, "larger": 64}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once, and there is little patience where nothing gets forward."""
    monkeypatch.setattr(patience, "backoff", lambda attempt: 0.02)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.5)


@pytest.fixture(params=["plain", "tls"])
def between(request: pytest.FixtureRequest, ceph_servers: Ceph) -> Iterator[Proxy]:
    with proxy(getattr(ceph_servers, request.param).endpoint) as running:
        yield running


@pytest.fixture
def storage(between: Proxy, ceph_servers: Ceph, monkeypatch: pytest.MonkeyPatch) -> S3Storage:
    """By way of the proxy."""
    server = ceph_servers.tls if between.url.startswith("https") else ceph_servers.plain
    return s3_storage(server.at(between.url), monkeypatch, new_bucket(ceph_servers.plain))


only_plain = pytest.mark.parametrize("between", ["plain"], indirect=True)


# cut, silent, refused, too busy


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("between", "size"), [*(("plain", size) for size in MIBS), ("tls", "large")], indirect=["between"]
)
def test_a_line_that_is_cut_each_3_mb_carries_everything_both_ways(
    storage: S3Storage, between: Proxy, size: str, tmp_path: Path
) -> None:
    """Even with hardly any patience: it is not luck that it ends right."""
    file, digest = random_file(tmp_path / "file", int(MIBS[size] * MIB))
    between.cut_after = 3_000_000
    assert storage.put("key", file, digest).sha256 == digest
    assert storage.get("key", tmp_path / "back").sha256 == digest
    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    assert between.cuts >= file.stat().st_size * 2 // 3_000_000 - 1


@only_plain
@pytest.mark.usefixtures("quick")
def test_a_download_gets_through_where_every_connection_is_cut_at_3_mb(
    storage: S3Storage, between: Proxy, tmp_path: Path
) -> None:
    file, digest = random_file(tmp_path / "file", 24 * MIB)
    storage.put("key", file, digest)
    starts: list[int] = []

    def look(request: Any, **_: Any) -> None:
        starts.append(int(request.headers["Range"].decode().removeprefix("bytes=").removesuffix("-")))

    storage._bucket.service.client.meta.events.register("before-send.s3.GetObject", look)
    between.cut_each = 3_000_000
    assert storage.get("key", tmp_path / "back").sha256 == digest
    assert starts == sorted(starts) and len(set(starts)) > 8  # what came once is not fetched again


@only_plain
@pytest.mark.usefixtures("quick")
def test_a_line_that_carries_no_part_is_given_up_and_gone_on_with_later(
    storage: S3Storage, between: Proxy, tmp_path: Path
) -> None:
    file, digest = random_file(tmp_path / "file", 8 * MIB)
    storage.head("key")
    ticket, between.cut_each = Memory(), 3_000_000
    with pytest.raises(ProviderError, match=r"^cannot reach 127\.0\.0\.1:\d+: [a-z ]+$"):
        storage.put("key", file, digest, ticket=ticket)
    between.cut_each = None
    assert storage.head("key") is None and ticket.state
    assert storage.put("key", file, digest, ticket=ticket).sha256 == digest


@only_plain
@pytest.mark.parametrize("size", [1, 24])
def test_a_line_that_falls_silent_and_comes_back_is_borne(
    between: Proxy, ceph_servers: Ceph, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "READ_SECONDS", 0.3)
    storage = s3_storage(ceph_servers.plain.at(between.url), monkeypatch, new_bucket(ceph_servers.plain))
    file, digest = random_file(tmp_path / "file", size * MIB)
    storage.head("key")
    silent: list[int] = []

    def comes_back(attempt: int) -> float:  # asked for when the first request is given up
        silent.append(attempt)
        between.stalled = False
        return 0.01

    monkeypatch.setattr(patience, "backoff", comes_back)
    between.stalled = True
    assert storage.put("key", file, digest).sha256 == digest
    between.stalled = True
    assert storage.get("key", tmp_path / "back").sha256 == digest
    assert len(silent) >= 2


@only_plain
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("size", [1, 24])
def test_refused_connections_are_borne(storage: S3Storage, between: Proxy, size: int, tmp_path: Path) -> None:
    file, digest = random_file(tmp_path / "file", size * MIB)
    between.refuse = 3
    assert storage.put("key", file, digest).sha256 == digest
    between.refuse = 3
    another = S3Storage(f"s3://{storage._bucket.name}/a prefix", storage._access)  # whose connections are new
    assert another.get("key", tmp_path / "back").sha256 == digest
    assert between.refuse == 0


@only_plain
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("code", ["SlowDown", "InternalError", "BadDigest"])
def test_a_server_that_is_busy_is_asked_again(storage: S3Storage, code: str, tmp_path: Path) -> None:
    status = {"SlowDown": 503, "InternalError": 500, "BadDigest": 400}[code]
    answers = Answers(storage)
    for operation in (
        "HeadBucket", "HeadObject", "PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload",
        "GetObject", "ListObjectsV2",
    ):  # fmt: skip
        answers.give(operation, status, code, times=2)
    for size in (1, 12):
        file, digest = random_file(tmp_path / "file", size * MIB)
        storage.put(f"key {size}", file, digest)
        assert storage.get(f"key {size}", tmp_path / "back").sha256 == digest
    assert [item.key for item in storage.list()] == ["key 1", "key 12"] and answers.given >= 12


@only_plain
def test_the_pause_that_a_server_asks_for_is_made(
    storage: S3Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float | None] = []
    monkeypatch.setattr(patience.Patience, "wait", lambda self, attempt, trouble: waited.append(trouble.wait))
    Answers(storage).give("PutObject", 503, "SlowDown", {"retry-after": "7"}, times=2)
    storage.put("key", *random_file(tmp_path / "file", MIB))
    assert waited == [7, 7]


# answers that are lost


@only_plain
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("operation", ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"])
def test_a_lost_answer_to_a_part_of_an_upload(
    storage: S3Storage, operation: str, ceph_servers: Ceph, tmp_path: Path
) -> None:
    file, digest = random_file(tmp_path / "file", 12 * MIB)
    answers = Answers(storage)
    answers.lose(operation)
    assert storage.put("key", file, digest, ticket=Memory()).sha256 == digest
    assert storage.get("key", tmp_path / "back").sha256 == digest
    assert answers.given == 1
    left = unfinished(ceph_servers.plain, storage._bucket.name)
    assert len(left) == (operation == "CreateMultipartUpload")  # whose id nobody knows, and which holds nothing


@only_plain
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("condition", ["create", "replace"])
def test_a_lost_answer_to_a_condition_that_held_is_no_rival(storage: S3Storage, condition: str, tmp_path: Path) -> None:
    file, digest = random_file(tmp_path / "file", 1000)
    first = storage.put("key", *random_file(tmp_path / "first", 1000)) if condition == "replace" else None
    Answers(storage).lose("PutObject")
    stored = storage.put("key", file, digest, create_only=first is None, if_version=first.version if first else None)
    assert stored.sha256 == digest and storage.head("key") == stored


Rival = Callable[[dict[str, Any]], object]


@only_plain
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("condition", ["create", "replace"])
@pytest.mark.parametrize("same", [False, True])
def test_a_rival_that_was_quicker_is_one_also_when_it_stored_the_same(
    storage: S3Storage, condition: str, same: bool, ceph_servers: Ceph, tmp_path: Path
) -> None:
    file, digest = random_file(tmp_path / "file", 1000)
    first = storage.put("key", *random_file(tmp_path / "first", 1000)) if condition == "replace" else None
    content = file.read_bytes() if same else b"the rival's"
    place = {"Bucket": storage._bucket.name, "Key": "a prefix/key"}

    def rival(**_: Any) -> None:
        client_of(ceph_servers.plain).put_object(**place, Body=content, Metadata={"sha256": digest})

    storage._bucket.service.client.meta.events.register("before-send.s3.PutObject", rival)
    with pytest.raises(Changed):
        storage.put("key", file, digest, create_only=first is None, if_version=first.version if first else None)
    assert client_of(ceph_servers.plain).get_object(**place)["Body"].read() == content
