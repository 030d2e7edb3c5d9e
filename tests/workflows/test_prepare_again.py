"""Prepare run again does only what changed; killed anywhere, it leaves nothing half-true."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest
from PIL import Image

from dreamctl.context import Context
from dreamctl.datasetfolder import DatasetFolder
from dreamctl.errors import DreamctlError, InvalidInput
from dreamctl.files import sha256_file
from dreamctl.workflows.caption import Wish, caption
from tests.fakes import Recorder
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


# again


def test_run_twice_does_nothing_the_second_time(context: Context, original: Path) -> None:
    first = run(context, original)
    before = times(first.dataset)
    second = run(context, original)
    assert (second.made, second.kept, second.digest) == ((), first.made, first.digest)
    after = times(first.dataset)
    assert {path: time for path, time in after.items() if path != str(first.dataset)} == {
        path: time for path, time in before.items() if path != str(first.dataset)
    }


def test_only_what_changed_is_made_again(context: Context, original: Path) -> None:
    run(context, original)
    picture(original / "p1.png", 200)
    (original / "p2.png").unlink()
    picture(original / "p9.png", 9)
    report = run(context, original)
    assert (report.made, report.removed) == (("p1.jpg", "p9.jpg"), ("p2.jpg",))
    assert report.kept == ("p0.jpg", "p3.jpg", "p4.jpg")
    assert not (report.dataset / "p2.jpg").exists() and not (report.dataset / "masks" / "p2.png").exists()
    shutil.rmtree(report.dataset)
    assert run(context, original).digest == report.digest


def test_other_settings_make_everything_again(context: Context, original: Path) -> None:
    run(context, original)
    assert len(run(context, original, size=128).made) == 5
    assert len(run(context, original, size=128, background="black").made) == 5
    square = [picture(original / f"p{number}.png", number, (140, 140)) for number in range(5)]
    assert len(run(context, *square[0].parents[:1], size=128, background="black").made) == 5
    assert not Path("processed/masks").exists()


def test_a_renamed_source_keeps_its_output_and_its_caption(context: Context, original: Path) -> None:
    run(context, original)
    DatasetFolder(Path("processed")).write_caption("p0.jpg", "mine")
    (original / "p0.png").rename(original / "best.png")
    report = run(context, original)
    assert report.made == () and report.removed == ()
    assert [item.file for item in report.pictures if item.source == "original/best.png"] == ["p0.jpg"]
    assert DatasetFolder(report.dataset).captions()["p0.jpg"] == "mine"


def test_pictures_that_were_numbered_anew_keep_their_captions(context: Context, original: Path) -> None:
    dataset = DatasetFolder(run(context, original).dataset)
    for item in dataset.manifest().pictures:
        dataset.write_caption(item.file, f"words for {item.source_sha256}")
    (original / "p0.png").unlink()
    for number in range(1, 5):
        (original / f"p{number}.png").rename(original / f"p{number - 1}.png")
    report = run(context, original)
    assert (report.made, report.removed) == ((), ("p0.jpg",))
    for item in report.pictures:
        assert dataset.caption(item.file) == f"words for {item.source_sha256}"


def test_a_caption_does_not_go_to_another_picture_without_a_word(context: Context, original: Path) -> None:
    dataset = DatasetFolder(run(context, original).dataset)
    dataset.write_caption("p0.jpg", "a red dog")
    picture(original / "p0.png", 100)
    report = run(context, original)
    assert dataset.caption("p0.jpg") == "a red dog"
    assert any("p0.jpg shows another picture now: look at its caption" in text for text in report.warnings)
    (original / "p0.png").unlink()
    run(context, original)
    picture(original / "p0.png", 150)
    run(context, original)
    assert dataset.caption("p0.jpg") == "", "a new picture is not a red dog"
    assert "a red dog" in (dataset.path / "captions.before.json").read_text(), "and no words are lost"


def test_a_caption_stays_with_its_picture_and_not_with_the_name(context: Context, original: Path, user: Path) -> None:
    extra = user / "extra"
    picture(extra / "q.png", 60)
    dataset = DatasetFolder(run(context, original, extra).dataset)
    dataset.write_caption("p0.jpg", "the old one")
    (original / "p0.png").unlink()
    picture(extra / "p0.png", 61)  # gets the name that is free now
    (extra / "p0.txt").write_text("the new one")
    report = run(context, original, extra)
    assert dataset.caption("p0.jpg") == "the new one"
    assert any("captions of pictures that are gone are kept in" in text for text in report.warnings)


def test_equal_pictures_that_are_renamed_keep_a_caption_each(context: Context, original: Path) -> None:
    shutil.copy(original / "p0.png", original / "p5.png")
    dataset = DatasetFolder(run(context, original).dataset)
    dataset.write_caption("p0.jpg", "one")
    dataset.write_caption("p5.jpg", "two")
    (original / "p0.png").rename(original / "a.png")
    (original / "p5.png").rename(original / "b.png")
    assert run(context, original).made == ()
    assert (dataset.caption("p0.jpg"), dataset.caption("p5.jpg")) == ("one", "two")


def test_a_newer_caption_beside_the_source_is_told(context: Context, original: Path) -> None:
    beside = original / "p0.txt"
    beside.write_text("first")
    dataset = DatasetFolder(run(context, original).dataset)
    beside.write_text("second")
    os.utime(beside, (time.time() + 60, time.time() + 60))
    report = run(context, original)
    assert any("p0.txt is newer than" in text and "delete that" in text for text in report.warnings)
    dataset.caption_file("p0.jpg").unlink()
    assert run(context, original).warnings == () and dataset.caption("p0.jpg") == "second"


@pytest.mark.parametrize("change", ["settings", "source"])
def test_a_retouched_picture_is_never_overwritten(context: Context, original: Path, change: str) -> None:
    dataset = run(context, original).dataset
    Image.new("RGB", (SIZE, SIZE), "pink").save(dataset / "p0.jpg")
    before = snapshot(dataset)
    if change == "source":
        picture(original / "p0.png", 77)
    with pytest.raises(InvalidInput, match=r"p0\.jpg was edited, and would be made anew"):
        run(context, original, quality=90 if change == "settings" else 95)
    assert snapshot(dataset) == before


def test_what_trainers_cannot_read_is_no_retouched_picture(context: Context, original: Path) -> None:
    dataset = run(context, original).dataset
    Image.new("RGB", (SIZE, SIZE), "pink").save(dataset / "p0.jpg", "GIF")
    assert run(context, original).made == ("p0.jpg",)


def test_what_prepare_wrote_itself_is_no_source(context: Context, user: Path) -> None:
    for number in range(5):
        picture(user / f"p{number}.png", number)
    first = run(context, user, sheet=True, zip_=True)
    assert first.sheet and first.sheet.parent == user
    again = run(context, user, *sorted(user.glob("*.png")), *user.glob("*.zip"), sheet=True, zip_=True, strict=True)
    assert (again.made, again.skipped, again.digest) == ((), (), first.digest)


def test_a_name_that_a_manifest_holds_twice_is_given_once(context: Context, original: Path) -> None:
    dataset = DatasetFolder(run(context, original).dataset)
    manifest = json.loads((dataset.path / "dataset.json").read_text())
    manifest["pictures"][1]["file"] = "p0.png"  # with another suffix the same name
    (dataset.path / "p1.jpg").rename(dataset.path / "p0.png")
    (dataset.path / "dataset.json").write_text(json.dumps(manifest))
    report = run(context, original, size=128)
    assert len({item.file for item in report.pictures}) == 5
    assert all(sha256_file(report.dataset / item.file) == item.sha256 for item in report.pictures)


def test_lost_and_damaged_outputs_are_made_again_and_retouched_ones_stay(context: Context, original: Path) -> None:
    first = run(context, original)
    (first.dataset / "p0.jpg").unlink()
    (first.dataset / "p1.jpg").write_bytes(b"damaged")
    Image.new("RGB", (SIZE, SIZE), "pink").save(first.dataset / "p2.jpg")
    report = run(context, original)
    assert report.made == ("p0.jpg", "p1.jpg")
    assert any("p2.jpg was edited: kept" in text for text in report.warnings)
    assert run(context, original).warnings == ()
    assert DatasetFolder(report.dataset).manifest().pictures[2].sha256 == sha256_file(report.dataset / "p2.jpg")


def test_another_subject_is_refused(context: Context, original: Path, user: Path) -> None:
    first = run(context, original)
    before = snapshot(first.dataset)
    for number in range(5):
        picture(user / "rex" / f"p{number}.png", number + 100)
    with pytest.raises(InvalidInput, match="holds 5 pictures of something else") as raised:
        run(context, user / "rex")
    assert "--out other" in str(raised.value.hint)
    shutil.copy(original / "p0.png", user / "rex")  # one picture in common: still not the same folder
    with pytest.raises(InvalidInput, match="also holds 4 pictures"):
        run(context, user / "rex")
    assert snapshot(first.dataset) == before
    assert len(run(context, original, user / "rex").pictures) == 10


def test_a_folder_of_the_user_s_own_pictures_is_not_overwritten(context: Context, original: Path, user: Path) -> None:
    mine = picture(user / "processed" / "p3.jpg", 99)
    before = mine.read_bytes()
    with pytest.raises(InvalidInput, match="was not made by prepare"):
        run(context, original)
    assert mine.read_bytes() == before and os.listdir(mine.parent) == ["p3.jpg"]


def test_a_corrupt_manifest_says_the_way_out(context: Context, original: Path) -> None:
    run(context, original)
    Path("processed/dataset.json").write_text("{")
    with pytest.raises(DreamctlError, match="not valid JSON") as raised:
        run(context, original)
    assert "--out" in str(raised.value.hint)


# strange folders


@pytest.mark.parametrize(
    "step",
    [
        ["remove", "../victim"],
        ["place", "../victim"],
        ["remove", "{victim}"],
        ["remove", "sub/victim"],
        ["run", "a"],
        ["remove", 5],
        {"remove": 1, "b": 2},
        7,
    ],
)
def test_a_plan_from_elsewhere_reaches_no_file_outside(
    context: Context, original: Path, user: Path, step: object
) -> None:
    victim = user / "victim"
    victim.write_text("mine")
    dataset = run(context, original).dataset
    stage = dataset / ".prepare"
    stage.mkdir()
    (dataset / "sub").symlink_to(user)
    (stage / "victim").write_text("theirs")
    shutil.copy(dataset / "dataset.json", stage)
    (stage / "plan.jsonl").write_text(json.dumps(step).replace("{victim}", str(victim)) + "\n")
    before = snapshot(dataset)
    with pytest.raises(DreamctlError, match=r"plan\.jsonl, line 1, is no step of a plan") as raised:
        run(context, original)
    assert str(stage) in str(raised.value.hint)
    assert victim.read_text() == "mine" and snapshot(dataset) == before


@pytest.mark.parametrize("kind", ["file", "link"])
def test_masks_that_are_no_folder_are_told_before_anything_moves(
    context: Context, original: Path, user: Path, kind: str
) -> None:
    dataset = run(context, original, size=SIZE, fit="crop").dataset
    if kind == "file":
        (dataset / "masks").write_text("mine")
    else:
        (dataset / "masks").symlink_to(user)
    before = snapshot(dataset)
    with pytest.raises(DreamctlError, match="masks is not a folder of this dataset"):
        run(context, original)
    stage = dataset / ".prepare"
    stage.mkdir()
    shutil.copy(dataset / "dataset.json", stage)
    (stage / "plan.jsonl").write_text('["remove", "masks/original"]\n')
    with pytest.raises(DreamctlError, match="masks is not a folder of this dataset"):
        caption(context, dataset, Wish(captioner="none"))
    shutil.rmtree(stage)
    assert snapshot(dataset) == before


def test_a_journal_that_was_torn_or_is_none_costs_nothing(context: Context, original: Path, user: Path) -> None:
    stage = user / "processed" / ".prepare"
    stage.mkdir(parents=True)
    (stage / "made.jsonl").write_bytes(b'\n["Rules(", {"fi\n\xff\xfe\n7\n["x", 3]\n')
    assert len(run(context, original).made) == 5


def test_what_was_made_stays_when_the_command_fails_later(
    context: Context, original: Path, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise DreamctlError("a worker process was killed from outside")

    with monkeypatch.context() as patch:
        patch.setattr("dreamctl.workflows.prepare.travelling_captions", fail)
        with pytest.raises(DreamctlError):
            run(context, original)
    journal = user / "processed" / ".prepare" / "made.jsonl"
    assert journal.read_text().count("sha256") == 10
    inodes = {path.name: path.stat().st_ino for path in journal.parent.glob("*.jpg")}
    report = run(context, original)
    assert {path.name: path.stat().st_ino for path in report.dataset.glob("*.jpg")} == inodes


def test_a_caption_that_is_not_text_does_not_fail_what_is_done(
    context: Context, original: Path, reporter: Recorder
) -> None:
    dataset = run(context, original).dataset
    (dataset / "p0.txt").write_bytes(b"caf\xe9")
    picture(original / "p9.png", 9)
    assert run(context, original, zip_=False).made == ("p9.jpg",)
    assert any("p0.txt is not UTF-8 text" in text for text in reporter.warnings)


# death


def die_at(count: int, action: Callable[[], object]) -> bool:
    """Do `action` in a forked process that dies, as by kill -9, before its `count`-th change to the disk."""

    def child() -> None:
        left = count

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
            if writes or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"):
                left -= 1
                if left == 0:
                    os._exit(9)

        sys.addaudithook(hook)
        action()
        os._exit(0)

    process = get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode in (0, 9)
    return process.exitcode == 9


def assert_true(folder: Path) -> None:
    """The folder is no dataset, or every file is the one that `dataset.json` tells."""
    if not (folder / "dataset.json").exists():
        return
    manifest = json.loads((folder / "dataset.json").read_text())
    for item in manifest["pictures"]:
        assert sha256_file(folder / item["file"]) == item["sha256"]
        assert "mask" not in item or (folder / item["mask"]).is_file()


def deaths(context: Context, user: Path, step: int) -> None:
    """Die before every `step`-th change to the disk: nothing is half-true, and the next run ends as if undisturbed."""
    old = user / "old"
    for number in range(2):
        picture(old / f"p{number}.png", number)
    (old / "p0.txt").write_text("on a beach")
    (old / "p1.txt").write_text("in a wood")  # whose picture goes
    start = run(context, old, out=user / "start").dataset
    # Everything changes: a new size, a changed, a lost and a new source.
    (old / "p1.png").unlink()
    picture(old / "p2.png", 2)
    shutil.copytree(start, user / "wanted")
    wanted = snapshot(run(context, old, out=user / "wanted", size=80).dataset)
    target, count = user / "target", 1 - step
    while True:
        count += step
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(start, target)
        died = die_at(count, lambda: run(context, old, out=target, size=80))
        assert_true(target)
        run(context, old, out=target, size=80)
        assert snapshot(target) == wanted, f"after death at change {count}"
        if not died:
            break
    assert count > 20


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_dead_before_a_change_to_the_disk(context: Context, user: Path) -> None:
    deaths(context, user, step=4)


@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_dead_before_any_change_to_the_disk(context: Context, user: Path) -> None:
    deaths(context, user, step=1)


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_what_was_made_before_death_is_not_made_again(context: Context, original: Path, user: Path) -> None:
    assert die_at(30, lambda: run(context, original))
    stage = user / "processed" / ".prepare"
    noted = [json.loads(line)[1] for line in (stage / "made.jsonl").read_text().splitlines() if line]
    before = {item["file"]: (stage / item["file"]).stat().st_ino for item in noted}
    assert before
    report = run(context, original)
    after = {path.name: path.stat().st_ino for path in report.dataset.glob("*.jpg")}
    assert {name: inode for name, inode in after.items() if name in before} == before
