"""Replicate as a provider, against its API on loopback: nothing is submitted twice, and what it says is understood."""

from __future__ import annotations

import datetime
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dreamctl import recipes
from dreamctl.archive import write_zip
from dreamctl.backends.base import Parcel, Support, Terms, Wishes
from dreamctl.backends.provider import Draft, Order, Provider, Unknowable
from dreamctl.backends.replicate import Replicate
from dreamctl.backends.replicate_report import opened_by_token
from dreamctl.backends.replicate_trainings import default_destination
from dreamctl.domain.concept import Concept
from dreamctl.domain.errand import Errand
from dreamctl.domain.recipe import Recipe, parse_assignment
from dreamctl.domain.remote import RemoteJob, Report
from dreamctl.errors import ConsentRequired, CredentialsError, DreamctlError, InvalidInput, NotFound, ProviderError
from dreamctl.files import sha256_file, write_json
from dreamctl.http import AnswerLost, redact
from dreamctl.runfolder import RunFolder, now
from dreamctl.settings import Settings
from tests.clouds.replicate import ReplicateCloud, Training, replicate_cloud
from tests.fakes import CONCEPT, Recorder, write_dataset, write_run

FLUX, FAST, SDXL, OURS = (
    "ostris/flux-dev-lora-trainer", "replicate/fast-flux-trainer", "stability-ai/sdxl", "tester/dreamctl-trainer",
)  # fmt: skip
PLACE = "tester/mine"
AT_ONCE = {"Retry-After": "0"}


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[ReplicateCloud]:
    with replicate_cloud() as cloud:
        monkeypatch.setenv("REPLICATE_API_TOKEN", cloud.token)
        cloud.add_model(PLACE, visibility="private")
        yield cloud


def replicate(cloud: ReplicateCloud, trainer: str | None = FLUX, *answers: str, **settings: Any) -> Replicate:
    def no_storage(*_: Any) -> Any:
        raise AssertionError("a provider opens no storage")

    given = {"replicate_url": cloud.url, "replicate_trainer": trainer, "replicate_destination": PLACE, **settings}
    return Replicate(Support(Settings(**given), Path.cwd(), Recorder(*answers), no_storage))


def recipe_of(name: str = "replicate-flux", *changes: str) -> Recipe:
    return recipes.resolve(name, [parse_assignment(change) for change in changes])


