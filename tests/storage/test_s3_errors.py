"""What goes wrong with S3 is told in one sentence with the design's exit code, and never with a secret."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("boto3")

from dreamctl.errors import CredentialsError, DiskFull, DreamctlError, InvalidInput, NotFound, ProviderError
from dreamctl.storage import patience, s3_errors
from dreamctl.storage.base import Access
from dreamctl.storage.s3 import S3Storage
from tests.servers.base import S3Server
from tests.servers.ceph import Ceph
from tests.storage.stores import Answers, random_file, s3_storage, use_keys

SECRETS = re.compile(r"SECRETTEST|SECRETOTHER|secret.of|Signature=|Credential=|session token of|X-Amz-")
ACTIONS: dict[str, Callable[[S3Storage, Path], object]] = {
    "head": lambda storage, folder: storage.head("key"),
    "put": lambda storage, folder: storage.put("key", *random_file(folder / "small", 1000)),
    "put large": lambda storage, folder: storage.put("key", *random_file(folder / "large", 6 << 20)),
    "get": lambda storage, folder: storage.get("key", folder / "back"),
    "list": lambda storage, folder: list(storage.list()),
    "link": lambda storage, folder: storage.link("key", 60),
    "delete": lambda storage, folder: storage.delete("key"),
    "unfinished": lambda storage, folder: list(storage.unfinished()),
    "abandon": lambda storage, folder: storage.abandon("key", {}),
}


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PATIENCE", 0.0)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.0)


@pytest.fixture
def storage(ceph_servers: Ceph, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3Storage:
    """With one object, `key`."""
    storage = s3_storage(ceph_servers.plain, monkeypatch)
    storage.put("key", *random_file(tmp_path / "one", 1000))
    return storage


@contextlib.contextmanager
def told(kind: type[DreamctlError], words: str, exit_code: int) -> Iterator[None]:
    with pytest.raises(kind, match=words) as raised:
        yield
    error = raised.value
    assert error.exit_code == exit_code and error.hint
    assert error.message.isprintable() and not error.message.endswith(".") and len(error.message) < 300
    for shown in displayed(error):
        assert not SECRETS.search(f"{shown!r} {getattr(shown, 'hint', '')}"), shown


def displayed(error: BaseException) -> Iterator[BaseException]:
    """The error, and those before it that a traceback would show."""
    while error:
        yield error
        earlier = error.__cause__ if error.__suppress_context__ else error.__context__
        if not earlier:
            return
        error = earlier


def unused() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        return f"127.0.0.1:{gone.getsockname()[1]}"


def nowhere(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> S3Storage:
    use_keys(S3Server("none", endpoint, "AKIDTEST", "SECRETTEST"), monkeypatch)
    return S3Storage("s3://bucket", Access(s3_endpoint=endpoint))


def with_keys(storage: S3Storage, **environment: str) -> S3Storage:
    """The same place, reached with other variables."""
    os.environ.update(environment)  # the storage's fixture sets them back
    return S3Storage(f"s3://{storage._bucket.name}/a prefix", storage._access)


# keys and rights


def test_an_unknown_key_and_a_wrong_secret(storage: S3Storage, tmp_path: Path) -> None:
    unknown = with_keys(storage, AWS_ACCESS_KEY_ID="AKIDNOBODY")
    for action in ACTIONS.values():
        with told(CredentialsError, r"^127\.0\.0\.1:\d+ does not know the access key$", 4):
            action(unknown, tmp_path)
    wrong = with_keys(storage, AWS_ACCESS_KEY_ID="AKIDTEST", AWS_SECRET_ACCESS_KEY="secret-of-another")
    for action in ACTIONS.values():
        with told(CredentialsError, r"^127\.0\.0\.1:\d+ refuses the signature: the secret key is wrong$", 4):
            action(wrong, tmp_path)


def test_a_user_without_rights(storage: S3Storage, tmp_path: Path, ceph_servers: Ceph) -> None:
    assert ceph_servers.plain.other
    key, secret = ceph_servers.plain.other
    other = with_keys(storage, AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=secret)
    for name, action in ACTIONS.items():
        if name not in ("head", "abandon"):
            with told(CredentialsError, "^no permission to (write|read|list|delete|look at) s3://bucket-", 4):
                action(other, tmp_path)
    # An object that is not there is refused in the same way, and an upload without an id is not found.
    assert other.head("key") is None and not other.abandon("key", {})


def test_a_missing_bucket(ceph_servers: Ceph, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for bucket in ("no-such-bucket", "No_Bucket.Can-be-"):
        nowhere = s3_storage(ceph_servers.plain, monkeypatch, bucket)
        for action in ACTIONS.values():
            with told(NotFound, rf"^there is no bucket '{re.escape(bucket)}' at 127\.0\.0\.1:\d+$", 3):
                action(nowhere, tmp_path)


def test_a_missing_object(storage: S3Storage, tmp_path: Path) -> None:
    for action in (lambda: storage.get("no", tmp_path / "back"), lambda: storage.link("no", 60)):
        with told(NotFound, "^cannot read s3://bucket-[^ ]*/a prefix/no: nothing is there$", 3):
            action()


@pytest.mark.parametrize("url", ["s3://", "s3:///key", "s3://a", "s3://bucket/a//b", "s3://bucket/a?b", "s3://b&d/x"])
def test_a_url_that_names_no_place(url: str) -> None:
    with told(InvalidInput, "names no bucket|cannot be a key|means something else", 2):
        S3Storage(url)


@pytest.mark.parametrize("seconds", [1200, -1200])
def test_a_clock_that_is_wrong(
    storage: S3Storage, seconds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What botocore signs with, and what the sentence tells of, is the clock of the computer."""
    import botocore.auth

    right, now = botocore.auth.get_current_datetime, time.time
    wrong = datetime.timedelta(seconds=seconds)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *told, **by: right(*told, **by) + wrong)
    monkeypatch.setattr(s3_errors, "time", SimpleNamespace(time=lambda: now() + seconds))
    ahead = "ahead" if seconds > 0 else "behind"
    for action in ACTIONS.values():
        with told(CredentialsError, rf"refuses the request: this computer's clock is (20|19) min[^,]* {ahead}$", 4):
            action(storage, tmp_path)


