"""`dreamctl config` as a user meets it: what stands on stdout, what on stderr, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamctl import paths
from dreamctl.cli.app import main
from dreamctl.settings import KEYS

Capture = pytest.CaptureFixture[str]


def test_init_then_set_then_show(user: Path, capsys: Capture) -> None:
    assert main(["config", "init"]) == 0
    assert capsys.readouterr().out == f"wrote {user / 'dreamctl.toml'}\n"
    assert main(["config", "set", "--project", "base_model", "builtin"]) == 0
    assert capsys.readouterr().out == "base_model = builtin (dreamctl.toml)\n"
    assert main(["config", "set", "processes", "2"]) == 0
    assert main(["config", "show", "--json"]) == 0
    printed = capsys.readouterr().out
    settings = json.loads(printed[printed.index("{") :])["settings"]
    assert tuple(settings) == KEYS
    assert settings["base_model"] == {"value": "builtin", "origin": "dreamctl.toml"}
    assert settings["processes"] == {"value": 2, "origin": f"profile 'default' in {paths.user_file()}"}
    assert settings["max_cost"] == {"value": None, "origin": "default"}


def test_init_twice_is_refused(user: Path, capsys: Capture) -> None:
    assert main(["config", "init"]) == 0
    assert main(["config", "init"]) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_subfolder_belongs_to_the_project(user: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    (user / "dreamctl.toml").write_text('dataset = "mine"\n')
    (user / "deep").mkdir()
    monkeypatch.chdir(user / "deep")
    assert main(["config", "show", "-q"]) == 0
    assert "dataset=mine\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        (["set", "prosesses", "2"], "unknown setting 'prosesses'", "did you mean 'processes'?"),
        (["set", "processes", "two"], "processes = 'two'", "`dreamctl config explain processes` says what it may be"),
        (["set", "--project", "max_cost", "5"], "may not be set by a project", "nothing was written"),
        (["set", "--project", "--profile", "x", "processes", "2"], "exclude each other", "leave one of them out"),
        (["explain", "max_cots"], "no setting and no recipe knob 'max_cots'", "did you mean 'max_cost'?"),
        (["show", "--profile", "work"], "no profile named 'work'", "known: local"),
    ],
)
def test_a_mistake_is_one_sentence_with_a_way_out(words: list[str], said: str, hint: str, capsys: Capture) -> None:
    assert main(["config", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err.splitlines()[0]
    assert printed.err.splitlines()[1].strip() == hint


def test_with_json_a_mistake_is_one_document(capsys: Capture) -> None:
    assert main(["config", "set", "prosesses", "2", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["field"], error["hint"]) == ("invalid", "prosesses", "did you mean 'processes'?")


def test_a_wrong_variable_stops_every_command_that_reads_settings(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMCTL_PROSESSES", "2")
    assert main(["config", "show"]) == 2
    assert "DREAMCTL_PROSESSES (did you mean 'DREAMCTL_PROCESSES'?)" in capsys.readouterr().err


def test_set_warns_of_what_stands_above(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMCTL_PROCESSES", "8")
    assert main(["config", "set", "processes", "2"]) == 0
    assert "warning: DREAMCTL_PROCESSES stands above it here" in capsys.readouterr().err


def test_profiles_and_path(user: Path, capsys: Capture) -> None:
    assert main(["config", "profiles", "-q"]) == 0
    assert capsys.readouterr().out == "local\n"
    assert main(["config", "profiles", "--profile", "local"]) == 0
    assert "yes (--profile)" in capsys.readouterr().out
    assert main(["config", "path", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["project_file"] == str(user / "dreamctl.toml")


def test_explain_one_and_all(capsys: Capture) -> None:
    assert main(["config", "explain", "training.precision"]) == 0
    text = capsys.readouterr().out
    assert "fp32, bf16, fp16" in text and "--set training.precision=VALUE" in text
    assert main(["config", "explain", "--json"]) == 0
    keys = {knob["key"] for knob in json.loads(capsys.readouterr().out)["keys"]}
    assert keys >= {*KEYS, "training.steps", "method.rank"}


def test_validate_prints_every_problem_on_stdout_and_exits_2(user: Path, capsys: Capture) -> None:
    (user / "mine.toml").write_text('extends = "builtin"\n[training]\nstep = 1\nbatch_size = 0\n')
    (user / "dreamctl.toml").write_text("processes = 1\n")
    assert main(["config", "validate", "mine.toml", "dreamctl.toml"]) == 2
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "dreamctl.toml: a valid project file",
        "mine.toml: training.batch_size = 0: Input should be greater than 0",
        "mine.toml: unknown key 'training.step' (did you mean 'steps'?)",
    ]
    assert main(["config", "validate", "mine.toml", "dreamctl.toml", "--json"]) == 2
    said = json.loads(capsys.readouterr().out)
    assert (said["valid"], [len(file["problems"]) for file in said["files"]]) == (False, [2, 0])
    assert main(["config", "validate", "-q", "mine.toml", "dreamctl.toml"]) == 2
    assert capsys.readouterr().out == "mine.toml\n"
    assert main(["config", "validate", "dreamctl.toml"]) == 0


def test_validate_of_a_file_that_is_not_there_is_not_found(capsys: Capture) -> None:
    assert main(["config", "validate", "nowhere.toml"]) == 3
    assert "nowhere.toml does not exist" in capsys.readouterr().err