def write_a_run(folder: Path, recipe: str) -> RunFolder:
    return write_run(folder / "runs", write_dataset(folder / "data", count=2), recipe_of(recipe))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A provider writes nothing into it."""
    return write_a_run(tmp_path_factory.mktemp("run"), "replicate-flux")


def parcel_of(run: RunFolder, url: str = "") -> Parcel:
    file = run.path.parent / "dataset.zip"
    if not file.exists():
        pictures = run.data.pictures()
        write_zip(file, {path.name: path for picture in pictures for path in (picture, picture.with_suffix(".txt"))})
    return Parcel(file, sha256_file(file), file.stat().st_size, url)


def order(run: RunFolder, url: str = "", **wishes: Any) -> Order:
    return Order(run, parcel_of(run, url), Wishes(**wishes), Terms("Replicate", "url"))


def journal(draft: Draft, **more: Any) -> RemoteJob:
    return RemoteJob(
        backend="replicate", place=draft.place, contract=draft.contract, began=now(), facts=draft.facts, **more
    )


def submitted(provider: Replicate, run: RunFolder) -> RemoteJob:
    draft = provider.draft(order(run))
    return journal(draft, id=provider.submit(draft))


def submission_lost(provider: Replicate, run: RunFolder, ago: float = 0) -> RemoteJob:
    """The journal after a submission without an answer; `ago`: seconds that it is old."""
    draft = provider.draft(order(run))
    with pytest.raises(AnswerLost):
        provider.submit(draft)
    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=ago)
    return journal(draft).model_copy(update={"began": moment.isoformat()})


# trainers


def test_it_is_a_provider_and_knows_its_trainers(cloud: ReplicateCloud) -> None:
    provider: Provider = replicate(cloud)
    assert not provider.carrier
    assert provider.own_base and provider.own_base.recipe == "replicate-flux"
    assert recipes.resolve("replicate-flux").base.source == provider.own_base.source
    sdxl = replicate(cloud, SDXL).own_base
    assert sdxl and (sdxl.recipe, sdxl.family) == ("replicate-sdxl", "sdxl")
    assert recipes.resolve("replicate-sdxl").base.source == sdxl.source
    assert replicate(cloud, "qwen/qwen-image-lora").own_base is None


def test_our_own_trainer_is_known_by_its_input_and_looked_up_once(cloud: ReplicateCloud) -> None:
    provider = replicate(cloud, OURS)
    assert provider.carrier and provider.carrier and provider.own_base is None
    assert provider.problems(recipe_of()) == []
    assert cloud.requests == ["GET model"]


def test_a_trainer_that_is_not_named_not_there_or_none_is_told(cloud: ReplicateCloud) -> None:
    cloud.add_trainer("me/generator", {"Input": {"properties": {}}})
    cloud.add_model("me/empty")
    assert "replicate_trainer is not set" in replicate(cloud, None).problems(recipe_of())[0]
    with pytest.raises(InvalidInput, match="replicate_trainer is not set"):
        _ = replicate(cloud, None).carrier
    with pytest.raises(NotFound, match="no trainer nobody/nothing"):
        replicate(cloud, "nobody/nothing").problems(recipe_of())
    with pytest.raises(NotFound, match=f"{FLUX} has no version abcdef12"):
        replicate(cloud, f"{FLUX}:abcdef12").problems(recipe_of())
    assert "describes no TrainingInput" in replicate(cloud, "me/generator").problems(recipe_of())[0]
    assert "has no version yet" in replicate(cloud, "me/empty").problems(recipe_of())[0]


def test_a_named_version_and_the_newest_of_an_official_model_are_found(cloud: ReplicateCloud, run: RunFolder) -> None:
    (old,) = cloud.models[FAST].schemas
    new = cloud.add_trainer(FAST, cloud.models[FAST].schemas[old])
    cloud.models[FAST].official = True
    assert replicate(cloud, f"{FAST}:{old}").draft(order(run)).facts["version"] == old
    assert replicate(cloud, FAST).draft(order(run)).facts["version"] == new


def test_values_out_of_range_are_problems_before_anything_is_sent(cloud: ReplicateCloud) -> None:
    (problem,) = replicate(cloud).problems(recipe_of("replicate-flux", "training.steps=9000"))
    assert problem == "training.steps = 9000: the trainer's steps must be 6000 at most"


def test_a_refused_token_and_a_missing_one(cloud: ReplicateCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_0123456789wrong")
    with pytest.raises(CredentialsError, match="did not pass a valid authentication token"):
        replicate(cloud).problems(recipe_of())
    monkeypatch.delenv("REPLICATE_API_TOKEN")
    with pytest.raises(CredentialsError, match="no token for replicate"):
        replicate(cloud).problems(recipe_of())


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[1, 2]", b'"x"', b'{"latest_version": "no", "results": 3}', b'{"latest_version": {"id": "\\n"}}'],
)
def test_an_answer_of_something_else_is_told_and_raises_nothing_odd(cloud: ReplicateCloud, body: bytes) -> None:
    for route in ("model", "versions"):
        cloud.fault(route, 200, times=9, body=body)
    with pytest.raises((ProviderError, InvalidInput)):
        _ = replicate(cloud).carrier


# terms


def test_the_terms_say_what_does_not_map_and_about_how_long_it_takes(cloud: ReplicateCloud) -> None:
    recipe = recipe_of("replicate-flux", "training.accumulation=4")
    terms = replicate(cloud, price_per_hour=5.49).terms(recipe, Wishes(), 1000)
    assert (terms.who, terms.carries) == (f"Replicate, trainer {FLUX}", "url")
    assert terms.hours and 0.3 < terms.hours < 0.6
    assert terms.cost and 1.5 < terms.cost < 3.5
    assert (terms.seconds, terms.limited_by) == (None, None)
    assert "training.accumulation = 4" in " ".join(terms.notes)
    assert any(PLACE in note for note in terms.notes)


def test_a_limit_is_the_followers_and_the_least_of_hours_and_money(cloud: ReplicateCloud) -> None:
    def limit(wishes: Wishes, **settings: Any) -> tuple[int | None, str | None]:
        terms = replicate(cloud, **settings).terms(recipe_of(), wishes, 1000)
        assert bool(terms.seconds) == any("while it follows it" in note for note in terms.notes)
        return terms.seconds, terms.limited_by

    assert limit(Wishes(max_hours=2)) == (7200, "follower")
    assert limit(Wishes(), max_hours=1) == (3600, "follower")
    assert limit(Wishes(max_hours=2), max_cost=5, price_per_hour=10) == (1800, "follower")
    assert limit(Wishes(), max_cost=5) == (None, None)


def test_a_trainer_with_a_price_for_each_training_has_none_an_hour(cloud: ReplicateCloud) -> None:
    terms = replicate(cloud, FAST, price_per_hour=5).terms(recipe_of(), Wishes(), 1000)
    assert (terms.price_per_hour, terms.cost) == (None, None)
    assert any("a price for each training" in note for note in terms.notes)


def test_a_missing_destination_is_told_before_paying(cloud: ReplicateCloud) -> None:
    terms = replicate(cloud, replicate_destination="tester/new").terms(recipe_of(), Wishes(), 1000)
    assert any("tester/new at Replicate, which is not there yet" in note for note in terms.notes)
    own = replicate(cloud, replicate_destination=None).terms(recipe_of(), Wishes(), 1000)
    assert any("named by the identifier" in note for note in own.notes)


def test_our_own_trainer_maps_everything_and_costs_what_the_settings_say(cloud: ReplicateCloud) -> None:
    terms = replicate(cloud, OURS, price_per_hour=3).terms(recipe_of("sd15"), Wishes(), 1000)
    assert (terms.hours, terms.price_per_hour) == (None, 3)
    assert not any("decides by itself" in note for note in terms.notes)
    with pytest.raises(InvalidInput, match="dreamctl fills this one in itself"):
        replicate(cloud, OURS).terms(recipe_of("sd15"), Wishes(inputs=("dreamctl={}",)), 1000)


def test_inputs_that_do_not_fit_are_refused_with_the_terms(cloud: ReplicateCloud) -> None:
    with pytest.raises(InvalidInput, match="no input 'step'"):
        replicate(cloud).terms(recipe_of(), Wishes(inputs=("step=1",)), 1000)
    schema = {"properties": {"input_images": {"type": "string", "format": "uri"}, "size": {"type": "string"}}}
    cloud.add_trainer("me/odd", {"TrainingInput": {**schema, "required": ["size"]}})
    with pytest.raises(InvalidInput, match="me/odd needs size"):
        replicate(cloud, "me/odd").terms(recipe_of(), Wishes(), 1000)


# drafts and destinations


def test_the_archive_goes_by_the_files_api_and_the_recipe_in_the_trainers_words(
    cloud: ReplicateCloud, run: RunFolder
) -> None:
    provider = replicate(cloud)
    draft = provider.draft(order(run, inputs=("hf_token=hf_secret123",), webhook="https://ci.example/told"))
    remote_id = provider.submit(draft)
    (body,) = cloud.submissions
    assert body["destination"] == PLACE
    assert (body["webhook"], body["webhook_events_filter"]) == ("https://ci.example/told", ["completed"])
    given = body["input"]
    assert (given["trigger_word"], given["steps"], given["autocaption"]) == ("sks", 1000, False)
    assert given["hf_token"] == "hf_secret123"
    (file,) = cloud.files.values()
    assert given["input_images"] == file["urls"]["get"]
    assert file["checksums"]["sha256"] == order(run).parcel.sha256
    assert cloud.trainings[remote_id].model == FLUX
    assert (draft.place, draft.contract, draft.facts["steps"]) == (PLACE, "trainings", 1000)
    assert "hf_secret123" not in f"{draft!r} {draft.facts} {draft.digest}"


def test_the_digest_is_of_what_is_asked_and_not_of_secrets_and_places(cloud: ReplicateCloud, run: RunFolder) -> None:
    provider = replicate(cloud)

    def digest(*inputs: str, url: str = "") -> str:
        return provider.draft(order(run, url, inputs=inputs)).digest

    assert digest() == digest(url="https://bucket.example/a?signature=1") == digest("hf_token=hf_secret123")
    assert digest() != digest("steps=500")


def test_an_archive_that_lies_at_a_url_is_not_sent_again(cloud: ReplicateCloud, run: RunFolder) -> None:
    provider = replicate(cloud)
    url = "https://bucket.example/data.zip?signature=abc"
    provider.submit(provider.draft(order(run, url)))
    assert cloud.submissions[0]["input"]["input_images"] == url
    assert not cloud.files


def test_an_archive_without_captions_is_captioned_by_the_trainer(
    cloud: ReplicateCloud, run: RunFolder, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.zip"
    with zipfile.ZipFile(bare, "w") as archive:
        archive.writestr("a.jpg", b"x")
    asked = Order(run, Parcel(bare, "", bare.stat().st_size), Wishes(), Terms("Replicate", "url"))
    provider = replicate(cloud)
    provider.submit(provider.draft(asked))
    assert cloud.submissions[0]["input"]["autocaption"] is True


def test_an_archive_that_is_too_large_wants_a_bucket_before_anything_is_made(
    cloud: ReplicateCloud, run: RunFolder, tmp_path: Path
) -> None:
    large = tmp_path / "large.zip"
    with open(large, "wb") as file:
        file.truncate(100_000_001)
    asked = Order(run, Parcel(large, "", 100_000_001), Wishes(yes=True), Terms("Replicate", "url"))
    with pytest.raises(InvalidInput, match="100 MB, and Replicate takes 100 MB at most") as raised:
        replicate(cloud, replicate_destination=None).draft(asked)
    assert raised.value.field == "storage"
    assert not cloud.files and f"{cloud.account}/dreamctl-sks" not in cloud.models


def test_our_own_trainer_gets_the_errand(cloud: ReplicateCloud, run: RunFolder) -> None:
    provider = replicate(cloud, OURS)
    draft = provider.draft(order(run))
    provider.submit(draft)
    given = cloud.submissions[0]["input"]
    assert set(given) == {"input_images", "dreamctl"}
    errand = Errand.parse(json.loads(given["dreamctl"]), "the errand")
    assert errand.op == "train" and errand.archive is None and errand.storage is None
    assert (errand.run, errand.recipe, errand.concept) == (run.record(), run.recipe(), CONCEPT)
    assert errand.dataset == run.data.manifest()
    assert draft.contract == "dreamctl"


def test_a_missing_destination_is_made_once_somebody_agreed(cloud: ReplicateCloud, run: RunFolder) -> None:
    def draft(*answers: str, **wishes: Any) -> Draft:
        return replicate(cloud, FLUX, *answers, replicate_destination=None).draft(order(run, **wishes))

    for answers in ((), ("no",)):
        with pytest.raises(ConsentRequired, match="the model tester/dreamctl-sks is not at Replicate yet"):
            draft(*answers)
    assert not cloud.files and "POST models" not in cloud.requests, "nothing is sent without consent"
    assert draft("yes").place == "tester/dreamctl-sks"
    made = cloud.models["tester/dreamctl-sks"]
    assert (made.visibility, made.hardware) == ("private", "gpu-t4")
    draft()  # it is there now
    del cloud.models["tester/dreamctl-sks"]
    assert draft(yes=True).place == "tester/dreamctl-sks"


def test_hardware_that_replicate_does_not_have_is_told_with_the_nearest(cloud: ReplicateCloud, run: RunFolder) -> None:
    provider = replicate(cloud, replicate_destination="tester/new", replicate_hardware="gpu-l40")
    with pytest.raises(InvalidInput, match="no hardware 'gpu-l40'") as raised:
        provider.draft(order(run, yes=True))
    assert raised.value.hint == "did you mean 'gpu-l40s'?"


def test_a_destination_whose_making_was_not_answered_is_looked_at(cloud: ReplicateCloud, run: RunFolder) -> None:
    cloud.lose_answer("models")
    assert replicate(cloud, replicate_destination="tester/new").draft(order(run, yes=True)).place == "tester/new"
    with pytest.raises(CredentialsError, match="permission to create a model"):
        replicate(cloud, replicate_destination="other/new").draft(order(run, yes=True))


@pytest.mark.parametrize(
    ("identifier", "name"),
    [("sks", "me/dreamctl-sks"), ("Luna 2", r"me/dreamctl-luna-2-[0-9a-f]{6}"), ("ルナ", r"me/dreamctl-[0-9a-f]{6}")],
)
def test_each_identifier_has_a_destination_of_its_own(identifier: str, name: str) -> None:
    assert re.fullmatch(name, default_destination("me", Concept(identifier=identifier, category="dog")))
    assert default_destination("me", Concept(identifier="luna-2", category="dog")) == "me/dreamctl-luna-2"


# one submission, whatever happens


def test_what_surely_did_not_run_is_sent_again(cloud: ReplicateCloud, run: RunFolder) -> None:
    cloud.throttle("submit", seconds=0)
    cloud.fault("submit", 429, headers=AT_ONCE)
    submitted(replicate(cloud), run)
    assert len(cloud.submissions) == 1
    assert cloud.requests.count("POST submit") == 3


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_what_may_have_run_is_never_sent_again(cloud: ReplicateCloud, run: RunFolder, status: int) -> None:
    cloud.fault("submit", status, handled=True, headers=AT_ONCE)
    submission_lost(replicate(cloud), run)
    assert len(cloud.submissions) == cloud.requests.count("POST submit") == 1


def test_an_accepted_submission_without_an_id_is_a_lost_answer(cloud: ReplicateCloud, run: RunFolder) -> None:
    for body in (b"<html>", b"{}", b'{"id": 7}', b'{"id": "a/../b"}', b"[]"):
        cloud.fault("submit", 201, body=body, handled=True)
        submission_lost(replicate(cloud), run)


def test_a_refusal_is_told_in_replicates_words(cloud: ReplicateCloud, run: RunFolder) -> None:
    provider = replicate(cloud)
    draft = provider.draft(order(run))
    del cloud.models[PLACE]
    with pytest.raises(NotFound, match="training destination does not exist"):
        provider.submit(draft)
    cloud.fault("submit", 422, body={"detail": "- input.steps: Must be less", "status": 422})
    with pytest.raises(ProviderError, match=r"422 .*input\.steps: Must be less"):
        provider.submit(draft)


# a lost answer is found again


@pytest.mark.parametrize("trainer", [FLUX, OURS])
def test_a_lost_submission_is_found_by_destination_version_and_trigger(
    cloud: ReplicateCloud, run: RunFolder, trainer: str
) -> None:
    cloud.page = 2
    provider = replicate(cloud, trainer)
    cloud.lose_answer()
    job = submission_lost(provider, run)
    mine = cloud.newest
    others: list[Callable[[Training], None]] = [
        lambda training: training.input.update(trigger_word="other", dreamctl='{"run": {"id": "another"}}'),
        lambda training: setattr(training, "version", "f" * 64),
    ]
    if trainer == FLUX:  # ours says which run it is
        others.append(lambda training: setattr(training, "destination", "tester/other"))
    for change in others:
        change(cloud.duplicate(mine))
    assert provider.find(run, job) == mine
    assert len(cloud.submissions) == 1


def test_an_older_training_of_the_same_is_not_taken_for_the_lost_one(cloud: ReplicateCloud, run: RunFolder) -> None:
    provider = replicate(cloud)
    submitted(provider, run)
    cloud.trainings[cloud.newest].created -= 3600
    cloud.fault("submit", 0)
    job = submission_lost(provider, run, ago=151)
    assert provider.find(run, job) is None


def test_a_training_of_another_run_is_not_taken_for_the_lost_one(
    cloud: ReplicateCloud, run: RunFolder, tmp_path: Path
) -> None:
    provider = replicate(cloud)
    before, again = (write_run(tmp_path / "runs", run.data, run.recipe()) for _ in range(2))
    write_json(before.remote_file, submitted(provider, before).plain())
    cloud.fault("submit", 0)
    assert provider.find(again, submission_lost(provider, again, ago=151)) is None
    cloud.lose_answer()
    assert provider.find(again, submission_lost(provider, again)) == cloud.newest


def test_what_never_arrived_is_known_after_a_while(cloud: ReplicateCloud, run: RunFolder) -> None:
    provider = replicate(cloud)
    cloud.fault("submit", 0)
    with pytest.raises(Unknowable, match="not in Replicate's list yet"):
        provider.find(run, submission_lost(provider, run))
    cloud.fault("submit", 0)
    assert provider.find(run, submission_lost(provider, run, ago=151)) is None
    assert not cloud.submissions


def test_two_that_fit_are_named_and_left_to_the_user(cloud: ReplicateCloud, run: RunFolder) -> None:
    provider = replicate(cloud)
    cloud.lose_answer()
    job = submission_lost(provider, run)
    twin = cloud.duplicate(cloud.newest)
    with pytest.raises(Unknowable, match=f"replicate:{twin.id}") as raised:
        provider.find(run, job)
    assert "--attach replicate:ID" in (raised.value.hint or "")
    assert raised.value.exit_code == 5


@pytest.mark.parametrize("ahead", [-900.0, 900.0])
def test_other_clocks_hide_nothing(cloud: ReplicateCloud, run: RunFolder, ahead: float) -> None:
    cloud.ahead = ahead
    provider = replicate(cloud)
    cloud.lose_answer()
    assert provider.find(run, submission_lost(provider, run)) == cloud.newest


def test_without_a_destination_shown_only_our_own_trainers_run_is_sure(cloud: ReplicateCloud, run: RunFolder) -> None:
    cloud.destination_shown = False
    ours = replicate(cloud, OURS)
    cloud.lose_answer()
    assert ours.find(run, submission_lost(ours, run)) == cloud.newest
    theirs = replicate(cloud)
    cloud.lose_answer()
    job = submission_lost(theirs, run)
    with pytest.raises(Unknowable, match=cloud.newest):
        theirs.find(run, job)
    cloud.finish(cloud.newest, b"x")
    assert theirs.find(run, job) == cloud.newest, "what it pushed names the destination"


# reports


@pytest.fixture
def followed(cloud: ReplicateCloud, run: RunFolder) -> tuple[str, Callable[[], Report]]:
    """A training of a foreign trainer: its id, and what is reported of it now."""
    provider = replicate(cloud)
    job = submitted(provider, run)
    assert job.id
    return job.id, lambda: provider.report(run, job)


def test_a_training_is_followed_from_the_queue_to_its_weights(
    cloud: ReplicateCloud, followed: tuple[str, Callable[[], Report]]
) -> None:
    training_id, report = followed
    assert report().told == "queued"
    cloud.start(training_id)
    assert (report().told, report().step) == ("running", None)
    cloud.log(training_id, "loading 5/7\nflux:  12%|█ | 120/1000 [01:02<07:30, lr: 4.0e-04 loss: 3.21e-01]\r")
    cloud.log(training_id, "flux:  13%|█ | 130/1000 [01:09<07:25, lr: 4.0e-04 loss: 2.5e-01]")
    running = report()
    assert running.step == (130, 1000, 0.25)
    assert running.log == ("loading 5/7",), "the bar's line has not ended"
    assert running.started and running.started.endswith("Z")
    cloud.log(training_id, "\n\nsaved\n")
    cloud.finish(training_id, b"a tar")
    ended = report()
    assert (ended.told, ended.message) == ("succeeded", "")
    assert ended.log == (
        "loading 5/7",
        "flux:  13%|█ | 130/1000 [01:09<07:25, lr: 4.0e-04 loss: 2.5e-01]",
        "saved",
    )
    assert ended.result and (ended.result.kind, ended.result.with_token) == ("foreign", True)
    assert ended.result.url == cloud.origin + cloud.output_path(training_id)
    assert ended.seconds is not None and ended.keep_until
    kept = datetime.datetime.fromisoformat(ended.keep_until) - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(minutes=59) < kept <= datetime.timedelta(hours=1)
    assert ended.result.url not in repr(ended)


@pytest.mark.parametrize("shape", ["url", "list"])
def test_weights_are_found_in_each_shape_of_output(
    cloud: ReplicateCloud, followed: tuple[str, Callable[[], Report]], shape: str
) -> None:
    training_id, report = followed
    url = "https://abc.replicate.delivery/xyz/trained_model.tar"
    cloud.finish(training_id, output=url if shape == "url" else [url])
    result = report().result
    assert result and result.url == url and result.with_token


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"version": "tester/mine:abc"}, "without the URL of any weights"),
        ({"weights": "/src/out.tar"}, "without the URL of any weights"),
        ({"weights": "file:///etc/passwd"}, "without the URL of any weights"),
        ({"weights": 7}, "without the URL of any weights"),
        (["https://a.example/1", "https://a.example/2"], "without the URL of any weights"),
        ({"weights": "http://a.example/out.tar"}, "not https"),
    ],
)
def test_success_without_usable_weights_has_no_result_and_says_so(
    cloud: ReplicateCloud, followed: tuple[str, Callable[[], Report]], output: Any, message: str
) -> None:
    training_id, report = followed
    cloud.finish(training_id, output=output)
    found = report()
    assert (found.told, found.result) == ("succeeded", None)
    assert message in found.message


def test_what_replicate_has_deleted_is_expired(
    cloud: ReplicateCloud, followed: tuple[str, Callable[[], Report]]
) -> None:
    training_id, report = followed
    cloud.finish(training_id, b"x")
    cloud.remove_data(training_id)
    gone = report()
    assert (gone.told, gone.result) == ("expired", None)
    assert "it keeps it for an hour" in gone.message


def ago(seconds: float) -> str:
    return (datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)).isoformat()


def test_one_404_does_not_end_a_training(cloud: ReplicateCloud, run: RunFolder) -> None:
    provider = replicate(cloud)
    job = submitted(provider, run)
    for known, told in (({}, "queued"), ({"started": ago(9), "missing_since": ago(60)}, "running")):
        cloud.fault("training", 404)
        report = provider.report(run, job.model_copy(update=known))
        assert (report.told, report.missing) == (told, True)
    assert provider.report(run, job).missing is False, "it is there again"
    cloud.fault("training", 404)
    cloud.fault("account", 404)
    with pytest.raises(NotFound):  # nothing is where the API should be
        provider.report(run, job)


@pytest.mark.parametrize("known", [{"missing_since": ago(130)}, {"keep_until": ago(1)}, {"told": "succeeded"}])
def test_a_training_that_may_be_forgotten_is_expired(
    cloud: ReplicateCloud, run: RunFolder, known: dict[str, Any]
) -> None:
    provider = replicate(cloud)
    job = submitted(provider, run)
    cloud.forget(str(job.id))
    report = provider.report(run, job.model_copy(update=known))
    assert (report.told, report.missing, str(job.id) in report.message) == ("expired", False, True)


def test_a_training_is_asked_for_where_it_was_sent_and_nowhere_else(cloud: ReplicateCloud, run: RunFolder) -> None:
    job = submitted(replicate(cloud), run)
    assert job.facts["api"] == cloud.origin
    elsewhere = replicate(cloud, replicate_url="https://api.replicate.com/v1")
    for question in (elsewhere.report, elsewhere.find, lambda _, job: elsewhere.cancel(job)):
        with pytest.raises(InvalidInput, match=r"replicate_url names https://api\.replicate\.com now") as raised:
            question(run, job)
        assert raised.value.field == "replicate_url"


def test_other_ends_have_their_own_words(cloud: ReplicateCloud, run: RunFolder) -> None:
    provider = replicate(cloud)

    def ended(end: Callable[[str], None]) -> Report:
        job = submitted(provider, run)
        assert job.id
        end(job.id)
        return provider.report(run, job)

    failed = ended(lambda training_id: cloud.fail(training_id, "no\x1b[31m pictures\nin the zip"))
    assert (failed.told, failed.message) == ("failed", "no [31m pictures in the zip")
    aborted = ended(cloud.abort)
    assert aborted.told == "timed_out" and "before it began" in aborted.message
    assert ended(cloud.cancel).told == "cancelled"
    odd = ended(lambda training_id: setattr(cloud.trainings[training_id], "status", "pondering"))
    assert odd.told == "queued", "a state that nobody knows ends nothing"


def test_odd_times_and_numbers_of_a_server_raise_nothing(cloud: ReplicateCloud, run: RunFolder) -> None:
    provider = replicate(cloud)
    job = submitted(provider, run)
    odd = {"id": job.id, "status": ["x"], "created_at": "9999-12-31T23:59:59Z", "started_at": 7, "metrics": []}
    for more in ({"completed_at": "9999-12-31T23:59:59.999999999+00:00"}, {"logs": {"a": 1}, "error": []}):
        cloud.fault("training", 200, body={**odd, **more})
        assert provider.report(run, job).told == "queued"
    cloud.fault("training", 200, body={**odd, "status": "failed", "error": {}, "logs": f"{'9' * 5000}/1000"})
    failed = provider.report(run, job)
    assert (failed.told, failed.message) == ("failed", "the trainer failed and said no more")
    cloud.fault("trainings", 200, body={"results": [7, {}, {"id": "a b"}, odd], "next": 5})
    with pytest.raises(Unknowable):
        provider.find(run, job)


def test_our_own_trainers_events_are_read_from_its_log(cloud: ReplicateCloud, run: RunFolder) -> None:
    provider = replicate(cloud, OURS)
    job = submitted(provider, run)
    assert job.id
    event = {"v": 1, "attempt": 1, "time": "t", "type": "step", "step": 1, "steps": 2, "loss": 0.5, "seconds": 0.1}
    news = [
        {"schema": 1, "events": [{**event, "seq": 1}, {**event, "seq": 2}]},
        {"schema": 1, "events": [{**event, "seq": 2}, {**event, "seq": 3}]},
        {"schema": 9, "events": "odd"},
    ]
    cloud.log(job.id, "a line\n" + "".join(f"dreamctl-news {json.dumps(item)}\n" for item in news))
    cloud.log(job.id, 'dreamctl-news {"cut\nanother\ndreamctl-news {"schema": 1, "eve')
    report = provider.report(run, job)
    assert [item["seq"] for item in report.events] == [1, 2, 3]
    assert report.log == ("a line", "another")
    assert report.step is None
    cloud.finish(job.id, b"an outcome")
    result = provider.report(run, job).result
    assert result and result.kind == "run"


def test_a_failed_poll_is_no_end_of_the_job(cloud: ReplicateCloud, followed: tuple[str, Callable[[], Report]]) -> None:
    training_id, report = followed
    cloud.throttle("training", seconds=0)
    cloud.fault("training", 503, times=2, headers=AT_ONCE)
    assert report().told == "queued"
    cloud.fault("training", 500, times=5, headers=AT_ONCE)
    with pytest.raises(ProviderError, match="500"):
        report()
    cloud.fault("training", 200, body=b"<html>")
    with pytest.raises(ProviderError, match="not Replicate's API"):
        report()
    assert cloud.trainings[training_id].status == "starting"


@pytest.mark.parametrize(
    ("url", "opened"),
    [
        ("https://api.replicate.com/v1/files/a", True),
        ("https://replicate.delivery/a", True),
        ("https://pbxt.replicate.delivery/a", True),
        ("https://evilreplicate.delivery/a", False),
        ("https://replicate.delivery.evil.example/a", False),
        ("http://replicate.delivery/a", False),
        ("https://storage.googleapis.com/a", False),
        ("http://127.0.0.1:8000/a", True),
        ("http://127.0.0.1:8001/a", False),
    ],
)
def test_the_token_goes_to_replicates_hosts_and_the_apis_own_alone(url: str, opened: bool) -> None:
    assert opened_by_token(url, "http://127.0.0.1:8000/v1") is opened


# cancel, adopt, look


def test_cancel_asks_and_what_has_ended_stays_ended(cloud: ReplicateCloud, run: RunFolder) -> None:
    provider = replicate(cloud)
    job = submitted(provider, run)
    provider.cancel(job)
    assert provider.report(run, job).told == "cancelled"
    other = submitted(provider, run)
    assert other.id
    cloud.before["cancel"] = lambda: cloud.finish(str(other.id), b"x")  # it ends while it is cancelled
    provider.cancel(other)
    assert provider.report(run, other).told == "succeeded"
    cloud.before.clear()
    cloud.forget(other.id)
    provider.cancel(other)


def test_a_training_is_adopted_by_its_id(cloud: ReplicateCloud, run: RunFolder) -> None:
    provider = replicate(cloud)
    job = submitted(provider, run)
    assert job.id
    adopted = provider.adopt(job.id)
    assert (adopted.id, adopted.place, adopted.contract) == (job.id, PLACE, "trainings")
    assert adopted.facts == job.facts
    cloud.log(job.id, "7/1000\n")
    assert provider.report(run, adopted).step == (7, 1000, None)
    ours = submitted(replicate(cloud, OURS), run)
    assert provider.adopt(str(ours.id)).contract == "dreamctl"
    with pytest.raises(NotFound, match="no training nowhere1"):
        provider.adopt("nowhere1")
    with pytest.raises(InvalidInput, match="no id of a training"):
        provider.adopt("../account")


def test_doctor_looks_at_account_trainer_destination_and_hardware(
    cloud: ReplicateCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = {name: (state, value) for name, state, value, _ in replicate(cloud).examine(False)}
    assert looks["replicate account"] == ("ok", "tester")
    assert looks["replicate trainer"][0] == "ok" and "inputs" in looks["replicate trainer"][1]
    assert looks["replicate destination"] == ("ok", PLACE)
    assert looks["replicate hardware"] == ("ok", "gpu-t4 (Nvidia T4 GPU)")
    odd = replicate(cloud, "no/body", replicate_destination="tester/new", replicate_hardware="gpu-t5").examine(False)
    assert [state for _, state, _, _ in odd] == ["ok", "missing", "warn", "warn"]
    monkeypatch.delenv("REPLICATE_API_TOKEN")
    assert {state for _, state, _, _ in replicate(cloud).examine(False)[:2]} == {"missing"}
    assert any("dreamctl's own" in value for _, _, value, _ in replicate(cloud, OURS).examine(False)) is False


# the DreamBooth API of 2022

OLD = "replicate/dreambooth:cd3f925f7ab21afaef7d45224790eedbb837eeac40d22e8fefe015489ab644aa"


def old(cloud: ReplicateCloud, **settings: Any) -> Replicate:
    return replicate(cloud, OLD, replicate_dialect="dreambooth", **settings)


@pytest.fixture(scope="module")
def old_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_a_run(tmp_path_factory.mktemp("old-run"), "sd15-dreambooth")


def test_the_old_api_is_asked_as_it_was_documented(cloud: ReplicateCloud, old_run: RunFolder) -> None:
    provider = old(cloud, replicate_template="0f5cfc3e", webhook="https://ci.example/told")
    assert not provider.carrier
    assert provider.problems(old_run.recipe()) == []
    draft = provider.draft(order(old_run, inputs=("ckpt_base=https://a.example/b.ckpt",)))
    provider.submit(draft)
    (body,) = cloud.submissions
    given = body.pop("input")
    assert body == {
        "trainer_version": OLD.partition(":")[2],
        "model": PLACE,
        "notes": old_run.id,
        "template_version": "0f5cfc3e",
        "webhook_completed": "https://ci.example/told",
    }
    assert (given["instance_prompt"], given["class_prompt"]) == ("a photo of sks person", "a photo of a person")
    assert (given["max_train_steps"], given["ckpt_base"]) == (800, "https://a.example/b.ckpt")
    uploaded = cloud.blobs[given["instance_data"].removeprefix(cloud.origin)]
    assert uploaded.data == (old_run.path.parent / "dataset.zip").read_bytes()
    assert draft.contract == "dreambooth"
    assert "GET model" not in cloud.requests


def test_the_old_api_is_followed_and_a_lost_submission_found_by_its_notes(
    cloud: ReplicateCloud, old_run: RunFolder
) -> None:
    provider = old(cloud)
    cloud.lose_answer("old-submit")
    job = submission_lost(provider, old_run)
    mine = cloud.newest
    other = cloud.duplicate(mine)
    other.old = {**(other.old or {}), "notes": "another's"}
    assert provider.find(old_run, job) == mine
    job = job.model_copy(update={"id": mine})
    cloud.log(mine, "step 8/800\n")
    assert provider.report(old_run, job).step == (8, 800, None)
    cloud.finish(mine, b"x", name="output.zip", output=f"{cloud.origin}/delivery/{mine}/output.zip")
    ended = provider.report(old_run, job)
    assert ended.result and ended.result.with_token
    assert provider.adopt(mine).place == PLACE
    cloud.fault("trainings", 404)
    with pytest.raises(Unknowable, match="does not list its trainings"):
        provider.find(old_run, job)


def test_the_old_api_says_what_it_cannot_do(cloud: ReplicateCloud, old_run: RunFolder) -> None:
    terms = old(cloud, max_hours=1).terms(old_run.recipe(), Wishes(), 1000)
    assert (terms.seconds, terms.limited_by) == (None, None)
    said = " ".join(terms.notes)
    assert "DreamBooth API of 2022" in said and "nor end one" in said and "webhook_completed as webhook" in said
    with pytest.raises(ProviderError, match="ends no training"):
        old(cloud).cancel(RemoteJob(backend="replicate", place=PLACE, contract="dreambooth", began=now(), id="a"))
    nameless = old(cloud, replicate_destination=None)
    assert "replicate_destination is not set" in nameless.problems(old_run.recipe())[0]
    with pytest.raises(InvalidInput, match="wants the name of the model"):
        nameless.draft(order(old_run))
    unversioned = replicate(cloud, "replicate/dreambooth", replicate_dialect="dreambooth")
    assert "wants a version" in unversioned.problems(old_run.recipe())[0]
    assert [name for name, *_ in unversioned.examine(False)] == ["replicate trainer"]


@pytest.mark.parametrize("answer", [{}, {"upload_url": "http://a.example/x", "serving_url": "https://a.example/y"}])
def test_an_odd_place_for_the_archive_is_refused(
    cloud: ReplicateCloud, old_run: RunFolder, answer: dict[str, str]
) -> None:
    cloud.fault("old-upload", 200, body=answer)
    with pytest.raises(ProviderError, match="DreamBooth API named"):
        old(cloud).draft(order(old_run))


def test_an_upload_that_is_refused_is_told_without_its_signature(cloud: ReplicateCloud, old_run: RunFolder) -> None:
    cloud.fault("old-put", 403)
    with pytest.raises(DreamctlError, match="did not take the archive: it answered 403") as raised:
        old(cloud).draft(order(old_run))
    assert "signature=" not in redact(str(raised.value))
