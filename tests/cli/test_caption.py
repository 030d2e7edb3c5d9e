"""`dreamctl caption` as people call it."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dreamctl.cli.app import main
from dreamctl.datasetfolder import DatasetFolder
from tests.fakes import write_dataset


@pytest.fixture
def dataset(user: Path) -> DatasetFolder:
    folder = write_dataset(user / "processed", count=2)
    folder.write_caption("00.jpg", "")
    return folder


def test_the_screen(dataset: DatasetFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["caption", "--captioner", "template", "--prefix", "indoors", "--trigger", "sks"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "picture  caption",
        "00.jpg   sks, indoors       written",
        "01.jpg   sks, on a beach 1  written",
        f"{dataset.path}: 2 written (captioner template, trigger 'sks')",
        "statistics",
        "words a caption  1 to 4, median 2.5",
        "next: dreamctl train",
    ]
    assert err == ""


def test_json_and_quiet(dataset: DatasetFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["caption", "processed", "--captioner", "none", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["captions"] == {"00.jpg": "", "01.jpg": "on a beach 1"}
    assert (value["written"], value["kept"], value["trigger"]) == ([], ["01.jpg"], None)
    assert (value["captioner"], value["next"], len(value["digest"])) == ("none", "dreamctl train", 64)
    assert value["statistics"] == {
        "count": 2, "words": {"min": 4, "median": 4, "max": 4}, "empty": ["00.jpg"], "without_trigger": [],
        "repeated": [], "duplicates": [],
    }  # fmt: skip
    assert value["before"] is None
    assert main(["caption", "--captioner", "none", "-q"]) == 0
    assert capsys.readouterr().out == f"{dataset.path}\n"


def test_what_is_worth_a_look_is_told(dataset: DatasetFolder, capsys: pytest.CaptureFixture[str]) -> None:
    dataset.write_caption("00.jpg", "On a beach 1")
    assert main(["caption", "--captioner", "template", "--template", "the same for all", "--overwrite"]) == 0
    assert capsys.readouterr().out.splitlines()[-6:] == [
        "statistics",
        "words a caption   4 to 4, median 4",
        "the same caption  00.jpg = 01.jpg",
        "in most captions  'the same for all' in 2 of 2",
        f"the captions before are kept in {dataset.path / 'captions.before.json'}",
        "next: dreamctl train",
    ]


def test_edit(
    dataset: DatasetFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "editor.py"
    program.write_text("import sys\nprint('edited')\nopen(sys.argv[1], 'a').write('and a cloud\\n')\n")
    monkeypatch.setenv("VISUAL", f"{sys.executable} {program}")
    assert main(["caption", "--edit", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["captioner"], value["written"]) == (None, ["01.jpg"])
    assert value["captions"]["01.jpg"] == "on a beach 1\nand a cloud"


# kills


@pytest.fixture
def heap(tmp_path: Path) -> Path:
    """Forty pictures whose files have names to caption them by; every third has a caption already."""
    folder = write_dataset(tmp_path / "heap", count=40, size=16)
    for number in range(40):
        folder.write_caption(f"{number:02}.jpg", f"mine {number}" if number % 3 == 0 else "")
    return folder.path


CAPTION = ["caption", "--captioner", "template", "--template", "picture {stem}", "--trigger", "sks", "-q"]


def kills(heap: Path, folder: Path, count: int, *words: str) -> None:
    """Kill the command at random moments; the next run ends with the captions of an undisturbed one."""
    undisturbed = DatasetFolder(shutil.copytree(heap, folder / "undisturbed"))
    started = time.monotonic()
    assert run(undisturbed, *words).wait() == 0
    seconds = time.monotonic() - started
    chance = random.Random(2026)
    for turn in range(count):
        dataset = DatasetFolder(shutil.copytree(heap, folder / str(turn)))
        child = run(dataset, *words)
        # Most of the time goes to starting Python: the moments lie where the captions are written.
        wait_for_first_change(dataset, child)
        time.sleep(seconds * chance.uniform(0, 0.3))
        child.kill()
        child.wait()
        assert run(dataset, *words).wait() == 0
        assert dataset.digests() == undisturbed.digests()
        assert dataset.manifest() == undisturbed.manifest()
        assert names(dataset) == names(undisturbed), "nothing is left behind"


def run(dataset: DatasetFolder, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dreamctl", *CAPTION, *words, str(dataset.path)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_first_change(dataset: DatasetFolder, child: subprocess.Popen[bytes]) -> None:
    before = dataset.captions()
    while child.poll() is None and dataset.captions() == before:
        time.sleep(0.001)


def names(dataset: DatasetFolder) -> set[str]:
    return {path.name for path in dataset.path.iterdir()}


@pytest.mark.parametrize("words", [(), ("--overwrite",)])
def test_after_kill_9_the_next_run_ends_as_an_undisturbed_one(heap: Path, tmp_path: Path, words: tuple[str]) -> None:
    kills(heap, tmp_path, 3, *words)


@pytest.mark.soak
def test_after_fifty_kills(heap: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    kills(heap, tmp_path / "a", 25)
    kills(heap, tmp_path / "b", 25, "--overwrite")


def test_two_at_once_follow_each_other(heap: Path) -> None:
    pair = [run(DatasetFolder(heap)) for _ in range(2)]
    assert [child.wait() for child in pair] == [0, 0]
    assert DatasetFolder(heap).captions()["01.jpg"] == "sks, picture 01"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["gone"], 3, "no dataset at"),
        (["--captioner", "tmplate"], 3, "did you mean 'template'?"),
        (["--trigger", "(x:1)"], 2, "'(x:1)'"),
        (["--captioner", "template", "--model", "x"], 2, "'template' does not take --model"),
        (["--captioner", "template", "--template", "{x}"], 2, "fields: {stem} {words} {folder}"),
        (["--captioner", "florence2", "--task", "long"], 2, "--task 'long' is not known"),
        (["--captioner", "openai", "--caption-endpoint", "http://models.example/v1"], 2, "must be an https:// URL"),
        (["--captioner", "openai", "--caption-endpoint", "https://models.example"], 2, "may charge money"),
        (["--captioner", "wd14", "--threshold", "2"], 2, "--threshold"),
        (["--edit", "--overwrite", "--model", "x"], 2, "--edit and --overwrite, --model exclude each other"),
        (["--edit"], 2, "no terminal to open an editor on"),
    ],
)
def test_errors(
    dataset: DatasetFolder,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    says: str,
) -> None:
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.delenv("VISUAL", raising=False)
    assert main(["caption", *words]) == code
    out, err = capsys.readouterr()
    assert out == "" and says in err and "Traceback" not in err
