"""RunPod as a provider, against its queue on loopback: submissions, reports, limits and errors of both contracts."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dreamctl import paths, recipes
from dreamctl.backends.base import Parcel, Support, Terms, Wishes
from dreamctl.backends.provider import Draft, Order, Unknowable
from dreamctl.backends.runpod import RunPod
from dreamctl.backends.runpod_endpoint import sentence
from dreamctl.backends.sizes import outcome_bytes
from dreamctl.domain.errand import Abilities, Answer, Errand, News, Outcome, claim_key, outcome_key, result_key
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.remote import RemoteJob, Report
from dreamctl.errors import CredentialsError, DreamctlError, InvalidInput, NotFound, ProviderError
from dreamctl.files import sha256_file, write_json
from dreamctl.http import AnswerLost, redact
from dreamctl.runfolder import RunFolder, now
from dreamctl.settings import Settings
from dreamctl.storage.base import Access
from dreamctl.storage.local import LocalStorage
from dreamctl.storage.s3 import S3Storage
from tests.clouds.runpod import RunPodCloud, runpod_cloud
from tests.fakes import Recorder, write_dataset, write_run

STORAGE = "s3://bucket/some/folder"
LENT = {
    "accessId": "AKIALOANED", "accessSecret": "loanedloanedloaned", "bucketName": "bucket",
    "endpointUrl": "https://s3.example.com",
}  # fmt: skip


class Bucket(LocalStorage):
    """A folder that stands for a bucket, and lends its keys."""

    access = Access(s3_endpoint="https://s3.example.com", s3_profile="alice", gcs_credentials="/home/alice/key.json")

    def lend(self) -> dict[str, str]:
        return dict(LENT)


@dataclass
class Client:
    """This computer: RunPod as a provider, a run, and a bucket."""

    cloud: RunPodCloud
    folder: Path
    recipe: Recipe = field(default_factory=lambda: recipes.resolve("builtin-lora", []))
    settings: dict[str, Any] = field(default_factory=dict)
    reporter: Recorder = field(default_factory=Recorder)
    reached: list[Access | None] = field(default_factory=list)

    @property
    def provider(self) -> RunPod:
        values = {"runpod_url": self.cloud.url, "runpod_endpoint": self.cloud.endpoint, **self.settings}
        return RunPod(Support(Settings(**values), self.folder, self.reporter, self.storage))

    def storage(self, url: str | None, access: Access | None) -> Bucket:
        self.reached.append(access)
        place = (url or self.settings["storage"]).replace("://", "/")
        return Bucket((self.folder / "buckets" / place).as_uri())

    def leave(self, key: str, told: dict[str, Any]) -> None:
        """Store a note in the bucket, as a worker does."""
        file = self.folder / "note.json"
        write_json(file, told)
        self.storage(STORAGE, None).put(key, file, sha256_file(file))

    def run(self) -> RunFolder:
        runs = self.folder / "runs"
        dataset = write_dataset(self.folder / f"data{len(list(runs.glob('*')))}", count=2)
        return write_run(runs, dataset, self.recipe)

    def order(self, run: RunFolder | None = None, url: str = "", **wishes: Any) -> Order:
        run, wished = run or self.run(), Wishes(**wishes)
        archive = self.folder / "data.zip"
        archive.write_bytes(b"a zip archive")
        parcel = Parcel(archive, sha256_file(archive), archive.stat().st_size, url)
        terms = self.provider.terms(run.recipe(), wished, parcel.bytes)
        return Order(run, parcel, wished, terms, self.settings.get("storage"), {"s3_region": "r"})

    def submitted(self, run: RunFolder | None = None, **more: Any) -> tuple[RunFolder, RemoteJob]:
        """A run whose job RunPod has accepted, with its journal."""
        order = self.order(run, **more)
        draft = self.provider.draft(order)
        return order.run, self.journal(draft, self.cloud.accept(json.loads(json.dumps(draft.body))).id)

    def journal(self, draft: Draft, job_id: str | None) -> RemoteJob:
        accepted = now() if job_id else None
        return RemoteJob(
            backend="runpod", place=draft.place, contract=draft.contract, began=now(), id=job_id, accepted=accepted,
            storage=self.settings.get("storage"), facts=draft.facts,
        )  # fmt: skip

    def report(self, run: RunFolder, job: RemoteJob) -> Report:
        return self.provider.report(run, job)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    with runpod_cloud() as cloud:
        monkeypatch.setenv("RUNPOD_API_KEY", cloud.token)
        yield Client(cloud, tmp_path)


@pytest.fixture
def stored(client: Client) -> Client:
    """With a bucket."""
    client.settings["storage"] = STORAGE
    return client


@pytest.fixture
def booth(stored: Client) -> Client:
    """At an endpoint with RunPod's own DreamBooth worker."""
    stored.settings["runpod_schema"] = "dream-booth-v1"
    stored.recipe = recipes.resolve("sd15-dreambooth", [])
    return stored


ABILITIES = Abilities(
    dreamctl="0.1", accepts={"errand": 1, "run": 1, "recipe": 1, "dataset": 1}, families=("sd15",), device="cpu"
)
DATA_URL = "https://data.example.com/data.zip?X-Amz-Signature=abcdef"


