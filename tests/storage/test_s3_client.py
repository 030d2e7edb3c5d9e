"""Which endpoint, region, keys, addresses and checksums an S3 client has: of settings, variables and Amazon's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("boto3")

from dreamctl.storage.base import Access
from dreamctl.storage.s3_bucket import Bucket
from dreamctl.storage.s3_client import Service

ENDPOINT = "https://objects.example"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-environment")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's ~/.aws/config."""
    path = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    return path


def key_of(service: Service) -> str:
    return str(service.credentials.get_frozen_credentials().access_key)


def checksums(service: Service) -> tuple[str, str, bool]:
    """When bodies get a checksum, when answers are checked, and whether bodies are signed."""
    config = service.client.meta.config
    signed = bool(config.s3.get("payload_signing_enabled"))
    return config.request_checksum_calculation, config.response_checksum_validation, signed


def signed_url(bucket: str, **access: Any) -> str:
    of = Bucket(bucket, "a prefix/", Access(**access))
    return of.signed(of.service.client, "x+y.zip", 3600)


def plain_url(bucket: str, **access: Any) -> str:
    of = Bucket(bucket, "a prefix/", Access(**access))
    return of.signed(of.service.unsigned(), "x+y.zip", 1)


# endpoint


def test_without_any_word_it_is_amazon() -> None:
    service = Service.open(Access(s3_region="eu-central-1"))
    assert service.amazon and service.host == "s3.eu-central-1.amazonaws.com"


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_endpoint_of_the_environment_is_no_amazon(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, ENDPOINT)
    service = Service.open(Access())
    assert (service.host, service.amazon) == ("objects.example", False)
    assert checksums(service) == ("when_required", "when_required", True)
    assert service.client.meta.config.s3["addressing_style"] == "path"


def test_an_endpoint_of_amazons_files_is_no_amazon(config: Path) -> None:
    config.write_text(
        f"[profile there]\nendpoint_url = {ENDPOINT}\naws_access_key_id=AKIDFILE\naws_secret_access_key=s\n"
    )
    service = Service.open(Access(s3_profile="there"))
    assert (service.host, service.amazon, key_of(service)) == ("objects.example", False, "AKIDFILE")
    assert service.client.meta.config.s3["addressing_style"] == "path"


def test_the_setting_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://other.example")
    assert Service.open(Access(s3_endpoint=f"{ENDPOINT}:9000")).host == "objects.example:9000"


def test_amazon_by_its_endpoint_is_amazon() -> None:
    service = Service.open(Access(s3_endpoint="https://s3.eu-west-1.amazonaws.com", s3_region="eu-west-1"))
    assert service.amazon and checksums(service)[0] == "when_supported"


# keys


def test_a_profile_that_is_named_beats_the_environment(config: Path) -> None:
    config.write_text(
        "[profile mine]\naws_access_key_id = AKIDFILE\naws_secret_access_key = secret\nregion = eu-west-3\n"
    )
    assert key_of(Service.open(Access(s3_endpoint=ENDPOINT))) == "AKIDENVIRONMENT"
    service = Service.open(Access(s3_endpoint=ENDPOINT, s3_profile="mine"))
    assert (key_of(service), service.client.meta.region_name) == ("AKIDFILE", "eu-west-3")


def test_keys_of_amazons_file_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    assert key_of(Service.open(Access(s3_endpoint=ENDPOINT))) == "AKIDFILE"


# region


def test_a_service_beside_amazon_has_a_region_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Service.open(Access(s3_endpoint=ENDPOINT)).client.meta.region_name == "us-east-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert Service.open(Access(s3_endpoint=ENDPOINT)).client.meta.region_name == "eu-north-1"
    assert Service.open(Access(s3_endpoint=ENDPOINT, s3_region="auto")).client.meta.region_name == "auto"


# checksums


@pytest.mark.parametrize(
    ("endpoint", "setting", "variable", "wanted"),
    [
        (None, "auto", None, "when_supported"),
        (ENDPOINT, "auto", None, "when_required"),
        (ENDPOINT, "when_supported", None, "when_supported"),
        (None, "when_required", None, "when_required"),
        (ENDPOINT, "auto", "when_supported", "when_supported"),
        (None, "auto", "WHEN_REQUIRED", "when_required"),
        (ENDPOINT, "when_required", "when_supported", "when_required"),
    ],
)
def test_checksums(
    endpoint: str | None, setting: str, variable: str | None, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting, else Amazon's variable, else what works; a body without a checksum is signed instead."""
    if variable:
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", variable)
    service = Service.open(Access(s3_endpoint=endpoint, s3_region="eu-west-1", s3_checksums=setting))
    assert checksums(service) == (wanted, wanted, wanted == "when_required")


def test_checksums_of_amazons_file(config: Path) -> None:
    config.write_text("[default]\nrequest_checksum_calculation = when_supported\n")
    assert checksums(Service.open(Access(s3_endpoint=ENDPOINT)))[0] == "when_supported"


# addresses, as URLs show them; all of it without a network


def test_signed_urls_of_amazon_name_the_bucket_first_and_are_of_version_4() -> None:
    parts = urlsplit(signed_url("bucket", s3_region="eu-central-1"))
    assert parts.netloc == "bucket.s3.eu-central-1.amazonaws.com"
    assert (parts.scheme, parts.path) == ("https", "/a%20prefix/x%2By.zip")
    query = parse_qs(parts.query)
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"] and query["X-Amz-Expires"] == ["3600"]
    assert query["X-Amz-Credential"][0].endswith("/eu-central-1/s3/aws4_request")


def test_a_bucket_with_dots_goes_into_the_path_where_a_certificate_would_not_fit() -> None:
    assert urlsplit(signed_url("a.b", s3_region="eu-central-1")).path == "/a.b/a%20prefix/x%2By.zip"


def test_signed_urls_of_others_have_the_bucket_in_the_path_unless_told() -> None:
    assert signed_url("bucket", s3_endpoint=ENDPOINT).startswith(f"{ENDPOINT}/bucket/a%20prefix/x%2By.zip?X-Amz-Alg")
    parts = urlsplit(signed_url("bucket", s3_endpoint=ENDPOINT, s3_addressing="virtual"))
    assert (parts.netloc, parts.path) == ("bucket.objects.example", "/a%20prefix/x%2By.zip")
    assert urlsplit(signed_url("bucket", s3_region="eu-west-1", s3_addressing="path")).path.startswith("/bucket/")


def test_plain_urls_are_the_same_without_a_signature() -> None:
    amazon = "https://bucket.s3.eu-central-1.amazonaws.com/a%20prefix/x%2By.zip"
    assert plain_url("bucket", s3_region="eu-central-1") == amazon
    assert plain_url("bucket", s3_endpoint=ENDPOINT) == f"{ENDPOINT}/bucket/a%20prefix/x%2By.zip"
    virtual = plain_url("bucket", s3_endpoint=ENDPOINT, s3_addressing="virtual")
    assert virtual == "https://bucket.objects.example/a%20prefix/x%2By.zip"


def test_the_certificates_authority_is_the_one_that_boto3_trusts(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Service.open(Access(s3_endpoint=ENDPOINT)).ca_bundle is None
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/one.pem")
    assert Service.open(Access(s3_endpoint=ENDPOINT)).ca_bundle == "/one.pem"
    config.write_text("[default]\nca_bundle = /two.pem\n")
    assert Service.open(Access(s3_endpoint=ENDPOINT)).ca_bundle == "/two.pem"