# the way there


def test_an_endpoint_where_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("http", "https"):
        dead = nowhere(f"{scheme}://{unused()}", monkeypatch)
        for action in ACTIONS.values():
            with told(ProviderError, r"^cannot reach 127\.0\.0\.1:\d+: connection refused$", 5):
                action(dead, tmp_path)


def test_an_endpoint_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dead = nowhere(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        for action in ACTIONS.values():
            with told(ProviderError, r"^127\.0\.0\.1:\d+ did not answer within 0 seconds$", 5):
                action(dead, tmp_path)


def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with told(ProviderError, r"^cannot reach nowhere\.example:9000: name or service not known$", 5):
        nowhere("https://nowhere.example:9000", monkeypatch).head("key")


@pytest.mark.parametrize("endpoint", ["not a url", "127.0.0.1:9000", "ftp://127.0.0.1", "http://", "http://[::1"])
def test_an_endpoint_that_is_none(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with told(InvalidInput, "^cannot (open|look at) s3://bucket: ", 2):
        nowhere(endpoint, monkeypatch).head("key")


def test_a_certificate_of_an_unknown_authority(ceph_servers: Ceph, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = s3_storage(ceph_servers.tls, monkeypatch)
    monkeypatch.delenv("AWS_CA_BUNDLE")
    with told(ProviderError, r"^127\.0\.0\.1:\d+ cannot be trusted: .*self-signed certificate", 5):
        storage.head("key")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/no/such.pem")
    with told(ProviderError, r"^127\.0\.0\.1:\d+ cannot be trusted: .*No such file", 5):
        S3Storage("s3://bucket", Access(s3_endpoint=ceph_servers.tls.endpoint)).head("key")


def test_http_to_a_tls_port_and_tls_to_an_http_port(ceph_servers: Ceph, monkeypatch: pytest.MonkeyPatch) -> None:
    use_keys(ceph_servers.tls, monkeypatch)
    with told(ProviderError, r"^127\.0\.0\.1:\d+ does not speak TLS$", 5):
        S3Storage("s3://b-b", Access(s3_endpoint=ceph_servers.plain.endpoint.replace("http", "https"))).head("key")
    with told(
        ProviderError, r"^cannot reach 127\.0\.0\.1:\d+: (it closed the connection|connection reset by peer)$", 5
    ):
        S3Storage("s3://b-b", Access(s3_endpoint=ceph_servers.tls.endpoint.replace("https", "http"))).head("key")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there_and_its_password(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{scheme}_proxy", f"http://somebody:secret-of-mine@{unused()}")
    with told(ProviderError, r"^cannot reach objects\.example: by the proxy: connection refused$", 5):
        nowhere(f"{scheme}://objects.example", monkeypatch).head("key")


def test_checksums_that_a_server_does_not_understand(
    ceph_servers: Ceph, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    storage = s3_storage(ceph_servers.tls, monkeypatch, s3_checksums="when_supported")
    for name in ("put", "put large"):
        with told(ProviderError, r"^127\.0\.0\.1:\d+ does not understand checksums in trailers$", 5):
            ACTIONS[name](storage, tmp_path)
    assert storage.head("key") is None and not list(storage.unfinished())


def test_a_full_disk_is_told_before_anything_is_fetched(storage: S3Storage, small_disk: Path, tmp_path: Path) -> None:
    storage.put("large", *random_file(tmp_path / "large", 1 << 20))
    Answers(storage).give("GetObject", 500, "NotToBeAsked")
    with told(DiskFull, r"^.*disk: 1\.0 MB are needed and .* are free$", 1):
        storage.get("large", small_disk / "back")
    assert not list(small_disk.iterdir())


# what servers say that are not at hand

Said = tuple[int, str, type[DreamctlError], str, int]
SAID: dict[str, Said] = {
    "expired": (400, "ExpiredToken", CredentialsError, "^the temporary credentials for .* have expired$", 4),
    "no token": (400, "InvalidToken", CredentialsError, "does not know the session token$", 4),
    "full": (403, "QuotaExceeded", ProviderError, "^the bucket 'bucket-.*' at .* is full$", 5),
    "large": (400, "EntityTooLarge", ProviderError, "does not take so large a file$", 5),
    "region": (400, "AuthorizationHeaderMalformed", InvalidInput, "is in another region than the request said$", 2),
    "name": (400, "InvalidBucketName", InvalidInput, "is no bucket's name$", 2),
    "unable": (501, "NotImplemented", ProviderError, "cannot .* s3://.* in this way$|answered 501 when", 5),
    "passing": (503, "SlowDown", ProviderError, r"answered 503( SlowDown)? when asked to .*: [\w ]+$", 5),
    "unheard": (418, "Teapot", ProviderError, r"answered 418( Teapot)? when asked to .*: [\w' -]+$", 5),
    "wordless": (502, "", ProviderError, "answered 502 .*when asked to ", 5),
}


@pytest.mark.parametrize("said", list(SAID))
def test_other_refusals(storage: S3Storage, said: str, tmp_path: Path) -> None:
    status, code, kind, words, exit_code = SAID[said]
    answers = Answers(storage)
    for operation in ("HeadObject", "GetObject", "ListObjectsV2", "PutObject", "CreateMultipartUpload"):
        answers.give(operation, status, code)
    for name in ("put", "put large", "get", "list"):
        with told(kind, words, exit_code):
            ACTIONS[name](storage, tmp_path)