def outcome(run: RunFolder, **more: Any) -> dict[str, Any]:
    return Answer(outcome=Outcome(sha256="ab", bytes=3, **more)).plain()


# what is asked before


def test_a_good_endpoint_has_no_problems(client: Client) -> None:
    assert client.provider.problems(client.recipe) == []


def test_a_refused_token_names_the_login(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_wrong1234567")
    with pytest.raises(CredentialsError) as caught:
        client.provider.problems(client.recipe)
    assert "dreamctl auth login runpod" in str(caught.value.hint)
    monkeypatch.delenv("RUNPOD_API_KEY")
    with pytest.raises(CredentialsError, match="no token for runpod"):
        client.provider.problems(client.recipe)


def test_a_missing_endpoint_is_named(client: Client) -> None:
    client.settings["runpod_endpoint"] = "another"
    with pytest.raises(NotFound) as caught:
        client.provider.problems(client.recipe)
    assert "'another'" in caught.value.message
    assert caught.value.field == "runpod_endpoint"
    client.settings["runpod_endpoint"] = None
    assert "runpod_endpoint" in client.provider.problems(client.recipe)[0]


def test_an_endpoint_without_workers_is_a_problem(client: Client) -> None:
    client.cloud.workers = dict.fromkeys(client.cloud.workers, 0)
    assert "max workers" in client.provider.problems(client.recipe)[0]


def test_workers_that_are_throttled_or_ill_are_noted(client: Client) -> None:
    client.cloud.workers = {**dict.fromkeys(client.cloud.workers, 0), "throttled": 2}
    provider = client.provider
    assert provider.problems(client.recipe) == []
    assert any("2 throttled" in note for note in provider.terms(client.recipe, Wishes(), 10).notes)


def test_a_folder_of_this_computer_does_not_travel(client: Client) -> None:
    hub = recipes.resolve("sd15", [])
    local = recipes.resolve("sd15", [{"base": {"source": "some-folder"}}])
    assert client.provider.problems(hub) == []
    assert "folder of this computer" in client.provider.problems(local)[0]


def test_keys_are_lent_that_last_and_no_others(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def storage(url: str | None, access: Access | None) -> S3Storage:
        return S3Storage(STORAGE, Access(s3_endpoint="http://127.0.0.1:9"))

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, f"value-of-{name}")
    settings = Settings(runpod_url=client.cloud.url, runpod_endpoint=client.cloud.endpoint, storage=STORAGE)
    with pytest.raises(CredentialsError, match="temporary"):  # before anything is sent
        RunPod(Support(settings, client.folder, client.reporter, storage)).problems(client.recipe)
    monkeypatch.delenv("AWS_SESSION_TOKEN")
    assert storage(None, None).lend() == {
        "accessId": "value-of-AWS_ACCESS_KEY_ID", "accessSecret": "value-of-AWS_SECRET_ACCESS_KEY",
        "bucketName": "bucket", "endpointUrl": "http://127.0.0.1:9",
    }  # fmt: skip
    assert "value-of" not in redact("value-of-AWS_SECRET_ACCESS_KEY and value-of-AWS_ACCESS_KEY_ID")


# terms


def test_what_fits_travels_inside_of_the_request(client: Client) -> None:
    terms = client.provider.terms(client.recipe, Wishes(), 6_000_000)
    assert (terms.carries, terms.limited_by, terms.who) == ("inline", "provider", "RunPod, endpoint ep")
    assert any("30 minutes" in note for note in terms.notes)
    with pytest.raises(InvalidInput) as caught:
        client.provider.terms(client.recipe, Wishes(), 6_000_001)
    assert (caught.value.field, "storage" in str(caught.value.hint)) == ("storage", True)
    client.settings["storage"] = STORAGE
    assert client.provider.terms(client.recipe, Wishes(), 6_000_001).carries == "url"


@pytest.mark.parametrize("name", ["builtin", "sd15", "sd15-dreambooth"])
def test_weights_that_do_not_fit_into_an_answer_need_a_bucket(client: Client, name: str) -> None:
    large = recipes.resolve(name, [])
    with pytest.raises(InvalidInput, match="fit into RunPod's answer"):
        client.provider.terms(large, Wishes(), 10)
    client.settings["storage"] = "file:///srv/datasets"
    with pytest.raises(InvalidInput, match="on this computer"):
        client.provider.terms(large, Wishes(), 10)
    client.settings["storage"] = STORAGE
    assert any("s3Config" in note for note in client.provider.terms(large, Wishes(), 10).notes)
    client.settings["storage"] = "gs://bucket/folder"
    assert any("Google account" in note for note in client.provider.terms(large, Wishes(), 10).notes)


@pytest.mark.parametrize(
    ("name", "tables", "known"),
    [  # bytes of the weights that the trainer wrote
        ("builtin-lora", {}, 890_192),
        ("builtin-lora", {"method": {"rank": 4, "train_text_encoder": False, "targets": ["to_q", "conv1"]}}, None),
        ("builtin", {}, 12_411_493),
        ("sd15", {}, 12_800_000),
        ("sd15", {"method": {"targets": ["nothing_like_it"]}}, 0),
        ("sd15", {"family": "other"}, 0),
    ],
)
def test_sizes_are_known_beforehand(name: str, tables: dict[str, Any], known: int | None) -> None:
    quiet = {"samples": {"prompts": []}, "training": {"steps": 1}}
    found = outcome_bytes(recipes.resolve(name, [tables, quiet]))
    if known is None:
        assert found is not None and 100_000 < found < 500_000
    elif known == 0:
        assert found is None
    else:
        assert found is not None and 0.99 * known < found < 1.05 * known + 110_000


def test_limits_are_generous_and_keep_what_was_agreed_to(client: Client) -> None:
    hub = recipes.resolve("sd15", [{"training": {"steps": 3000}}])
    client.settings["storage"] = STORAGE
    free = client.provider.terms(hub, Wishes(), 10)
    assert free.hours is not None and free.seconds is not None
    assert free.seconds > 3 * 3600 * free.hours
    assert client.provider.terms(client.recipe, Wishes(), 10).seconds == 1800
    assert client.provider.terms(hub, Wishes(max_hours=1.0), 10).seconds == 3600
    client.settings |= {"max_hours": 0.5, "max_cost": 0.5, "price_per_hour": 2.0}
    capped = client.provider.terms(hub, Wishes(), 10)
    assert (capped.seconds, capped.price_per_hour) == (900, 2.0)
    assert any("may well not be enough" in note for note in capped.notes)
    endless = recipes.resolve("sd15", [{"training": {"steps": 100_000_000}}])
    client.settings = {"storage": STORAGE}
    assert client.provider.terms(endless, Wishes(), 10).seconds == 7 * 86_400


def test_our_worker_takes_no_inputs_of_others(client: Client) -> None:
    with pytest.raises(InvalidInput, match="--input"):
        client.provider.terms(client.recipe, Wishes(inputs=("unet_epochs=3",)), 10)


# what the worker accepts


def test_the_worker_is_asked_once_a_day(client: Client) -> None:
    client.cloud.before["status"] = lambda job_id: client.cloud.finish(job_id, output=ABILITIES.plain())
    client.provider.ready(client.recipe)
    client.provider.ready(client.recipe)
    assert [Errand.parse(body["input"], "").op for body in client.cloud.submissions] == ["describe"]
    (memory,) = (paths.cache_dir() / "workers").iterdir()
    kept = json.loads(memory.read_text())
    write_json(memory, {**kept, "asked": kept["asked"] - 90_000})
    client.provider.ready(client.recipe)
    assert len(client.cloud.submissions) == 2


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"accepts": {"errand": 1, "run": 1, "recipe": 0, "dataset": 1}}, "reads a recipe of schema 0"),
        ({"accepts": {}}, "reads a run of schema 0"),
        ({"families": ("flux",)}, "not sd15"),
    ],
)
def test_a_worker_that_cannot_train_it_is_refused(client: Client, changed: dict[str, Any], says: str) -> None:
    answer = ABILITIES.model_copy(update=changed).plain()
    client.cloud.before["status"] = lambda job_id: client.cloud.finish(job_id, output=answer)
    with pytest.raises(InvalidInput) as caught:
        client.provider.ready(client.recipe)
    assert says in caught.value.message
    assert "deploy the worker of dreamctl" in str(caught.value.hint)
    client.cloud.before["status"] = lambda job_id: client.cloud.finish(job_id, output=ABILITIES.plain())
    client.provider.ready(client.recipe)  # it was upgraded


