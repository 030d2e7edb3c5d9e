"""`train` decides by content: what is done is shown, what is not goes on, what changed is the next version."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dreamctl.context import Context
from dreamctl.domain.concept import Kind
from dreamctl.domain.dataset import Pictures
from dreamctl.domain.run import State
from dreamctl.errors import InvalidInput, NotFound, RunFailed
from dreamctl.families.sources import resolve_base
from dreamctl.runfolder import EventWriter, RunFolder
from dreamctl.workflows.identifiers import identifiers
from dreamctl.workflows.lesson import Wish
from dreamctl.workflows.train import Taught, train
from tests.fakes import InstantBackend, Recorder, finish, write_dataset, write_pictures
from tests.workflows.conftest import Open

SMALL = ["training.resolution=64", "training.steps=3", "prior.pictures=0"]


@pytest.fixture
def dataset(user: Path) -> Path:
    """The project's prepared dataset."""
    return write_dataset(user / "processed").path


def teach(context: Context, **values: Any) -> Taught:
    wish = {"category": "person", "overrides": SMALL, **values}
    return train(context, Wish(**wish))


def names(taught: Taught) -> list[str]:
    return [version.name for version in taught.versions]


def test_with_no_argument_the_projects_dataset_is_taught_and_registered(context: Context, dataset: Path) -> None:
    taught = teach(context)
    assert (taught.state, names(taught), taught.before) == (State.succeeded, ["sks@1"], False)
    assert context.registry.concept("sks") is not None
    (row,) = context.registry.runs()
    assert (row.state, row.remote_id, row.backend) == (State.succeeded, "instant-1", "instant")


def test_again_the_same_is_shown_and_not_trained(open_context: Open, dataset: Path) -> None:
    first = teach(open_context())
    again = teach(open_context())
    assert again.before
    assert again.run == first.run
    assert names(again) == ["sks@1"]
    assert len(open_context().registry.runs()) == 1


def test_again_forces(open_context: Open, dataset: Path) -> None:
    teach(open_context())
    assert names(teach(open_context(), again=True)) == ["sks@2"]


@pytest.mark.parametrize("change", ["caption", "picture", "recipe"])
def test_changed_data_or_recipe_is_the_next_version_of_the_identifier(
    open_context: Open, dataset: Path, change: str
) -> None:
    teach(open_context())
    if change == "caption":
        (dataset / "00.txt").write_text("in a forest")
    if change == "picture":
        (dataset / "00.jpg").write_bytes((dataset / "01.jpg").read_bytes())
    overrides = [*SMALL, "training.seed=7"] if change == "recipe" else SMALL
    assert names(teach(open_context(), overrides=overrides)) == ["sks@2"]


def test_a_second_dataset_gets_the_next_rare_token(open_context: Open, dataset: Path, user: Path) -> None:
    teach(open_context())
    other = write_dataset(user / "other", count=6)
    assert names(teach(open_context(), dataset=other.path)) == ["zwx@1"]


@pytest.mark.parametrize("other", [{"category": "dog"}, {"kind": Kind.style}])
def test_an_identifier_keeps_its_category_and_kind(open_context: Open, dataset: Path, other: dict[str, Any]) -> None:
    teach(open_context(), identifier="sks")
    with pytest.raises(InvalidInput, match=r"taken by 'sks' \(person, subject\)"):
        teach(open_context(), identifier="SKS", **other)


def test_a_known_identifier_brings_its_category(open_context: Open, dataset: Path) -> None:
    teach(open_context(), identifier="sks", category="person")
    assert teach(open_context(), identifier="sks", category=None, again=True).concept.category == "person"


def test_the_category_is_asked_for_on_a_terminal_and_an_error_elsewhere(open_context: Open, dataset: Path) -> None:
    with pytest.raises(InvalidInput, match="no category given") as raised:
        teach(open_context(), category=None)
    assert "--category person, dog" in (raised.value.hint or "")
    person = Recorder("mug")
    assert teach(open_context(person), category=None).concept.category == "mug"
    assert len(person.questions) == 1


