"""The object stores as fixtures: each worker starts one at most, and only when a test asks for it.

Where one cannot be started, the tests that need it are skipped; with `DREAMCTL_TEST_SERVERS=required` they fail.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.servers.base import Missing, S3Server
from tests.servers.ceph import Ceph, ceph
from tests.servers.gcs import GcsServer, gcs
from tests.servers.swift import swift

Server = TypeVar("Server")


@pytest.fixture(scope="session")
def ceph_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """A Ceph cluster: `plain` and `tls`."""
    yield from running(ceph, tmp_path_factory.mktemp("ceph"), "boto3", "s3")


@pytest.fixture(scope="session")
def swift_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Swift with its S3 API."""
    yield from running(swift, tmp_path_factory.mktemp("swift"), "boto3", "s3")


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    """The emulator of Google Cloud Storage."""
    yield from running(gcs, tmp_path_factory.mktemp("gcs"), "google.cloud.storage", "gcs")


def running(
    server: Callable[[Path], AbstractContextManager[Server]], folder: Path, package: str, extra: str
) -> Iterator[Server]:
    """The server while the session lasts; `package` is what its clients need, and is in dreamctl's `extra`."""
    started, missing = server(folder), ""
    try:
        importlib.import_module(package)
        found = started.__enter__()
    except ModuleNotFoundError as error:
        missing = f"needs {error.name}: `pip install 'dreamctl[{extra}]'`"
    except Missing as error:
        missing = str(error)
    if missing and os.environ.get("DREAMCTL_TEST_SERVERS") == "required":
        pytest.fail(missing, pytrace=False)
    elif missing:
        pytest.skip(missing)
    try:
        yield found
    finally:
        started.__exit__(None, None, None)