@pytest.mark.parametrize("ending", ["finish", "fail", "nothing"])
def test_another_worker_is_told_from_ours(client: Client, ending: str) -> None:
    endings: dict[str, Callable[[str], None]] = {
        "finish": lambda job_id: client.cloud.finish(job_id, output={"images": []}),
        "fail": lambda job_id: client.cloud.fail(job_id, "Missing training input."),
        "nothing": client.cloud.finish,
    }
    client.cloud.before["status"] = endings[ending]
    with pytest.raises(InvalidInput) as caught:
        client.provider.ready(client.recipe)
    assert "does not run dreamctl's worker" in caught.value.message
    assert (caught.value.field, "dream-booth-v1" in str(caught.value.hint)) == ("runpod_schema", True)


def test_a_question_that_ends_otherwise_is_the_providers_failure(client: Client) -> None:
    client.cloud.before["status"] = client.cloud.cancel
    with pytest.raises(ProviderError, match="cancelled"):
        client.provider.ready(client.recipe)
    client.cloud.before["status"] = client.cloud.forget
    with pytest.raises(ProviderError, match="forgotten"):
        client.provider.ready(client.recipe)
    client.cloud.lose_answer()
    with pytest.raises(ProviderError) as caught:
        client.provider.ready(client.recipe)
    assert not isinstance(caught.value, AnswerLost)


# submitting


