"""A service account of nobody's, and a check of what it signs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

NOBODY = "http://127.0.0.1:9/token"  # no token is to be had there, and none is needed to sign


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
        "client_email": "tester@project.iam.gserviceaccount.com",
        "token_uri": token_uri,
    }
    file.write_text(json.dumps(account))
    return file


def verify_v4(url: str, account: Path) -> dict[str, str]:
    """The parameters of a URL for GET that the account signed; raises InvalidSignature where it did not.

    https://cloud.google.com/storage/docs/authentication/signatures
    """
    private = serialization.load_pem_private_key(json.loads(account.read_text())["private_key"].encode(), None)
    public = private.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, strict_parsing=True))
    signature = bytes.fromhex(query.pop("X-Goog-Signature"))
    pairs = sorted((quote(name, safe="-._~"), quote(value, safe="-._~")) for name, value in query.items())
    canonical = [
        "GET",
        parts.path,
        "&".join(f"{name}={value}" for name, value in pairs),
        f"host:{parts.netloc}\n",
        query["X-Goog-SignedHeaders"],
        "UNSIGNED-PAYLOAD",
    ]
    digest = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
    scope = query["X-Goog-Credential"].partition("/")[2]
    to_sign = "\n".join([query["X-Goog-Algorithm"], query["X-Goog-Date"], scope, digest])
    public.verify(signature, to_sign.encode(), padding.PKCS1v15(), hashes.SHA256())
    return query
