"""Keys for S3: what is wrong with them is told before anything is sent, and none of them is ever shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

pytest.importorskip("boto3")

from dreamctl.errors import CredentialsError, DreamctlError, InvalidInput
from dreamctl.http import redact
from dreamctl.storage.base import Access
from dreamctl.storage.s3 import S3Storage

ENDPOINT = "http://127.0.0.1:1"  # where nobody listens: who asks it has gone too far
VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CREDENTIAL_EXPIRATION")
Set = Callable[..., S3Storage]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Set:
    """A storage for these variables: access key, secret key, session token, end."""

    def keys(*values: str, profile: str | None = None) -> S3Storage:
        for name, value in zip(VARIABLES, values, strict=False):
            monkeypatch.setenv(name, value)
        return S3Storage("s3://bucket", Access(s3_endpoint=ENDPOINT, s3_profile=profile))

    return keys


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], S3Storage]:
    """A storage for this ~/.aws/config."""

    def config(text: str) -> S3Storage:
        (tmp_path / "config").write_text(text)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        return S3Storage("s3://bucket", Access(s3_endpoint=ENDPOINT))

    return config


def refused(storage: S3Storage, kind: type[DreamctlError], words: str) -> None:
    """By every way in, before the endpoint is asked."""
    ways: list[Callable[[], object]] = [
        lambda: storage.check_link(60), lambda: storage.check_link(None), lambda: storage.head("key"),
    ]  # fmt: skip
    for action in ways:
        with pytest.raises(kind, match=words) as raised:
            action()
        assert raised.value.hint and raised.value.__suppress_context__ and raised.value.message.isprintable()


def at(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def process(answer: object) -> str:
    """A config with a program that prints `answer`."""
    return f"[default]\ncredential_process = echo '{json.dumps(answer)}'\n"


def test_no_keys_at_all(keys: Set) -> None:
    refused(keys(), CredentialsError, "^there are no keys for S3: Unable to locate credentials$")


def test_half_of_the_keys(keys: Set) -> None:
    refused(keys("AKID"), CredentialsError, "^there are no keys for S3: .* missing: AWS_SECRET_ACCESS_KEY$")


def test_a_profile_that_is_not_there(keys: Set) -> None:
    refused(keys("AKID", "secret", profile="nobody"), CredentialsError, r"^The config profile \(nobody\) could not be")


def test_a_file_that_cannot_be_read(config: Callable[[str], S3Storage]) -> None:
    refused(config("this is [not a\nconfig ="), InvalidInput, "^Unable to parse config file: .*/config$")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("sh -c 'echo the portal is closed >&2; exit 3'", "custom-process: the portal is closed$"),
        ("/no/such/program", "No such file or directory: '/no/such/program'$"),
        ("echo hello", "Expecting value"),
        ("true", "Expecting value"),
        ("echo []", "'list' object has no attribute 'get'"),
        ("sh -c 'oops", "No closing quotation"),
        ("""echo '{"Version": 2}'""", "Unsupported version '2'"),
        ("""echo '{"Version": 1, "SecretAccessKey": "secret-of-mine"}'""", "Missing required key .*: 'AccessKeyId'$"),
    ],
)
def test_a_credential_process_that_fails(program: str, words: str, config: Callable[[str], S3Storage]) -> None:
    storage = config(f"[default]\ncredential_process = {program}\n")
    refused(storage, CredentialsError, f"^no keys for S3 could be had: .*{words}")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_keys_with_a_line_break_are_told_and_not_shown(place: int, keys: Set) -> None:
    """HTTP clients show the header that they cannot send: the signature, or the token itself."""
    values = ["AKIDOFMINE", "secret-of-mine", "token-of-mine"]
    values[place] += "\n"
    refused(keys(*values), CredentialsError, "^the keys for S3 hold a space or a line break, and so are none$")


def test_secrets_are_hidden_from_now_on_wherever_they_stand(keys: Set) -> None:
    keys("AKIDOFMINE", "a-secret-key-of-mine", "a-session-token-of-mine").check_link(60)
    assert redact("a-secret-key-of-mine, a-session-token-of-mine") == "***, ***"


# temporary ones


def test_credentials_that_have_expired(keys: Set) -> None:
    refused(keys("AKID", "secret", "token", at(-60)), CredentialsError, "^no keys for S3 .* are still expired$")


def test_an_end_that_is_no_time(keys: Set) -> None:
    refused(keys("AKID", "secret", "token", "tomorrow, perhaps"), CredentialsError, "^no keys for S3 could be had: ")


def test_credentials_that_die_before_the_url_are_refused_before_anything_is_sent(keys: Set) -> None:
    storage = keys("AKID", "secret", "token", at(3600))
    storage.check_link(3500)
    with pytest.raises(
        CredentialsError, match=r"127\.0\.0\.1:1 die in .* and the URL with them; .* work for 2 h"
    ) as raised:
        storage.check_link(7200)
    assert raised.value.hint and "--expires 35" in raised.value.hint


def test_credentials_of_a_process_that_die_before_the_url(config: Callable[[str], S3Storage]) -> None:
    answer = {"Version": 1, "AccessKeyId": "AKID", "SecretAccessKey": "secret", "SessionToken": "token"}
    storage = config(process({**answer, "Expiration": at(3600)}))
    storage.check_link(3500)
    with pytest.raises(CredentialsError, match="and the URL with them"):
        storage.check_link(7200)
    config(process(answer)).check_link(7200)  # its end is not known


def test_lasting_keys_sign_for_seven_days_and_no_more(keys: Set) -> None:
    storage = keys("AKID", "secret")
    storage.check_link(7 * 24 * 3600)
    storage.check_link(None)
    for action in (lambda: storage.check_link(7 * 24 * 3600 + 1), lambda: storage.link("key", 7 * 24 * 3600 + 1)):
        with pytest.raises(InvalidInput, match="lives for 7 d at most"):
            action()