def test_an_errand_is_sent_with_its_limits(client: Client) -> None:
    order = client.order(webhook="https://hook.example.com/secret")
    run, job_id = order.run, client.provider.submit(client.provider.draft(order))
    (body,) = client.cloud.submissions
    errand = Errand.parse(body["input"], "")
    assert (errand.op, errand.run, errand.recipe) == ("train", run.record(), run.recipe())
    assert errand.archive is not None and errand.archive.data is not None
    assert base64.b64decode(errand.archive.data) == b"a zip archive"
    assert (errand.archive.url, errand.storage) == (None, None)
    assert body["policy"] == {"executionTimeout": 1_800_000, "ttl": (1800 + 86_400) * 1000}
    assert body["webhook"] == "https://hook.example.com/secret"
    assert "s3Config" not in body
    assert job_id == client.cloud.newest


def test_with_a_bucket_its_keys_go_along_and_into_no_other_place(stored: Client) -> None:
    order = stored.order(url=DATA_URL)
    draft = stored.provider.draft(order)
    assert draft.body["s3Config"] == LENT
    errand = Errand.parse(draft.body["input"], "")
    assert errand.storage is not None
    assert (errand.storage.url, errand.storage.access) == (STORAGE, {"s3_region": "r"})
    assert "loaned" not in repr(draft)
    assert "X-Amz" not in repr(order)
    assert "loaned" not in json.dumps(draft.facts)


def test_what_does_not_fit_inside_goes_by_url(stored: Client) -> None:
    order = stored.order(url=DATA_URL)
    large = Order(order.run, order.parcel, order.wishes, Terms("RunPod", "url", seconds=1800), order.storage)
    archive = Errand.parse(stored.provider.draft(large).body["input"], "").archive
    assert archive is not None
    assert (archive.url, archive.data) == (DATA_URL, None)


def test_the_digest_is_of_what_does_not_vary(stored: Client) -> None:
    run = stored.run()
    first = stored.provider.draft(stored.order(run, url="https://a.example.com/d.zip?X-Amz-Signature=1"))
    again = stored.provider.draft(stored.order(run, url="https://a.example.com/d.zip?X-Amz-Signature=2", webhook="x"))
    other = stored.provider.draft(stored.order(stored.run()))
    assert first.digest == again.digest != other.digest


def test_a_request_that_is_too_large_is_not_sent(client: Client) -> None:
    order = client.order()
    assert order.parcel.file is not None
    order.parcel.file.write_bytes(b"x" * 7_600_000)
    with pytest.raises(InvalidInput, match="RunPod takes 10"):
        client.provider.draft(order)


def test_job_that_waits_is_forgotten_when_its_journal_says(client: Client) -> None:
    draft = client.provider.draft(client.order())
    assert draft.forgotten is not None
    left = datetime.datetime.fromisoformat(draft.forgotten) - datetime.datetime.now(datetime.UTC)
    assert 0 <= 88_200 - left.total_seconds() < 60


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429},
        {"status": 429, "headers": {"Retry-After": "0"}},
    ],
    ids=["429", "429 that says when"],
)
def test_what_surely_did_not_run_is_sent_again(client: Client, fault: dict[str, Any]) -> None:
    draft = client.provider.draft(client.order())
    client.cloud.fault("run", **fault)
    assert client.provider.submit(draft) == client.cloud.newest
    assert len(client.cloud.submissions) == 1


@pytest.mark.parametrize("status", [0, 408, 500, 503, 502, 200])
def test_an_answer_that_is_lost_is_told_and_nothing_is_sent_twice(client: Client, status: int) -> None:
    draft = client.provider.draft(client.order())
    client.cloud.fault("run", status, handled=True, body="<html>", headers={"Retry-After": "0"})
    with pytest.raises(AnswerLost):
        client.provider.submit(draft)
    assert len(client.cloud.submissions) == 1


def test_a_refusal_is_no_lost_answer(client: Client) -> None:
    draft = client.provider.draft(client.order())
    client.cloud.fault("run", 400, body='{"error": "no"}')
    with pytest.raises(ProviderError) as caught:
        client.provider.submit(draft)
    assert not isinstance(caught.value, AnswerLost)
    assert client.cloud.submissions == []


# finding what became of a submission


def lost(client: Client) -> tuple[RunFolder, RemoteJob]:
    """A run whose submission's answer was lost on its way back."""
    order = client.order()
    draft = client.provider.draft(order)
    client.cloud.lose_answer()
    with pytest.raises(AnswerLost):
        client.provider.submit(draft)
    return order.run, client.journal(draft, None)


def test_without_a_bucket_nobody_can_know(client: Client) -> None:
    run, job = lost(client)
    with pytest.raises(Unknowable) as caught:
        client.provider.find(run, job)
    assert all(way in str(caught.value.hint) for way in ("--resubmit", "--attach runpod:ID"))


def test_a_claim_finds_the_job(stored: Client) -> None:
    run, job = lost(stored)
    with pytest.raises(Unknowable, match="1 jobs wait"):
        stored.provider.find(run, job)
    stored.cloud.start(stored.cloud.newest)
    with pytest.raises(Unknowable, match="1 run there"):
        stored.provider.find(run, job)
    stored.leave(claim_key(run.id), {"schema": 1, "job": stored.cloud.newest})
    assert stored.provider.find(run, job) == stored.cloud.newest


