"""URLs of S3 objects: they work for any HTTP client, for so long and for no more, and are kept as secrets."""

from __future__ import annotations

import datetime
import json
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest

pytest.importorskip("boto3")

from dreamctl.errors import CredentialsError, NotFound, ProviderError
from dreamctl.http import redact
from dreamctl.storage.s3 import S3Storage
from tests.servers.base import S3Server
from tests.servers.ceph import Ceph
from tests.storage.stores import client_of, random_file, s3_storage
from tests.website import Answer, serving

KEY = "a ü+b%.zip"
SIZE = 3000


@pytest.fixture(params=["plain", "tls", "swift"])
def server(request: pytest.FixtureRequest) -> S3Server:
    if request.param == "swift":
        swift: S3Server = request.getfixturevalue("swift_server")
        return swift
    return getattr(request.getfixturevalue("ceph_servers"), request.param)  # type: ignore[no-any-return]


@pytest.fixture
def ceph(ceph_servers: Ceph) -> S3Server:
    return ceph_servers.plain


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[S3Storage, bytes]]:
    """A storage with one object, and its bytes."""

    def stored(server: S3Server, **access: Any) -> tuple[S3Storage, bytes]:
        storage = s3_storage(server, monkeypatch, **access)
        file, digest = random_file(tmp_path / "file", SIZE)
        storage.put(KEY, file, digest)
        return storage, file.read_bytes()

    return stored


Stored = Callable[..., tuple[S3Storage, bytes]]


def ask(server: S3Server, url: str, method: str = "GET", **request: Any) -> httpx.Response:
    """As a stranger, with a plain HTTP client."""
    trust = ssl.create_default_context(cafile=str(server.certificate)) if server.certificate else True
    return httpx.request(method, url, verify=trust, **request)


def open_bucket(server: S3Server, bucket: str) -> None:
    """Let everybody read, by the bucket's policy."""
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:GetObject"],
        "Resource": [f"arn:aws:s3:::{bucket}/*"],
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    client_of(server).put_bucket_policy(Bucket=bucket, Policy=policy)


# signed ones


