"""`status`, `cancel` and `rm` tell and do what the run folders say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dreamctl.context import Context
from dreamctl.domain.recipe import Base, Recipe, Training
from dreamctl.domain.run import State
from dreamctl.errors import ConsentRequired, DreamctlError, InvalidInput, NotFound, RunFailed, StillRunning
from dreamctl.files import locked
from dreamctl.runfolder import EventWriter, RunFolder
from dreamctl.workflows.ending import cancel, remove
from dreamctl.workflows.identifiers import identifiers
from dreamctl.workflows.runs import all_status, one_status, sparkline, unfinished
from tests.fakes import Recorder, finish, write_dataset, write_run
from tests.workflows.conftest import Open

RECIPE = Recipe(base=Base(source="builtin", digest="b"), training=Training(steps=200))


@pytest.fixture
def run(context: Context, tmp_path: Path) -> RunFolder:
    return write_run(context.runs, write_dataset(tmp_path / "data"), RECIPE)


def steps(run: RunFolder, count: int) -> None:
    writer = EventWriter(run.events_file)
    writer.state(State.running)
    for step in range(1, count + 1):
        writer.write("step", step=step, steps=200, loss=1 / step, seconds=0.5)
    writer.close()


def test_all_runs_are_told_newest_first(context: Context, run: RunFolder, tmp_path: Path) -> None:
    finish(run)
    other = write_run(context.runs, write_dataset(tmp_path / "data"), RECIPE, key="other")
    told = all_status(context)
    assert {row.id for row in told} == {run.id, other.id}
    assert [row.id for row in told] == sorted((row.id for row in told), reverse=True)
    done = next(row for row in told if row.id == run.id)
    assert (done.state, done.progress, [item.name for item in done.versions]) == (State.succeeded, "200/200", ["sks@1"])


def test_one_run_tells_progress_curve_and_log(context: Context, run: RunFolder) -> None:
    steps(run, 100)
    run.log_file.write_text("\n".join(f"line {number}" for number in range(30)) + "\n")
    with locked(run.lock_file, "training"):
        told = one_status(context, run.id[:15])
        assert isinstance(unfinished(told), StillRunning)
    assert (told.state, told.step, told.seconds_left) == (State.running, 100, 50.0)
    assert told.log == [f"line {number}" for number in range(20, 30)]
    assert len(told.loss) <= 48
    assert told.loss == sorted(told.loss, reverse=True)
    assert isinstance(unfinished(one_status(context, run.id)), RunFailed), "nobody works on it"


def test_a_curve_is_drawn_low_to_high() -> None:
    assert sparkline([0, 1, 2, 7]) == "▁▂▃█"
    assert sparkline([3, 3]) == "▁▁"
    assert sparkline([]) == ""


def test_cancelling_a_dead_run_ends_it_for_good(context: Context, run: RunFolder) -> None:
    steps(run, 3)
    context.registry  # noqa: B018 - opened as a command would
    cancel(context, "last")
    assert run.state() is State.cancelled
    row = context.registry.run(run.id)
    assert row is not None
    assert row.state is State.cancelled
    with pytest.raises(InvalidInput, match="is cancelled already"):
        cancel(context, run.id)


def test_removing_asks_and_takes_run_and_version_away(open_context: Open, context: Context, run: RunFolder) -> None:
    finish(run)
    with pytest.raises(ConsentRequired, match="not deleted"):
        remove(context, run.id, yes=False)
    with pytest.raises(ConsentRequired):
        remove(open_context(Recorder("no")), run.id, yes=False)
    removed = remove(open_context(Recorder("yes")), "sks@1", yes=False)
    assert removed.versions == ["sks@1"]
    assert list(context.runs.iterdir()) == []
    assert context.registry.versions() == []
    assert context.registry.runs() == []
    with pytest.raises(NotFound):
        remove(context, run.id, yes=True)


def test_a_run_at_work_is_not_removed(context: Context, run: RunFolder) -> None:
    with locked(run.lock_file, "training"), pytest.raises(InvalidInput, match="is at work"):
        remove(context, run.id, yes=True)


def test_a_damaged_run_folder_is_passed_over_with_a_warning(open_context: Open, run: RunFolder, tmp_path: Path) -> None:
    whole = write_run(run.path.parent, write_dataset(tmp_path / "data"), RECIPE, key="other")
    (run.path / "run.json").write_text("{")
    person = Recorder()
    told = all_status(open_context(person))
    assert [row.id for row in told] == [whole.id]
    assert any(run.id in warning for warning in person.warnings)


@pytest.mark.parametrize("state", [State.submitting, State.queued, State.running])
def test_a_run_whose_trainer_died_is_interrupted_wherever_it_was(
    context: Context, run: RunFolder, state: State
) -> None:
    writer = EventWriter(run.events_file)
    writer.state(state)
    writer.close()
    assert one_status(context, run.id).state is State.interrupted


def test_a_finished_run_with_a_damaged_folder_hides_no_other(
    open_context: Open, context: Context, run: RunFolder, tmp_path: Path
) -> None:
    finish(run)
    whole = write_run(context.runs, write_dataset(tmp_path / "data"), RECIPE, key="other")
    all_status(context)
    (run.path / "recipe.toml").write_text("?")
    # what has ended is told from the registry alone; the damage is told where the folder is looked at
    assert {row.id for row in all_status(open_context())} == {whole.id, run.id}
    with pytest.raises(DreamctlError, match=r"recipe\.toml is not valid TOML"):
        one_status(open_context(), run.id)


def test_a_model_file_that_was_damaged_is_told_until_it_is_mended(open_context: Open, run: RunFolder) -> None:
    finish(run)
    file = run.model / "model.json"
    text = file.read_text()
    file.write_text("{")
    for _ in range(2):
        person = Recorder()
        assert identifiers(open_context(person)) == []
        assert any("model.json" in warning for warning in person.warnings)
    file.write_text(text)
    (known,) = identifiers(open_context())
    assert [version.name for version in known.versions] == ["sks@1"]


@pytest.mark.parametrize(
    "line", ["[]", "7", '{"v": 1}', '{"v": 1, "seq": "x", "attempt": 1, "time": "", "type": "note"}']
)
def test_a_line_of_events_that_is_none_is_passed_over(context: Context, run: RunFolder, line: str) -> None:
    steps(run, 2)
    with open(run.events_file, "a") as file:
        file.write(line + "\n")
    assert one_status(context, run.id).step == 2


def test_a_state_of_a_newer_program_is_one_warning(open_context: Open, run: RunFolder) -> None:
    writer = EventWriter(run.events_file)
    writer.write("state", state="paused")
    writer.close()
    person = Recorder()
    assert all_status(open_context(person)) == []
    assert any("paused" in warning for warning in person.warnings)


def test_what_a_killed_command_left_half_made_is_swept_after_a_day(context: Context, run: RunFolder) -> None:
    fresh, stale = run.path.parent / ".new.abcd", run.path.parent / ".old.removed"
    for path in (fresh, stale):
        path.mkdir()
    os.utime(stale, (0, 0))
    all_status(context)
    assert fresh.is_dir()
    assert not stale.exists()
