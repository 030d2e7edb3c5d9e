"""Captions: written where there are none, kept where somebody wrote, with a trigger first exactly once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dreamctl import plugins
from dreamctl.context import Context
from dreamctl.datasetfolder import DatasetFolder
from dreamctl.errors import DreamctlError, InvalidInput, NotFound
from dreamctl.workflows.caption import caption, with_trigger, without_trigger
from tests.fakes import Recorder, write_dataset


class Counting:
    """A captioner that numbers the pictures, remembers what it was asked, and fails at one of them."""

    name = "counting"
    asked: list[str]
    fails_at: str | None

    def caption(self, pictures: Sequence[Path]) -> Iterator[str]:
        for picture in pictures:
            if picture.name == type(self).fails_at:
                raise DreamctlError("the captioner failed")
            type(self).asked.append(picture.name)
            yield f"scene {picture.stem}"


@pytest.fixture(autouse=True)
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    Counting.asked, Counting.fails_at = [], None
    monkeypatch.setitem(plugins.BUILT_IN["captioners"], "counting", f"{__name__}:Counting")


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


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("a lake", "sks, a lake"), ("", "sks"), ("sks", "sks"), ("sks, a lake", "sks, a lake"),
        ("SKS, a lake", "SKS, a lake"), ("sks man", "sks man"), ("sksy", "sks, sksy"),
    ],
)  # fmt: skip
def test_adding_a_trigger(text: str, result: str) -> None:
    assert with_trigger(text, "sks") == result
    assert with_trigger(result, "sks") == result


@pytest.mark.parametrize(
    ("text", "result"),
    [("sks, a lake", "a lake"), ("sks", ""), ("sks man", "sks man"), ("a sks, b", "a sks, b"), ("sksy, b", "sksy, b")],
)
def test_taking_a_trigger_out(text: str, result: str) -> None:
    assert without_trigger(text, "sks") == result


def test_a_trigger_that_is_no_word_is_refused(context: Context, dataset: DatasetFolder) -> None:
    with pytest.raises(InvalidInput):
        caption(context, trigger="(sks:1.3)")


def test_who_captions_when_nobody_is_named(dataset: DatasetFolder) -> None:
    pytest.importorskip("torch")
    assert caption(Context.open(None, {}, Recorder())).captioner == "builtin"
    assert caption(Context.open(None, {"base_model": "builtin"}, Recorder())).captioner == "builtin"
    for settings in ({"base_model": "owner/model"}, {"recipe": "sd15"}):
        with pytest.raises(InvalidInput, match="no captioner is chosen") as raised:
            caption(Context.open(None, settings, Recorder()))
        assert "template" in str(raised.value.hint)


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
