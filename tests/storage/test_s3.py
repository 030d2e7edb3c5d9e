"""S3 beyond what every storage promises: few rights, long lists, odd keys, downloads that are gone on with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("boto3")

from dreamctl.errors import CredentialsError, ProviderError
from dreamctl.files import sha256_file, stamp_of
from dreamctl.storage import patience
from dreamctl.storage.base import Changed, StoredObject
from dreamctl.storage.s3 import S3Storage
from tests.servers.base import S3Server
from tests.servers.ceph import Ceph
from tests.servers.proxy import Proxy, proxy
from tests.storage.stores import Memory, client_of, new_bucket, random_file, s3_storage, unfinished

MIB = 1 << 20
ODD_KEYS = (
    "a b.zip",
    "a+b.zip",
    "100%.zip",
    "a%20b.zip",
    "#1/what?.zip",
    "ü/日本.zip",
    "a&b=c;d,e@f:g.zip",
    "~'()*!.zip",
)


@pytest.fixture
def server(ceph_servers: Ceph) -> S3Server:
    return ceph_servers.plain


@pytest.fixture
def storage(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Storage:
    return s3_storage(server, monkeypatch)


@pytest.fixture
def between(server: S3Server) -> Iterator[Proxy]:
    with proxy(server.endpoint) as running:
        yield running


def on(storage: S3Storage, event: str, act: Callable[..., object]) -> None:
    """Do something at an event of boto3's client."""

    def handle(**about: Any) -> None:  # what a handler returns may be taken for the answer
        act(**about)

    storage._bucket.service.client.meta.events.register(event, handle)


# few rights


