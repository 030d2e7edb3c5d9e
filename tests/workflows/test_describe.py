"""`config dataset`: what a trainer would really teach, and that nothing of anybody's is lost."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamctl.context import Context
from dreamctl.datasetfolder import DatasetFolder
from dreamctl.domain.concept import Concept
from dreamctl.domain.dataset import Pictures
from dreamctl.domain.recipe import Recipe
from dreamctl.errors import InvalidInput, NotFound
from dreamctl.recipes import resolve
from dreamctl.reporter import Unit
from dreamctl.workflows.describe import Described, Wish, describe
from dreamctl.workflows.placing import RECORD
from dreamctl.workflows.validate import validate
from tests.fakes import Recorder, write_dataset, write_pictures, write_run
from tests.trainers.readers import READERS, ai_toolkit, diffusers, musubi, sd_scripts
from tests.workflows.preparing import snapshot

TRAINERS = list(READERS)


@pytest.fixture
def context() -> Context:
    return Context.open(None, {}, Recorder())


@pytest.fixture
def dataset(user: Path) -> DatasetFolder:
    return write_dataset(user / "processed", count=3)


def run(context: Context, trainer: str = "sd-scripts", *options: str, **wish: Any) -> Described:
    return describe(context, Wish(trainer, **{"category": "dog", "options": options, **wish}))


def with_masks(dataset: DatasetFolder, *numbers: int) -> None:
    """Masks, left half white, for some of the pictures."""
    manifest = dataset.manifest()
    changed = []
    for number, picture in enumerate(manifest.pictures):
        name = f"masks/{Path(picture.file).stem}.png" if number in numbers else None
        if name:
            (dataset.path / "masks").mkdir(exist_ok=True)
            mask = Image.new("L", (picture.width, picture.height), 0)
            mask.paste(255, (0, 0, picture.width // 2, picture.height))
            mask.save(dataset.path / name)
        changed.append(picture.model_copy(update={"mask": name}))
    dataset.write_manifest(manifest.model_copy(update={"pictures": Pictures.of(changed)}))


# texts


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("trigger", [None, "sks"])
def test_each_picture_is_taught_with_the_text_that_a_training_here_uses(
    context: Context, user: Path, trainer: str, trigger: str | None
) -> None:
    data = pytest.importorskip("dreamctl.training.data")
    dataset = write_dataset(user / "processed", count=3, trigger=trigger)
    dataset.write_caption("00.jpg", "")
    dataset.write_caption("01.jpg", f"{trigger}, wörds, more\nsecond line" if trigger else "wörds, more\nsecond line")
    dataset.write_caption("02.jpg", "sks, at home")
    ((_, texts),) = READERS[trainer](run(context, trainer).file)
    recipe = Recipe.model_validate({"base": {"source": "x"}, "training": {"resolution": 64}})
    concept = Concept(identifier="sks", category="dog")
    examples = data.read_examples(write_run(user / "runs", dataset, recipe, concept), recipe, concept)
    assert sorted(texts.values()) == sorted(" ".join(example.text.split()) for example in examples)
    assert "a photo of sks dog" in texts.values()
    assert all("sks" in text for text in texts.values())


def test_without_any_caption(context: Context, dataset: DatasetFolder) -> None:
    for picture in dataset.captions():
        dataset.caption_file(picture).unlink()
    ((subset, texts),) = sd_scripts(run(context).file)
    assert set(texts.values()) == {"a photo of sks dog"}
    assert subset["class_tokens"] == "sks dog"


def test_the_recipes_prompt_resolution_and_batch_size_count(
    context: Context, dataset: DatasetFolder, user: Path
) -> None:
    (user / "mine.toml").write_text(
        'prompt = "{identifier}: {caption}"\n[base]\nsource = "a/b"\n[training]\nresolution = 64\nbatch_size = 3\n'
    )
    ((subset, texts),) = sd_scripts(run(context, recipe="mine.toml").file)
    assert (subset["resolution"], subset["batch_size"], subset["num_repeats"]) == (64, 3, 10)
    assert texts["00-" + next(iter(texts)).partition("-")[2]] == "sks: on a beach 0"
    ((subset, _),) = sd_scripts(run(context, "sd-scripts", "batch_size=2", recipe="mine.toml").file)
    assert (subset["resolution"], subset["batch_size"]) == (64, 2)


def test_defaults_are_the_usual_ones(context: Context, dataset: DatasetFolder) -> None:
    described = run(context)
    ((subset, _),) = sd_scripts(described.file)
    assert (subset["num_repeats"], subset["resolution"], subset["batch_size"]) == (10, 1024, 1)
    assert any("enlarges them to 1024" in note for note in described.notes)
    assert not run(context, "sd-scripts", "resolution=64").notes


def test_the_concept_is_the_registrys_or_the_lines(context: Context, user: Path) -> None:
    write_dataset(user / "processed", trigger="zwx")
    assert run(context).concept.identifier == "zwx"
    with pytest.raises(InvalidInput, match="hold the word 'zwx', not 'sks'"):
        run(context, identifier="sks")
    with pytest.raises(InvalidInput, match="no category given"):
        run(context, category=None)


def test_a_taught_dataset_is_described_as_what_it_was_taught_as(open_context: Any, user: Path) -> None:
    from dreamctl.workflows import lesson, train

    write_dataset(user / "processed", count=2)
    context = open_context()
    train.train(context, lesson.Wish(identifier="ohwx", category="mug", overrides=["training.resolution=64"]))
    described = run(context, category=None)
    assert (described.concept.identifier, described.concept.category) == ("ohwx", "mug")
    with pytest.raises(InvalidInput, match="ohwx"):
        run(context, identifier="ohwx", category="dog")


def test_values_above_the_subsets_count(context: Context, dataset: DatasetFolder) -> None:
    options = ("general.class_tokens=x", "datasets.num_repeats=4", "general.resolution=64", "caption_extension=cap")
    described = run(context, "sd-scripts", *options, "subsets.caption_prefix=look:")
    content = tomllib.loads(described.file.read_text())
    assert content["general"] == {"caption_extension": "cap", "class_tokens": "x", "resolution": 64}
    (subset,) = content["datasets"][0]["subsets"]
    assert (subset["num_repeats"], subset["caption_prefix"], "class_tokens" in subset) == (4, "look:", False)
    assert len(list((described.folder / "pictures").glob("*.cap"))) == 3


# every trainer


@pytest.mark.parametrize("trainer", TRAINERS)
def test_what_is_written_validates_clean_and_is_the_same_again(
    context: Context, user: Path, trainer: str, tmp_path: Path
) -> None:
    odd = user / "my \"ünïcode\" '#' \\dir"
    dataset = write_dataset(odd / "set", count=2)
    first = run(context, trainer, dataset=dataset.path)
    (checked,) = validate([first.file], user)
    assert checked.problems == () and checked.kind == f"description for {trainer}"
    before = snapshot(odd)
    second = run(context, trainer, dataset=dataset.path)
    assert (second.written, snapshot(odd)) == (0, before)
    assert all(path.is_absolute() for path in (first.file, first.folder))
    assert first.written == len(before) - len(snapshot(dataset.path)) - 1


@pytest.mark.parametrize("trainer", TRAINERS)
def test_an_edited_caption_gives_the_picture_a_new_name(context: Context, dataset: DatasetFolder, trainer: str) -> None:
    """These trainers keep caches by name and do not look whether the caption is still the same."""
    described = run(context, trainer)
    ((_, before),) = READERS[trainer](described.file)
    dataset.write_caption("01.jpg", "something else")
    run(context, trainer)
    ((_, after),) = READERS[trainer](described.file)
    assert len(before) == len(after) == 3
    assert len(before.keys() & after.keys()) == 2
    assert "a photo of sks dog, something else" in after.values()


@pytest.mark.parametrize("trainer", TRAINERS)
def test_recorded_repeats_become_groups(
    context: Context, dataset: DatasetFolder, trainer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamctl.domain.dataset import Picture

    repeats = property(lambda self: 6 if self.file == "00.jpg" else 3)
    monkeypatch.setattr(Picture, "repeats", repeats, raising=False)
    groups = READERS[trainer](run(context, trainer).file)
    if trainer == "diffusers":
        assert [name[:2] for name in groups[0][1]] == ["00", "00", "01", "02"]
        assert run(context, trainer).command.count("--repeats 3") == 1
        return
    assert [(values["num_repeats"], len(texts)) for values, texts in groups] == [(3, 2), (6, 1)]
    ((values, texts),) = READERS[trainer](run(context, trainer, "num_repeats=2").file)
    assert (values["num_repeats"], len(texts)) == (2, 3)


# regularisation and masks


def test_regularisation_pictures_are_a_subset_of_their_own(
    context: Context, dataset: DatasetFolder, user: Path
) -> None:
    reg = write_pictures(user / "dogs", 2)
    (reg / "photo 1.txt").write_text("a sleeping dog\n")
    described = run(context, "sd-scripts", "reg.num_repeats=2", reg=reg)
    (_, taught), (subset, texts) = sd_scripts(described.file)
    assert (subset["is_reg"], subset["class_tokens"], subset["num_repeats"], described.regularisation) == (
        True,
        "dog",
        2,
        2,
    )
    assert sorted(texts.values()) == ["a sleeping dog", "dog"]
    assert len(taught) == 3
    assert validate([described.file], user)[0].problems == ()
    (_, _), (entry, texts) = ai_toolkit(run(context, "ai-toolkit", reg=reg).file)
    assert entry["is_reg"] is True and sorted(texts.values()) == ["a sleeping dog", "dog"]
    assert (
        f"--class_data_dir {reg} --class_prompt 'a photo of a dog' --num_class_images 2"
        in run(context, "diffusers", reg=reg).command
    )
    for trainer in ("musubi", "diffusers"):
        with pytest.raises(InvalidInput, match="knows no regularisation"):
            run(context, trainer, reg=reg, recipe="sd15")
    with pytest.raises(InvalidInput, match="there are no regularisation pictures"):
        run(context, "sd-scripts", "reg.num_repeats=2")


@pytest.mark.parametrize(("wrong", "kind"), [("nowhere", NotFound), ("empty", InvalidInput)])
def test_a_regularisation_folder_must_hold_pictures(
    context: Context, dataset: DatasetFolder, user: Path, wrong: str, kind: type[Exception]
) -> None:
    (user / "empty").mkdir()
    with pytest.raises(kind, match=wrong):
        run(context, reg=user / wrong)


def test_masks_become_the_alpha_channel_for_sd_scripts(context: Context, dataset: DatasetFolder, user: Path) -> None:
    with_masks(dataset, 0)
    described = run(context, reg=write_pictures(user / "dogs", 1))
    (subset, texts), (reg, _) = sd_scripts(described.file)
    assert subset["alpha_mask"] is True and reg["alpha_mask"] is True, "a batch may not mix them"
    masked = next(name for name in texts if name.startswith("00"))
    with Image.open(Path(subset["image_dir"]) / masked) as opened, Image.open(dataset.path / "00.jpg") as source:
        assert opened.mode == "RGBA"
        pixels = np.asarray(opened)
        assert (pixels[:, :, :3] == np.asarray(source)).all()
        assert (pixels[:, :32, 3] == 255).all() and (pixels[:, 32:, 3] == 0).all()
    assert sum(name.endswith(".png") for name in texts) == 1
    assert validate([described.file], user)[0].problems == ()
    (subset, _), _ = sd_scripts(run(context, "sd-scripts", "alpha_mask=false", reg=user / "dogs").file)
    assert not list(Path(subset["image_dir"]).glob("*.png"))


def test_masks_lie_beside_for_ai_toolkit_and_are_white_where_there_is_none(
    context: Context, dataset: DatasetFolder
) -> None:
    with_masks(dataset, 1)
    ((entry, texts),) = ai_toolkit(run(context, "ai-toolkit").file)
    assert len(texts) == 3, "masks are not taken for pictures"
    masks = {path.stem: path for path in Path(entry["mask_path"]).iterdir()}
    assert masks.keys() == {Path(name).stem for name in texts}
    means = {stem[:2]: float(np.asarray(Image.open(path)).mean()) for stem, path in masks.items()}
    assert means == {"00": 255, "01": 127.5, "02": 255}


@pytest.mark.parametrize("name", ["../victim.txt", "{victim}", "linked/victim.txt"])
def test_a_record_from_elsewhere_removes_nothing_outside(
    context: Context, dataset: DatasetFolder, user: Path, name: str
) -> None:
    folder = run(context, "musubi").folder
    for victim in (folder.parent / "victim.txt", user / "victim.txt"):
        victim.write_text("mine")
    (folder / "linked").symlink_to(user)
    record = json.loads((folder / RECORD).read_text())
    record["files"][name.replace("{victim}", str(user / "victim.txt"))] = ""
    (folder / RECORD).write_text(json.dumps(record))
    with pytest.raises(InvalidInput, match="which is not in it"):
        run(context, "musubi")
    assert (folder.parent / "victim.txt").exists() and (user / "victim.txt").exists()


@pytest.mark.parametrize("trainer", ["musubi", "diffusers"])
def test_a_trainer_without_masks_says_so(context: Context, dataset: DatasetFolder, trainer: str) -> None:
    with_masks(dataset, 1)
    assert any("no masks" in note for note in run(context, trainer).notes)


def test_pictures_that_are_not_square_are_bucketed(context: Context, dataset: DatasetFolder) -> None:
    manifest = dataset.manifest()
    wide = manifest.pictures[0].model_copy(update={"width": 128})
    dataset.write_manifest(manifest.model_copy(update={"pictures": Pictures.of((wide, *manifest.pictures[1:]))}))
    ((subset, _),) = sd_scripts(run(context, "sd-scripts", "resolution=2048").file)
    assert (subset["enable_bucket"], subset["max_bucket_reso"]) == (True, 2048)
    ((subset, _),) = sd_scripts(run(context, "sd-scripts", "resolution=128").file)
    assert (subset["min_bucket_reso"], "max_bucket_reso" in subset) == (128, False)
    assert musubi(run(context, "musubi").file)[0][0]["enable_bucket"] is True
    with pytest.raises(InvalidInput, match="resolution = 1000 is not a multiple of bucket_reso_steps = 64"):
        run(context, "sd-scripts", "resolution=1000")


# ai-toolkit's job


def test_the_recipe_makes_a_whole_job(context: Context, dataset: DatasetFolder, user: Path) -> None:
    import yaml

    described = run(context, "ai-toolkit", recipe="sd15")
    process = yaml.safe_load(described.file.read_text())["config"]["process"][0]
    recipe = resolve("sd15")
    assert process["network"] == {
        "type": "lora", "linear": recipe.method.rank, "linear_alpha": recipe.method.alpha,
    }  # fmt: skip
    assert (process["train"]["steps"], process["train"]["lr"]) == (
        recipe.training.steps,
        recipe.optimizer.learning_rate,
    )
    assert process["model"]["name_or_path"] == recipe.base.source
    assert process["sample"]["prompts"][0] == "a photo of sks dog"
    assert validate([described.file], user)[0].problems == ()
    assert any("datasets only" in note for note in run(context, "ai-toolkit").notes)


def test_a_path_that_ai_toolkit_would_change_is_refused(context: Context, user: Path) -> None:
    dataset = write_dataset(user / "${HOME}" / "set", count=1)
    with pytest.raises(InvalidInput, match="would not find"):
        run(context, "ai-toolkit", dataset=dataset.path)


# what is there already


def test_a_foreign_file_and_an_edited_one_stay(context: Context, dataset: DatasetFolder, user: Path) -> None:
    file = user / "processed.sd-scripts.toml"
    file.write_text("mine\n")
    with pytest.raises(InvalidInput, match=r"processed\.sd-scripts\.toml: not written by dreamctl") as raised:
        run(context)
    assert "--overwrite" in str(raised.value.hint) and file.read_text() == "mine\n"
    assert not (user / "processed.sd-scripts").exists()
    described = run(context, overwrite=True)
    written = file.read_text()
    file.write_text(written + "# edited\n")
    with pytest.raises(InvalidInput, match="edited since dreamctl wrote it"):
        run(context)
    run(context, overwrite=True)
    assert file.read_text() == written
    text = next((described.folder / "pictures").glob("00-*.txt"))
    text.write_text("a better text")
    for caption in ("", "other"):  # the edited file's picture is described as before, or under another name
        if caption:
            dataset.write_caption("00.jpg", caption)
        with pytest.raises(InvalidInput, match=r"00-\w+\.txt: edited"):
            run(context)
        assert text.read_text() == "a better text"
    assert run(context, overwrite=True).written == 4
    assert not text.exists()


def test_what_the_trainer_and_others_put_there_stays(context: Context, dataset: DatasetFolder) -> None:
    described = run(context)
    cache = described.folder / "pictures" / "00_1024x1024_sd.npz"
    cache.write_bytes(b"latents")
    dataset.write_caption("00.jpg", "other")
    run(context)
    assert cache.read_bytes() == b"latents"


class Dying(Recorder):
    """A reporter whose process ends when so many files are written."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def progress(self, label: str, done: int, total: int, detail: str = "", unit: Unit = "") -> None:
        if done == self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 2, 3, 6])
def test_killed_and_run_again_it_ends_with_the_same_files(context: Context, dataset: DatasetFolder, after: int) -> None:
    described = run(context)
    for caption in dataset.captions():
        dataset.write_caption(caption, f"new {caption}")
    with pytest.raises(KeyboardInterrupt):
        run(Context.open(None, {}, Dying(after)))
    run(context)
    disturbed = snapshot(described.folder)
    fresh = run(context, out=dataset.path.parent / "fresh.toml")
    assert disturbed.keys() == snapshot(fresh.folder).keys()
    assert {key: value for key, value in disturbed.items() if key != RECORD} == {
        key: value for key, value in snapshot(fresh.folder).items() if key != RECORD
    }
    assert "" not in json.loads((described.folder / RECORD).read_text())["files"].values()


def test_where_it_may_lie(context: Context, dataset: DatasetFolder, user: Path) -> None:
    described = run(context, out=Path("other.toml"))
    assert (described.file, described.folder) == (user / "other.toml", user / "other")
    assert diffusers(run(context, "diffusers", out=Path("folder")).file)
    assert run(context, "diffusers", out=Path("folder/metadata.jsonl")).written == 0
    for out in (Path("processed.toml"), Path("processed/x.toml")):
        with pytest.raises(InvalidInput, match="in each other"):
            run(context, out=out)
    with pytest.raises(InvalidInput, match="in each other"):
        run(context, "diffusers", out=Path())
    with pytest.raises(InvalidInput, match=r"reads a \.toml file"):
        run(context, out=Path("x.yaml"))
    with pytest.raises(NotFound) as raised:
        run(context, "sd-script")
    assert raised.value.hint == "did you mean 'sd-scripts'?"
