"""What providers say becomes a run's events only where readers can count on it, each thing once, and at any clock."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from dreamctl.backends import journal
from dreamctl.domain.recipe import Base, Recipe
from dreamctl.domain.remote import RemoteJob, Report
from dreamctl.domain.run import State
from dreamctl.http import remember_secret
from dreamctl.runfolder import EventWriter, RunFolder, now
from tests.fakes import write_dataset, write_run

STEP = {"type": "step", "step": 1, "steps": 3, "loss": 0.5, "seconds": 0.1}
URL = "https://bucket.s3.amazonaws.com/d.zip?X-Amz-Signature=abcdef0123456789"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that was accepted by a provider."""
    run = write_run(tmp_path / "runs", write_dataset(tmp_path / "data", count=1), Recipe(base=Base(source="builtin")))
    job = journal.keep(run, RemoteJob(backend="runpod", place="p", contract="dreamctl", began=now(), id="j"))
    journal.change(run, job, State.queued)
    return run


def job_of(run: RunFolder) -> RemoteJob:
    job = run.remote()
    assert job
    return job


def told(run: RunFolder, *events: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    """What the run's events say of progress after a report with these."""
    journal.apply(run, job_of(run), Report("running", events=events, **more))
    return progress(run)


def progress(run: RunFolder) -> list[dict[str, Any]]:
    return [{"type": event.type, **event.fields} for event in run.events() if event.type != "state"]


def numbered(*numbers: int, **fields: Any) -> list[dict[str, Any]]:
    return [{**STEP, "seq": number, "step": number, "steps": 99, **fields} for number in numbers]


# events that come from elsewhere


def test_an_event_keeps_its_known_fields_and_the_number_that_it_had(run: RunFolder) -> None:
    event = {**STEP, "v": 1, "seq": 7, "attempt": 4, "time": now(), "type_": "x", "self": 1, "extra": [[]]}
    assert told(run, event) == [{**STEP, "origin": 7}]


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": []}, {"type": None}, {"type": "state", "state": "succeeded"}, {"type": "unheard"},
        {"seq": True}, {"seq": 10**400}, {"seq": -1}, {"seq": "1"},
        {"step": 10**30}, {"step": True}, {"step": -5}, {"step": 1.5}, {"step": 4}, {"steps": 0},
        {"loss": 10**400}, {"loss": float("nan")}, {"loss": float("inf")}, {"loss": 1e300}, {"loss": "0.1"},
        {"seconds": float("inf")}, {"seconds": -1.0}, {"seconds": None},
    ],
)  # fmt: skip
def test_a_step_that_no_reader_could_count_on_is_passed_over(run: RunFolder, wrong: dict[str, Any]) -> None:
    good = {**STEP, "seq": 2, "step": 2}
    assert told(run, {**STEP, "seq": 1, **wrong}, good) == [{**STEP, "step": 2, "origin": 2}]


@pytest.mark.parametrize("wrong", [{"done": 10**40}, {"done": 11}, {"total": -1}, {"name": 3}, {"total": "ten"}])
def test_so_is_a_phase(run: RunFolder, wrong: dict[str, Any]) -> None:
    phase = {"type": "phase", "name": "caching", "total": 10, "done": 4}
    assert told(run, {**phase, "seq": 1, **wrong}, {**phase, "seq": 2}) == [{**phase, "origin": 2}]


def test_text_from_elsewhere_is_one_plain_line_without_secrets_and_not_endless(run: RunFolder) -> None:
    remember_secret("a-token-of-somebody")
    text = f"\x1b]0;owned\x07\x1b[2J a\nerror: \ud800 {URL} a-token-of-somebody " + "x" * 9999
    notes: list[dict[str, Any]] = [
        {"seq": 1, "type": "note", "message": text}, {"seq": 2, "type": "phase", "name": text},
        {"seq": 3, "type": "sample", "step": 1, "file": text},
    ]  # fmt: skip
    told(run, *notes, log=(text,))
    journal.apply(run, job_of(run), Report("failed", text, text))
    (ending,) = [event.fields for event in run.events() if event.fields.get("state") == "failed"]
    texts = [ending["message"], ending["hint"], *run.log_tail(9)]
    texts += [value for event in progress(run) for value in event.values() if isinstance(value, str)]
    assert len([each for each in texts if "error:" in each]) == 6
    for each in texts:
        assert each.isprintable()
        assert len(each) <= 2000
        assert "abcdef0123456789" not in each
        assert "a-token" not in each
    assert len(ending["message"]) <= 500


def test_every_line_that_was_written_is_strict_json(run: RunFolder) -> None:
    told(run, {**STEP, "seq": 1, "loss": float("nan")}, {**STEP, "seq": 2})
    journal.apply(run, job_of(run), Report("running", step=(2, 3, float("inf"))))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for line in run.events_file.read_text().splitlines():
        json.loads(line, parse_constant=refuse)


