"""`dreamctl --help` answers at once: it imports nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "pydantic",
    "pydantic_settings",
    "httpx",
    "rich",
    "torch",
    "diffusers",
    "transformers",
    "PIL",
    "numpy",
    "boto3",
    "rembg",
}


TYPERS_OWN = {"pydantic"}  # Typer reads the parameters of a command with it


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (["--help"], set()),
        (["--version"], set()),
        (["train", "--help"], TYPERS_OWN),
        (["config", "--help"], TYPERS_OWN),
    ],
)
def test_help_imports_nothing_heavy(words: list[str], allowed: set[str]) -> None:
    program = (
        "import json, sys\nfrom dreamctl.cli.app import main\n"
        f"code = main({words!r})\n"
        "print(json.dumps([code, sorted({name.split('.')[0] for name in sys.modules})]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    assert not (HEAVY - allowed) & set(modules)
    assert "dreamctl" in done.stdout