def test_where_nothing_waits_and_nothing_runs_it_never_arrived(stored: Client) -> None:
    order = stored.order()
    job = stored.journal(stored.provider.draft(order), None)
    assert stored.provider.find(order.run, job) is None
    assert stored.cloud.requests.count("GET health") >= 2


# reports


def test_a_job_from_queue_to_outcome(client: Client) -> None:
    run, job = client.submitted()
    assert client.report(run, job).told == "queued"
    event = {"v": 1, "seq": 3, "attempt": 1, "time": now(), "type": "step", "step": 5, "steps": 9}
    client.cloud.progress(client.cloud.newest, News(events=(event,), log=("step\x1b[31m 5",)).plain())
    running = client.report(run, job)
    assert (running.told, running.events, running.log) == ("running", (event,), ("step [31m 5",))
    assert running.started is not None
    data = base64.b64encode(b"zip").decode()
    client.cloud.finish(client.cloud.newest, output=outcome(run, data=data))
    done = client.report(run, job)
    assert done.result is not None
    assert (done.told, done.result.kind, done.result.data, done.result.sha256) == ("succeeded", "run", b"zip", "ab")
    assert done.keep_until is not None
    left = datetime.datetime.fromisoformat(done.keep_until) - datetime.datetime.now(datetime.UTC)
    assert 1700 < left.total_seconds() <= 1800
    client.cloud.progress(client.cloud.newest, {"late": True})
    assert client.report(run, job).told == "succeeded"


def test_an_outcome_in_the_bucket_is_fetched_from_there(stored: Client) -> None:
    run, job = stored.submitted(url=DATA_URL)
    key = outcome_key(run.id)
    stored.cloud.finish(stored.cloud.newest, output=outcome(run, key=key, url="https://b.example.com/o?sig=1"))
    done = stored.report(run, job)
    assert done.result is not None
    assert (done.result.key, done.result.url, done.keep_until) == (key, "", None)


@pytest.mark.parametrize("told", [{"odd": 1}, ["a"], "text", {"events": "none"}, None])
def test_odd_progress_is_no_failure(client: Client, told: Any) -> None:
    run, job = client.submitted()
    client.cloud.progress(client.cloud.newest, told)
    assert client.report(run, job).told == "running"


def test_a_state_that_nobody_knows_is_not_the_end(client: Client) -> None:
    run, job = client.submitted()
    client.cloud.jobs[client.cloud.newest].status = "PONDERING"
    report = client.report(run, job)
    assert (report.told, "PONDERING" in report.message) == ("running", True)
    client.cloud.jobs[client.cloud.newest].status = "RUNNING"
    assert client.report(run, job).message == ""


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"output": None},
        {"output": "fine"},
        {"output": {"schema": 1}},
        {"output": {"schema": 1, "outcome": {"sha256": "ab", "bytes": 3}}},
        {"output": {"schema": 1, "outcome": {"sha256": "ab", "bytes": 3, "url": "local_upload/x"}}},
        {"output": {"schema": 1, "outcome": {"sha256": "ab", "bytes": 3, "data": "no base64!"}}},
        {"output": {"schema": 1, "outcome": {"sha256": "ab", "bytes": 3, "key": "somebody/elses.zip"}}},
    ],
)
def test_completed_without_weights_is_a_failure(stored: Client, told: dict[str, Any]) -> None:
    run, job = stored.submitted()
    stored.cloud.finish(stored.cloud.newest, **told)
    report = stored.report(run, job)
    assert (report.told, report.result) == ("failed", None)
    assert "no model that can be used" in report.message


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("it broke", "it broke"),
        (json.dumps({"error_type": "<class 'ValueError'>", "error_message": "bad\nthing", "error_traceback": "T"}),
         "bad thing"),
        (["Unexpected input. steps is not a valid input option.", "another"],
         "Unexpected input. steps is not a valid input option.; another"),
        ({"message": {"detail": "deep"}}, "deep"),
        ({"error_message": "", "error_type": "<class 'KeyError'>"}, "<class 'KeyError'>"),
        ({"what": 1}, '{"what": 1}'),
        ("{not json", "{not json"),
        ("\x1b[31mred", "[31mred"),
        ("see https://b.example.com/x?X-Amz-Signature=abc123", "see https://b.example.com/x?X-Amz-Signature=***"),
        (None, "the worker failed, and did not say why"),
        (7, "7"),
    ],
)  # fmt: skip
def test_every_form_of_an_error_is_one_sentence(client: Client, error: Any, says: str) -> None:
    run, job = client.submitted()
    client.cloud.fail(client.cloud.newest, error)
    report = client.report(run, job)
    assert (report.told, report.message) == ("failed", says)


def test_our_workers_advice_is_the_hint(client: Client) -> None:
    run, job = client.submitted()
    client.cloud.fail(client.cloud.newest, "the GPU's memory did not suffice\nchoose a larger one")
    report = client.report(run, job)
    assert (report.message, report.hint) == ("the GPU's memory did not suffice", "choose a larger one")


