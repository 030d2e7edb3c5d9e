"""The check of Google's V4 signatures, against what Google's own client signs."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature

from tests.servers.gcs import EMAIL, public_key, service_account, tokens, verify_v4

HOST = "storage.googleapis.com"


@pytest.fixture
def account(tmp_path: Path) -> Path:
    pytest.importorskip("google.cloud.storage", reason="needs google-cloud-storage: `pip install 'dreamctl[gcs]'`")
    return service_account(tmp_path)


def sign(account: Path, key: str = "a/b c+ä.zip", **options: Any) -> str:
    from google.cloud import storage

    client = storage.Client.from_service_account_json(str(account))
    options = {"version": "v4", "expiration": datetime.timedelta(hours=1), **options}
    return str(client.bucket("bucket").blob(key).generate_signed_url(**options))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"expiration": datetime.timedelta(days=7)},
        {"response_disposition": 'attachment; filename="a b.zip"'},
        {"query_parameters": {"generation": "1", "A": "~*'()", "empty": ""}},
        {"method": "PUT", "content_type": "application/zip", "headers": {"x-goog-if-generation-match": "0"}},
    ],
    ids=["plain", "a week", "disposition", "parameters", "put"],
)
def test_what_google_signs_holds(account: Path, options: dict[str, Any]) -> None:
    headers = dict(options.get("headers", {}))
    if "content_type" in options:
        headers["Content-Type"] = options["content_type"]
    verify_v4(sign(account, **options), public_key(account), HOST, method=options.get("method", "GET"), headers=headers)


def test_another_host_can_be_signed_for(account: Path) -> None:
    url = sign(account, api_access_endpoint="http://127.0.0.1:1234")
    verify_v4(url, public_key(account), "127.0.0.1:1234")
    with pytest.raises(InvalidSignature):
        verify_v4(url, public_key(account), HOST)


@pytest.mark.parametrize(
    ("old", "new"),
    [("/a/b", "/a/c"), ("X-Goog-Expires=3600", "X-Goog-Expires=36000"), (EMAIL.replace("@", "%40"), "else%40where")],
    ids=["key", "expiry", "account"],
)
def test_a_changed_url_does_not_hold(account: Path, old: str, new: str) -> None:
    url = sign(account)
    assert old in url
    with pytest.raises(InvalidSignature):
        verify_v4(url.replace(old, new), public_key(account), HOST)


def test_another_method_key_or_parameter_does_not_hold(account: Path, tmp_path: Path) -> None:
    url, key = sign(account), public_key(account)
    with pytest.raises(InvalidSignature):
        verify_v4(url, key, HOST, method="PUT")
    with pytest.raises(InvalidSignature):
        verify_v4(url + "&generation=1", key, HOST)
    (tmp_path / "another").mkdir()
    with pytest.raises(InvalidSignature):
        verify_v4(url, public_key(service_account(tmp_path / "another")), HOST)
    with pytest.raises(AssertionError):
        verify_v4(url + "&X-Goog-Expires=1", key, HOST)


def test_an_account_gets_a_token(tmp_path: Path) -> None:
    pytest.importorskip("google.auth")
    from google.auth.transport.requests import Request
    from google.oauth2.service_account import Credentials

    with tokens() as token_uri:
        file = service_account(tmp_path, token_uri)
        credentials = Credentials.from_service_account_file(str(file), scopes=["scope"])
        credentials.refresh(Request())
    assert credentials.token == "token"
