"""The command line's contract: exit codes, one sentence an error, results on stdout, all else on stderr."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dreamctl.cli.app import main
from dreamctl.domain.recipe import Base, Recipe
from dreamctl.paths import registry_file, runs_dir
from tests.fakes import finish, write_dataset, write_run

EIGHT = ("prepare", "upload", "caption", "config", "train", "status", "generate", "identifiers")


def dreamctl(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dreamctl", *words], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_the_eight_commands_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n  {name} " in listed for name in EIGHT)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dreamctl 0.")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["trian"], 2, "trian"),
        (["train", "--stepz", "3"], 2, "--stepz"),
        (["status", "nonsense"], 3, "no run 'nonsense'"),
        (["status", "--json", "-q"], 2, "--json and --quiet exclude each other"),
        (["train"], 3, "no dataset at"),
        (["train", "/nowhere"], 3, "no dataset at /nowhere"),
        (["train", "--kind", "stile"], 2, "--kind 'stile' is not known"),
        (["generate", "a cat", "--size", "100"], 2, "--size '100' is not a size"),
        (["generate", "a photo of zwx person"], 3, "no identifier 'zwx' that has been taught"),
        (["generate", "a photo", "--target", "private"], 3, "no identifier in the prompt that has been taught"),
        (["generate", "  "], 2, "the prompt is empty"),
        (["rm", "sks@1"], 3, "no model version of 'sks'"),
        (["cancel", "last"], 3, "there is no run yet"),
    ],
)
def test_an_error_is_one_sentence_with_its_code(
    words: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    told = capsys.readouterr()
    assert told.err.startswith("error: ")
    assert says in told.err
    assert "Traceback" not in told.err
    if "--json" not in words:
        assert told.out == ""


def test_with_json_an_error_is_one_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "nonsense", "--json"]) == 3
    told = capsys.readouterr()
    value = json.loads(told.out)
    assert value["schema"] == 1
    assert value["error"]["code"] == "not_found"
    assert value["error"]["message"] == "no run 'nonsense'"
    assert set(value["error"]) == {"code", "message", "field", "hint"}


def test_a_usage_error_with_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--json", "--stepz", "3"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "invalid"


@pytest.mark.parametrize("command", ["status", "identifiers"])
def test_an_empty_list_is_a_result(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command]) == 0
    assert "dreamctl train" in capsys.readouterr().out
    assert main([command, "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out).values())[1] == []
    assert main([command, "-q"]) == 0
    assert capsys.readouterr().out == ""


def test_a_misspelt_setting_names_the_nearest(user: Path) -> None:
    (user / "dreamctl.toml").write_text('bakend = "local"\n')
    done = dreamctl("status")
    assert done.returncode == 2
    assert "unknown setting 'bakend'" in done.stderr
    assert "'backend'" in done.stderr


def test_a_damaged_registry_is_one_sentence_and_code_1() -> None:
    registry_file().parent.mkdir(parents=True)
    registry_file().write_bytes(b"this is no database " * 100)
    done = dreamctl("identifiers")
    assert done.returncode == 1
    assert "is damaged" in done.stderr
    assert "move it away" in done.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = f"{sys.executable} -m dreamctl config explain | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", code], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode == 0


def test_debug_shows_the_traceback() -> None:
    assert "Traceback" in dreamctl("status", "x", "--debug").stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_with_their_codes(user: Path, number: signal.Signals, code: int) -> None:
    write_dataset(user / "processed")
    waiting = subprocess.Popen(
        [sys.executable, "-c", "import time, dreamctl.cli.app as app\n"
         "app.build_app = lambda: lambda **words: (print('ready', flush=True), time.sleep(60))\n"
         "raise SystemExit(app.main([]))"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )  # fmt: skip
    assert waiting.stdout is not None
    waiting.stdout.readline()
    time.sleep(0.05)
    waiting.send_signal(number)
    _, told = waiting.communicate(timeout=20)
    assert waiting.returncode == code
    assert told.startswith("error: ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(shell: str) -> None:
    asked = {
        "_DREAMCTL_COMPLETE": f"complete_{shell}", "COMP_WORDS": "dreamctl tr", "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "dreamctl tr", "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }  # fmt: skip
    program = "import sys; sys.argv = ['dreamctl']; from dreamctl.cli.app import main; raise SystemExit(main())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **asked})
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout
    assert "status" not in done.stdout


def test_exit_status_and_json_are_one_document() -> None:
    run = write_run(runs_dir(), write_dataset(Path("data")), Recipe(base=Base(source="builtin")))
    done = dreamctl("status", run.id, "--exit-status", "--json")
    assert done.returncode == 6
    assert json.loads(done.stdout)["state"] == "created"
    assert "is created" in done.stderr
    finish(run)
    assert dreamctl("status", run.id, "--exit-status", "--json").returncode == 0


@pytest.mark.parametrize("words", [["identifiers", "--json"], ["identifiers"], ["status", "nope", "--json"]])
def test_a_full_standard_output_is_told_on_stderr(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dreamctl", *words], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode in (1, 3)
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_a_name_that_the_terminal_cannot_show_is_escaped() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dreamctl", "train", b"/x\xff", "--json"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
    )
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["code"] == "not_found"


def test_logs_are_followed_to_the_end_of_the_run(user: Path) -> None:
    run = write_run(runs_dir(), write_dataset(user / "data"), Recipe(base=Base(source="builtin")))
    assert dreamctl("logs", "last").stdout == "the log is empty\n"
    run.log_file.write_text("".join(f"line {number}\n" for number in range(20000)))
    assert dreamctl("logs", "last", "-n", "15000", "-q").stdout.splitlines()[0] == "line 5000"
    assert dreamctl("logs", "last", "-n", "2", "--follow").stdout == "line 19998\nline 19999\n"
