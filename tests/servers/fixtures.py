"""The object stores as fixtures: each worker starts one at most, and only when a test asks for it.

Where one cannot be started, the tests that need it are skipped; with `DREAMCTL_TEST_SERVERS=required` they fail.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.servers.base import Missing
from tests.servers.ceph import Ceph, ceph

Server = TypeVar("Server")


def running(
    server: Callable[[Path], AbstractContextManager[Server]], folder: Path, package: str, extra: str
) -> Iterator[Server]:
    """The server while the session lasts; `package` is what its clients need, and is in dreamctl's `extra`."""
    try:
        if importlib.util.find_spec(package) is None:
            raise Missing(f"needs {package}: `pip install 'dreamctl[{extra}]'`")
        started = server(folder)
        found = started.__enter__()
    except Missing as missing:
        if os.environ.get("DREAMCTL_TEST_SERVERS") == "required":
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
    try:
        yield found
    finally:
        started.__exit__(None, None, None)


@pytest.fixture(scope="session")
def ceph_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """A Ceph cluster: `plain` and `tls`."""
    yield from running(ceph, tmp_path_factory.mktemp("ceph"), "boto3", "s3")