def test_a_long_error_keeps_its_end() -> None:
    assert sentence("x" * 5000 + " the reason").endswith("the reason")
    assert len(sentence("x" * 5000)) < 700


def test_an_error_that_runpod_swallowed_is_a_failure(client: Client) -> None:
    client.cloud.odd_errors_complete = True
    run, job = client.submitted()
    client.cloud.fail(client.cloud.newest, ["a list"])
    assert client.report(run, job).told == "failed"


def test_time_limits_are_told_apart(client: Client) -> None:
    run, job = client.submitted()
    client.cloud.start(client.cloud.newest)
    client.cloud.pass_time(1801)
    report = client.report(run, job)
    assert (report.told, "--max-hours" in report.hint) == ("timed_out", True)


def test_a_cancelled_job_and_one_that_was_quicker(client: Client) -> None:
    run, job = client.submitted()
    client.provider.cancel(job)
    assert client.report(run, job).told == "cancelled"
    client.provider.cancel(job)  # again is no error

    run, job = client.submitted()
    data = base64.b64encode(b"zip").decode()
    client.cloud.before["cancel"] = lambda job_id: client.cloud.finish(job_id, output=outcome(run, data=data))
    client.provider.cancel(job)
    assert client.report(run, job).told == "succeeded"


def ago(seconds: float) -> str:
    return (datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize("contract", ["client", "booth"])
@pytest.mark.parametrize(
    ("known", "told"),
    [
        ({}, "queued"),
        # seconds ago, as numbers: a moment that was computed when the tests were collected is long past by now
        ({"started": 9}, "running"),
        ({"seen_running": 9, "missing_since": 60}, "running"),
        ({"forgotten": -60, "keep_until": -60, "told": "succeeded"}, "running"),
        ({"missing_since": "no time"}, "queued"),
    ],
)
def test_one_404_does_not_end_a_job(
    request: pytest.FixtureRequest, contract: str, known: dict[str, Any], told: str
) -> None:
    client: Client = request.getfixturevalue(contract)
    run, job = client.submitted(url=DATA_URL)
    client.cloud.fault("status", 404)
    moments = {name: ago(value) if isinstance(value, int) else value for name, value in known.items()}
    report = client.report(run, job.model_copy(update={"forgotten": ago(-60), **moments}))
    assert (report.told, report.missing, report.result) == (told, True, None)
    assert client.report(run, job).missing is False, "it is there again"


@pytest.mark.parametrize(
    "known",
    [{"missing_since": ago(130)}, {"forgotten": ago(1)}, {"keep_until": ago(1), "told": "succeeded"},
     {"told": "succeeded"}],
    ids=["said for two minutes", "its time to live is over", "its result is not kept any more", "it had ended"],
)  # fmt: skip
def test_a_job_that_may_be_forgotten_is_expired(client: Client, known: dict[str, Any]) -> None:
    run, job = client.submitted()
    client.cloud.forget(client.cloud.newest)
    report = client.report(run, job.model_copy(update=known))
    assert (report.told, report.missing) == ("expired", False)
    client.provider.cancel(job)


def test_an_endpoint_that_is_not_there_says_nothing_of_the_job(client: Client) -> None:
    run, job = client.submitted()
    client.cloud.endpoint = "another"
    with pytest.raises(NotFound, match="no endpoint 'ep'"):
        client.report(run, job)


def test_a_job_is_asked_for_where_it_was_sent_and_nowhere_else(client: Client) -> None:
    run, job = client.submitted()
    assert job.facts == {"api": client.cloud.url.removesuffix("/v2")}
    assert client.provider.adopt(str(job.id)).facts == job.facts
    asked = len(client.cloud.requests)
    client.settings["runpod_url"] = client.cloud.url.replace("127.0.0.1", "localhost")
    provider = client.provider
    for question in (lambda: provider.report(run, job), lambda: provider.cancel(job), lambda: provider.find(run, job)):
        with pytest.raises(InvalidInput, match=r"was sent to http://127\.0\.0\.1:\d+, and runpod_url") as raised:
            question()
        assert raised.value.field == "runpod_url"
    assert len(client.cloud.requests) == asked
    del client.settings["runpod_url"]
    older = job.model_copy(update={"facts": {}})
    assert client.report(run, older).told == "queued", "a journal that does not say it is read, too"


def test_what_runpod_forgot_is_found_in_the_bucket(stored: Client) -> None:
    run, job = stored.submitted()
    stored.cloud.forget(stored.cloud.newest)
    assert stored.report(run, job).missing
    stored.leave(result_key(run.id), outcome(run, key=outcome_key(run.id)))
    report = stored.report(run, job)
    assert report.result is not None
    assert (report.told, report.result.key) == ("succeeded", outcome_key(run.id))


@pytest.mark.parametrize("ending", ["COMPLETED", "FAILED", "CANCELLED"])
def test_what_lies_in_the_bucket_counts_however_runpod_calls_it(stored: Client, ending: str) -> None:
    run, job = stored.submitted()
    stored.leave(result_key(run.id), outcome(run, key=outcome_key(run.id)))
    endings = {"COMPLETED": stored.cloud.finish, "FAILED": stored.cloud.fail, "CANCELLED": stored.cloud.cancel}
    endings[ending](stored.cloud.newest)
    assert stored.report(run, job).told == "succeeded"


def test_a_provider_that_cannot_be_asked_says_nothing_of_the_job(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, job = client.submitted()
    client.cloud.fault("status", 429, headers={"Retry-After": "0"})
    assert client.report(run, job).told == "queued"
    client.cloud.fault("status", 500, times=3, headers={"Retry-After": "0"})
    with pytest.raises(ProviderError):
        client.report(run, job)
    client.cloud.fault("status", 200, body="<html>a captive portal</html>")
    with pytest.raises(ProviderError, match="not RunPod's"):
        client.report(run, job)
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_withdrawn1234")
    with pytest.raises(CredentialsError):
        client.report(run, job)


# two jobs of one run


def test_the_job_that_was_quicker_is_followed_and_cancelled(stored: Client) -> None:
    run, first = stored.submitted()
    _, second = stored.submitted(run)
    assert first.id and second.id
    stored.cloud.finish(second.id, output=Answer(claimed_by=first.id).plain())
    assert stored.report(run, second).told == "queued"
    stored.cloud.start(first.id)
    assert stored.report(run, second).told == "running"
    stored.leave(claim_key(run.id), {"schema": 1, "job": first.id})
    stored.cloud.forget(second.id)
    assert stored.report(run, second).told == "running", "the claim says it too"
    _, third = stored.submitted(run)
    stored.cloud.finish(str(third.id), output=Answer(claimed_by=first.id).plain())
    stored.provider.cancel(third)
    assert stored.cloud.jobs[first.id].status == "CANCELLED"


@pytest.mark.parametrize("ending", ["runs", "dead", "forgotten"])
def test_the_claim_of_a_dead_job_does_not_stand_in_the_way(stored: Client, ending: str) -> None:
    run, job = stored.submitted()
    assert job.id
    stored.leave(claim_key(run.id), {"schema": 1, "job": job.id})
    write_json(run.remote_file, job.plain())
    stored.cloud.start(job.id)
    if ending == "dead":
        stored.cloud.fail(job.id)
    elif ending == "forgotten":
        stored.cloud.forget(job.id)
    stored.provider.draft(stored.order(run))
    there = stored.storage(STORAGE, None).head(claim_key(run.id)) is not None
    assert there == (ending == "runs")


def test_the_claim_of_a_job_that_may_have_arrived_stays(stored: Client) -> None:
    run, job = lost(stored)
    stored.leave(claim_key(run.id), {"schema": 1, "job": "unknown-here"})
    write_json(run.remote_file, job.plain())
    stored.provider.draft(stored.order(run))
    assert stored.storage(STORAGE, None).head(claim_key(run.id)) is not None


# adopting, and what doctor tells


def test_a_job_is_adopted_by_its_id(stored: Client) -> None:
    _, job = stored.submitted()
    adopted = stored.provider.adopt(str(job.id))
    assert (adopted.id, adopted.place, adopted.contract, adopted.storage) == (job.id, "ep", "dreamctl", STORAGE)
    for wrong in ("unknown", "../health", ""):
        with pytest.raises(NotFound, match="knows no job"):
            stored.provider.adopt(wrong)


def test_no_file_of_this_computer_travels_and_those_of_the_reader_are_used(stored: Client) -> None:
    run, job = stored.submitted()
    adopted = stored.provider.adopt(str(job.id))
    assert adopted.access == {"s3_endpoint": "https://s3.example.com", "s3_addressing": "auto", "s3_checksums": "auto"}
    stored.settings |= {"s3_profile": "bob", "gcs_credentials": "/home/bob/key.json"}
    stored.cloud.forget(str(job.id))
    foreign = {"s3_profile": "alice", "gcs_credentials": "/home/alice/key.json", "of_a_newer_dreamctl": 1}
    stored.report(run, adopted.model_copy(update={"access": {**adopted.access, **foreign}}))
    assert stored.reached[-1] == Access(
        s3_endpoint="https://s3.example.com", s3_profile="bob", gcs_credentials="/home/bob/key.json"
    )


def test_examine_tells_what_stands_and_what_is_missing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def looks(ask: bool = False) -> dict[str, str]:
        return {name: how for name, how, _, _ in client.provider.examine(ask)}

    assert looks() == {"token": "ok", "endpoint": "ok", "workers": "ok", "worker": "warn", "storage": "warn"}
    assert client.cloud.submissions == []
    client.cloud.before["status"] = lambda job_id: client.cloud.finish(job_id, output=ABILITIES.plain())
    client.settings["storage"] = STORAGE
    assert set(looks(ask=True).values()) == {"ok"}
    assert looks()["worker"] == "ok", "it is remembered"
    client.cloud.workers = dict.fromkeys(client.cloud.workers, 0)
    assert looks()["workers"] == "missing"
    client.cloud.workers["unhealthy"] = 1
    assert looks()["workers"] == "warn"
    client.settings["runpod_endpoint"] = "another"
    assert looks() == {"token": "ok", "endpoint": "missing"}
    client.settings["runpod_endpoint"] = None
    assert looks() == {"token": "ok", "endpoint": "missing"}
    monkeypatch.delenv("RUNPOD_API_KEY")
    assert looks() == {"token": "missing"}


# the contract dream-booth-v1


def test_dream_booth_needs_a_bucket_and_a_base_of_the_hub(booth: Client) -> None:
    assert booth.provider.problems(booth.recipe) == []
    own = booth.provider.own_base
    assert own is not None
    assert (booth.provider.carrier, own.family) == (False, "sd15")
    booth.settings["storage"] = "gs://bucket/x"
    assert "S3 bucket" in booth.provider.problems(booth.recipe)[0]
    assert "hub" in booth.provider.problems(recipes.resolve("builtin", []))[0]


def test_dream_booths_terms_tell_what_comes_back(booth: Client) -> None:
    terms = booth.provider.terms(booth.recipe, Wishes(), 10)
    assert terms.carries == "url"
    assert any("models convert --trust" in note for note in terms.notes)
    with pytest.raises(InvalidInput, match="no field"):
        booth.provider.terms(booth.recipe, Wishes(inputs=("steps=4",)), 10)
    booth.provider.ready(booth.recipe)
    assert booth.cloud.submissions == []


def test_dream_booths_request(booth: Client) -> None:
    booth.submitted(url=DATA_URL, inputs=("unet_epochs=3",))
    (body,) = booth.cloud.submissions
    assert set(body) == {"input", "policy", "s3Config"}
    assert set(body["input"]) == {"train"}
    assert (body["input"]["train"]["data_url"], body["input"]["train"]["unet_epochs"]) == (DATA_URL, 3)
    assert body["s3Config"] == LENT
    with pytest.raises(InvalidInput, match="from a URL"):
        booth.provider.draft(booth.order())


def test_dream_booth_cannot_be_reconciled(booth: Client) -> None:
    run, job = booth.submitted(url=DATA_URL)
    with pytest.raises(Unknowable):
        booth.provider.find(run, job)


def test_a_checkpoint_is_a_foreign_result(booth: Client) -> None:
    run, job = booth.submitted(url=DATA_URL)
    booth.cloud.start(booth.cloud.newest)
    assert booth.report(run, job).told == "running"
    url = "https://bucket.example.com/j.ckpt?X-Amz-Signature=1"
    booth.cloud.finish(booth.cloud.newest, output={"train": {"checkpoint_url": url}})
    report = booth.report(run, job)
    assert report.result is not None
    assert (report.told, report.result.kind, report.result.url) == ("succeeded", "foreign", url)
    assert report.keep_until is not None
    assert "X-Amz" not in repr(report)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"output": {"train": {"checkpoint_url": "local_upload/j.ckpt"}}}, "could not write to the bucket"),
        ({"output": {"train": {"checkpoint_url": 7}}}, "made no model"),
        ({"output": {"inference": []}}, "made no model"),
        ({"output": "done"}, "made no model"),
        ({}, "made no model"),
    ],
)
def test_no_checkpoint_is_a_failure(booth: Client, told: dict[str, Any], says: str) -> None:
    run, job = booth.submitted(url=DATA_URL)
    booth.cloud.finish(booth.cloud.newest, **told)
    report = booth.report(run, job)
    assert (report.told, says in report.message) == ("failed", True)


