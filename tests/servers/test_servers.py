"""The object stores of the tests do what the tests rely on: each one starts, keeps objects and refuses strangers."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.servers.base import PATIENCE, ROOT, Daemons, Died, Missing, S3Server, program
from tests.servers.ceph import Ceph
from tests.servers.gcs import GcsServer
from tests.servers.proxy import proxy

MIB = 1024 * 1024


def refused(call: Any, **arguments: Any) -> str:
    """The code with which a server refuses a call of boto3's."""
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as raised:
        call(**arguments)
    return str(raised.value.response["Error"]["Code"])


@pytest.fixture(params=["ceph", "ceph over TLS", "swift"])
def server(request: pytest.FixtureRequest) -> S3Server:
    if request.param == "swift":
        swift: S3Server = request.getfixturevalue("swift_server")
        return swift
    ceph: Ceph = request.getfixturevalue("ceph_servers")
    return ceph.plain if request.param == "ceph" else ceph.tls


@pytest.fixture
def bucket(server: S3Server) -> str:
    name = f"bucket-{uuid.uuid4()}"
    server.client().create_bucket(Bucket=name)
    return name


def test_an_object_is_kept_and_deleted(server: S3Server, bucket: str) -> None:
    client = server.client()
    client.put_object(Bucket=bucket, Key="a/b", Body=b"content", Metadata={"mine": "1"})
    answer = client.get_object(Bucket=bucket, Key="a/b")
    assert (answer["Body"].read(), answer["Metadata"]) == (b"content", {"mine": "1"})
    client.delete_object(Bucket=bucket, Key="a/b")
    assert refused(client.get_object, Bucket=bucket, Key="a/b") == "NoSuchKey"


def test_an_object_comes_in_parts(server: S3Server, bucket: str) -> None:
    client, content = server.client(), os.urandom(5 * MIB + 1)
    upload = client.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    parts = []
    for number, piece in enumerate([content[: 5 * MIB], content[5 * MIB :]], 1):
        answer = client.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=number, Body=piece)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    assert refused(client.get_object, Bucket=bucket, Key="k") == "NoSuchKey"
    client.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts})
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == content


def test_a_wrong_key_and_a_second_user_are_refused(server: S3Server, bucket: str) -> None:
    server.client().put_object(Bucket=bucket, Key="k", Body=b"content")
    wrong = server.as_user(server.access_key, "wrong").client()
    assert refused(wrong.get_object, Bucket=bucket, Key="k") == "SignatureDoesNotMatch"
    assert server.other is not None
    other = server.as_user(*server.other).client()
    assert refused(other.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    assert refused(other.put_object, Bucket=bucket, Key="k", Body=b"other") == "AccessDenied"
    assert server.client().get_object(Bucket=bucket, Key="k")["Body"].read() == b"content"


def test_the_gateways_share_a_cluster_and_tls_is_verified(ceph_servers: Ceph) -> None:
    from botocore.exceptions import SSLError

    name = f"bucket-{uuid.uuid4()}"
    ceph_servers.plain.client().create_bucket(Bucket=name)
    assert name in [bucket["Name"] for bucket in ceph_servers.tls.client().list_buckets()["Buckets"]]
    with pytest.raises(SSLError):
        S3Server("unknown", ceph_servers.tls.endpoint, *_keys(ceph_servers.tls)).client().list_buckets()


def _keys(server: S3Server) -> tuple[str, str]:
    return server.access_key, server.secret_key


def test_ceph_over_tls_takes_no_trailers(ceph_servers: Ceph) -> None:
    """Why a client of a store that is not Amazon's must not send checksums unasked."""
    name = f"bucket-{uuid.uuid4()}"
    client = ceph_servers.tls.client(request_checksum_calculation="when_supported")
    client.create_bucket(Bucket=name)
    assert refused(client.put_object, Bucket=name, Key="k", Body=b"content") == "MissingContentLength"


def test_swift_checks_the_checksums_it_is_sent(swift_server: S3Server) -> None:
    name, client = f"bucket-{uuid.uuid4()}", swift_server.client()
    client.create_bucket(Bucket=name)
    wrong = {"Bucket": name, "Key": "k", "Body": b"content", "ChecksumCRC32": "AAAAAA=="}
    assert refused(client.put_object, **wrong) == "BadDigest"
    assert refused(client.get_object, Bucket=name, Key="k") == "NoSuchKey"


def test_the_emulator_of_google_keeps_an_object(gcs_server: GcsServer) -> None:
    bucket = gcs_server.client().create_bucket(f"bucket-{uuid.uuid4()}")
    content = os.urandom(MIB)
    blob = bucket.blob("a/b", chunk_size=256 * 1024)
    blob.upload_from_string(content, checksum="crc32c")
    assert bucket.blob("a/b").download_as_bytes(checksum="crc32c") == content
    blob.delete()
    assert bucket.get_blob("a/b") is None


def test_a_client_comes_through_the_proxy_in_spite_of_a_cut(ceph_servers: Ceph) -> None:
    for server in (ceph_servers.plain, ceph_servers.tls):
        name, content = f"bucket-{uuid.uuid4()}", os.urandom(12 * MIB)
        with proxy(server.endpoint) as between:
            client = server.at(between.url).client()
            client.create_bucket(Bucket=name)
            between.cut_after = 16 * MIB
            client.upload_fileobj(io.BytesIO(content), name, "k")
            got = io.BytesIO()
            client.download_fileobj(name, "k", got)
        assert got.getvalue() == content
        assert between.cuts
        assert between.passed > 24 * MIB


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMCTL_TEST_SERVERS_BIN", str(tmp_path))
    with pytest.raises(Missing, match=r"needs gcp-storage-emulator in .*: `make servers`"):
        program("gcp-storage-emulator")


def test_a_server_that_ends_is_told_with_its_log(tmp_path: Path) -> None:
    with Daemons(tmp_path) as daemons:
        daemons.start("mine", sys.executable, "-c", "import sys; sys.exit('cannot start')")
        with pytest.raises(Died, match=r"(?s)mine ended with 1.*cannot start"):
            daemons.wait(f"http://127.0.0.1:{daemons.port()}")


def test_a_program_that_fails_is_told_with_what_it_said(tmp_path: Path) -> None:
    with Daemons(tmp_path) as daemons, pytest.raises(Died, match="no such thing"):
        daemons.run(sys.executable, "-c", "import sys; sys.exit('no such thing')")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a killed parent leaves its servers behind")
@pytest.mark.usefixtures("ceph_servers")  # skips or fails this test too where Ceph is missing
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_servers_end_with_the_process_that_started_them(tmp_path: Path, number: signal.Signals) -> None:
    code = """
import signal, sys, time
from pathlib import Path
from tests.servers.ceph import ceph
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here
with ceph(Path(sys.argv[1])):
    print("up", flush=True)
    time.sleep(600)
"""
    command, environment = [sys.executable, "-c", code, str(tmp_path / "ceph")], {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as parent:
        try:
            assert parent.stdout and parent.stdout.readline() == "up\n"
            servers = _children(parent.pid)
            assert len(servers) == 3
        finally:
            parent.send_signal(number)
    deadline = time.monotonic() + PATIENCE
    while alive := [pid for pid in servers if _alive(pid)]:
        assert time.monotonic() < deadline, f"{alive} outlived their parent"
        time.sleep(0.05)


def _children(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            after_name = status.read_text().rpartition(")")[2].split()
            if int(after_name[1]) == parent:
                found.append(int(status.parent.name))
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