def test_a_human_name_is_kept(open_context: Open, dataset: Path) -> None:
    teach(open_context(), called="Luna")
    known = open_context().registry.concept("luna")
    assert known is not None
    assert known.identifier == "sks"


def test_what_is_taught_already_gets_the_name_that_it_is_given_later(open_context: Open, dataset: Path) -> None:
    teach(open_context())
    again = teach(open_context(), called="Luna")
    assert again.before and names(again) == ["sks@1"]
    named = open_context().registry.concept("luna")
    assert named and (named.identifier, named.name) == ("sks", "Luna")


def test_a_dataset_smaller_than_the_recipe_prints_the_prepare_line(context: Context, dataset: Path) -> None:
    with pytest.raises(InvalidInput, match="has 64×64 pixels, the recipe trains on 128×128") as raised:
        teach(context, overrides=[*SMALL, "training.resolution=128"])
    assert raised.value.hint == f"dreamctl prepare ORIGINALS --out {dataset} --size 128"


def test_buckets_are_not_squares(context: Context, user: Path) -> None:
    wide = write_dataset(user / "wide")
    manifest = wide.manifest()
    first = manifest.pictures[0].model_copy(update={"height": 48})
    pictures = Pictures.of((first, *manifest.pictures[1:]))
    wide.write_manifest(manifest.model_copy(update={"fit": "bucket", "pictures": pictures}))
    with pytest.raises(InvalidInput, match="has 64×48 pixels, the recipe trains on 64×64") as raised:
        teach(context, dataset=wide.path)
    assert "--fit crop" in str(raised.value.hint)


def test_plain_pictures_are_prepared_on_the_way(context: Context, user: Path) -> None:
    taught = teach(context, dataset=write_pictures(user / "original"))
    assert taught.pictures == 5
    assert (user / "processed" / "dataset.json").exists()


def test_a_missing_dataset_says_how_to_make_one(context: Context) -> None:
    with pytest.raises(NotFound, match=r"no dataset at .*processed") as raised:
        teach(context)
    assert raised.value.hint == "prepare one: dreamctl prepare ./original"


def test_a_dataset_with_a_trigger_is_taught_as_that_word(open_context: Open, user: Path) -> None:
    triggered = write_dataset(user / "processed", trigger="zwx")
    with pytest.raises(InvalidInput, match="hold the word 'zwx', not 'sks'"):
        teach(open_context(), dataset=triggered.path, identifier="sks")
    assert names(teach(open_context(), dataset=triggered.path)) == ["zwx@1"]


def test_a_dry_run_checks_what_the_real_one_checks(open_context: Open, dataset: Path, user: Path) -> None:
    teach(open_context(), identifier="sks")
    with pytest.raises(InvalidInput, match="taken by 'sks'"):
        teach(open_context(), identifier="sks", category="dog", dry_run=True)
    with pytest.raises(InvalidInput, match="a dry run prepares nothing"):
        teach(open_context(), dataset=write_pictures(user / "original"), dry_run=True)
    assert not (user / "original" / "dataset.json").exists()


@pytest.mark.parametrize("extra", [{"dry_run": True}, {"overrides": ["training.steps=9"]}, {"identifier": "zwx"}])
def test_resume_goes_on_with_a_run_as_it_is(open_context: Open, dataset: Path, extra: dict[str, Any]) -> None:
    taught = teach(open_context())
    assert taught.run is not None
    with pytest.raises(InvalidInput, match="as it is"):
        train(open_context(), Wish(resume=taught.run.id, **extra))
    assert train(open_context(), Wish(resume=taught.run.id)).before


