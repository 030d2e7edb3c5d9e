"""Who knows more of a shared run: nothing is written over what was not read, and nothing bad is let in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamctl.domain.run import State
from dreamctl.files import write_json
from dreamctl.runfolder import now
from dreamctl.storage.base import Changed
from dreamctl.workflows import shared_runs
from tests.fakes import Recorder, finish
from tests.workflows.sharing import At, begun, bucket_file, bucket_job, chatter, computers, same_run, told


@pytest.fixture
def at(user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> At:
    return computers(tmp_path, monkeypatch)


def test_a_later_attempt_counts_more_than_many_events(at: At) -> None:
    run = begun(at("a"))
    told(run, State.failed, remote_id="one")
    assert shared_runs.publish(at("a"), run)
    shared_runs.pull(at("b"))
    there = same_run(at("b"), run)
    chatter(there)
    told(run, State.submitting, attempt=2)
    assert shared_runs.publish(at("a"), run)
    shared_runs.pull(at("b"))
    job = there.remote()
    assert job and (job.attempt, job.id, there.state()) == (2, None, State.submitting)


def test_whoever_knows_more_puts_it_into_the_bucket(at: At, tmp_path: Path) -> None:
    run = begun(at("a"))
    told(run, State.submitting)
    shared_runs.publish(at("a"), run)
    shared_runs.pull(at("b"))
    there = same_run(at("b"), run)
    told(there, State.queued, remote_id="one")
    chatter(run)
    shared_runs.publish(at("a"), run)
    shared_runs.pull(at("b"))
    assert bucket_job(tmp_path, run)["id"] == "one"
    shared_runs.pull(at("a"))
    job = run.remote()
    assert job and job.id == "one" and run.state() is State.queued


def test_of_two_submissions_at_once_the_one_in_the_bucket_counts(at: At, tmp_path: Path) -> None:
    run = begun(at("a"))
    told(run, State.failed, remote_id="one")
    shared_runs.publish(at("a"), run)
    shared_runs.pull(at("b"))
    there = same_run(at("b"), run)
    told(run, State.submitting, attempt=2, began="2026-11-20T11:00:00.000Z")
    shared_runs.publish(at("a"), run, strict=True)
    told(there, State.submitting, attempt=2, began="2026-11-20T11:00:00.001Z")
    with pytest.raises(Changed):
        shared_runs.publish(at("b"), there, strict=True)
    told(there, State.interrupted, attempt=2, began="2026-11-20T11:00:00.001Z")  # nothing was sent
    shared_runs.pull(at("b"))
    job = there.remote()
    assert job and job.began.endswith("00.000Z") and there.state() is State.submitting
    assert bucket_job(tmp_path, run)["began"] == job.began


def test_success_is_never_taken_back(at: At, tmp_path: Path) -> None:
    run = begun(at("a"))
    told(run, State.queued, remote_id="one")
    shared_runs.publish(at("a"), run)
    shared_runs.pull(at("b"))
    there = same_run(at("b"), run)
    told(run, State.succeeded, remote_id="one")  # and killed before it was published
    chatter(there)
    told(there, State.failed, remote_id="one")
    shared_runs.publish(at("b"), there)
    assert not shared_runs.refresh(at("a"), run, force=True)
    assert run.state() is State.succeeded
    shared_runs.pull(at("b"))
    assert there.state() is State.succeeded, "who had thought otherwise learns it"


def test_a_cancelled_run_that_was_sent_again_elsewhere_is_told_of(at: At, tmp_path: Path) -> None:
    run = begun(at("a"))
    told(run, State.failed, remote_id="one")
    shared_runs.publish(at("a"), run)
    shared_runs.pull(at("b"))
    told(run, State.queued, attempt=2, remote_id="two")
    shared_runs.publish(at("a"), run)
    there, person = same_run(at("b"), run), Recorder()
    told(there, State.cancelled, remote_id="one")
    shared_runs.publish(at("b", person), there)
    assert there.state() is State.cancelled and bucket_job(tmp_path, run)["id"] == "two"
    assert "sent again elsewhere" in person.warnings[0]


def test_a_bucket_that_takes_nothing_is_told_once(at: At, tmp_path: Path) -> None:
    run, person = begun(at("a")), Recorder()
    told(run, State.queued, remote_id="one")
    (tmp_path / "bucket").write_text("no folder")
    assert not shared_runs.publish(at("a", person), run)
    assert not shared_runs.publish(at("a", person), run)
    assert len(person.warnings) == 1 and "could not be kept" in person.warnings[0]
    (tmp_path / "bucket").unlink()
    assert shared_runs.publish(at("a"), run) and bucket_job(tmp_path, run)["id"] == "one"


@pytest.mark.parametrize("strict", [True, False])
def test_an_object_that_was_removed_is_made_again(at: At, tmp_path: Path, strict: bool) -> None:
    run = begun(at("a"))
    told(run, State.queued, remote_id="one")
    shared_runs.publish(at("a"), run)
    bucket_file(tmp_path, run).unlink()
    assert shared_runs.publish(at("a"), run, strict=strict) and bucket_file(tmp_path, run).exists()


def test_a_bucket_that_cannot_be_read_stops_nothing(at: At, user: Path) -> None:
    person = Recorder()
    context = at("a", person, runs="gs://nobody/runs", gcs_credentials=str(user / "none.json"))
    shared_runs.pull(context)
    shared_runs.pull(context)
    assert len(person.warnings) == 1 and "known on this computer" in person.warnings[0]


def _files(**files: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda value: {**value, "files": {**value["files"], **files}}


def _event(**fields: Any) -> str:
    return json.dumps({"v": 1, "seq": 9, "attempt": 1, "time": "x", **fields}) + "\n"


BAD: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no table": lambda value: [value],
    "no files": lambda value: {**value, "files": 3},
    "contents that are no text": _files(**{"recipe.toml": 3}),
    "a log that is no text": _files(**{"train.log": ["x"]}),
    "half a character": _files(**{"train.log": "\ud800"}),
    "a damaged journal": _files(**{"remote.json": "{"}),
    "a journal that is none": _files(**{"remote.json": "[]"}),
    "a recipe that is none": _files(**{"recipe.toml": "steps = 'many'"}),
    "a dataset without end": _files(**{"dataset.json": "[" * 100_000}),
    "no concept": lambda value: {"schema": 1, "files": {k: v for k, v in value["files"].items() if k[0] != "c"}},
    "another run": lambda value: _files(
        **{"run.json": value["files"]["run.json"].replace(json.loads(value["files"]["run.json"])["id"], "20200101-1")}
    )(value),
    "a state of the future": _files(**{"events.jsonl": _event(type="state", state="paused")}),
    "a state that is none": _files(**{"events.jsonl": _event(type="state", state=[])}),
    "a step without end": _files(**{"events.jsonl": _event(type="step", step=10**30, loss=1)}),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_object_is_passed_over(at: At, tmp_path: Path, bad: str) -> None:
    run, other = begun(at("a")), begun(at("a"))
    for one in (run, other):
        told(one, State.queued, remote_id="one")
        shared_runs.publish(at("a"), one)
    shared_runs.pull(at("b"))
    there = same_run(at("b"), run)
    before = {file.name: file.read_bytes() for file in there.path.iterdir()}
    file = bucket_file(tmp_path, run)
    file.write_text(json.dumps(BAD[bad](json.loads(file.read_text()))))
    told(other, State.running, remote_id="one")
    shared_runs.publish(at("a"), other)
    person = Recorder()
    for computer in ("b", "c"):
        shared_runs.pull(at(computer, person))
        assert same_run(at(computer), other).state() is State.running
    assert {file.name: file.read_bytes() for file in there.path.iterdir()} == before
    assert not same_run(at("c"), run).path.exists()
    assert len(person.warnings) == 1 and "passed over" in person.warnings[0] and run.id in person.warnings[0]


def test_what_means_something_here_alone_stays_here(at: At, tmp_path: Path) -> None:
    run = begun(at("a"))
    told(run, State.queued, remote_id="one")
    job = run.remote()
    assert job is not None
    access = {"s3_profile": "alice", "gcs_credentials": "/home/alice/key.json", "s3_region": "eu-north-1"}
    write_json(run.remote_file, job.model_copy(update={"access": access}).plain())
    shared_runs.publish(at("a"), run)
    assert bucket_job(tmp_path, run)["access"] == {"s3_region": "eu-north-1"}


def test_an_outcome_is_kept_once(at: At, tmp_path: Path) -> None:
    run = begun(at("a"))
    told(run, State.queued, remote_id="one")
    job, outcome = run.remote(), tmp_path / "bucket" / f"{run.id}.outcome.zip"
    assert job is not None
    shared_runs.keep_outcome(at("a"), run, job)
    assert not shared_runs.outcome_kept(at("a"), run) and not outcome.exists(), "there is no model yet"
    finish(run)
    (tmp_path / "bucket").write_text("no folder")
    shared_runs.keep_outcome(at("a"), run, job)
    assert not shared_runs.outcome_kept(at("a"), run)
    (tmp_path / "bucket").unlink()
    shared_runs.keep_outcome(at("a"), run, job)
    assert shared_runs.outcome_kept(at("a"), run) and outcome.exists()
    stamp = outcome.stat().st_mtime_ns
    shared_runs.keep_outcome(at("a"), run, job)
    assert outcome.stat().st_mtime_ns == stamp
    assert shared_runs.bring_outcome(at("a"), run), "the model is here: nothing is fetched, nothing replaced"
    shared_runs.forget(at("a"), run)
    assert not outcome.exists() and not shared_runs.outcome_kept(at("a"), run)


@pytest.mark.parametrize("began", ["2999-01-01T00:00:00.000Z", "half past ten"])
def test_no_clock_makes_anybody_wait_for_long(at: At, monkeypatch: pytest.MonkeyPatch, began: str) -> None:
    monkeypatch.setattr(shared_runs, "UNDER_WAY_SECONDS", 0.5)
    run = begun(at("a"))
    told(run, State.submitting, began=began)
    start = time.monotonic()
    assert shared_runs.may_be_under_way(at("a"), run)
    shared_runs.await_submission(at("a"), run)
    assert time.monotonic() - start < 10 and not shared_runs.may_be_under_way(at("a"), run)


def test_only_a_young_submission_is_waited_for(at: At) -> None:
    run = begun(at("a"))
    told(run, State.submitting)
    assert not shared_runs.may_be_under_way(at("a"), run)
    told(run, State.submitting, attempt=2, began=now())
    assert shared_runs.may_be_under_way(at("a"), run)