@pytest.mark.parametrize("step", [(4, 3, 0.1), (-1, 3, 0.1), (1, 10**40, 0.1), (1, 3, float("nan")), (True, 3, 0.1)])
def test_a_foreign_trainers_step_is_looked_at_as_closely(run: RunFolder, step: Any) -> None:
    journal.apply(run, job_of(run), Report("running", step=step))
    assert progress(run) == []
    journal.apply(run, job_of(run), Report("running", step=(2, 3, None)))
    assert [event["step"] for event in progress(run)] == [2]


def test_a_second_attempt_counts_its_steps_from_the_beginning(run: RunFolder) -> None:
    journal.apply(run, job_of(run), Report("running", step=(90, 99, 0.1)))
    second = journal.keep(run, job_of(run).model_copy(update={"attempt": 2}))
    journal.apply(run, second, Report("running", step=(5, 99, 0.1)))
    assert [event["step"] for event in progress(run)] == [90, 5]


# each event once


def test_events_are_taken_over_once(run: RunFolder) -> None:
    told(run, *numbered(1, 2, 3))
    assert job_of(run).seen == 3
    assert [event["origin"] for event in told(run, *numbered(2, 3, 4))] == [1, 2, 3, 4]


def test_a_job_that_the_provider_begins_anew_tells_its_events_anew(run: RunFolder) -> None:
    told(run, *numbered(1, 2, 3))
    assert [event["origin"] for event in told(run, *numbered(1, 2))] == [1, 2, 3, 1, 2]
    assert [event["origin"] for event in told(run, *numbered(1, 2, 3))] == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize("before", [(), (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("whole", [0, 1, 2])
def test_a_kill_while_they_are_written_doubles_none(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, whole: int, before: tuple[int, ...]
) -> None:
    told(run, *numbered(*before))
    write = EventWriter.write
    left = [whole]

    def killed(self: EventWriter, type_: str, **fields: Any) -> Any:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return write(self, type_, **fields)

    news = (1, 2, 3)  # after 1…5: the provider began the job anew
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(EventWriter, "write", killed)
        told(run, *numbered(*news))
    got = [event["origin"] for event in told(run, *numbered(*news, 6, 7))][len(before) :]
    assert len(got) == len(set(got)), "each once"
    assert got[-2:] == [6, 7]
    if not before:
        assert got == [1, 2, 3, 6, 7], "and none is lost"


# the end


def test_what_has_arrived_lets_the_run_succeed_once_with_the_last_events(run: RunFolder) -> None:
    told(run, *numbered(1, 2))
    job = journal.arrived(run, job_of(run), numbered(1, 2, 3))
    assert (job.seen, run.state()) == (3, State.succeeded)
    assert [event["origin"] for event in progress(run)] == [1, 2, 3]
    before = run.events()
    journal.arrived(run, job_of(run), numbered(1, 2, 3, 4))
    assert run.events() == before


def test_a_kill_between_the_model_and_the_last_word_is_made_good(run: RunFolder) -> None:
    told(run, *numbered(1, 2))
    journal.arrived(run, job_of(run))
    assert run.state() is State.succeeded
    assert job_of(run).seen == 2


# clocks


def at(**ago: float) -> str:
    return (datetime.datetime.now(datetime.UTC) - datetime.timedelta(**ago)).isoformat()


@pytest.mark.parametrize(
    ("clock", "seconds"),
    [
        ({"began": {"minutes": 50}, "started": {"minutes": 40}}, 2400),
        ({"began": {"minutes": 50}, "started": {"hours": 3}}, 1800),
        ({"began": {"minutes": 50}, "started": {"hours": -3}}, 1800),
        ({"began": {"minutes": 50}, "started": {"minutes": 5}}, 1800),
        ({"began": {"minutes": 50}}, 1800),
    ],
    ids=["true", "hours behind", "hours ahead", "was ahead, and that time has come", "says nothing"],
)
def test_how_long_a_job_has_run_is_right_by_any_clock_of_the_provider(
    run: RunFolder, clock: dict[str, dict[str, float]], seconds: float
) -> None:
    """It has been seen running for half an hour."""
    moments = {name: at(**ago) for name, ago in clock.items()}
    job = job_of(run).model_copy(update={"seen_running": at(minutes=30), **moments})
    assert journal.elapsed(job) == pytest.approx(seconds, abs=5)


def test_since_when_it_runs_is_told_by_the_provider_and_by_this_computer(run: RunFolder) -> None:
    journal.apply(run, job_of(run), Report("queued"))
    assert journal.elapsed(job_of(run)) == 0
    assert job_of(run).seen_running is None
    started = at(hours=2)
    journal.apply(run, job_of(run), Report("running", started=started))
    first = job_of(run)
    assert first.started == started
    assert journal.elapsed(first) < 60
    journal.apply(run, first, Report("running", started=at(hours=1)))
    assert job_of(run) == first


@pytest.mark.parametrize("time", ["yesterday", "2026-13-01T00:00:00Z", "", "9" * 5000])
def test_times_that_are_none_are_not_believed(run: RunFolder, time: str) -> None:
    journal.apply(run, job_of(run), Report("running", started=time, keep_until=time))
    assert job_of(run).keep_until is None
    assert journal.elapsed(job_of(run)) < 60
    assert journal.elapsed(job_of(run).model_copy(update={"started": time})) < 60
