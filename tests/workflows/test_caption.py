"""Captions: written where there are none, kept where somebody wrote, with a trigger first exactly once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dreamctl import plugins
from dreamctl.context import Context
from dreamctl.datasetfolder import DatasetFolder
from dreamctl.domain.captioning import CaptionOptions
from dreamctl.errors import ConsentRequired, DreamctlError, InvalidInput, NotFound
from dreamctl.workflows import caption as workflow
from dreamctl.workflows.caption import CaptionReport, Wish
from tests.fakes import Recorder, write_dataset


class Counting:
    """A captioner that numbers the pictures, remembers what it was asked, and fails at one of them."""

    name = "counting"
    takes = ("prompt",)
    account = None
    bill: str | None = None
    asked: list[str]
    fails_at: str | None
    nothing_at: str | None

    def __init__(self, options: CaptionOptions) -> None:
        self._what = options.prompt or "scene"

    def caption(self, pictures: Sequence[Path]) -> Iterator[str | None]:
        for picture in pictures:
            if picture.name == type(self).fails_at:
                raise DreamctlError("the captioner failed")
            type(self).asked.append(picture.name)
            yield None if picture.name == type(self).nothing_at else f"{self._what} {picture.stem}"
        if type(self).nothing_at:
            raise DreamctlError("one had no caption")


@pytest.fixture(autouse=True)
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    Counting.asked, Counting.fails_at, Counting.nothing_at = [], None, None
    monkeypatch.setattr(Counting, "bill", None)
    monkeypatch.setitem(plugins.BUILT_IN["captioners"], "counting", f"{__name__}:Counting")


def caption(context: Context, dataset: Path | None = None, **wish: Any) -> CaptionReport:
    return workflow.caption(context, dataset, Wish(**wish))


@pytest.fixture
def context() -> Context:
    return Context.open(None, {"captioner": "counting"}, Recorder())


@pytest.fixture
def dataset(user: Path) -> DatasetFolder:
    """Three pictures; the second has a caption of its own."""
    folder = write_dataset(user / "processed", count=3)
    for number in (0, 2):
        folder.write_caption(f"{number:02}.jpg", "")
    folder.write_caption("01.jpg", "mine")
    return folder


def test_captions_are_written_where_there_are_none(context: Context, dataset: DatasetFolder) -> None:
    report = caption(context)
    assert dataset.captions() == {"00.jpg": "scene 00", "01.jpg": "mine", "02.jpg": "scene 02"}
    assert [item.written for item in report.captions] == [True, False, True]
    assert (report.next, report.captioner, report.trigger) == ("dreamctl train", "counting", None)
    assert report.digest == dataset.digests()[1]
    assert Counting.asked == ["00.jpg", "02.jpg"]


def test_again_nothing_is_done(context: Context, dataset: DatasetFolder) -> None:
    caption(context)
    times = {path: path.stat().st_mtime_ns for path in dataset.path.iterdir()}
    report = caption(context)
    assert not any(item.written for item in report.captions) and Counting.asked == ["00.jpg", "02.jpg"]
    assert times == {path: path.stat().st_mtime_ns for path in dataset.path.iterdir()}


def test_overwrite_replaces_all(context: Context, dataset: DatasetFolder) -> None:
    caption(context, overwrite=True, prefix="a drawing,", suffix=", grainy")
    assert dataset.captions()["01.jpg"] == "a drawing, scene 01, grainy"


def test_overwritten_captions_are_kept_each_text_once(context: Context, dataset: DatasetFolder) -> None:
    before = dataset.path / "captions.before.json"
    assert caption(context).before is None and not before.exists(), "nothing was replaced"
    for prompt in ("first", "second", "second"):
        report = caption(context, overwrite=True, options=CaptionOptions(prompt=prompt))
        assert report.before == before
    rows = json.loads(before.read_text())["captions"]
    assert {"file": "01.jpg", "caption": "mine"} in rows
    assert sorted(row["caption"] for row in rows if row["file"] == "00.jpg") == ["first 00", "scene 00", "second 00"]
    assert dataset.captions() == {f"{number:02}.jpg": f"second {number:02}" for number in range(3)}


def test_an_interrupted_overwrite_goes_on_where_it_was(context: Context, dataset: DatasetFolder) -> None:
    other = CaptionOptions(prompt="other")
    Counting.fails_at = "02.jpg"
    with pytest.raises(DreamctlError):
        caption(context, overwrite=True, options=other)
    assert dataset.captions() == {"00.jpg": "other 00", "01.jpg": "other 01", "02.jpg": ""}
    dataset.write_caption("00.jpg", "mine by now")
    Counting.fails_at, Counting.asked = None, []
    caption(context, overwrite=True, options=other)
    assert Counting.asked == ["02.jpg"], "what was done is not asked for, and paid for, again"
    assert dataset.captions() == {"00.jpg": "mine by now", "01.jpg": "other 01", "02.jpg": "other 02"}
    assert not list(dataset.path.glob(".*"))
    caption(context, overwrite=True, options=other)
    assert dataset.captions()["00.jpg"] == "other 00", "a finished one is begun anew"


def test_an_interrupted_overwrite_with_other_options_is_forgotten(context: Context, dataset: DatasetFolder) -> None:
    Counting.fails_at = "02.jpg"
    with pytest.raises(DreamctlError):
        caption(context, overwrite=True, options=CaptionOptions(prompt="other"))
    Counting.fails_at = None
    caption(context, overwrite=True)
    assert set(dataset.captions().values()) == {"scene 00", "scene 01", "scene 02"}


def test_a_picture_without_a_caption_stays_for_the_next_time(context: Context, dataset: DatasetFolder) -> None:
    Counting.nothing_at = "00.jpg"
    with pytest.raises(DreamctlError, match="one had no caption"):
        caption(context, prefix="a drawing,")
    assert dataset.captions() == {"00.jpg": "", "01.jpg": "mine", "02.jpg": "a drawing, scene 02"}
    Counting.nothing_at = None
    caption(context)
    assert dataset.captions()["00.jpg"] == "scene 00"


# money


def test_what_may_cost_money_needs_a_yes(
    context: Context, dataset: DatasetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counting, "bill", "models.example")
    for settings in ({}, {"max_cost": 5.0}):
        paid = Context.open(None, {"captioner": "counting", **settings}, Recorder())
        with pytest.raises(ConsentRequired, match=r"models\.example may charge money for 2 captions") as raised:
            caption(paid, trigger="sks")
        assert "--yes" in str(raised.value.hint) and "max_cost" in str(raised.value.hint)
    assert Counting.asked == [] and dataset.captions()["01.jpg"] == "mine", "nothing was changed"
    with pytest.raises(ConsentRequired):
        caption(Context.open(None, {"captioner": "counting"}, Recorder("no")))
    asked = Recorder("yes")
    caption(Context.open(None, {"captioner": "counting"}, asked))
    assert asked.questions == ["models.example may charge money for 2 captions. Go on?"]
    assert caption(context).captions[0].caption == "scene 00", "nothing to do costs nothing"
    caption(context, overwrite=True, yes=True)


def test_no_captioner_takes_nothing_away(context: Context, dataset: DatasetFolder) -> None:
    caption(context, captioner="none", overwrite=True)
    assert dataset.captions() == {"00.jpg": "", "01.jpg": "mine", "02.jpg": ""}
    (dataset.path / "00.txt").unlink()
    caption(context, captioner="none")
    assert (dataset.path / "00.txt").exists()


def test_what_was_written_before_a_failure_stays(context: Context, dataset: DatasetFolder) -> None:
    Counting.fails_at = "02.jpg"
    with pytest.raises(DreamctlError):
        caption(context)
    assert dataset.captions() == {"00.jpg": "scene 00", "01.jpg": "mine", "02.jpg": ""}
    Counting.fails_at = None
    caption(context)
    assert Counting.asked == ["00.jpg", "02.jpg"]


def test_the_trigger_is_first_exactly_once_and_recorded(context: Context, dataset: DatasetFolder) -> None:
    for _ in range(2):
        report = caption(context, trigger="photo")
        assert dataset.captions() == {
            "00.jpg": "photo, scene 00", "01.jpg": "photo, mine", "02.jpg": "photo, scene 02",
        }  # fmt: skip
    assert (report.trigger, dataset.manifest().trigger) == ("photo", "photo")
    dataset.write_caption("02.jpg", "")
    caption(context)
    assert dataset.captions()["02.jpg"] == "photo, scene 02", "the recorded trigger counts"
    caption(context, trigger="sks")
    assert set(dataset.captions().values()) == {"sks, scene 00", "sks, mine", "sks, scene 02"}
    caption(context, trigger="")
    assert dataset.manifest().trigger is None
    assert set(dataset.captions().values()) == {"scene 00", "mine", "scene 02"}


def test_the_report_tells_what_the_captions_look_like(context: Context, dataset: DatasetFolder) -> None:
    dataset.write_caption("01.jpg", "scene 00")
    found = caption(context).statistics
    assert (found.count, found.words, found.empty) == (3, (2, 2, 2), ())
    assert found.duplicates == (("00.jpg", "01.jpg"),)


def test_temporary_files_of_a_killed_run_are_removed(context: Context, dataset: DatasetFolder) -> None:
    (dataset.path / ".00.tmp-0123abcd.txt").write_text("torn")
    mine = dataset.path / ".notes.20250131.txt"
    mine.write_text("mine")
    caption(context)
    assert not list(dataset.path.glob(".0*")) and mine.exists()


def test_a_trigger_that_is_no_word_is_refused(context: Context, dataset: DatasetFolder) -> None:
    with pytest.raises(InvalidInput):
        caption(context, trigger="(sks:1.3)")


def test_who_captions_when_nobody_is_named(dataset: DatasetFolder) -> None:
    pytest.importorskip("torch")
    assert caption(Context.open(None, {}, Recorder())).captioner == "builtin"
    assert caption(Context.open(None, {"base_model": "builtin"}, Recorder())).captioner == "builtin"
    for number in (0, 1, 2):
        dataset.write_caption(f"{number:02}.jpg", "mine")  # so that no model is loaded
    for settings in ({"base_model": "owner/model"}, {"recipe": "sd15"}):
        assert caption(Context.open(None, settings, Recorder())).captioner == "florence2"


def test_what_is_not_a_dataset(context: Context, user: Path) -> None:
    with pytest.raises(NotFound, match="no dataset at") as raised:
        caption(context)
    assert "dreamctl prepare" in str(raised.value.hint)
    (user / "plain").mkdir()
    with pytest.raises(InvalidInput, match="is not a prepared dataset"):
        caption(context, Path("plain"))
    (user / "half" / ".prepare").mkdir(parents=True)
    with pytest.raises(InvalidInput, match="prepare was interrupted"):
        caption(context, Path("half"))
    (user / "file").write_text("")
    with pytest.raises(InvalidInput, match="is a file"):
        caption(context, Path("file"))


def test_an_unknown_captioner_names_the_nearest(context: Context, dataset: DatasetFolder) -> None:
    with pytest.raises(NotFound) as raised:
        caption(context, captioner="tmplate")
    assert raised.value.hint == "did you mean 'template'?"


def test_a_caption_that_is_not_text_is_named(context: Context, dataset: DatasetFolder) -> None:
    (dataset.path / "01.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match=r"01\.txt is not UTF-8"):
        caption(context)
