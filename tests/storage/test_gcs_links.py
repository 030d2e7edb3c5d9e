"""Links to objects in Google Cloud Storage, and the credentials behind them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("google.cloud.storage")

from dreamctl.domain.quantities import LONGEST_LINK
from dreamctl.errors import CredentialsError, DreamctlError, InvalidInput, NotFound, ProviderError
from dreamctl.files import sha256_file
from dreamctl.http import redact
from dreamctl.storage import gcs_access, gcs_bucket, patience
from dreamctl.storage.base import Access, Passing
from dreamctl.storage.gcs import GcsStorage
from tests.servers.gcs import public_key, service_account, tokens, verify_v4
from tests.storage.fake_gcs import FakeGcs, Fault
from tests.website import Answer, Site, serving

KEY = "datasets/a b+ü~.zip"
DAY = 24 * 3600


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "backoff", lambda attempt: 0.005)
    monkeypatch.setattr(gcs_bucket, "_PUBLIC_SECONDS", 0.1)
    monkeypatch.setenv("NO_GCE_CHECK", "true")


@pytest.fixture
def account(tmp_path: Path) -> Path:
    return service_account(tmp_path)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as running:
        yield running


def signing(account: Path, url: str = "gs://bucket") -> GcsStorage:
    return GcsStorage(url, Access(gcs_credentials=str(account)))


# signed URLs


def test_a_signed_url_is_right_and_opens(fake: FakeGcs, account: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    fake.store(f"some/{KEY}", b"content")
    before = datetime.now(UTC)
    link = signing(account, "gs://bucket/some").link(KEY, DAY)
    verify_v4(link.url, public_key(account), urlsplit(fake.url).netloc)
    assert link.expires and timedelta(0) <= link.expires - before - timedelta(days=1) < timedelta(minutes=1)
    assert "X-Goog-Expires=86400" in link.url and "/bucket/some/datasets/a%20b%2B%C3%BC~.zip?" in link.url
    signature = link.url.rpartition("X-Goog-Signature=")[2]
    assert signature not in redact(f"so {signature} it is") and signature not in redact(caplog.text)


def test_a_signed_url_of_the_emulator_opens(emulated_bucket: str, account: Path, tmp_path: Path) -> None:
    import httpx

    storage = signing(account, f"{emulated_bucket}/some")
    file = tmp_path / "x"
    file.write_bytes(b"content")
    storage.put(KEY, file, sha256_file(file))
    assert httpx.get(storage.link(KEY, 60).url).content == b"content"


def test_a_signed_url_that_does_not_open_is_refused(fake: FakeGcs, account: Path) -> None:
    fake.store(KEY, b"content")
    fake.faults = [Fault("GET", "X-Goog-Signature", 403)]
    with pytest.raises(CredentialsError, match="does not open it") as raised:
        signing(account).link(KEY, DAY)
    assert "X-Goog" not in str(raised.value)
    with pytest.raises(NotFound, match="is not there"):
        signing(account).link("nowhere", DAY)


@pytest.mark.parametrize("kind", ["user", "anonymous"])
def test_credentials_that_cannot_sign_are_told_before_anything_is_sent(
    fake: FakeGcs, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "user.json"
    user = {"type": "authorized_user", "client_id": "1", "client_secret": "2", "refresh_token": "3"}
    file.write_text(json.dumps(user))
    storage = GcsStorage("gs://bucket", Access(gcs_credentials=str(file) if kind == "user" else None))
    with pytest.raises(CredentialsError, match="cannot sign") as raised:
        storage.check_link(60)
    for way in ("gcs_credentials", "GOOGLE_APPLICATION_CREDENTIALS", "--impersonate-service-account", "--public"):
        assert way in (raised.value.hint or "")
    storage.check_link(None)
    assert not fake.seen


def test_how_long_links_may_live(fake: FakeGcs, account: Path, tmp_path: Path) -> None:
    signing(account).check_link(LONGEST_LINK)
    with pytest.raises(InvalidInput) as raised:
        signing(account).check_link(LONGEST_LINK + 1)
    assert raised.value.field == "--expires"
    file = tmp_path / "impersonated.json"
    impersonated = {
        "type": "impersonated_service_account",
        "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/"
        "tester@project.iam.gserviceaccount.com:generateAccessToken",
        "source_credentials": {
            "type": "authorized_user", "client_id": "1", "client_secret": "2", "refresh_token": "3",
        },
    }  # fmt: skip
    file.write_text(json.dumps(impersonated))
    signing(file).check_link(12 * 3600)
    with pytest.raises(InvalidInput, match="12 h at most") as raised:
        signing(file).check_link(12 * 3600 + 1)
    assert raised.value.field == "--expires"


def test_a_computer_of_googles_signs_by_its_account(fake: FakeGcs, monkeypatch: pytest.MonkeyPatch) -> None:
    from google.auth import compute_engine
    from google.cloud.storage import _signing

    fake.store(KEY, b"content")
    signed: list[Any] = []
    machine = compute_engine.Credentials()
    machine.service_account_email_of_metadata = "machine@project.iam.gserviceaccount.com"

    def refresh(request: object) -> None:
        machine.token, machine._service_account_email = "token", machine.service_account_email_of_metadata

    def sign(message: str, token: str, email: str, universe: str) -> str:
        signed.append((token, email))
        return "c2lnbmVk"

    monkeypatch.setattr(machine, "refresh", refresh)
    monkeypatch.setattr(_signing, "_sign_message", sign)
    monkeypatch.setattr(gcs_access, "_loaded", lambda file: machine)
    storage = GcsStorage("gs://bucket", Access(gcs_credentials="of the machine"))
    storage.check_link(12 * 3600)
    with pytest.raises(InvalidInput, match="12 h at most"):
        storage.check_link(DAY)
    assert "X-Goog-Credential=machine%40project" in storage.link(KEY, 3600).url
    assert signed == [("token", machine.service_account_email_of_metadata)]


# public URLs


def test_a_public_link_is_made_public_where_it_was_not(fake: FakeGcs) -> None:
    fake.store(KEY, b"content").acl = [{"entity": "user-owner", "role": "OWNER"}]
    link = GcsStorage("gs://bucket").link(KEY, None)
    assert link.url == f"{fake.url}/bucket/datasets/a%20b%2B%C3%BC~.zip" and link.expires is None
    assert {entry["entity"]: entry["role"] for entry in fake.objects[KEY].acl} == {
        "user-owner": "OWNER", "allUsers": "READER",
    }  # fmt: skip
    assert GcsStorage("gs://bucket").link(KEY, None) == link and fake.count("PATCH") == 1


def test_a_bucket_that_forbids_public_objects(fake: FakeGcs) -> None:
    fake.store(KEY, b"content")
    fake.uniform = True
    with pytest.raises(ProviderError, match="cannot be made public") as raised:
        GcsStorage("gs://bucket").link(KEY, None)
    assert "allUsers" in (raised.value.hint or "") and "--public" in (raised.value.hint or "")
    fake.uniform = False
    fake.faults = [Fault("PATCH", "/o/", 412)]
    with pytest.raises(ProviderError, match="cannot be made public"):
        GcsStorage("gs://bucket").link(KEY, None)
    fake.faults = [Fault("GET", "/bucket/datasets", 403, times=1000)]
    with pytest.raises(ProviderError, match="does not open for everybody"):
        GcsStorage("gs://bucket").link(KEY, None)


def test_a_public_url_of_ones_own(fake: FakeGcs, site: Site) -> None:
    fake.store(f"some/{KEY}", b"content")
    site.put("/cdn/some/datasets/a%20b%2B%C3%BC~.zip", Answer(b"content"))
    storage = GcsStorage("gs://bucket/some", Access(public_url=f"{site.url}/cdn/"))
    assert storage.link(KEY, None).url == f"{site.url}/cdn/some/datasets/a%20b%2B%C3%BC~.zip"
    assert not fake.count("PATCH")


# credentials


def test_credentials_go_to_google_and_not_into_sessions(
    fake: FakeGcs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", fake.url)
    file = tmp_path / "x"
    file.write_bytes(b"content")
    with tokens() as token_uri:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account(tmp_path, token_uri)))
        storage = GcsStorage("gs://bucket")
        stored = storage.put(KEY, file, sha256_file(file))
        assert storage.get(KEY, tmp_path / "back") == stored
        storage.check_link(LONGEST_LINK)
    assert fake.tokens == {"GET": {"Bearer token"}, "POST": {"Bearer token"}, "PUT": {None}}


@pytest.mark.parametrize(
    "content", [None, "no JSON", "[]", '{"type": "else"}', '{"type": "service_account", "private_key": "x"}']
)
def test_a_key_file_that_is_none(fake: FakeGcs, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "key.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(CredentialsError, match=r"key\.json") as raised:
        signing(file).head("x")
    assert "gcs_credentials" in (raised.value.hint or "")


def test_no_credentials_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(CredentialsError, match="default credentials were not found") as raised:
        GcsStorage("gs://bucket").head("x")
    assert "gcloud auth application-default login" in (raised.value.hint or "")


SKEW = (
    "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
    "Check your iat and exp values in the JWT claim."
)


@pytest.mark.parametrize(
    ("status", "error", "kind", "words"),
    [
        (400, "invalid_grant: account not found", CredentialsError, "account not found"),
        (400, SKEW, CredentialsError, "clock is wrong"),
        (503, "later", Passing, "later"),
        (403, "", CredentialsError, "RefreshError"),
    ],
)
def test_a_token_that_is_refused(
    fake: FakeGcs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, error: str, kind: type, words: str
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setattr(patience, "FIRST_PATIENCE", 0.0)
    monkeypatch.setattr("google.auth._exponential_backoff.time", SimpleNamespace(sleep=lambda seconds: None))
    body = json.dumps({"error": "invalid_grant", "error_description": error}).encode()
    fake.faults = [Fault("POST", "/token", status, times=9, body=body if error else b"<html>")]
    with pytest.raises(kind, match=words) as raised:
        signing(service_account(tmp_path, f"{fake.url}/token")).head("x")
    assert "html" not in str(raised.value)


def test_a_server_of_tokens_that_is_away(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PATIENCE", 0.05)
    with pytest.raises(Passing, match="the server that gives tokens failed: Connection refused"):
        signing(account).head("x")


def test_without_googles_package_the_way_to_get_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DreamctlError, match="google-cloud-storage") as raised:
        GcsStorage("gs://bucket")
    assert "dreamctl[gcs]" in (raised.value.hint or "")