def test_a_signed_url_gives_the_object_and_nothing_else(server: S3Server, stored: Stored) -> None:
    storage, data = stored(server)
    link = storage.link(KEY, 3600)
    assert ask(server, link.url).content == data
    part = ask(server, link.url, headers={"Range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, data[1000:2000])
    parts = urlsplit(link.url)
    query = parse_qs(parts.query)
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"] and query["X-Amz-Expires"] == ["3600"]
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=3600)
    assert link.expires and abs((link.expires - end).total_seconds()) < 60 and not link.note
    signature = query["X-Amz-Signature"][0]
    tampered = link.url.replace(signature, signature[::-1])
    assert ask(server, tampered).status_code == 403
    assert ask(server, link.url.replace(quote(KEY), "other")).status_code == 403
    assert ask(server, link.url.replace("X-Amz-Expires=3600", "X-Amz-Expires=7200")).status_code == 403
    assert ask(server, link.url, "PUT", content=b"mine").status_code == 403
    assert ask(server, link.url.partition("?")[0]).status_code in (400, 403)
    assert ask(server, link.url).content == data


def test_a_signed_url_works_until_it_expires(server: S3Server, stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen with URLs that were signed a while ago, so that nobody has to wait."""
    import botocore.auth

    storage, data = stored(server)
    right = botocore.auth.get_current_datetime

    def signed(ago: int, seconds: int) -> str:
        before = datetime.timedelta(seconds=ago)
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *told, **by: right(*told, **by) - before)
        return storage._bucket.signed(storage._bucket.service.client, KEY, seconds)

    assert ask(server, signed(7200, 7 * 24 * 3600)).content == data
    assert ask(server, signed(50, 600)).content == data
    assert ask(server, signed(50, 49)).status_code == 403


def test_a_url_that_does_not_work_is_not_given_away(ceph: S3Server, stored: Stored) -> None:
    storage, _ = stored(ceph)
    with pytest.raises(NotFound):
        storage.link("nothing", 60)

    events = storage._bucket.service.client.meta.events
    events.register("before-parameter-build.s3.GetObject", lambda params, **_: params.update(VersionId="none"))
    with pytest.raises(ProviderError, match="refuses the URL that was just signed") as raised:
        storage.link(KEY, 60)
    assert "X-Amz" not in f"{raised.value} {raised.value.hint}"


def test_a_url_of_temporary_credentials_whose_end_nobody_knows_says_so(
    ceph: S3Server, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ceph passes over a session token that it did not give."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token-of-somebody")
    storage, _ = stored(ceph)
    link = storage.link(KEY, 60)
    assert link.note == "it is signed with temporary credentials, and dies with them"
    assert "a-token-of-somebody" in link.url and "a-token-of-somebody" not in redact(link.url)


def test_no_log_at_any_level_and_no_text_shows_a_signature(
    server: S3Server, stored: Stored, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level(logging.DEBUG):
        storage, _ = stored(server)
        storage.put("large", *random_file(tmp_path / "large", 6 << 20))
        link = storage.link(KEY, 3600)
        storage.get(KEY, tmp_path / "back")
    query = parse_qs(urlsplit(link.url).query)
    signature, credential = query["X-Amz-Signature"][0], query["X-Amz-Credential"][0]
    for secret in (signature, credential, quote(credential, safe=""), "X-Amz-", "AWS4-HMAC", server.secret_key):
        assert secret not in caplog.text
    for text in (link.url, f"see {signature}", f"by {credential}", f"Authorization: AWS4-HMAC-SHA256 {credential}"):
        assert signature not in redact(text) and credential not in redact(text)
    assert signature not in repr(link)


# public ones


def test_one_object_is_made_public(ceph: S3Server, stored: Stored, tmp_path: Path) -> None:
    storage, data = stored(ceph)
    storage.put("other", *random_file(tmp_path / "other", 10))
    link = storage.link(KEY, None)
    assert link.expires is None and "?" not in link.url and link.url.endswith("/a%20%C3%BC%2Bb%25.zip")
    assert ask(ceph, link.url).content == data
    assert ask(ceph, link.url.replace(quote(KEY), "other")).status_code == 403
    assert storage.link(KEY, None) == link


def refuse_acls(storage: S3Storage) -> None:
    def asked(**_: Any) -> None:
        raise AssertionError("an ACL was set")

    storage._bucket.service.client.meta.events.register("before-send.s3.PutObjectAcl", asked)


def test_in_a_bucket_that_is_open_no_acl_is_set(ceph: S3Server, stored: Stored) -> None:
    storage, data = stored(ceph)
    open_bucket(ceph, storage._bucket.name)
    refuse_acls(storage)
    assert ask(ceph, storage.link(KEY, None).url).content == data


def test_a_bucket_that_blocks_public_access_is_told_with_the_way_out(ceph: S3Server, stored: Stored) -> None:
    storage, _ = stored(ceph)
    blocked = {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": True}
    client_of(ceph).put_public_access_block(
        Bucket=storage._bucket.name,
        PublicAccessBlockConfiguration={**blocked, "RestrictPublicBuckets": True},
    )
    with pytest.raises((CredentialsError, ProviderError), match="public") as raised:
        storage.link(KEY, None)
    assert raised.value.hint and "bucket's policy, or leave out --public" in raised.value.hint


def test_a_server_without_acls_says_so_in_one_sentence(swift_server: S3Server, stored: Stored) -> None:
    storage, _ = stored(swift_server)
    with pytest.raises(ProviderError) as raised:
        storage.link(KEY, None)
    assert raised.value.message.isprintable() and "a signed URL" in (raised.value.hint or "")


def test_the_public_url_of_a_bucket(ceph: S3Server, stored: Stored) -> None:
    """Of a CDN before it, for example; here the server itself under another name."""
    with serving() as site:
        storage, data = stored(ceph, public_url=f"{site.url}/files")
        open_bucket(ceph, storage._bucket.name)
        refuse_acls(storage)
        path = "/files/a%20prefix/a%20%C3%BC%2Bb%25.zip"
        site.put(path, Answer(data))
        link = storage.link(KEY, None)
        assert link.url == site.url + path and httpx.get(link.url).content == data
        site.put(path, Answer(b"a page that says nothing of the kind"))
        with pytest.raises(ProviderError, match=r"gives something else at the URL \(status 200, 36 bytes instead of"):
            storage.link(KEY, None)
