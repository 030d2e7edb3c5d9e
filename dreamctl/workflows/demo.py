"""The main job on the built-in model: five photographs, and the very commands that a user would type."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from dreamctl import paths
from dreamctl.errors import DreamctlError

COMMANDS = (
    ("dreamctl", "prepare", "original"),
    ("dreamctl", "caption"),
    ("dreamctl", "train", "--identifier", "sks", "--category", "person"),
    ("dreamctl", "generate", "a photo of sks person, on a beach", "-n", "4", "--seed", "1", "--grid"),
    ("dreamctl", "generate", "a photo of sks person, at night", "-n", "4", "--seed", "1", "--grid"),
    ("dreamctl", "identifiers"),
)


@dataclass(frozen=True)
class Demo:
    """What the demo made, and how long each command took in seconds."""

    folder: Path
    seconds: list[tuple[str, float]]
    grids: list[Path]


def demo(folder: Path, say: Callable[[str], None], results_to_stderr: bool) -> Demo:
    """Run the demo in `folder`, with a registry of its own. Raises DreamctlError when a command fails."""
    from dreamctl.builtin.photographs import write_photographs

    folder = folder.absolute()
    write_photographs(folder / "original")
    project_file = folder / paths.PROJECT_FILE
    if not project_file.exists():
        project_file.write_text('# The demo trains on the small model in the box.\nbase_model = "builtin"\n')
    home = folder / "home"
    say(f"$ cd {shlex.quote(str(folder))}\n$ export DREAMCTL_HOME={shlex.quote(str(home))}")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DREAMCTL_")}
    environment |= {"DREAMCTL_HOME": str(home), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    seconds = []
    for words in COMMANDS:
        line = shlex.join(words)
        say(f"\n$ {line}")
        start = time.monotonic()
        code = _run([sys.executable, "-m", *words], folder, environment, sys.stderr if results_to_stderr else None)
        if code:
            raise DreamctlError(f"`{line}` ended with exit code {code}", hint=f"the demo's files are in {folder}")
        seconds.append((line, round(time.monotonic() - start, 1)))
    grids = sorted((folder / paths.PICTURES_FOLDER).glob("grid-*.png"), key=lambda path: path.stat().st_mtime)
    return Demo(folder, seconds, grids[-2:])


def _run(command: list[str], folder: Path, environment: dict[str, str], out: TextIO | None) -> int:
    """Run one command to its end; a signal is passed on, so that the command can end as it does alone."""
    child = subprocess.Popen(command, cwd=folder, env=environment, stdout=out)
    try:
        return child.wait()
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise
