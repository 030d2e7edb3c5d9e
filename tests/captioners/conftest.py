"""An endpoint that answers about pictures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.captioners.endpoint import Endpoint


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    running = Endpoint()
    yield running
    running.close()
