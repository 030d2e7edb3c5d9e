"""`dreamctl caption` as people call it."""

from __future__ import annotations

import json
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
        f"{dataset.path}: 2 written, 0 kept (captioner template, trigger 'sks')",
        "next: dreamctl train",
    ]
    assert err == ""


def test_json_and_quiet(dataset: DatasetFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["caption", "processed", "--captioner", "none", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["captions"] == {"00.jpg": "", "01.jpg": "on a beach 1"}
    assert (value["written"], value["kept"], value["trigger"]) == ([], ["00.jpg", "01.jpg"], None)
    assert (value["captioner"], value["next"], len(value["digest"])) == ("none", "dreamctl train", 64)
    assert main(["caption", "--captioner", "none", "-q"]) == 0
    assert capsys.readouterr().out == f"{dataset.path}\n"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["gone"], 3, "no dataset at"),
        (["--captioner", "tmplate"], 3, "did you mean 'template'?"),
        (["--trigger", "(x:1)"], 2, "'(x:1)'"),
    ],
)
def test_errors(
    dataset: DatasetFolder, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    assert main(["caption", *words]) == code
    out, err = capsys.readouterr()
    assert out == "" and says in err and "Traceback" not in err
