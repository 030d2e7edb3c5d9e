"""Storing a token: it is checked with its provider first, and what is refused is not stored."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dreamctl import credentials, paths
from dreamctl.errors import CredentialsError, InvalidInput, ProviderError
from dreamctl.workflows.auth import login, logout, status

GOOD = "hf_goodGOODgood1234"


class Hub(BaseHTTPRequestHandler):
    """A provider that knows one token."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        good = self.headers.get("authorization") == f"Bearer {GOOD}"
        body = b'{"type": "user", "name": "luna", "username": "luna"}' if good else b'{"error": "Invalid token"}'
        self.send_response(200 if good else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub on loopback, named by the user's environment; gives the paths that it was asked for."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneHub", (Hub,), {"asked": asked}))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("DREAMCTL_HUB_ENDPOINT", url)
    monkeypatch.setenv("REPLICATE_BASE_URL", url)
    yield asked
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the keyring nor a token of the person who runs the tests."""
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setitem(sys.modules, "keyring", None)  # as where the extra is not installed


@pytest.mark.parametrize(("provider", "path"), [("huggingface", "/api/whoami-v2"), ("replicate", "/v1/account")])
def test_a_token_is_checked_then_stored(user: Path, hub: list[str], provider: str, path: str) -> None:
    done = login(provider, f"{GOOD}\n", user, None)
    assert (done.place, done.account, done.checked, done.hidden_by) == (
        str(paths.credentials_file()),
        "luna",
        True,
        None,
    )
    assert hub == [path]
    assert credentials.token(provider) == GOOD


def test_a_token_for_captions_is_checked_where_captions_are_asked_for(
    user: Path, hub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMCTL_CAPTION_ENDPOINT", os.environ["REPLICATE_BASE_URL"] + "/api/v1")
    assert login("openai", GOOD, user, None).checked
    assert hub == ["/api/v1/models"] and credentials.token("openai") == GOOD


def test_a_refused_token_is_not_stored(user: Path, hub: list[str]) -> None:
    with pytest.raises(CredentialsError, match=r"refused the token \(401\): Invalid token"):
        login("huggingface", "hf_badBADbad12345", user, None)
    assert not paths.credentials_file().exists()


def test_a_provider_that_cannot_be_asked_stores_nothing_unless_told_so(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMCTL_HUB_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("dreamctl.http._FIRST_PAUSE", 0.01)
    with pytest.raises(ProviderError, match=r"cannot reach 127\.0\.0\.1"):
        login("huggingface", GOOD, user, None)
    assert credentials.token("huggingface") is None
    assert login("huggingface", GOOD, user, None, check=False).checked is False
    assert credentials.token("huggingface") == GOOD


def test_an_unknown_provider_is_said_before_anything_else(user: Path) -> None:
    with pytest.raises(InvalidInput, match="no provider named 'hugingface'"):
        login("hugingface", "", user, None)


def test_a_variable_above_the_stored_token_is_said(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_fromenvironment1")
    assert login("huggingface", GOOD, user, None, check=False).hidden_by == "HF_TOKEN"
    done = logout("huggingface", user)
    assert (done.removed_from, done.still_from) == ((str(paths.credentials_file()),), "HF_TOKEN")


def test_status_says_from_where_and_where_to_get_one(user: Path) -> None:
    login("runpod", "rpa_1234567890", user, None, check=False)
    found = {row.provider: row for row in status(user)}
    assert set(found) == {"huggingface", "runpod", "replicate", "openai"}
    assert found["runpod"].origin == str(paths.credentials_file())
    assert found["replicate"].origin is None
    assert found["replicate"].get_one_at.startswith("https://replicate.com/")
    assert "rpa_1234567890" not in repr(found)
