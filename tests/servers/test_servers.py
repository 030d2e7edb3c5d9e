"""The object stores of the tests do what the tests rely on: each one starts, keeps objects and refuses strangers."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.servers.base import S3Server
from tests.servers.ceph import Ceph

MIB = 1024 * 1024


def refused(call: Any, **arguments: Any) -> str:
    """The code with which a server refuses a call of boto3's."""
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as raised:
        call(**arguments)
    return str(raised.value.response["Error"]["Code"])


@pytest.fixture(params=["ceph", "ceph over TLS"])
def server(request: pytest.FixtureRequest) -> S3Server:
    found: Ceph = request.getfixturevalue("ceph_servers")
    return found.tls if request.param == "ceph over TLS" else found.plain


@pytest.fixture
def bucket(server: S3Server, request: pytest.FixtureRequest) -> str:
    name = "b-" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]
    server.client().create_bucket(Bucket=name)
    return name


def test_an_object_is_kept(server: S3Server, bucket: str) -> None:
    client = server.client()
    client.put_object(Bucket=bucket, Key="a/b", Body=b"content", Metadata={"mine": "1"})
    answer = client.get_object(Bucket=bucket, Key="a/b")
    assert (answer["Body"].read(), answer["Metadata"]) == (b"content", {"mine": "1"})
    client.delete_object(Bucket=bucket, Key="a/b")
    assert refused(client.get_object, Bucket=bucket, Key="a/b") == "NoSuchKey"
