"""All captions in one file: what an editor may do to it, and what is refused before anything is written."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dreamctl.context import Context
from dreamctl.datasetfolder import DatasetFolder
from dreamctl.errors import DreamctlError, InvalidInput
from dreamctl.workflows.captionedit import edit_captions, read_back, written
from tests.fakes import Recorder, write_dataset

NAMES = {"00.jpg": "", "01.jpg": ""}
Use = Callable[[str], None]


@pytest.fixture
def context() -> Context:
    return Context.open(None, {}, Recorder())


@pytest.fixture
def dataset(user: Path) -> DatasetFolder:
    folder = write_dataset(user / "processed", count=3, trigger="sks")
    for number in range(3):
        folder.write_caption(f"{number:02}.jpg", f"sks, on a beach {number}")
    return folder


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Use:
    """A real editor for once: a program whose lines see the file as `path` and its content as `text`."""
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)

    def use(lines: str) -> None:
        program = tmp_path / "an editor.py"
        head = "import sys\nfrom pathlib import Path\npath = Path(sys.argv[1])\ntext = path.read_text()\n"
        program.write_text(head + lines)
        monkeypatch.setenv("EDITOR", shlex.join([sys.executable, str(program)]))

    return use


def left(dataset: DatasetFolder) -> Path:
    return dataset.path / "captions-to-edit.txt"


def test_only_what_changed_is_written(context: Context, dataset: DatasetFolder, editor: Use) -> None:
    editor("path.write_text(text.replace('on a beach 1', 'in\\n  a forest  '))")
    times = {path: path.stat().st_mtime_ns for path in dataset.path.glob("*.txt")}
    report = edit_captions(context, None, terminal=False)
    assert dataset.captions()["01.jpg"] == "sks, in\n  a forest"
    assert [item.file for item in report.captions if item.written] == ["01.jpg"]
    assert (report.captioner, report.trigger, report.next) == (None, "sks", "dreamctl train")
    changed = {path.name for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert changed == {"01.txt"} and not left(dataset).exists()
    rows = json.loads((dataset.path / "captions.before.json").read_text())["captions"]
    assert rows == [{"file": "01.jpg", "caption": "on a beach 1"}] and report.before


def test_the_file_says_what_it_is_and_hides_the_trigger(dataset: DatasetFolder) -> None:
    text = written("/data", {"00.jpg": "on a beach", "01.jpg": ""}, "sks")
    assert text.startswith("# The captions of /data\n") and "'sks' is not shown" in text
    assert text.endswith("\n== 00.jpg ==\non a beach\n\n== 01.jpg ==\n")


def test_nothing_changed_nothing_written(context: Context, dataset: DatasetFolder, editor: Use) -> None:
    editor("")
    before = {path.name: path.read_bytes() for path in dataset.path.iterdir()}
    report = edit_captions(context, None, terminal=False)
    assert before == {path.name: path.read_bytes() for path in dataset.path.iterdir()}
    assert report.before is None and not any(item.written for item in report.captions)


def test_emptied_and_deleted_sections(context: Context, dataset: DatasetFolder, editor: Use) -> None:
    editor("path.write_text('== 02.jpg ==\\n\\n')")
    edit_captions(context, None, terminal=False)
    captions = dataset.captions()
    assert (captions["00.jpg"], captions["02.jpg"]) == ("sks, on a beach 0", "")


def test_a_mistake_keeps_the_file_and_the_next_edit_opens_it(
    context: Context, dataset: DatasetFolder, editor: Use
) -> None:
    before = dataset.captions()
    editor("path.write_text(text.replace('== 01.jpg', '== 01.jgp').replace('beach 0', 'lake'))")
    with pytest.raises(InvalidInput, match=r"captions-to-edit\.txt: line \d+: no picture is named '01\.jgp'") as raised:
        edit_captions(context, None, terminal=False)
    assert "did you mean '01.jpg'" in raised.value.message and dataset.captions() == before
    editor("path.write_text(text.replace('.jgp', '.jpg'))")
    edit_captions(context, None, terminal=False)
    assert dataset.captions() == {**before, "00.jpg": "sks, on a lake"} and not left(dataset).exists()


def test_a_left_file_whose_captions_have_changed_since_is_not_used(
    context: Context, dataset: DatasetFolder, editor: Use
) -> None:
    editor("path.write_text('a line too early')")
    left(dataset).write_text(written("x", {**NAMES, "02.jpg": "older"}))
    with pytest.raises(InvalidInput, match="the captions have changed since"):
        edit_captions(context, None, terminal=False)
    assert left(dataset).exists()


@pytest.mark.parametrize(("typed", "kept"), [("", False), ("path.write_text(text + 'more')\n", True)])
def test_an_editor_that_fails_changes_nothing(
    context: Context, dataset: DatasetFolder, editor: Use, typed: str, kept: bool
) -> None:
    before = dataset.captions()
    editor(f"{typed}sys.exit(3)")
    with pytest.raises(DreamctlError, match="ended with exit code 3: no caption was changed") as raised:
        edit_captions(context, None, terminal=False)
    assert dataset.captions() == before and left(dataset).exists() == kept
    assert ("opens it again" in str(raised.value.hint)) == kept


@pytest.mark.parametrize(
    ("lines", "says"),
    [("path.unlink()", "the editor left no"), ("path.write_bytes(b'\\xff\\xfe')", "is not UTF-8 text")],
)
def test_what_cannot_be_read_back(context: Context, dataset: DatasetFolder, editor: Use, lines: str, says: str) -> None:
    editor(lines)
    with pytest.raises(DreamctlError, match=says):
        edit_captions(context, None, terminal=False)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as at a terminal: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_in_the_editor_is_the_editors(context: Context, dataset: DatasetFolder, editor: Use) -> None:
    editor("import os, signal\nos.kill(os.getppid(), signal.SIGINT)\npath.write_text(text.replace('beach 1', 'lake'))")
    edit_captions(context, None, terminal=True)
    assert dataset.captions()["01.jpg"] == "sks, on a lake"
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_without_terminal_and_editor_nothing_is_opened(
    context: Context, dataset: DatasetFolder, editor: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput, match="there is no terminal to open an editor on") as raised:
        edit_captions(context, None, terminal=False)
    assert "EDITOR" in str(raised.value.hint)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InvalidInput, match="there is no editor to open"):
        edit_captions(context, None, terminal=True)
    monkeypatch.setenv("VISUAL", "no-such-editor --wait")
    with pytest.raises(InvalidInput, match="VISUAL = 'no-such-editor --wait': there is no such program"):
        edit_captions(context, None, terminal=True)
    monkeypatch.setenv("VISUAL", "vi '")
    with pytest.raises(InvalidInput, match="No closing quotation"):
        edit_captions(context, None, terminal=True)


# the format


@pytest.mark.parametrize(
    "text",
    [
        "==00.jpg==\na lake", "\ufeff# hello\r\n== 00.jpg ==\r\n  \r\na lake  \r\n", "=== 00.jpg\na lake\n\n\n",
        "# kept or not\n\n== 00.jpg ====\na lake",
    ],
)  # fmt: skip
def test_the_format_forgives(text: str) -> None:
    assert read_back(text, NAMES, "file") == {"00.jpg": "a lake"}


def test_every_mistake_is_named_at_once() -> None:
    text = "early\n== 00.jpg ==\na\n== 00.jpg ==\nb\n== 99.jpg ==\n"
    with pytest.raises(InvalidInput) as raised:
        read_back(text, NAMES, "file")
    message = raised.value.message
    assert "line 1: 'early' stands before the first picture" in message
    assert "line 4: 00.jpg stands at line 2 already" in message
    assert "line 6: no picture is named '99.jpg'" in message


lines = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])).map(str.strip)
texts = st.lists(st.one_of(lines, st.sampled_from(["== 00.jpg ==", "\\", "\\== x", "# no comment", "=="])), max_size=4)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # others compute too
@given(st.lists(texts.map(lambda parts: "\n".join(parts).strip()), min_size=2, max_size=2))
def test_what_is_written_is_read_back_whatever_it_is(captions: list[str]) -> None:
    wanted = dict(zip(NAMES, captions, strict=True))
    assert read_back(written("folder", wanted), NAMES, "file") == wanted
