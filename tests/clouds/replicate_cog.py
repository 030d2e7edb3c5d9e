"""The real Cog server in train mode, as Replicate runs a trainer's image."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.base import PATIENCE, Daemons, Died

AUTH = "a-webhook-token"


@dataclass(frozen=True)
class Cog:
    """A running server. `log`: what it and its trainer print."""

    url: str
    schema: dict[str, Any]
    log: Path


@contextlib.contextmanager
def cog(
    python: Path, folder: Path, env: Mapping[str, str] | None = None, stub: str = "train.py:train"
) -> Iterator[Cog]:
    """Cog's server on the project in `folder`, ready, while the block lasts; `python` has the package `cog`.

    `folder` holds the trainer and `.cog/openapi_schema.json`: without that the server checks no input.
    """
    schema = json.loads((folder / ".cog" / "openapi_schema.json").read_text())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as logs, Daemons(Path(logs)) as daemons:
        port = daemons.port()
        given = {
            # its worker is whatever `python` means there
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "PORT": str(port),
            "COG_TRAIN_TYPE_STUB": stub,
            "COG_PREDICT_TYPE_STUB": stub,
            "WEBHOOK_AUTH_TOKEN": AUTH,
            "PYTHONDONTWRITEBYTECODE": "1",
            **(env or {}),
        }
        serve = [str(python), "-m", "cog.server.http", "--host", "127.0.0.1", "--x-mode", "train"]
        there = ["sh", "-c", 'cd "$0" && exec "$@"', str(folder)]
        daemons.start("cog", *there, "env", *(f"{name}={value}" for name, value in given.items()), *serve)
        server = Cog(f"http://127.0.0.1:{port}", schema, Path(logs) / "cog.log")
        daemons.wait(f"{server.url}/health-check")
        _await_ready(server)
        yield server


def _await_ready(server: Cog) -> None:
    deadline = time.monotonic() + PATIENCE
    while (health := call(f"{server.url}/health-check"))["status"] != "READY":
        if health["status"] not in ("STARTING", "BUSY") or time.monotonic() > deadline:
            raise Died(f"cog is {health['status']}\n{server.log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.02)


def call(url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
    """The JSON that a server on this computer answers: a GET, or a POST of `body`. Raises urllib's HTTPError."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"null")
