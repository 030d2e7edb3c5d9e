"""From pictures to a URL and back by a plain HTTP client, on real object stores; and what goes wrong."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
import ssl
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from cryptography.exceptions import InvalidSignature

from dreamctl.cli.app import main
from dreamctl.registry import Registry
from tests.fakes import write_pictures
from tests.servers.base import S3Server
from tests.servers.ceph import Ceph
from tests.servers.gcs import GcsServer, public_key, service_account, verify_v4
from tests.storage.stores import new_bucket, random_file, use_keys

Capture = pytest.CaptureFixture[str]


def s3(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket's URL; keys and endpoint are this user's own."""
    use_keys(server, monkeypatch)
    monkeypatch.setenv("DREAMCTL_S3_ENDPOINT", server.endpoint)
    return f"s3://{new_bucket(server)}/team"


def gcs(server: GcsServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket's URL in the emulator; a service account signs."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.endpoint)
    monkeypatch.setenv("DREAMCTL_GCS_CREDENTIALS", str(service_account(folder)))
    name = f"bucket-{secrets.token_hex(6)}"
    server.client().create_bucket(name)
    return f"gs://{name}/team"


STORES: dict[str, Callable[[pytest.FixtureRequest, pytest.MonkeyPatch], str]] = {
    "ceph": lambda request, monkeypatch: s3(request.getfixturevalue("ceph_servers").plain, monkeypatch),
    "ceph over TLS": lambda request, monkeypatch: s3(request.getfixturevalue("ceph_servers").tls, monkeypatch),
    "swift": lambda request, monkeypatch: s3(request.getfixturevalue("swift_server"), monkeypatch),
    "gcs emulator": lambda request, monkeypatch: gcs(
        request.getfixturevalue("gcs_server"), request.getfixturevalue("tmp_path"), monkeypatch
    ),
}


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    return STORES[request.param](request, monkeypatch)


@pytest.fixture
def ceph(ceph_servers: Ceph, monkeypatch: pytest.MonkeyPatch) -> str:
    return s3(ceph_servers.plain, monkeypatch)


def fetched(url: str) -> bytes:
    """What a plain HTTP client gets; of TLS it knows the tests' certificate alone."""
    bundle = os.environ.get("AWS_CA_BUNDLE")
    answer = httpx.get(url, verify=ssl.create_default_context(cafile=bundle) if bundle else True)
    answer.raise_for_status()
    return answer.content


def printed(capsys: Capture) -> str:
    """The one URL on stdout."""
    (line,) = capsys.readouterr().out.splitlines()
    return line


def test_from_pictures_to_a_url_and_back(store: str, user: Path, capsys: Capture) -> None:
    write_pictures(user / "original", 3)
    assert main(["prepare", "original", "--size", "64", "--upload", "--to", store, "-q"]) == 0
    url = printed(capsys)
    data = fetched(url)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["photo 0.jpg", "photo 1.jpg", "photo 2.jpg"]
        for name in archive.namelist():
            assert archive.read(name) == (user / "processed" / name).read_bytes()
    assert main(["upload", "--to", store, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["already_there"] and value["sha256"] == hashlib.sha256(data).hexdigest()
    assert (value["bytes"], value["public"]) == (len(data), False)
    assert main(["upload", "--url-only", "--expires", "10m"]) == 0
    assert fetched(again := printed(capsys)) == data and urlsplit(again).path == urlsplit(url).path


def test_any_file_in_parts(store: str, tmp_path: Path, capsys: Capture) -> None:
    file, digest = random_file(tmp_path / "my lora (1).safetensors", 11 << 20)
    assert main(["upload", str(file), "--to", store]) == 0
    url = printed(capsys)
    assert hashlib.sha256(fetched(url)).hexdigest() == digest
    file.write_bytes(b"retouched")
    assert main(["upload", "--url-only", str(file)]) == 0
    out, err = capsys.readouterr()
    assert hashlib.sha256(fetched(out.strip())).hexdigest() == digest and "has changed since" in err


def test_what_google_would_let_pass(
    gcs_server: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    to = gcs(gcs_server, tmp_path, monkeypatch)
    file, _ = random_file(tmp_path / "ein Bild (1).zip", 100)
    assert main(["upload", str(file), "--to", to, "--expires", "2h"]) == 0
    url = printed(capsys)
    key = public_key(Path(os.environ["DREAMCTL_GCS_CREDENTIALS"]))
    verify_v4(url, key, urlsplit(url).netloc)
    with pytest.raises(InvalidSignature):
        verify_v4(url.replace("Expires=7200", "Expires=7201"), key, urlsplit(url).netloc)


def test_a_public_url(ceph: str, user: Path, capsys: Capture) -> None:
    write_pictures(user / "original", 2)
    assert main(["prepare", "original", "--size", "64", "--upload", "--to", ceph, "--public", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)["upload"]
    assert value["public"] and value["expires"] is None and not urlsplit(value["url"]).query
    assert len(fetched(value["url"])) == value["bytes"]
    assert main(["upload", "--url-only"]) == 0
    assert printed(capsys) == value["url"]
    assert main(["upload", "--url-only", "--expires", "1h"]) == 0
    assert "X-Amz-Signature" in printed(capsys)


def test_the_settings_of_a_profile(
    ceph_servers: Ceph, user: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    server = ceph_servers.plain
    bucket = new_bucket(server)
    config = Path(os.environ["DREAMCTL_HOME"]) / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(
        f'[profiles.team]\nstorage = "s3://{bucket}/shared"\ns3_endpoint = "{server.endpoint}"\n'
        's3_profile = "team"\nexpires = "2h"\n'
    )
    keys = Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"])
    keys.parent.mkdir(parents=True)
    keys.write_text(f"[team]\naws_access_key_id = {server.access_key}\naws_secret_access_key = {server.secret_key}\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "SOMEBODYELSE")  # a profile's own keys beat ambient ones
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "whoever")
    file, _ = random_file(user / "one.bin", 100)
    assert main(["upload", str(file), "--profile", "team"]) == 0
    url = printed(capsys)
    assert fetched(url) == file.read_bytes()
    assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == ["7200"]


def test_the_keys_of_a_project(ceph: str, user: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    keys = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    for name in keys:
        monkeypatch.delenv(name)
    endpoint = "AWS_ENDPOINT_URL_S3=http://127.0.0.1:9"  # would receive what is signed: not taken from a project
    (user / ".env").write_text("\n".join([*(f"{name}={value}" for name, value in keys.items()), endpoint]))
    monkeypatch.setattr(os, "environ", os.environ.copy())
    file, _ = random_file(user / "one.bin", 100)
    assert main(["upload", str(file), "--to", ceph]) == 0
    assert fetched(printed(capsys)) == file.read_bytes()


@pytest.mark.parametrize("store", ["ceph", "gcs emulator"], indirect=True)
def test_no_file_and_no_line_of_a_log_holds_the_signature(store: str, user: Path, tmp_path: Path) -> None:
    write_pictures(user / "original", 2)
    file, _ = random_file(tmp_path / "large.bin", 11 << 20)
    logs, signatures = "", []
    for words in (
        ["prepare", "original", "--size", "64", "--upload", "--to", store],
        ["upload", "--to", store],
        ["upload", str(file), "--to", store],
        ["upload", "--url-only", str(file)],
        ["upload", "gone", "--to", store],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "dreamctl", *words, "--log-level", "debug", "--debug"],
            capture_output=True,
            text=True,
        )
        logs += done.stderr
        signatures += re.findall(r"X-(?:Amz|Goog)-Signature=([0-9a-f]{64,})", done.stdout)
    assert len(signatures) == 4 and "DEBUG" in logs
    held = [logs, *(path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file())]
    for signature in signatures:
        assert not any(signature in text for text in held)
    assert not re.search(r"(?:-Signature|upload_id)=(?!\*\*\*)", "".join(held))


def test_the_registry_keeps_bucket_and_key(ceph: str, user: Path, capsys: Capture) -> None:
    file, digest = random_file(user / "one.bin", 100)
    assert main(["upload", str(file), "--to", ceph]) == 0
    registry = Registry.open(Path(os.environ["DREAMCTL_HOME"]) / "registry.db")
    kept = registry.last_upload(str(file))
    registry.close()
    assert kept and (kept.storage, kept.sha256, kept.bytes) == (ceph, digest, 100)
    assert kept.key == f"files/{digest[:16]}/one.bin"


@pytest.mark.parametrize(
    ("change", "words", "code", "says"),
    [
        ({"AWS_ACCESS_KEY_ID": "NOBODY"}, [], 4, "does not know the access key"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, [], 4, "the secret key is wrong"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, [], 4, "there are no keys for S3"),
        ({}, ["--to", "s3://no-such-bucket/x"], 3, "there is no bucket 'no-such-bucket'"),
        ({}, ["--to", "s3://"], 2, "names no bucket"),
        ({}, ["--expires", "8d"], 2, "7 d at most"),
        ({}, ["--expires", "soon"], 2, "must be a length of time such as 90s"),
        ({}, ["--public", "--expires", "1h"], 2, "--public and --expires exclude each other"),
        ({}, ["--resume", "--clean"], 2, "--resume and --clean exclude each other"),
        ({}, ["--resume"], 3, "there is no unfinished upload"),
        ({}, ["--url-only"], 3, "was never uploaded"),
        ({}, ["--s3-endpoint", "http://127.0.0.1:9"], 5, "cannot reach 127.0.0.1:9: connection refused"),
        ({"AWS_SESSION_TOKEN": "t", "AWS_CREDENTIAL_EXPIRATION": "{in an hour}"}, [], 4, "die in 59 min"),
    ],
)
def test_errors(
    ceph: str,
    user: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    change: dict[str, str],
    words: list[str],
    code: int,
    says: str,
) -> None:
    file, _ = random_file(user / "one.bin", 100)
    monkeypatch.setenv("DREAMCTL_STORAGE", ceph)
    for name, value in change.items():
        monkeypatch.setenv(name, value.replace("{in an hour}", f"{datetime.now(UTC) + timedelta(hours=1):%FT%TZ}"))
    source = [] if {"--resume", "--clean"} & set(words) else [str(file)]
    assert main(["upload", *source, *words]) == code
    out, err = capsys.readouterr()
    assert out == "" and says in err and "Traceback" not in err
    assert err.count("error:") == 1 and err.startswith("error:") and "WARNING" not in err
