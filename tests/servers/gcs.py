"""Google Cloud Storage's emulator in memory, a service account of nobody's, and a check of what it signs.

The emulator serves whoever asks, whatever the signature: that a signed URL is right is shown with the account's public
key, by the rules of https://cloud.google.com/storage/docs/authentication/signatures.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.servers.base import Daemons, emptied, program

ALGORITHM = "GOOG4-RSA-SHA256"
EMAIL = "tester@project.iam.gserviceaccount.com"
NOBODY = "http://127.0.0.1:9/token"  # no token is to be had there, and none is needed to sign
WEEK = 7 * 24 * 3600


@dataclass(frozen=True)
class GcsServer:
    """A running emulator."""

    endpoint: str

    def client(self) -> Any:
        """Google's own client, for what a test prepares and asserts."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        options = {"api_endpoint": self.endpoint}
        return storage.Client("project", credentials=AnonymousCredentials(), client_options=options)


@contextlib.contextmanager
def gcs(folder: Path) -> Iterator[GcsServer]:
    """An emulator while the block lasts; `folder` is its own, and is removed. Raises Missing."""
    emulator = program("gcp-storage-emulator")
    with emptied(folder), Daemons(folder) as daemons:
        port = daemons.port()
        daemons.start("gcs", emulator, "start", "--host=127.0.0.1", f"--port={port}", "--in-memory", "--quiet")
        daemons.wait(f"http://127.0.0.1:{port}")
        yield GcsServer(f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def tokens() -> Iterator[str]:
    """A `token_uri` that gives a token to everybody, while the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"access_token": "token", "expires_in": 3600, "token_type": "Bearer"}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/token"
        server.shutdown()


def service_account(folder: Path, token_uri: str = NOBODY) -> Path:
    """The key file of a service account that does not exist."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = folder / "service-account.json"
    account = {
        "type": "service_account",
        "project_id": "project",
        "private_key_id": "0" * 40,
        "private_key": pem.decode(),
        "client_email": EMAIL,
        "client_id": "1",
        "token_uri": token_uri,
    }
    file.write_text(json.dumps(account))
    return file


def public_key(account: Path) -> rsa.RSAPublicKey:
    """The public key of a service account's file."""
    key = serialization.load_pem_private_key(json.loads(account.read_text())["private_key"].encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key.public_key()


def verify_v4(
    url: str, key: rsa.RSAPublicKey, host: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
) -> None:
    """That Google would let `method` with these headers pass, apart from the time.

    Raises AssertionError where the URL is not made as the rules say, InvalidSignature where it was not signed so.
    """
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)
    query = dict(pairs)
    assert len(query) == len(pairs), "a parameter is there twice"
    assert query["X-Goog-Algorithm"] == ALGORITHM
    assert 1 <= int(query["X-Goog-Expires"]) <= WEEK
    scope = query["X-Goog-Credential"].partition("/")[2]
    assert scope.split("/") == [query["X-Goog-Date"][:8], scope.split("/")[1], "storage", "goog4_request"]

    signature = bytes.fromhex(query.pop("X-Goog-Signature"))
    sent = {"host": host, **{name.lower(): " ".join(value.split()) for name, value in (headers or {}).items()}}
    signed = query["X-Goog-SignedHeaders"].split(";")
    assert "host" in signed and signed == sorted(signed)
    # Google refuses what it is sent without a signature for it.
    assert not [name for name in sent if name.startswith("x-goog-") and name not in signed]
    canonical = "\n".join(
        [
            method,
            parts.path,
            "&".join(f"{name}={value}" for name, value in sorted((_encoded(n), _encoded(v)) for n, v in query.items())),
            *(f"{name}:{sent[name]}" for name in signed),
            "",
            ";".join(signed),
            sent.get("x-goog-content-sha256", "UNSIGNED-PAYLOAD"),
        ]
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = "\n".join([ALGORITHM, query["X-Goog-Date"], scope, digest])
    key.verify(signature, to_sign.encode(), padding.PKCS1v15(), hashes.SHA256())


def _encoded(text: str) -> str:
    return quote(text, safe="-._~")
