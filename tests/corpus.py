"""Pillow's own test pictures, as its source distribution holds them: `python -m tests.corpus` fetches them once.

pip takes the pinned version from its index and compares the file with the hash that the index tells. 47 MB.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "configs" / "constraints.txt"
VERSION = re.findall(r"^pillow==(\S+)$", CONSTRAINTS.read_text(), re.MULTILINE)[0]
IMAGES = ROOT / "build" / "corpus" / f"pillow-{VERSION}" / "images"


def fetch() -> None:
    """Make `IMAGES`, all at once."""
    if IMAGES.is_dir():
        return
    IMAGES.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=IMAGES.parent) as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "--no-deps", "--no-binary", "pillow", "--dest", scratch, "pillow"],
            env={**os.environ, "PIP_CONSTRAINT": str(CONSTRAINTS)},  # what it is built with is pinned too
            check=True,
        )
        (archive,) = Path(scratch).glob("*.tar.gz")
        inside = f"pillow-{VERSION}/Tests/images"
        with tarfile.open(archive) as opened:
            wanted = [member for member in opened if member.name.startswith(f"{inside}/")]
            opened.extractall(scratch, wanted, filter="data")
        os.replace(Path(scratch) / inside, IMAGES)


if __name__ == "__main__":
    fetch()
