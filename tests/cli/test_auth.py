"""`dreamctl auth`: a token goes in through a pipe or unseen through a terminal, and never comes out."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dreamctl import paths

TOKEN = "hf_GEHEIMgeheim1234"


@pytest.fixture(autouse=True)
def nobodys_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the keyring nor a token of the person who runs the tests."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)


def dreamctl(*words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """The real program, with `given` on standard input."""
    command = [sys.executable, "-m", "dreamctl", *words]
    return subprocess.run(command, input=given or "", capture_output=True, text=True, timeout=60, check=False)


def test_in_through_a_pipe_seen_by_its_place_and_out_again() -> None:
    stored = dreamctl("auth", "login", "huggingface", "--token-stdin", "--no-check", given=TOKEN + "\n")
    assert (stored.returncode, stored.stdout) == (0, f"stored the huggingface token in {paths.credentials_file()}\n")
    assert "not checked" in stored.stderr
    status = dreamctl("auth", "status", "--json")
    providers = json.loads(status.stdout)["providers"]
    assert providers["huggingface"]["origin"] == str(paths.credentials_file())
    assert providers["runpod"]["origin"] is None
    gone = dreamctl("auth", "logout", "huggingface")
    assert gone.stdout == f"removed the huggingface token from {paths.credentials_file()}\n"
    assert dreamctl("auth", "logout", "huggingface").stdout == "no huggingface token was stored\n"
    for done in (stored, status, gone):
        assert "GEHEIM" not in done.stdout + done.stderr


def test_the_whole_status_is_a_table_on_stdout(user: Path) -> None:
    (user / ".env").write_text("RUNPOD_API_KEY=rpa_GEHEIM12345\n")
    done = dreamctl("auth", "status")
    assert f"RUNPOD_API_KEY in {user / '.env'}" in done.stdout
    assert "none; get one at https://replicate.com/" in done.stdout
    assert "GEHEIM" not in done.stdout
    assert dreamctl("auth", "status", "-q").stdout == "runpod\n"


def test_off_a_terminal_it_asks_nobody() -> None:
    done = dreamctl("auth", "login", "huggingface", given=TOKEN)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--token-stdin" in done.stderr


@pytest.mark.parametrize("given", ["", "\n", "two words\n"])
def test_what_is_no_token_is_refused(given: str) -> None:
    done = dreamctl("auth", "login", "huggingface", "--token-stdin", "--no-check", given=given)
    assert done.returncode == 2
    assert not paths.credentials_file().exists()


def test_a_token_on_the_line_is_not_taken() -> None:
    done = dreamctl("auth", "login", "huggingface", TOKEN)
    assert done.returncode == 2
    assert not paths.credentials_file().exists()


def test_an_unknown_provider_is_answered_with_the_nearest() -> None:
    done = dreamctl("auth", "login", "replicat", "--token-stdin", given=TOKEN)
    assert done.returncode == 2
    assert "did you mean 'replicate'?" in done.stderr


def test_a_provider_that_cannot_be_reached_stores_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLICATE_BASE_URL", "http://127.0.0.1:9")
    done = dreamctl("auth", "login", "replicate", "--token-stdin", given="r8_GEHEIM12345\n")
    assert done.returncode == 5
    assert "cannot reach 127.0.0.1" in done.stderr
    assert "GEHEIM" not in done.stderr
    assert not paths.credentials_file().exists()


def test_on_a_terminal_the_token_is_typed_unseen() -> None:
    mine, its = pty.openpty()
    command = [sys.executable, "-m", "dreamctl", "auth", "login", "huggingface", "--no-check"]
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, start_new_session=True) as process:
        os.close(its)
        screen = read_until(mine, "not shown): ")
        time.sleep(0.2)  # getpass turns the echo off, then asks
        os.write(mine, f"{TOKEN}\n".encode())
        screen += read_until(mine, None)
        assert process.wait(60) == 0
    os.close(mine)
    assert "stored the huggingface token" in screen
    assert "GEHEIM" not in screen
    assert TOKEN in paths.credentials_file().read_text()


def read_until(descriptor: int, wanted: str | None) -> str:
    """What a terminal shows until `wanted` stands there, or until the program ends."""
    screen, deadline = "", time.monotonic() + 60
    while time.monotonic() < deadline and (wanted is None or wanted not in screen):
        if select.select([descriptor], [], [], 0.2)[0]:
            try:
                piece = os.read(descriptor, 4096)
            except OSError:  # the other end is closed
                break
            screen += piece.decode(errors="replace")
    return screen
