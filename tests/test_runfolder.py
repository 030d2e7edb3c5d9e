"""A run is a folder: whole, portable, told by its events."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dreamctl.domain.recipe import Base, Recipe
from dreamctl.domain.run import RUN_ID, State, last_step
from dreamctl.errors import DreamctlError, InvalidInput, NotFound
from dreamctl.files import locked
from dreamctl.runfolder import EventTail, EventWriter, LineTail, RunFolder, new_run_id, resolve_run_id
from tests.fakes import CONCEPT, write_dataset, write_run

RECIPE = Recipe(base=Base(source="builtin"))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return write_run(tmp_path / "runs", write_dataset(tmp_path / "data"), RECIPE)


def test_a_run_folder_holds_everything_and_no_place(run: RunFolder, tmp_path: Path) -> None:
    assert RUN_ID.fullmatch(run.id)
    assert run.recipe() == RECIPE
    assert run.concept() == CONCEPT
    assert run.data.digests() == write_dataset(tmp_path / "again").digests()
    for file in (*run.path.glob("*.json"), *run.path.glob("*.toml"), *run.path.glob("data/*.json")):
        assert str(tmp_path) not in file.read_text()
        assert "://" not in file.read_text()


def test_the_recipe_is_complete(run: RunFolder) -> None:
    text = (run.path / "recipe.toml").read_text()
    for table in ("method", "prior", "optimizer", "training", "checkpoints", "samples", "sampling"):
        assert f"[{table}]" in text
    assert "learning_rate = 0.0001" in text


def test_a_later_edit_of_the_dataset_does_not_reach_the_run(run: RunFolder, tmp_path: Path) -> None:
    before = run.data.digests()
    (tmp_path / "data" / "00.jpg").write_bytes(b"edited in place")
    (tmp_path / "data" / "00.txt").write_text("edited")
    assert run.data.digests() == before


def test_a_run_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data")
    (tmp_path / "data" / "01.jpg").unlink()
    with pytest.raises(DreamctlError, match=r"01\.jpg"):
        write_run(tmp_path / "runs", dataset, RECIPE)
    assert list((tmp_path / "runs").iterdir()) == []


def test_events_go_on_after_a_torn_line(run: RunFolder) -> None:
    first = EventWriter(run.events_file)
    first.state(State.running)
    first.write("step", step=1, steps=3, loss=0.5, seconds=0.1)
    first.close()
    with open(run.events_file, "ab") as file:
        file.write(b'{"v": 1, "seq": 3, "atte')
    assert [event.seq for event in run.events()] == [1, 2]
    second = EventWriter(run.events_file)
    second.write("step", step=2, steps=3, loss=0.4, seconds=0.1)
    second.close()
    assert [(event.seq, event.attempt) for event in run.events()] == [(1, 1), (2, 1), (3, 2)]


def test_a_tail_tells_each_event_once(run: RunFolder) -> None:
    tail = EventTail(run.events_file)
    assert tail.new() == []
    writer = EventWriter(run.events_file)
    writer.write("note", message="a")
    assert [event.fields["message"] for event in tail.new()] == ["a"]
    with open(run.events_file, "ab") as file:
        file.write(b'{"v": 1, "seq": 2, ')
    assert tail.new() == []
    with open(run.events_file, "ab") as file:
        file.write(b'"attempt": 1, "time": "", "type": "note", "message": "b"}\n')
    assert [event.fields["message"] for event in tail.new()] == ["b"]
    assert tail.new() == []


def test_a_log_is_followed_by_whole_lines_and_ends_with_a_torn_one(run: RunFolder) -> None:
    tail = LineTail(run.log_file)
    assert tail.new() == []
    with open(run.log_file, "ab", buffering=0) as log:
        log.write(b"one\ntw")
        assert tail.new() == [b"one\n"]
        log.write(b"o\nthr")
        assert tail.new() == [b"two\n"]
    assert tail.new(torn=True) == [b"thr"]
    assert tail.new(torn=True) == []


@pytest.mark.parametrize("ended", [True, False])
def test_the_last_events_tell_the_same_state_and_progress_as_all(run: RunFolder, ended: bool) -> None:
    assert run.last_events() == []
    writer = EventWriter(run.events_file)
    writer.state(State.running)
    for step in range(1, 1001):
        writer.write("step", step=step, steps=1000, loss=0.5, seconds=0.1)
    if ended:
        writer.state(State.succeeded)
    last = run.last_events()
    assert run.state(last) is run.state() is (State.succeeded if ended else State.interrupted)
    assert last_step(last) == 1000
    assert (len(last) < 500) == ended, "only as much is read as is needed"


def test_a_running_run_without_a_living_trainer_is_interrupted(run: RunFolder) -> None:
    assert run.state() is State.created
    writer = EventWriter(run.events_file)
    writer.state(State.running)
    assert run.state() is State.interrupted
    code = (
        "import sys, time; from pathlib import Path; from dreamctl.files import locked\n"
        "with locked(Path(sys.argv[1]), 'training'):\n    print('held', flush=True); time.sleep(60)"
    )
    trainer = subprocess.Popen([sys.executable, "-c", code, str(run.lock_file)], stdout=subprocess.PIPE)
    assert trainer.stdout is not None
    trainer.stdout.readline()
    assert run.state() is State.running
    trainer.kill()
    trainer.wait()
    assert run.state() is State.interrupted


def test_a_run_that_ends_while_it_is_looked_at_has_ended(run: RunFolder) -> None:
    writer = EventWriter(run.events_file)
    writer.state(State.running)
    seen = run.events()
    writer.state(State.succeeded)
    assert run.state(seen) is State.succeeded


def test_the_log_ends_with_its_last_lines(run: RunFolder) -> None:
    assert run.log_tail(3) == []
    run.log_file.write_text("\n".join(f"line {number}" for number in range(20000)) + "\n")
    assert run.log_tail(2) == ["line 19998", "line 19999"]


def test_ids_sort_by_time_and_are_found_by_prefix() -> None:
    ids = ["20261120-100000-aaaa", "20261120-100000-bbbb", "20261121-100000-cccc"]
    assert resolve_run_id("last", ids) == ids[2]
    assert resolve_run_id("20261121", ids) == ids[2]
    assert resolve_run_id(ids[0], ids) == ids[0]
    with pytest.raises(InvalidInput, match="begins 2 runs"):
        resolve_run_id("20261120", ids)
    with pytest.raises(NotFound, match="no run 'x'"):
        resolve_run_id("x", ids)
    with pytest.raises(NotFound, match="no run yet"):
        resolve_run_id("last", [])
    assert RUN_ID.fullmatch(new_run_id())


@pytest.mark.parametrize(("file", "text"), [("run.json", "{}"), ("concept.json", "[]"), ("recipe.toml", "a = ")])
def test_a_damaged_file_is_named(run: RunFolder, file: str, text: str) -> None:
    (run.path / file).write_text(text)
    with pytest.raises(DreamctlError, match=file.replace(".", r"\.")):
        run.record(), run.concept(), run.recipe()


def test_events_are_json_lines_with_flat_fields(run: RunFolder) -> None:
    with locked(run.lock_file, "test"):
        writer = EventWriter(run.events_file)
        writer.write("note", message="ä")
        writer.close()
    line = json.loads(run.events_file.read_text())
    assert line["message"] == "ä"
    assert {"v", "seq", "attempt", "time", "type"} <= set(line)
