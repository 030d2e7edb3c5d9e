"""Several computers that share runs through one bucket, without a provider: contexts, runs and their journals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamctl import recipes
from dreamctl.backends import journal
from dreamctl.context import Context
from dreamctl.datasetfolder import DatasetFolder
from dreamctl.domain.remote import RemoteJob
from dreamctl.domain.run import State
from dreamctl.files import write_json
from dreamctl.runfolder import RunFolder
from tests.fakes import Recorder, write_dataset, write_run

At = Callable[..., Context]
BEGAN = "2026-11-20T10:00:00.000Z"


def computers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> At:
    """Opens a context on a computer that is called so; all share the folder `bucket`."""

    def at(computer: str, reporter: Recorder | None = None, **flags: Any) -> Context:
        monkeypatch.setenv("DREAMCTL_HOME", str(tmp_path / computer))
        return Context.open(None, {"runs": (tmp_path / "bucket").as_uri(), **flags}, reporter or Recorder())

    return at


def begun(context: Context, name: str | None = None, key: str = "k") -> RunFolder:
    """A run that is about to be submitted."""
    folder = context.runs.parent / "processed"
    dataset = DatasetFolder(folder) if folder.exists() else write_dataset(folder, count=1)
    run = write_run(context.runs, dataset, recipes.resolve("builtin-lora"), key=key)
    write_json(run.path / "run.json", run.record().model_copy(update={"name": name}).plain())
    return run


def told(run: RunFolder, state: State, attempt: int = 1, remote_id: str | None = None, began: str = BEGAN) -> None:
    """Write what is known of the run's job."""
    job = RemoteJob(
        backend="instant", place="ep", contract="dreamctl", began=began, attempt=attempt, id=remote_id
    )  # fmt: skip
    journal.keep(run, job)
    journal.change(run, job, state)


def chatter(run: RunFolder, count: int = 5) -> None:
    """Events that change nothing."""
    job = run.remote()
    assert job is not None
    with journal.events(run, job) as writer:
        for number in range(count):
            writer.write("note", message=f"note {number}")


def same_run(context: Context, run: RunFolder) -> RunFolder:
    """The run's folder on the computer of the context."""
    return RunFolder(context.runs / run.id)


def bucket_file(tmp_path: Path, run: RunFolder) -> Path:
    return tmp_path / "bucket" / f"{run.id}.json"


def bucket_job(tmp_path: Path, run: RunFolder) -> dict[str, Any]:
    """The journal that lies in the bucket."""
    files = json.loads(bucket_file(tmp_path, run).read_text())["files"]
    job: dict[str, Any] = json.loads(files["remote.json"])
    return job
