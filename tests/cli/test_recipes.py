"""`dreamctl recipes`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from dreamctl import recipes
from dreamctl.cli.app import main

Capture = pytest.CaptureFixture[str]


def test_list_names_every_recipe_and_for_whom_it_is(capsys: Capture) -> None:
    assert main(["recipes", "list"]) == 0
    text = capsys.readouterr().out
    assert all(recipes.purpose(recipes.find(name)) in text for name in recipes.names())
    assert main(["recipes", "list", "-q"]) == 0
    assert capsys.readouterr().out.split() == recipes.names()
    assert main(["recipes", "list", "--json"]) == 0
    assert {row["name"] for row in json.loads(capsys.readouterr().out)["recipes"]} == set(recipes.names())


@pytest.mark.parametrize("name", recipes.names())
def test_show_prints_a_complete_recipe_that_can_be_used(name: str, user: Path, capsys: Capture) -> None:
    assert main(["recipes", "show", name]) == 0
    text = capsys.readouterr().out
    assert "extends" not in tomllib.loads(text)
    (user / "complete.toml").write_text(text)
    assert recipes.resolve("complete.toml") == recipes.resolve(name)


def test_copy_keeps_the_comments_and_overwrites_nothing(user: Path, capsys: Capture) -> None:
    assert main(["recipes", "copy", "sd15-style", "mine.toml"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "wrote mine.toml\n"
    assert "train --recipe mine.toml" in printed.err
    assert (user / "mine.toml").read_bytes() == recipes.find("sd15-style").read_bytes()
    assert recipes.resolve("mine.toml") == recipes.resolve("sd15-style")
    (user / "mine.toml").write_text("# mine\n")
    assert main(["recipes", "copy", "sd15", "mine.toml"]) == 2
    assert (user / "mine.toml").read_text() == "# mine\n"


def test_copy_into_a_folder_keeps_the_name(user: Path) -> None:
    assert main(["recipes", "copy", "sd15", "."]) == 0
    assert (user / "sd15.toml").is_file()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["show", "sd51"], 3, "did you mean 'sd15'?"),
        (["copy", "sd51", "x.toml"], 3, "did you mean 'sd15'?"),
        (["copy", "sd15", "x"], 2, "a recipe file ends in .toml"),
        (["copy", "sd15", "dreamctl.toml/x.toml"], 1, "dreamctl.toml is a file, not a folder"),
    ],
)
def test_mistakes(words: list[str], code: int, said: str, user: Path, capsys: Capture) -> None:
    (user / "dreamctl.toml").write_text("")
    assert main(["recipes", *words]) == code
    assert said in capsys.readouterr().err
