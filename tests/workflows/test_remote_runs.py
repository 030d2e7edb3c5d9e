"""Runs at a provider, by the workflows of the commands: submitted once, followed, brought home, told honestly."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from dreamctl import plugins
from dreamctl.backends import journal
from dreamctl.domain.run import State
from dreamctl.errors import (
    ConsentRequired,
    CredentialsError,
    DreamctlError,
    InvalidInput,
    NotFound,
    RunFailed,
)
from dreamctl.http import AnswerLost
from dreamctl.runfolder import RunFolder
from dreamctl.workflows.ending import cancel
from dreamctl.workflows.lesson import Wish
from dreamctl.workflows.runs import all_status, one_status
from dreamctl.workflows.train import train
from tests.clouds.robot import Robot
from tests.clouds.runpod import RunPodCloud
from tests.fakes import InstantBackend, Recorder
from tests.workflows.at_runpod import (  # noqa: F401 (fixtures)
    KNOBS,
    Open,
    acquainted,
    cloud_fixture,
    opened_fixture,
    taught,
    the_run,
    worker_fixture,
)


def test_ten_photos_need_no_bucket(opened: Open, worker: Robot) -> None:
    done = taught(opened())
    assert [version.name for version in done.versions] == ["sks@1"]
    assert done.run is not None and done.run.state() is State.succeeded
    assert worker.submitted == 1
    told = one_status(opened(), "last")
    assert (told.backend, told.state, told.step) == ("runpod", State.succeeded, 3)
    assert told.log == ["trained"] and told.loss == [1.0, 0.5, pytest.approx(1 / 3, abs=1e-4)]
    assert taught(opened()).before, "the same again shows what is done"
    assert worker.submitted == 1


def test_nothing_is_paid_without_consent(opened: Open, worker: Robot) -> None:
    context = opened(max_cost=None)
    with pytest.raises(ConsentRequired, match="nobody agreed") as refused:
        taught(context)
    assert "--yes" in str(refused.value.hint) and "max_cost" in str(refused.value.hint)
    with pytest.raises(ConsentRequired, match="it would cost about"):
        taught(opened(max_cost=0.01))
    with pytest.raises(InvalidInput, match="nobody said what an hour costs"):
        taught(opened(price_per_hour=None))
    assert worker.cloud.submissions == [] and not (context.runs.exists() and list(context.runs.iterdir()))
    assert taught(opened(Recorder("yes"), max_cost=None)).versions


def test_the_builtin_model_is_no_silent_default(opened: Open, cloud: RunPodCloud) -> None:
    context = opened(base_model=None)
    with pytest.raises(InvalidInput, match="no base model is named"):
        train(context, Wish(category="person"))


def test_detached_it_goes_on_and_status_brings_it_home(opened: Open, worker: Robot) -> None:
    worker.hold.set()
    done = taught(opened(), detach=True)
    assert done.run is not None and done.state is State.queued
    assert one_status(opened(), "last").state is State.queued
    worker.hold.clear()
    worker.cloud.wait_for(worker.cloud.newest)
    (told,) = all_status(opened())
    assert told.state is State.succeeded and [version.name for version in told.versions] == ["sks@1"]
    assert worker.submitted == 1


def test_an_answer_that_is_lost_is_not_asked_for_again(opened: Open, worker: Robot) -> None:
    context = opened()
    acquainted(context)
    worker.cloud.lose_answer()
    with pytest.raises(AnswerLost):
        taught(context)
    run = the_run(context)
    assert run.state() is State.submitting and worker.submitted == 1
    person = Recorder()
    told = one_status(opened(person), run.id)
    assert told.state is State.submitting
    assert any("--resubmit" in warning and "--attach runpod:" in warning for warning in person.warnings)
    with pytest.raises(DreamctlError) as stopped:
        taught(opened())
    assert stopped.value.exit_code == 5 and worker.submitted == 1
    assert train(opened(), Wish(resume=run.id, resubmit=True)).versions
    assert worker.submitted == 2, "the user took the risk"


def test_attach_adopts_a_job_by_its_id(opened: Open, worker: Robot, tmp_path: Path) -> None:
    worker.hold.set()
    first = taught(opened(), detach=True)
    job_id = worker.cloud.newest
    assert first.run is not None
    again = taught(opened(), attach=f"runpod:{job_id}", detach=True)
    assert again.run is not None and again.run.id == first.run.id, "it is known here already"
    context = opened()
    with pytest.raises(NotFound, match="nothing-of-that-id"):
        taught(context, attach="runpod:nothing-of-that-id", again=True)
    assert len([path for path in context.runs.iterdir() if not path.name.startswith(".")]) == 1


def test_cancel_ends_the_job(opened: Open, worker: Robot) -> None:
    worker.hold.set()
    done = taught(opened(), detach=True)
    assert done.run is not None
    assert cancel(opened(), done.run.id).state() is State.cancelled
    assert worker.cloud.jobs[worker.cloud.newest].status == "CANCELLED"
    with pytest.raises(InvalidInput, match="was cancelled"):
        train(opened(), Wish(resume=done.run.id))


def test_a_cancel_that_comes_too_late_keeps_what_was_made(opened: Open, worker: Robot) -> None:
    worker.hold.set()
    done = taught(opened(), detach=True)
    assert done.run is not None
    worker.hold.clear()
    worker.cloud.wait_for(worker.cloud.newest)
    assert cancel(opened(), done.run.id).state() is State.succeeded
    (told,) = all_status(opened())
    assert told.versions


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        (lambda cloud, job: cloud.fail(job, "out of memory"), "out of memory"),
        (lambda cloud, job: cloud.fail(job, json.dumps({"error_message": "boom"})), "boom"),
        (lambda cloud, job: cloud.fail(job, ["one", "two"]), "one"),
        (lambda cloud, job: cloud.finish(job), "no model that can be used"),
        (lambda cloud, job: cloud.finish(job, output={"fine": True}), "no model that can be used"),
        (lambda cloud, job: cloud.cancel(job), "was cancelled"),
        (lambda cloud, job: cloud.forget(job), "forgotten"),
    ],
)
def test_an_end_without_a_model_says_why(
    opened: Open, cloud: RunPodCloud, end: Any, sentence: str, worker: Robot
) -> None:
    worker.hold.set()
    done = taught(opened(), detach=True)
    assert done.run is not None
    end(cloud, cloud.newest)
    job = done.run.remote()
    assert job is not None  # that RunPod knows no such job is believed after two minutes
    journal.keep(done.run, job.model_copy(update={"missing_since": "2026-11-01T10:00:00.000Z"}))
    with pytest.raises(RunFailed, match=sentence) as failed:
        train(opened(), Wish(resume=done.run.id))
    assert failed.value.exit_code == 6
    assert done.run.state() in (State.failed, State.cancelled) and worker.submitted == 1


def test_time_out_is_the_provider_s(opened: Open, worker: Robot) -> None:
    worker.hold.set()
    done = taught(opened(max_hours=0.5), detach=True)
    assert done.run is not None
    policy = worker.cloud.submissions[-1]["policy"]
    assert policy["executionTimeout"] == 1_800_000 and policy["ttl"] > policy["executionTimeout"]
    worker.cloud.start(worker.cloud.newest)
    worker.cloud.pass_time(1801)
    with pytest.raises(RunFailed, match="time limit"):
        train(opened(), Wish(resume=done.run.id))


def test_late_progress_changes_nothing(opened: Open, worker: Robot) -> None:
    done = taught(opened())
    assert done.run is not None
    worker.cloud.progress(worker.cloud.newest, {"schema": 1, "events": []})
    assert one_status(opened(), done.run.id).state is State.succeeded


def test_progress_comes_home_as_events(opened: Open, worker: Robot) -> None:
    worker.hold.set()
    done = taught(opened(), detach=True)
    assert done.run is not None
    cloud = worker.cloud
    cloud.start(cloud.newest)
    event = {"v": 1, "attempt": 1, "time": "2026-11-27T10:00:00.000Z"}
    steps = [
        {**event, "seq": number, "type": "step", "step": number, "steps": 3, "loss": 0.5, "seconds": 0.1}
        for number in (1, 2)
    ]
    cloud.progress(cloud.newest, {"schema": 1, "events": steps, "log": ["step 1", "step 2"]})
    told = one_status(opened(), done.run.id)
    assert (told.state, told.step, told.log) == (State.running, 2, ["step 1", "step 2"])
    cloud.progress(cloud.newest, {"schema": 1, "events": steps, "log": ["step 2", "step 3"]})
    told = one_status(opened(), done.run.id)
    assert told.log == ["step 1", "step 2", "step 3"]
    assert sum(item.type == "step" for item in done.run.events()) == 2


def test_a_failed_poll_never_fails_the_run(opened: Open, worker: Robot) -> None:
    worker.hold.set()
    person = Recorder()
    acquainted(opened())
    worker.cloud.fault("status", 500, times=9)
    threading.Timer(3, worker.hold.clear).start()
    assert taught(opened(person)).versions
    assert worker.submitted == 1


def test_a_refused_token_is_told_before_anything_is_sent(
    opened: Open, cloud: RunPodCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_wrong0000000000000000000")
    with pytest.raises(CredentialsError):
        taught(opened())
    monkeypatch.delenv("RUNPOD_API_KEY")
    with pytest.raises(CredentialsError, match="no token for runpod"):
        taught(opened())
    assert cloud.submissions == []


def test_what_came_damaged_is_a_failure_that_says_so(opened: Open, worker: Robot, tmp_path: Path) -> None:
    worker.hold.set()
    done = taught(opened(), detach=True)
    assert done.run is not None
    cloud = worker.cloud
    from tests.clouds.robot import inline_answer

    (tmp_path / "odd").mkdir()
    answer = inline_answer(cloud.submissions[-1]["input"], tmp_path / "odd")
    answer["outcome"]["sha256"] = "0" * 64
    cloud.start(cloud.newest)
    cloud.finish(cloud.newest, output=answer)
    with pytest.raises(DreamctlError, match="SHA-256"):
        train(opened(), Wish(resume=done.run.id))
    assert done.run.state() is State.failed
    assert not done.run.model.exists()


def test_a_name_joins_the_run_that_has_it(opened: Open, worker: Robot) -> None:
    first = taught(opened(), name="build-17")
    second = taught(opened(), name="build-17")
    assert first.run and second.run and first.run.id == second.run.id and worker.submitted == 1
    with pytest.raises(InvalidInput, match="belongs to run"):
        taught(opened(), name="build-17", overrides=[*KNOBS, "training.seed=5"])
    assert one_status(opened(), "build-17").id == first.run.id


def test_the_answer_lost_error_is_a_provider_s() -> None:
    assert AnswerLost("x").exit_code == 5


class BrokenBackend(InstantBackend):
    """A place where nothing ever starts."""

    name = "broken"

    def submit(self, run: RunFolder) -> str:
        raise DreamctlError("it does not start")


def test_another_place_begins_anew_what_was_not_finished_here(
    opened: Open, worker: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plugins.BUILT_IN["backends"], "broken", f"{BrokenBackend.__module__}:BrokenBackend")
    with pytest.raises(DreamctlError, match="does not start"):
        taught(opened(backend="broken"))
    done = taught(opened())
    assert done.run and done.run.record().backend == "runpod" and worker.submitted == 1
    assert taught(opened(backend="broken")).before, "what is done is shown, wherever it was done"
