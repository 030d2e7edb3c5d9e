"""`dreamctl upload` as people call it: one URL on stdout, all else on stderr."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from dreamctl.cli.app import main
from dreamctl.files import sha256_file
from tests.fakes import write_dataset


@pytest.fixture
def to(user: Path, tmp_path: Path) -> str:
    write_dataset(user / "processed", count=2)
    return (tmp_path / "bucket").as_uri()


def test_the_screen(to: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upload", "--to", to]) == 0
    out, err = capsys.readouterr()
    file = Path(unquote(urlsplit(out.strip()).path))
    assert out.count("\n") == 1 and file.is_file()
    assert f"uploaded: {file.stat().st_size} bytes, sha256 {sha256_file(file)}" in err
    assert main(["upload", "--to", to]) == 0
    again, err = capsys.readouterr()
    assert again == out and "already there" in err


def test_json_and_quiet(to: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upload", "--to", to, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["url"].startswith(to) and value["key"].startswith("datasets/")
    assert (value["already_there"], len(value["sha256"]), value["bytes"] > 0) == (False, 64, True)
    assert main(["upload", "--to", to, "-q"]) == 0
    assert capsys.readouterr() == (f"{value['url']}\n", "")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "no storage is configured"),
        (["--to", "gopher://x"], 3, "gopher"),
        (["--to", "file://x/y"], 2, "does not name a folder"),
        (["gone", "--to", "file:///tmp/x"], 3, "gone does not exist"),
    ],
)
def test_errors(to: str, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str) -> None:
    assert main(["upload", *words]) == code
    out, err = capsys.readouterr()
    assert out == "" and says in err and "Traceback" not in err
