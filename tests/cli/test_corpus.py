"""Pillow's own thousand test pictures, many of them broken on purpose: each is prepared, or has one clear reason."""

from __future__ import annotations

import builtins
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamctl.files import sha256_file
from dreamctl.sources import COMPANIONS
from tests.corpus import IMAGES

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not IMAGES.is_dir(), reason="`make corpus` fetches Pillow's test pictures"),
    pytest.mark.skipif(sys.platform == "win32", reason="needs wait4"),
]

SIZE = 256
MOST_SECONDS, MOST_BYTES = 240, 1 << 30
# What only Pillow's developers would understand.
JARGON = re.compile(
    r"Traceback|cannot identify|<_io|0x[0-9a-f]{4}|\bPIL\b|Pillow|libtiff|decoder|\.py\b|error|exception", re.IGNORECASE
)


@dataclass(frozen=True)
class Done:
    """What a run came to; `peak`: the most bytes that any one of its processes held."""

    code: int
    report: dict[str, Any]
    stderr: str
    peak: int


def prepare(folder: Path, *options: str) -> Done:
    """`dreamctl prepare` on the corpus as a person calls it, in `folder`; killed when it takes too long."""
    command = [sys.executable, "-m", "dreamctl", "prepare", str(IMAGES), "--recursive", "--json", "--size", str(SIZE)]
    out, err = folder / "stdout", folder / "stderr"
    environment = {**os.environ, "DREAMCTL_HOME": str(folder / "home")}
    with out.open("wb") as stdout, err.open("wb") as stderr:
        child = subprocess.Popen([*command, *options], cwd=folder, env=environment, stdout=stdout, stderr=stderr)
        watch = threading.Timer(MOST_SECONDS, child.kill)
        watch.start()
        # Of the process and of the workers that it waited for; this process's own size counts too where it is larger,
        # since a child begins as a copy of it.
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        watch.cancel()
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Done(child.returncode, json.loads(out.read_bytes()), err.read_text(), peak)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(scope="module")
def done(folder: Path) -> Done:
    return prepare(folder)


def meant() -> set[str]:
    """The files that somebody could mean as pictures."""
    found = set()
    for place, folders, files in os.walk(IMAGES):
        assert not any(name.startswith(".") for name in folders)
        inside = Path(place).relative_to(IMAGES.parent)
        found |= {(inside / name).as_posix() for name in files if Path(name).suffix.lower() not in COMPANIONS}
    return {name for name in found if not Path(name).name.startswith(".")}


def test_every_file_is_one_picture_or_has_one_reason(done: Done) -> None:
    assert done.code == 0, done.stderr[-2000:]
    ends = Counter(item["source"] for key in ("pictures", "skipped") for item in done.report[key])
    assert set(ends) == meant() and set(ends.values()) == {1}
    assert len(ends) > 1000 and len(done.report["pictures"]) > 600


def test_every_reason_is_a_sentence_for_people_with_advice(done: Done) -> None:
    classes = {name for name, value in vars(builtins).items() if isinstance(value, type) and name.endswith("Error")}
    said = {(item["reason"], item["advice"]) for item in done.report["skipped"]}
    said |= {(text, "-") for item in done.report["pictures"] for text in item.get("warnings", ())}
    for reason, advice in said:
        assert reason.strip() and advice.strip() and reason.isprintable()
        assert not JARGON.search(reason + advice) and not any(name in reason for name in classes), reason
    assert "Traceback" not in done.stderr


def test_no_process_takes_a_gibibyte(done: Done) -> None:
    assert done.peak < MOST_BYTES


def test_every_output_opens_and_is_what_the_manifest_tells(done: Done) -> None:
    for item in done.report["pictures"]:
        file = Path(done.report["dataset"]) / item["file"]
        assert sha256_file(file) == item["sha256"]
        with Image.open(file) as image:
            image.load()
            assert (image.size, image.mode, image.format) == ((SIZE, SIZE), "RGB", "JPEG")


def test_the_second_run_makes_nothing(done: Done, folder: Path) -> None:
    def times() -> dict[str, int]:
        made = [*(folder / "processed").rglob("*"), *folder.glob("*.png")]
        return {str(path): path.stat().st_mtime_ns for path in made if path.is_file()}

    before = times()
    again = prepare(folder)
    assert (again.code, again.report["made"], again.report["removed"]) == (0, [], [])
    assert sorted(again.report["kept"]) == sorted(done.report["made"])
    assert (again.report["digest"], again.report["skipped"]) == (done.report["digest"], done.report["skipped"])
    assert times() == before


def test_strict_fails_and_leaves_nothing(tmp_path: Path) -> None:
    strict = prepare(tmp_path, "--strict")
    assert strict.code == 1 and "cannot be used" in strict.report["error"]["message"]
    assert not list(tmp_path.glob("processed*"))
