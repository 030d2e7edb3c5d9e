"""A context whose trainings succeed at once, on a tiny base of the real architecture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dreamctl import plugins
from dreamctl.context import Context
from tests.fakes import InstantBackend, Recorder
from tests.tiny_models import write_tiny_sd15

Open = Callable[..., Context]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_sd15(tmp_path_factory.mktemp("base"))


@pytest.fixture
def open_context(monkeypatch: pytest.MonkeyPatch, base: Path) -> Open:
    """Opens a context as a new command does; keyword arguments are settings, `reporter` is the person."""
    monkeypatch.setitem(plugins.BUILT_IN["backends"], "instant", f"{InstantBackend.__module__}:InstantBackend")

    def open_one(reporter: Recorder | None = None, **flags: object) -> Context:
        given = {"backend": "instant", "base_model": str(base), **flags}
        return Context.open(None, given, reporter or Recorder())

    return open_one


@pytest.fixture
def context(open_context: Open) -> Context:
    return open_context()