def test_a_known_style_keeps_its_recipe(open_context: Open, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    knobs = ["training.resolution=64", "training.steps=3"]
    first = teach(open_context(), kind=Kind.style, overrides=knobs)
    assert first.recipe.training.offset_noise > 0
    again = teach(open_context(), overrides=knobs)
    assert again.before
    assert again.run == first.run


def test_an_older_version_is_named_so_that_it_is_drawn(open_context: Open, dataset: Path) -> None:
    teach(open_context())
    teach(open_context(), overrides=[*SMALL, "training.seed=7"])
    assert not teach(open_context()).newest


def test_another_subject_in_the_same_folder_gets_its_own_identifier(open_context: Open, user: Path) -> None:
    teach(open_context(), dataset=write_dataset(user / "processed").path)
    shutil.rmtree(user / "processed")
    other = write_dataset(user / "processed", colours=7)
    assert names(teach(open_context(), dataset=other.path)) == ["zwx@1"]


def test_a_folder_base_is_remembered_by_digest_and_written_nowhere(
    open_context: Open, dataset: Path, base: Path
) -> None:
    taught = teach(open_context())
    assert taught.run is not None
    assert str(base) not in (taught.run.path / "recipe.toml").read_text()
    assert taught.recipe.base.source == base.name
    assert resolve_base(taught.recipe.base).folder == base


def test_two_commands_at_once_teach_the_same_once(open_context: Open, dataset: Path, base: Path) -> None:
    words = ["train", "--category", "person", "--base-model", str(base), "--detach", "-q"]
    sets = [word for knob in [*SMALL, "training.steps=2", "samples.prompts=[]"] for word in ("--set", knob)]
    command = [sys.executable, "-m", "dreamctl", *words, *sets]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    ids = {one.communicate(timeout=120)[0].strip() for one in both}
    assert [one.returncode for one in both] == [0, 0]
    assert len(ids) == 1
    run = RunFolder(open_context().runs / ids.pop())
    deadline = time.monotonic() + 60
    while run.alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [version.name for version in identifiers(open_context())[0].versions] == ["sks@1"]


def test_a_dry_run_starts_nothing(context: Context, dataset: Path) -> None:
    planned = teach(context, dry_run=True)
    assert planned.run is None
    assert planned.recipe.training.steps == 3
    assert context.registry.runs() == []
    assert context.registry.concepts() == []


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"overrides": ["training.stepz=3"]}, InvalidInput, r"unknown key 'training.stepz' \(did you mean 'steps'\?\)"),
        ({"recipe": "sd51"}, NotFound, "no recipe named 'sd51'"),
        ({"base_model": "/nowhere"}, NotFound, "/nowhere does not exist"),
        ({"dataset": Path("/nowhere")}, NotFound, "no dataset at /nowhere"),
    ],
)
def test_what_cannot_be_is_told_before_anything_starts(
    context: Context, dataset: Path, values: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        teach(context, **values)
    assert context.registry.runs() == []


def test_a_run_that_is_not_there_is_told(context: Context) -> None:
    with pytest.raises(NotFound, match="no run '20200101'"):
        train(context, Wish(resume="20200101"))


class DyingBackend(InstantBackend):
    """Its first training dies half-way; what is submitted again succeeds."""

    def submit(self, run: RunFolder) -> str:
        if not run.events():
            writer = EventWriter(run.events_file)
            writer.state(State.running)
            writer.write("step", step=1, steps=3, loss=0.5, seconds=0.1)
            writer.close()
            return "dying"
        finish(run)
        return "again"


def test_a_dead_training_is_told_and_goes_on_with_the_same_run(
    open_context: Open, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamctl import plugins

    monkeypatch.setitem(plugins.BUILT_IN["backends"], "dying", f"{__name__}:DyingBackend")
    with pytest.raises(RunFailed, match="stopped at step 1 before it was done") as raised:
        teach(open_context(backend="dying"))
    (row,) = open_context().registry.runs()
    assert row.state is State.interrupted
    assert raised.value.hint == f"go on from its last checkpoint: dreamctl train --resume {row.id}"
    taught = teach(open_context(backend="dying"))
    assert taught.run is not None
    assert (taught.run.id, names(taught)) == (row.id, ["sks@1"])


def test_a_run_that_ended_unseen_is_harvested(open_context: Open, dataset: Path) -> None:
    taught = teach(open_context())
    registry = open_context().registry
    registry.path.unlink()
    for extra in registry.path.parent.glob("registry.db-*"):
        extra.unlink()
    rebuilt = open_context()
    again = teach(rebuilt)
    assert again.before
    assert again.run == taught.run
    assert [version.name for version in rebuilt.registry.versions()] == ["sks@1"]