@pytest.fixture
def limited(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Storage:
    """A bucket in which the second user may read and write objects, and nothing else."""
    assert server.other
    bucket = new_bucket(server)
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": ["arn:aws:iam:::user/other"]},
        "Action": ["s3:PutObject", "s3:GetObject"],
        "Resource": [f"arn:aws:s3:::{bucket}/*"],
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    client_of(server).put_bucket_policy(Bucket=bucket, Policy=policy)
    return s3_storage(server.as_user(*server.other), monkeypatch, bucket)


@pytest.mark.parametrize("size", [1000, 12 * MIB])
@pytest.mark.parametrize("state", [None, {}])
def test_who_may_only_read_and_write_objects_stores_all_sizes(
    limited: S3Storage, size: int, state: dict[str, Any] | None, tmp_path: Path
) -> None:
    file, digest = random_file(tmp_path / "file", size)
    if state is not None:  # left by a process that was killed before the upload had an id
        state = {"bytes": size, "sha256": digest, "part_bytes": 5 * MIB}
    assert limited.head("key") is None
    stored = limited.put("key", file, digest, ticket=Memory(state))
    assert limited.head("key") == stored and limited.get("key", tmp_path / "back") == stored
    with pytest.raises(Changed):
        limited.put("key", file, digest, create_only=True)
    assert limited.link("key", 60).url
    with pytest.raises(CredentialsError, match="no permission to list"):
        list(limited.list())


def test_who_may_not_remove_parts_is_told_so(limited: S3Storage, server: S3Server, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    ticket = Memory()
    with pytest.raises(KeyboardInterrupt):
        limited.put("key", *random_file(tmp_path / "file", 12 * MIB), ticket=ticket, progress=stop)
    with pytest.raises(CredentialsError, match="no permission to look at"):
        limited.abandon("key", ticket.state or {})
    assert len(unfinished(server, limited._bucket.name)) == 1


# lists and keys


@pytest.mark.parametrize("over", ["plain", "swift"])
def test_odd_keys_are_stored_found_listed_linked_and_deleted(
    over: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fixture = request.getfixturevalue("swift_server" if over == "swift" else "ceph_servers")
    storage = s3_storage(fixture if over == "swift" else getattr(fixture, over), monkeypatch)
    for number, key in enumerate(ODD_KEYS, 1):
        file, digest = random_file(tmp_path / "file", number)
        assert storage.put(key, file, digest).key == key
    on(storage, "provide-client-params.s3.ListObjectsV2", lambda params, **_: params.update(MaxKeys=3))
    assert {item.key: item.bytes for item in storage.list()} == {key: n for n, key in enumerate(ODD_KEYS, 1)}
    assert [item.key for item in storage.list("#1/")] == ["#1/what?.zip"]
    for number, key in enumerate(ODD_KEYS, 1):
        assert storage.get(key, tmp_path / "back").bytes == number
        assert number % 3 or storage.link(key, 60).url  # tried by itself; not all of them, for it takes long
        assert storage.delete(key)
    assert not list(storage.list())


def test_lists_come_in_pages_and_pass_over_folders_and_what_is_of_another_prefix(
    storage: S3Storage, server: S3Server, tmp_path: Path
) -> None:
    pages: list[dict[str, Any]] = []
    on(storage, "provide-client-params.s3.ListObjectsV2", lambda params, **_: params.update(MaxKeys=2))
    on(storage, "after-call.s3.ListObjectsV2", lambda parsed, **_: pages.append(parsed))
    for key in ("a prefix/", "a prefix/x//y", "a prefix/folder/", "a prefixed/z", "z"):
        client_of(server).put_object(Bucket=storage._bucket.name, Key=key, Body=b"")
    file, digest = random_file(tmp_path / "file", 10)
    keys = [f"k{number}" for number in range(5)] + ["sub/k"]
    for key in keys:
        storage.put(key, file, digest)
    assert [item.key for item in storage.list()] == [*keys, "x//y"] and len(pages) >= 4
    assert [item.key for item in storage.list(recursive=False)] == keys[:-1]


def test_unfinished_uploads_come_in_pages_too(storage: S3Storage, server: S3Server) -> None:
    bucket, client = storage._bucket.name, client_of(server)
    pages: list[dict[str, Any]] = []
    on(storage, "provide-client-params.s3.ListMultipartUploads", lambda params, **_: params.update(MaxUploads=2))
    on(storage, "after-call.s3.ListMultipartUploads", lambda parsed, **_: pages.append(parsed))
    begun = {}
    for key in ("a", "a", "b c+d", "ü", "z"):
        upload = client.create_multipart_upload(Bucket=bucket, Key=f"a prefix/{key}")["UploadId"]
        begun[upload] = key
    client.create_multipart_upload(Bucket=bucket, Key="elsewhere")
    found = list(storage.unfinished())
    assert {item.state["upload_id"]: item.key for item in found} == begun and len(pages) == 3
    assert all(storage.abandon(item.key, item.state) for item in found) and not list(storage.unfinished())


# downloads


def test_a_download_is_gone_on_with_by_the_next_call(
    server: S3Server, between: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.0)
    file, digest = random_file(tmp_path / "file", 16 * MIB)
    storage = s3_storage(server.at(between.url), monkeypatch, new_bucket(server))
    s3_storage(server, monkeypatch, storage._bucket.name).put("key", file, digest)
    between.cut_each = 8 * MIB
    with pytest.raises(ProviderError, match=r"^cannot reach 127\.0\.0\.1:\d+: "):
        storage.get("key", tmp_path / "back")
    assert not (tmp_path / "back").exists()
    (part,) = tmp_path.glob(".back.*.part")
    came, before, between.cut_each = part.stat().st_size, between.passed, None
    assert came >= MIB
    assert storage.get("key", tmp_path / "back").sha256 == digest
    assert between.passed - before < 16 * MIB - came + 50_000
    assert sha256_file(tmp_path / "back") == digest and not part.exists()


def test_an_object_that_is_replaced_meanwhile_is_never_mixed(
    storage: S3Storage, server: S3Server, tmp_path: Path
) -> None:
    place = {"Bucket": storage._bucket.name, "Key": "a prefix/key"}
    storage.put("key", *random_file(tmp_path / "file", MIB))
    on(storage, "before-send.s3.GetObject", lambda **_: client_of(server).put_object(**place, Body=os.urandom(MIB)))
    (tmp_path / "back").write_text("old")
    with pytest.raises(Changed, match="was replaced while it was read"):
        storage.get("key", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "old"


def test_an_object_whose_digest_is_recorded_wrong_is_refused(
    storage: S3Storage, server: S3Server, tmp_path: Path
) -> None:
    place = {"Bucket": storage._bucket.name, "Key": "a prefix/key"}
    client_of(server).put_object(**place, Body=b"content", Metadata={"sha256": "0" * 64})
    with pytest.raises(ProviderError, match=r"^key is not what was stored: "):
        storage.get("key", tmp_path / "folder" / "back")
    assert not list((tmp_path / "folder").iterdir())


def test_an_object_of_others_without_a_digest_comes_with_the_digest_of_what_was_written(
    storage: S3Storage, server: S3Server, tmp_path: Path
) -> None:
    client_of(server).put_object(Bucket=storage._bucket.name, Key="a prefix/key", Body=b"content")
    head = storage.head("key")
    assert head and (head.bytes, head.sha256) == (7, "")
    digest = storage.get("key", tmp_path / "back").sha256
    assert digest == sha256_file(tmp_path / "back")
    assert storage.head("key") == StoredObject("key", 7, "", head.version)


# what is sent


@pytest.mark.parametrize("over", ["plain", "tls", "swift"])
@pytest.mark.parametrize("size", [1000, 6 * MIB])
def test_a_body_that_is_damaged_on_the_way_is_refused_and_sent_again(
    over: str, size: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By its signature: no checksum that a server may pass over."""
    monkeypatch.setattr(patience, "backoff", lambda attempt: 0.01)
    fixture = request.getfixturevalue("swift_server" if over == "swift" else "ceph_servers")
    storage = s3_storage(fixture if over == "swift" else getattr(fixture, over), monkeypatch)
    file, digest = random_file(tmp_path / "file", size)
    damaged: list[object] = []

    def damage(request: Any, **_: Any) -> None:
        if request.method == "PUT" and not damaged:
            damaged.append(request)
            request.body = b"?" + request.body.read()[1:]

    on(storage, "before-send.s3", damage)
    assert storage.put("key", file, digest).sha256 == digest
    assert damaged and storage.get("key", tmp_path / "back").sha256 == digest


def test_the_kind_of_content_is_recorded(storage: S3Storage, server: S3Server, tmp_path: Path) -> None:
    file, digest = random_file(tmp_path / "file", 10)
    for key, kind in {
        "a.zip": "application/zip",
        "a.json": "application/json",
        "a": "application/octet-stream",
    }.items():
        storage.put(key, file, digest, stamp=stamp_of(file.stat()))
        place = {"Bucket": storage._bucket.name, "Key": f"a prefix/{key}"}
        assert client_of(server).head_object(**place)["ContentType"] == kind
