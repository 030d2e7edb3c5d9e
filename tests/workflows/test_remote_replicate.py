"""Runs at Replicate, by the workflows of the commands: every end that a training may have, and results on bad lines."""

from __future__ import annotations

import base64
import io
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dreamctl.context import Context
from dreamctl.domain.run import State
from dreamctl.errors import ConsentRequired, InvalidInput, ProviderError, RunFailed
from dreamctl.http import AnswerLost
from dreamctl.runfolder import RunFolder
from dreamctl.workflows.ending import cancel
from dreamctl.workflows.lesson import Wish
from dreamctl.workflows.listen import wakeups
from dreamctl.workflows.runs import all_status, one_status
from dreamctl.workflows.train import Taught, train
from tests.clouds.replicate import ReplicateCloud, replicate_cloud, signature
from tests.clouds.robot import weights
from tests.fakes import Recorder, write_dataset

TRAINER = "ostris/flux-dev-lora-trainer"
KNOBS = ["training.steps=12", "training.resolution=512"]
Open = Callable[..., Context]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[ReplicateCloud]:
    with replicate_cloud() as running:
        monkeypatch.setenv("REPLICATE_API_TOKEN", running.token)
        yield running


@pytest.fixture
def opened(cloud: ReplicateCloud, user: Path) -> Open:
    """Opens a context as a new command does, in a project with a dataset."""
    write_dataset(user / "processed", count=2, size=512)

    def open_one(reporter: Recorder | None = None, **flags: Any) -> Context:
        given = {"backend": "replicate", "replicate_url": cloud.url, "replicate_trainer": TRAINER}
        return Context.open(None, {**given, **flags}, reporter or Recorder())

    return open_one


def taught(context: Context, **wish: Any) -> Taught:
    return train(context, Wish(**{"category": "person", "overrides": KNOBS, "yes": True, **wish}))


def detached(context: Context, **wish: Any) -> RunFolder:
    run = taught(context, detach=True, **wish).run
    assert run is not None
    return run