def test_the_workers_validation_is_a_sentence(booth: Client) -> None:
    run, job = booth.submitted(url=DATA_URL)
    booth.cloud.fail(booth.cloud.newest, ["Unexpected input. steps is not a valid input option."])
    assert booth.report(run, job).message == "Unexpected input. steps is not a valid input option."


@pytest.mark.parametrize("ending", ["forgotten", "no output"])
def test_a_checkpoint_is_found_at_the_buckets_root(booth: Client, ending: str) -> None:
    run, job = booth.submitted(url=DATA_URL)
    if ending == "forgotten":
        booth.cloud.forget(str(job.id))
    else:
        booth.cloud.finish(str(job.id))
    old = job.model_copy(update={"missing_since": ago(130)})
    assert booth.report(run, old).told == ("expired" if ending == "forgotten" else "failed")
    file = booth.folder / "weights"
    file.write_bytes(b"a pickle")
    booth.storage("s3://bucket", None).put(f"{job.id}.ckpt", file, sha256_file(file))
    report = booth.report(run, job)
    assert report.result is not None
    assert (report.told, report.result.kind, report.result.key) == ("succeeded", "foreign", f"{job.id}.ckpt")
    assert job.facts["result_storage"] == "s3://bucket", "where the key is looked for"


def test_a_contract_that_nobody_knows_is_said(client: Client) -> None:
    run, job = client.submitted()
    with pytest.raises(DreamctlError, match="contract 'other'"):
        client.report(run, job.model_copy(update={"contract": "other"}))
    with pytest.raises(DreamctlError, match="names no job"):
        client.report(run, job.model_copy(update={"id": "../health"}))
