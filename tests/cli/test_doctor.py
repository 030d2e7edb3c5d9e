"""`dreamctl doctor`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamctl.cli.app import main

Capture = pytest.CaptureFixture[str]


def test_the_doctor_answers_people_and_programs(user: Path, capsys: Capture) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "training here" in text and "disk, this project" in text
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"local_training", "device", "checks"} <= set(report)
    assert all(set(check) == {"name", "state", "value", "advice", "data"} for check in report["checks"])
    assert main(["doctor", "-q"]) == 0
    wrong = [check["name"] for check in report["checks"] if check["state"] != "ok"]
    assert capsys.readouterr().out.splitlines() == wrong


def test_broken_settings_do_not_keep_the_doctor_away(user: Path, capsys: Capture) -> None:
    (user / "dreamctl.toml").write_text("bakend = 1\n")
    assert main(["doctor"]) == 0
    assert "unknown setting 'bakend' (did you mean 'backend'?)" in capsys.readouterr().out