def archive(*names: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as packed:
        for name in names or ("output/flux_train_replicate/lora.safetensors",):
            entry = tarfile.TarInfo(name)
            entry.size = len(weights())
            packed.addfile(entry, io.BytesIO(weights()))
    return file.getvalue()


def test_a_training_comes_home(opened: Open, cloud: ReplicateCloud) -> None:
    cloud.on_submit = lambda training: cloud.finish(training.id, weights=archive())
    done = taught(opened())
    assert [version.name for version in done.versions] == ["sks@1"]
    assert done.run and (done.run.model / "pytorch_lora_weights.safetensors").read_bytes() == weights()
    assert taught(opened()).before and len(cloud.submissions) == 1


@pytest.mark.parametrize(
    ("end", "state", "sentence"),
    [
        (lambda cloud, one: cloud.fail(one, "no face found"), State.failed, "no face found"),
        (lambda cloud, one: cloud.abort(one), State.failed, "before it began|deadline|aborted"),
        (lambda cloud, one: cloud.cancel(one), State.cancelled, "was cancelled"),
        (lambda cloud, one: cloud.finish(one, output={}), State.failed, "weights"),
        (lambda cloud, one: cloud.finish(one, output=None), State.failed, "has deleted what the training made"),
        (lambda cloud, one: cloud.finish(one, weights=archive("../../evil.safetensors")), State.failed, "evil"),
        (lambda cloud, one: cloud.finish(one, weights=b"<html>"), State.failed, "cannot be used"),
    ],
)
def test_an_end_without_a_model_says_why(
    opened: Open, cloud: ReplicateCloud, end: Any, state: State, sentence: str, tmp_path: Path
) -> None:
    run = detached(opened())
    end(cloud, cloud.newest)
    with pytest.raises(RunFailed, match=sentence) as failed:
        train(opened(), Wish(resume=run.id, yes=True))
    assert failed.value.exit_code == 6
    assert run.state() is state and len(cloud.submissions) == 1
    assert not list(tmp_path.rglob("evil*"))


def test_what_was_removed_is_expired(opened: Open, cloud: ReplicateCloud) -> None:
    run = detached(opened())
    cloud.finish(cloud.newest, weights=archive())
    cloud.remove_data(cloud.newest)
    told = one_status(opened(), run.id)
    assert told.state is State.failed and told.message and "deleted" in told.message


@pytest.mark.parametrize("loss", ["lost", 503])
def test_a_lost_answer_is_found_by_destination_and_time(opened: Open, cloud: ReplicateCloud, loss: Any) -> None:
    cloud.lose_answer() if loss == "lost" else cloud.fault("submit", 503, handled=True)
    with pytest.raises(AnswerLost):
        taught(opened())
    (told,) = all_status(opened())
    assert told.state in (State.queued, State.running) and told.remote_id == cloud.newest
    cloud.finish(cloud.newest, weights=archive())
    assert train(opened(), Wish(resume=told.id)).versions
    assert len(cloud.submissions) == 1


def test_two_that_may_be_it_are_named(opened: Open, cloud: ReplicateCloud) -> None:
    cloud.lose_answer()
    with pytest.raises(AnswerLost):
        taught(opened())
    cloud.duplicate(cloud.newest)
    with pytest.raises(ProviderError) as unknown:
        taught(opened())
    assert all(one in unknown.value.message for one in cloud.trainings) and "--attach replicate:" in str(
        unknown.value.hint
    )
    assert len(cloud.submissions) == 1


@pytest.mark.parametrize("how", ["in words", "by header"])
def test_a_throttled_submission_is_sent_again_once(opened: Open, cloud: ReplicateCloud, how: str) -> None:
    if how == "in words":
        cloud.throttle("submit", seconds=0)
    else:
        cloud.fault("submit", 429, headers={"Retry-After": "0"})
    detached(opened())
    assert len(cloud.submissions) == 1


def test_a_destination_is_made_only_when_agreed(opened: Open, cloud: ReplicateCloud) -> None:
    context = opened(max_cost=5.0, price_per_hour=1.0)
    with pytest.raises(ConsentRequired, match=r"destination|model"):
        taught(context, yes=False)
    assert "tester/dreamctl-sks" not in cloud.models and cloud.submissions == []


def test_the_follower_keeps_the_limit(opened: Open, cloud: ReplicateCloud) -> None:
    person = Recorder()
    run = detached(opened(person, max_hours=0.0003))
    assert any("only while it follows" in note or "while it follows it" in note for note in person.notes)
    cloud.start(cloud.newest)
    with pytest.raises(RunFailed, match="the most that was agreed to"):
        train(opened(), Wish(resume=run.id))
    assert cloud.trainings[cloud.newest].status == "canceled"


def test_a_cancel_that_comes_too_late_keeps_what_was_made(opened: Open, cloud: ReplicateCloud) -> None:
    run = detached(opened())
    cloud.finish(cloud.newest, weights=archive())
    assert cancel(opened(), run.id).state() is State.succeeded


def test_progress_is_read_from_the_trainer_s_log(opened: Open, cloud: ReplicateCloud) -> None:
    run = detached(opened())
    cloud.log(cloud.newest, "flux_train_replicate:  25%|██        | 3/12 [00:05<00:15, loss: 4.512e-01]\n")
    told = one_status(opened(), run.id)
    assert (told.state, told.step, told.steps) == (State.running, 3, 12)
    assert told.loss == [0.4512] and "3/12" in told.log[-1]


@pytest.mark.parametrize("trouble", ["cut", "another", "ignores If-Range", "no ranges"])
def test_a_result_on_a_bad_line_comes_whole(opened: Open, cloud: ReplicateCloud, trouble: str) -> None:
    run = detached(opened())
    data = archive()
    cloud.finish(cloud.newest, weights=data)
    if trouble == "cut":
        for _ in range(2):
            cloud.fault("output", None, cut=0)
            cloud.fault("output", None, cut=len(data) // 3)
    elif trouble == "another":
        requests = iter(range(10))
        other = archive("other/lora.safetensors", "other/lora.yaml")
        cloud.before["output"] = lambda: cloud.change_output(cloud.newest, other) if next(requests) == 2 else None
        cloud.fault("output", None)
        cloud.fault("output", None, cut=len(data) // 3)
    elif trouble == "ignores If-Range":
        cloud.heeds_if_range = False
        cloud.fault("output", None)
        cloud.fault("output", None, cut=len(data) // 3)
    done = train(opened(), Wish(resume=run.id))
    assert done.versions and done.run
    assert (done.run.model / "pytorch_lora_weights.safetensors").read_bytes() == weights()
    assert not (done.run.path / ".arriving").exists()


def test_inputs_of_the_trainer_are_checked_before_anything_is_sent(opened: Open, cloud: ReplicateCloud) -> None:
    for given, said in (
        ("stepz=3", "stepz"),
        ("steps=7000", "6000"),
        ("steps=many", "steps"),
        ("autocaption=perhaps", "autocaption"),
    ):
        with pytest.raises(InvalidInput, match=said):
            taught(opened(), inputs=[given])
    assert cloud.submissions == [] and "POST upload" not in cloud.requests


def test_the_old_dialect(opened: Open, cloud: ReplicateCloud) -> None:
    version = "cd3f925f7ab21afaef7d45224790eedbb837eeac40d22e8fefe015489ab644aa"
    context = opened(
        replicate_dialect="dreambooth", replicate_trainer=f"replicate/dreambooth:{version}",
        replicate_destination="tester/mine", base_model="runwayml/stable-diffusion-v1-5",
        webhook="https://example.com/dreambooth-webhook",
    )  # fmt: skip
    run = taught(context, detach=True, overrides=["training.steps=20"]).run
    (asked,) = cloud.submissions
    assert asked["trainer_version"] == version and asked["model"] == "tester/mine"
    assert (
        asked["input"]["instance_prompt"] == "a photo of sks person"
        or "sks person" in asked["input"]["instance_prompt"]
    )
    assert asked["input"]["max_train_steps"] == 20 and asked["webhook_completed"].endswith("dreambooth-webhook")
    assert run is not None and run.id in asked["notes"]


def test_replicate_s_own_webhook_wakes_once_and_an_old_one_is_refused(opened: Open, cloud: ReplicateCloud) -> None:
    person = Recorder()
    context = opened(person)
    with wakeups(context, ("127.0.0.1", 0), replicate=True) as woken:
        (address,) = re.findall(r"http://127\.0\.0\.1:\d+", " ".join(person.notes))
        detached(opened(webhook=f"{address}/replicate"))
        assert cloud.submissions[-1]["webhook_events_filter"] == ["completed"]
        cloud.finish(cloud.newest, weights=archive())
        assert woken.wait(20) == {cloud.newest}
        with cloud.changed:
            assert cloud.changed.wait_for(lambda: cloud.webhooks, 20)
        url, headers, body, answered = cloud.webhooks[-1]
        assert answered == 200
        assert cloud.deliver(url, headers, body) == 200, "a replay is taken, and wakes nobody"
        old = signature(cloud.webhook_secret, "msg_old", int(cloud.now()) - 301, body)
        forged = signature("whsec_" + base64.b64encode(bytes(24)).decode(), "msg_forged", int(cloud.now()), body)
        assert [cloud.deliver(url, each, body) for each in (old, forged)] == [401, 401]
        assert woken.wait(0.2) == frozenset()


def test_a_trainer_that_tells_no_steps_has_taken_all_when_it_is_done(opened: Open, cloud: ReplicateCloud) -> None:
    cloud.on_submit = lambda training: cloud.finish(training.id, weights=archive())
    done = taught(opened())
    assert done.run and one_status(opened(), done.run.id).progress == "12/12"
    assert all_status(opened())[0].progress == "12/12"
