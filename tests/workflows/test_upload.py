"""Upload: one archive under a key made of its content, sent once."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamctl import paths
from dreamctl.context import Context
from dreamctl.datasetfolder import DatasetFolder
from dreamctl.errors import DreamctlError, InvalidInput, NotFound
from dreamctl.files import sha256_file
from dreamctl.workflows.upload import upload
from tests.fakes import Recorder, write_dataset


@pytest.fixture
def context() -> Context:
    return Context.open(None, {}, Recorder())


@pytest.fixture
def dataset(user: Path) -> DatasetFolder:
    return write_dataset(user / "processed", count=3)


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    return tmp_path / "bucket"


def test_the_dataset_lies_at_the_url(context: Context, dataset: DatasetFolder, bucket: Path) -> None:
    report = upload(context, to=bucket.as_uri())
    stored = bucket / report.key
    assert report.url == stored.as_uri()
    assert (report.sha256, report.bytes) == (sha256_file(stored), stored.stat().st_size)
    assert report.key == f"datasets/{report.sha256[:16]}/dataset.zip"
    assert not report.already_there
    assert not list(paths.cache_dir().rglob("*.zip")), "no archive is left behind"


def test_the_same_dataset_is_sent_once(context: Context, dataset: DatasetFolder, bucket: Path) -> None:
    first = upload(context, to=bucket.as_uri())
    again = upload(context, dataset.path, bucket.as_uri())
    assert again.already_there and again.url == first.url
    dataset.write_caption("00.jpg", "another")
    assert upload(context, to=bucket.as_uri()).url != first.url


def test_a_damaged_object_is_sent_again(context: Context, dataset: DatasetFolder, bucket: Path) -> None:
    report = upload(context, to=bucket.as_uri())
    (bucket / report.key).write_bytes(b"damaged")
    assert not upload(context, to=bucket.as_uri()).already_there
    assert sha256_file(bucket / report.key) == report.sha256


def test_the_configured_storage_is_used(dataset: DatasetFolder, bucket: Path) -> None:
    assert upload(Context.open(None, {"storage": bucket.as_uri()}, Recorder())).url.startswith(bucket.as_uri())


@pytest.mark.parametrize(
    ("to", "kind", "words"),
    [(None, InvalidInput, "no storage"), ("s4://b", NotFound, "s4"), ("nonsense", InvalidInput, "nonsense")],
)
def test_no_storage(
    context: Context, dataset: DatasetFolder, to: str | None, kind: type[DreamctlError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        upload(context, to=to)


def test_no_dataset(context: Context, bucket: Path) -> None:
    with pytest.raises(NotFound, match="no dataset at"):
        upload(context, to=bucket.as_uri())
    assert not bucket.exists()
