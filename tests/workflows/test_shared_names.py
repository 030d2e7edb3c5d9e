"""Names of shared runs: one run has one, and a run that is gone or cancelled has it no more."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dreamctl.domain.run import State
from dreamctl.errors import DreamctlError, InvalidInput
from dreamctl.workflows import shared_runs
from dreamctl.workflows.lesson import Wish
from dreamctl.workflows.naming import check_same_lesson, named_run
from tests.fakes import Recorder
from tests.workflows.sharing import At, begun, bucket_file, computers, same_run, told


@pytest.fixture
def at(user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> At:
    return computers(tmp_path, monkeypatch)


def claims(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "bucket" / "names").glob("*.json"))


def test_who_comes_later_is_told_whose_the_name_is(at: At) -> None:
    first = begun(at("a"), "nightly")
    assert shared_runs.claim(at("a"), "nightly", first) == first.id
    assert shared_runs.claim(at("a"), "nightly", first) == first.id, "said again, it is the same"
    second = begun(at("b"), "nightly")
    assert shared_runs.claim(at("b"), "nightly", second) == first.id
    assert same_run(at("b"), first).path.is_dir()
    with pytest.raises(InvalidInput, match="belongs to run"):
        check_same_lesson("nightly", same_run(at("b"), first), "another key")


def test_a_removed_run_takes_its_own_name_along_alone(at: At, tmp_path: Path) -> None:
    first = begun(at("a"), "nightly")
    shared_runs.claim(at("a"), "nightly", first)
    second = begun(at("b"), "nightly")
    shared_runs.claim(at("b"), "nightly", second)
    shared_runs.discard(at("b"), second)
    assert shared_runs.claimed(at("b"), "nightly") == first.id
    shared_runs.forget(at("a"), first)
    assert not claims(tmp_path)


def test_the_name_of_a_run_that_is_gone_is_got_by_one(at: At, tmp_path: Path) -> None:
    gone = begun(at("a"), "nightly")
    shared_runs.claim(at("a"), "nightly", gone)
    bucket_file(tmp_path, gone).unlink()
    context = at("b")
    assert shared_runs.claimed(context, "nightly") is None
    runs = [begun(context, "nightly") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda run: shared_runs.claim(context, "nightly", run), runs))
    assert len(set(got)) == 1 and got[0] in [run.id for run in runs]


def test_the_name_of_a_cancelled_run_is_given_to_the_next(at: At) -> None:
    cancelled = begun(at("a"), "nightly")
    shared_runs.claim(at("a"), "nightly", cancelled)
    told(cancelled, State.cancelled)
    shared_runs.publish(at("a"), cancelled)
    person = Recorder()
    assert named_run(at("b", person), Wish(name="nightly"), "k") is None
    run = begun(at("b"), "nightly")
    assert shared_runs.claim(at("b", person), "nightly", run) == run.id
    assert any("which is cancelled" in note for note in person.notes)
    assert shared_runs.claimed(at("a"), "nightly") == run.id


@pytest.mark.parametrize("damage", ["{", "[]", '{"schema": 1, "run": 3}', '{"schema": 9}'])
def test_a_damaged_name_is_renewed_by_again(at: At, tmp_path: Path, damage: str) -> None:
    first = begun(at("a"), "nightly")
    shared_runs.claim(at("a"), "nightly", first)
    claims(tmp_path)[0].write_text(damage)
    with pytest.raises(DreamctlError):
        named_run(at("a"), Wish(name="nightly"), "k")
    assert named_run(at("a"), Wish(name="nightly", again=True), "k") is None
    shared_runs.free_name(at("a"), "nightly")
    second = begun(at("a"), "nightly")
    assert shared_runs.claim(at("a"), "nightly", second) == second.id
    claims(tmp_path)[0].write_text(damage)
    shared_runs.forget(at("a"), second)
