"""Any heap of pictures becomes a dataset, and what cannot be used is named."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from dreamctl.context import Context
from dreamctl.datasetfolder import DatasetFolder
from dreamctl.errors import DreamctlError, InvalidInput, NotFound
from dreamctl.files import sha256_file
from dreamctl.workflows.prepare import prepare, prepare_on_the_way
from tests.fakes import Recorder
from tests.pictures import patchwork
from tests.workflows.preparing import SIZE, picture, run, snapshot


@pytest.fixture
def reporter() -> Recorder:
    return Recorder()


@pytest.fixture
def context(reporter: Recorder) -> Context:
    """A context without a base model: preparing needs no torch."""
    return Context.open(None, {}, reporter)


@pytest.fixture
def original(user: Path) -> Path:
    for number in range(5):
        picture(user / "original" / f"p{number}.png", number)
    return user / "original"


def times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


# the dataset


def test_a_folder_becomes_the_project_dataset(context: Context, original: Path, user: Path) -> None:
    report = run(context, original)
    assert report.dataset == user / "processed"
    assert report.made == ("p0.jpg", "p1.jpg", "p2.jpg", "p3.jpg", "p4.jpg")
    assert report.next == "dreamctl caption"
    manifest = DatasetFolder(report.dataset).manifest()
    assert (manifest.size, manifest.fit, manifest.background, manifest.format) == (64, "pad", "#ffffff", "jpeg")
    first = manifest.pictures[0]
    assert (first.source, first.source_sha256) == ("original/p0.png", sha256_file(original / "p0.png"))
    assert first.sha256 == sha256_file(report.dataset / first.file)
    assert first.mask and (report.dataset / first.mask).is_file()
    assert sorted(os.listdir(report.dataset)) == ["dataset.json", "masks", *report.made]
    assert report.digest == DatasetFolder(report.dataset).digests()[0]


def test_the_size_is_the_configured_recipe_s(original: Path, reporter: Recorder) -> None:
    def size(**settings: str) -> int:
        shutil.rmtree("processed", ignore_errors=True)
        return prepare(Context.open(None, settings, reporter), [original]).manifest.size

    assert size() == 512
    Path("mine.toml").write_text('[base]\nsource = "a/b"\n[training]\nresolution = 128\n')
    assert size(recipe="./mine.toml") == 128
    assert size(base_model="nobody/knows-it") == 512
    with pytest.raises(InvalidInput, match="--size 5 "):
        prepare(Context.open(None, {}, reporter), [original], size=5)


def test_out_background_and_single_files(context: Context, original: Path, user: Path) -> None:
    report = run(context, original / "p1.png", original / "p0.png", out=Path("other"), background="#ff0000")
    assert report.dataset == user / "other"
    assert [item.source for item in report.pictures] == ["p0.png", "p1.png"]
    corner = Image.open(report.dataset / "p0.jpg").convert("RGB").getpixel((1, 1))
    assert isinstance(corner, tuple) and corner[0] > 250 and corner[1] < 5
    assert report.next == "dreamctl caption other"


def test_folders_inside_are_looked_into_on_request(context: Context, original: Path) -> None:
    picture(original / "deep" / "er" / "p0.png", 77)
    assert len(run(context, original).pictures) == 5
    report = run(context, original, recursive=True)
    assert report.made == ("p0-2.jpg",)
    assert report.kept == ("p0.jpg", "p1.jpg", "p2.jpg", "p3.jpg", "p4.jpg")


def test_the_output_may_lie_inside_the_source(context: Context, original: Path) -> None:
    first = run(context, original, out=original / "processed", recursive=True)
    again = run(context, original, out=original / "processed", recursive=True)
    assert (len(first.made), again.made, again.digest) == (5, (), first.digest)
    with pytest.raises(InvalidInput, match="is the source and the output"):
        run(context, original, out=original)


def test_many_pictures_go_through_processes(context: Context, user: Path, original: Path) -> None:
    for number in range(12):
        picture(original / f"q{number}.png", number + 10)
    (original / "bad.jpg").write_text("no")
    report = run(context, original)
    assert len(report.made) == 17 and len(report.skipped) == 1
    alone = run(context, original / "q7.png", out=user / "alone")
    name = "q7.jpg"
    assert sha256_file(report.dataset / name) == sha256_file(alone.dataset / name)


# names


def test_no_two_sources_share_an_output(context: Context, user: Path, reporter: Recorder) -> None:
    folder = user / "heap"
    names = ["a.png", "a.jpg", "A.webp", "é.png", unicodedata.normalize("NFD", "é") + ".png", "a-2.bmp"]
    for number, name in enumerate(names):
        picture(folder / name, number)
    report = run(context, folder)
    outputs = [item.file for item in report.pictures]
    folded = {unicodedata.normalize("NFC", name).casefold() for name in outputs}
    assert len(outputs) == len(folded) == len(names)
    assert {item.source for item in report.pictures} == {f"heap/{name}" for name in names}
    assert any("another file has its name" in text for text in reporter.warnings)
    shutil.rmtree(report.dataset)
    assert run(context, folder).digest == report.digest


def test_names_stay_when_a_twin_comes_later(context: Context, original: Path) -> None:
    run(context, original)
    DatasetFolder(Path("processed")).write_caption("p0.jpg", "mine")
    picture(original / "p0.jpg", 50)
    report = run(context, original)
    by_source = {item.source: item.file for item in report.pictures}
    assert by_source["original/p0.png"] == "p0.jpg" and by_source["original/p0.jpg"] == "p0-2.jpg"
    assert DatasetFolder(report.dataset).captions()["p0-2.jpg"] == ""


@pytest.mark.skipif(sys.platform != "linux", reason="names of arbitrary bytes")
def test_names_that_are_not_text(context: Context, user: Path) -> None:
    heap = user / "heap"
    for number in (254, 255):
        made = picture(heap / f"{number}.png", number)
        made.rename(os.fsdecode(os.fsencode(heap) + b"/%c.png" % number))
    report = run(context, heap)
    assert {item.source for item in report.pictures} == {"heap/\\xfe.png", "heap/\\xff.png"}
    assert run(context, heap).made == ()


# bad files


def test_a_bad_file_is_named_and_skipped(context: Context, original: Path, reporter: Recorder) -> None:
    (original / "page.jpg").write_text("<html>not found</html>")
    whole = picture(original / "cut.jpg", size=(600, 600)).read_bytes()
    (original / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    report = run(context, original)
    assert len(report.pictures) == 5
    assert [(item.source, bool(item.advice)) for item in report.skipped] == [
        ("original/cut.jpg", True), ("original/page.jpg", True),
    ]  # fmt: skip
    assert any(text.startswith("original/page.jpg is a web page") for text in reporter.warnings)
    assert DatasetFolder(report.dataset).manifest().skipped == report.skipped


def test_strict_changes_nothing(context: Context, original: Path) -> None:
    (original / "page.jpg").write_text("<html>")
    with pytest.raises(DreamctlError, match=r"1 file cannot be used: original/page\.jpg") as raised:
        run(context, original, strict=True)
    assert raised.value.exit_code == 1
    assert not Path("processed").exists()
    (original / "page.jpg").unlink()
    assert len(run(context, original, strict=True).pictures) == 5


def test_strict_takes_warnings_for_problems_also_of_pictures_that_stay(
    context: Context, original: Path, user: Path
) -> None:
    picture(original / "small.png", 9, (20, 30))
    with pytest.raises(DreamctlError, match=r"1 problem: original/small\.png has 20×30 pixels") as raised:
        run(context, original, strict=True)
    assert raised.value.exit_code == 1 and not (user / "processed").exists()
    dataset = run(context, original).dataset
    before = snapshot(dataset)
    with pytest.raises(DreamctlError, match=r"1 problem: original/small\.png has 20×30 pixels"):
        run(context, original, strict=True)
    assert snapshot(dataset) == before
    (original / "small.png").unlink()
    assert run(context, original, strict=True).removed == ("small.jpg",)


def test_nothing_usable_leaves_nothing(context: Context, user: Path) -> None:
    (user / "heap").mkdir()
    (user / "heap" / "a.jpg").write_bytes(b"")
    for wanted, kind in ((user / "heap", DreamctlError), (user / "gone", NotFound)):
        with pytest.raises(kind):
            run(context, wanted)
        assert not Path("processed").exists()


def test_an_empty_folder_says_what_to_do(context: Context, user: Path, original: Path) -> None:
    (user / "empty").mkdir()
    with pytest.raises(DreamctlError, match="holds no pictures") as raised:
        run(context, user / "empty")
    assert raised.value.hint == "put some JPEG or PNG pictures there"
    shutil.move(original, user / "empty" / "inside")
    with pytest.raises(DreamctlError) as raised:
        run(context, user / "empty")
    assert "--recursive" in str(raised.value.hint)


def test_few_pictures_are_a_warning(context: Context, original: Path, reporter: Recorder) -> None:
    (original / "p4.png").unlink()
    run(context, original)
    assert any("only 4 pictures" in text for text in reporter.warnings)


# captions and archives


def test_captions_beside_the_pictures_travel_and_edited_ones_stay(context: Context, original: Path) -> None:
    (original / "p0.txt").write_text("\ufeffon a beach\n")
    (original / "p1.caption").write_text("at night")
    (original / "p2.txt").write_bytes(b"\xff\xfe\xfa")
    report = run(context, original)
    dataset = DatasetFolder(report.dataset)
    assert dataset.captions() == {
        "p0.jpg": "on a beach",
        "p1.jpg": "at night",
        "p2.jpg": "",
        "p3.jpg": "",
        "p4.jpg": "",
    }
    assert any("p2.txt cannot be read as UTF-8" in text for text in report.warnings)
    dataset.write_caption("p0.jpg", "mine")
    (original / "p3.txt").write_text("late")
    picture(original / "p0.png", 222)
    report = run(context, original)
    assert report.made == ("p0.jpg",)
    assert (dataset.captions()["p0.jpg"], dataset.captions()["p3.jpg"]) == ("mine", "late")


def test_the_trigger_is_not_forgotten(context: Context, original: Path) -> None:
    dataset = DatasetFolder(run(context, original).dataset)
    dataset.write_manifest(dataset.manifest().model_copy(update={"trigger": "sks"}))
    assert run(context, original).made == ()
    picture(original / "new.png", 33)
    run(context, original)
    assert dataset.manifest().trigger == "sks"


def test_zip_is_the_same_for_the_same_content(context: Context, original: Path, user: Path) -> None:
    report = run(context, original, zip_=True)
    assert report.zip == user / "processed.zip"
    first = sha256_file(report.zip)
    shutil.rmtree("processed")
    report.zip.unlink()
    again = run(context, original, zip_=True).zip
    assert again and sha256_file(again) == first


def test_plain_pictures_are_prepared_on_the_way(context: Context, original: Path, reporter: Recorder) -> None:
    dataset = prepare_on_the_way(context, original, SIZE)
    assert dataset.manifest().size == SIZE and len(dataset.pictures()) == 5
    assert any(f"dreamctl prepare {original} --size 64" in text for text in reporter.notes)


# shapes and looks


def test_crops_and_buckets_are_recorded_and_a_changed_rule_makes_all_again(context: Context, original: Path) -> None:
    cropped = run(context, original, fit="crop")
    first = cropped.pictures[0]
    assert (first.width, first.height, first.crop, first.box) == (64, 64, (10, 0, 80, 70), (0, 0, 64, 64))
    assert run(context, original, fit="crop").made == ()
    bucketed = run(context, original, fit="bucket", step=8, format="webp")
    assert len(bucketed.made) == 5 and bucketed.removed == cropped.made
    assert {(item.width, item.height) for item in bucketed.pictures} == {(72, 56)}
    assert DatasetFolder(bucketed.dataset).manifest().fit == "bucket"


def test_nearly_the_same_pictures_are_named(context: Context, original: Path) -> None:
    patches = patchwork(1)
    patches.save(original / "first.png")
    patches.resize((200, 150)).save(original / "second.jpg", quality=80)
    assert "original/second.jpg looks like original/first.png: one of them is enough" in run(context, original).warnings


def test_a_contact_sheet_stands_beside_the_dataset(context: Context, original: Path, user: Path) -> None:
    report = run(context, original, sheet=True)
    assert report.sheet == user / "processed-contact-sheet.png" and report.sheet.is_file()
    assert sorted(os.listdir(report.dataset)) == ["dataset.json", "masks", *report.made]
    drawn = report.sheet.stat().st_mtime_ns
    assert run(context, original, sheet=True).made == () and report.sheet.stat().st_mtime_ns == drawn
