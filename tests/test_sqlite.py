"""A value that the registry cannot hold is one sentence, and nobody else's trouble."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from dreamctl.domain.run import RunRecord, State, Target
from dreamctl.domain.versions import Progress
from dreamctl.errors import DreamctlError
from dreamctl.registry import Registry
from dreamctl.runfolder import new_run_id, now
from dreamctl.sqlite import explained
from tests.fakes import CONCEPT

PROGRESS = Progress(method="lora", step=1, steps=3, message=None, stamp="s")


def record() -> RunRecord:
    return RunRecord(
        id=new_run_id(), project="p", target=Target.private, backend="runpod", key="k", pictures="p", created=now()
    )


@pytest.mark.parametrize("progress", [replace(PROGRESS, step=10**30), replace(PROGRESS, message="\ud800")])
def test_a_run_that_tells_what_does_not_fit_leaves_the_others_alone(tmp_path: Path, progress: Progress) -> None:
    registry = Registry.open(tmp_path / "registry.db")
    with pytest.raises(DreamctlError, match=r"registry\.db cannot hold this"):
        registry.harvest(record(), CONCEPT, "base", State.running, None, now(), progress)
    assert registry.runs() == []
    registry.harvest(record(), CONCEPT, "base", State.running, None, now(), PROGRESS)
    assert [row.step for row in registry.runs()] == [1]
    registry.close()


@pytest.mark.parametrize(
    "error", [sqlite3.IntegrityError("twice"), sqlite3.InterfaceError("x"), sqlite3.OperationalError("no code"),
              sqlite3.Error("other"), OverflowError("large"), ValueError("null")],
)  # fmt: skip
def test_no_error_of_sqlite_is_a_traceback(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(DreamctlError, match=str(error)), explained(tmp_path / "registry.db"):
        raise error
