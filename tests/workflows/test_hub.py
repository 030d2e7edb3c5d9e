"""The hub is asked where the settings say that it is, in the name of who is logged in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dreamctl import credentials

TOKEN = "hf_" + "a1" * 17


class Hub(BaseHTTPRequestHandler):
    """A hub that has nothing, and remembers who asked for what."""

    asked: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization", "")))
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815 - the name that the library calls

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""


@pytest.fixture
def hub() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    asked: list[tuple[str, str]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Listening", (Hub,), {"asked": asked}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--dry-run", "--base-model", "somebody/model"],
        ["generate", "a cat", "--dry-run", "--base-model", "somebody/model"],
    ],
)
def test_the_hub_is_asked_where_it_is_and_by_whom(
    words: list[str], hub: tuple[str, list[tuple[str, str]]], user: Path
) -> None:
    place, asked = hub
    credentials.store("huggingface", TOKEN)
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_OFFLINE")}
    done = subprocess.run(
        [sys.executable, "-m", "dreamctl", *words, "--json"],
        env={**environment, "DREAMCTL_HUB_ENDPOINT": place, "HF_HOME": str(user / "hub")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    assert "somebody/model is not a diffusers model on the hub" in json.loads(done.stdout)["error"]["message"]
    assert ("/api/models/somebody/model", f"Bearer {TOKEN}") in asked
    assert TOKEN not in done.stdout + done.stderr
