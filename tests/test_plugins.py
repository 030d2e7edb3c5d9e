"""The doors: ours and other people's go through one look-up, and every name in the table loads."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from dreamctl import plugins
from dreamctl.errors import NotFound


@pytest.mark.parametrize(("door", "name"), [(door, name) for door, table in plugins.BUILT_IN.items() for name in table])
def test_every_built_in_name_loads(door: str, name: str) -> None:
    assert plugins.load(door, name) is not None


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(NotFound, match="no captioner named 'bultin'") as raised:
        plugins.load("captioners", "bultin")
    assert raised.value.hint == "did you mean 'builtin'?"


def test_a_foreign_package_adds_a_name_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", "collections:Counter", "dreamctl.captioners")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == point.group else [])
    assert plugins.load("captioners", "mine").__name__ == "Counter"
    assert "mine" in plugins.names("captioners")
