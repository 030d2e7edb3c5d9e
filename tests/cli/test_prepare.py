"""`dreamctl prepare` as people call it: its screens, its errors, and what a kill leaves."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from dreamctl.cli.app import main
from dreamctl.files import sha256_file
from tests.pictures import noise

PREPARE = [sys.executable, "-m", "dreamctl", "prepare"]
AS_ROOT = sys.platform == "linux" and os.geteuid() == 0


@pytest.fixture
def original(user: Path) -> Path:
    folder = user / "original"
    folder.mkdir()
    for number in range(5):
        Image.new("RGB", (80, 60 + number), (number * 40, 90, 200)).save(folder / f"p{number}.png")
    return folder


def test_the_screen(original: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (original / "bad.jpg").write_text("<html>")
    assert main(["prepare", "original", "--size", "64", "--zip"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == ["picture", "source"]
    assert lines[1].split() == ["p0.jpg", "original/p0.png", "made"]
    assert lines[-4].endswith("processed: 5 pictures of 64×64 (5 made, 1 skipped)")
    assert lines[-2].endswith("processed.zip")
    assert lines[-1] == "next: dreamctl caption"
    assert err == ("warning: original/bad.jpg is a web page, not a picture: skipped (download the picture itself)\n")


def test_json_is_one_document(original: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (original / "bad.jpg").write_text("")
    assert main(["prepare", "original", "--size", "64", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["schema"] == 1 and value["size"] == 64 and value["zip"] is None
    assert value["made"] == [f"p{number}.jpg" for number in range(5)] and value["kept"] == []
    assert value["skipped"][0]["source"] == "original/bad.jpg"
    assert set(value["pictures"][0]) >= {"file", "sha256", "source", "source_sha256", "box", "mask", "warnings"}
    assert len(value["digest"]) == 64


def test_quiet_prints_the_folder(original: Path, user: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "original", "--out", "here", "-q"]) == 0
    assert capsys.readouterr().out == f"{user / 'here'}\n"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["gone"], 3, "gone does not exist"),
        (["empty"], 1, "empty holds no pictures"),
        (["original/bad.jpg"], 1, "no file can be used: bad.jpg is empty (0 bytes)"),
        (["original", "--strict"], 1, "1 file cannot be used: original/bad.jpg"),
        (["original", "--background", "blurple"], 2, "'blurple' is not a colour"),
        (["original", "--size", "7"], 2, "--size 7 is out of range"),
        (["original", "--out", "original"], 2, "is the source and the output folder"),
        (["original", "--out", "file"], 2, "file is not a folder"),
        ([], 2, "Missing argument"),
    ],
)
def test_errors_are_one_sentence_and_a_way_out(
    original: Path, user: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    (original / "bad.jpg").write_text("")
    (user / "empty").mkdir()
    (user / "file").write_text("")
    assert main(["prepare", *words]) == code
    out, err = capsys.readouterr()
    assert out == "" and says in err and "Traceback" not in err
    assert err.splitlines()[-1].startswith("  "), "a hint"
    assert not (user / "processed").exists()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of the system may enter; pytest's own are private."""
    folder = Path(tempfile.mkdtemp(prefix="dreamctl-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(not (AS_ROOT and shutil.which("setpriv")), reason="needs root and setpriv")
def test_an_unwritable_folder(original: Path, open_folder: Path) -> None:
    shutil.copytree(original, open_folder / "original")
    (open_folder / "home").mkdir()
    (open_folder / "home").chmod(0o777)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    environment = {**os.environ, "DREAMCTL_HOME": str(open_folder / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
    if subprocess.run(
        [*nobody, sys.executable, "-c", "import dreamctl"], env=environment, capture_output=True
    ).returncode:
        pytest.skip("nobody may not read this checkout")
    done = subprocess.run(
        [*nobody, *PREPARE, "original"], cwd=open_folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"error: cannot write into {open_folder / 'processed'}: permission denied\n"
        "  choose a folder that you may write to, or change its permissions\n"
    )


@pytest.mark.parametrize("count", [5, 40])
def test_a_full_disk(user: Path, small_disk: Path, capsys: pytest.CaptureFixture[str], count: int) -> None:
    original = user / "original"
    original.mkdir()
    for number in range(count):  # in this process, and in several
        noise(200, 200, 50, number).save(original / f"{number}.png")
    assert main(["prepare", "original", "--size", "256", "--out", str(small_disk / "data")]) == 1
    err = capsys.readouterr().err
    assert "no space left on device" in err and "free some space" in err
    assert list(small_disk.iterdir()) == []


# kills


@pytest.fixture(scope="module")
def heap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough pictures for several processes."""
    folder = tmp_path_factory.mktemp("heap") / "original"
    folder.mkdir()
    for number in range(9):
        noise(900, 700, 20, number).convert("RGB").save(folder / f"{number:02}.jpg", quality=90)
        (folder / f"{number:02}.txt").write_text(f"scene {number}")
    return folder


def snapshot(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def run(heap: Path, out: Path) -> float:
    start = time.monotonic()
    assert main(["prepare", str(heap), "--out", str(out), "--size", "256", "-q"]) == 0
    return time.monotonic() - start


def undisturbed(heap: Path, folder: Path) -> tuple[dict[str, str], float]:
    seconds = run(heap, folder / "undisturbed" / "data")
    return snapshot(folder / "undisturbed" / "data"), seconds


def disturb(heap: Path, out: Path, wait: float, number: signal.Signals) -> int:
    """Start prepare, send it a signal after `wait` seconds, and return its exit code."""
    child = subprocess.Popen(
        [*PREPARE, str(heap), "--out", str(out), "--size", "256"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    time.sleep(wait)
    child.send_signal(number)
    return child.wait(30)


def kills(heap: Path, folder: Path, count: int) -> None:
    wanted, seconds = undisturbed(heap, folder)
    manifest = (folder / "undisturbed" / "data" / "dataset.json").read_text()
    chance = random.Random(2026)
    for turn in range(count):
        out = folder / str(turn) / "data"
        disturb(heap, out, seconds * chance.uniform(0.2, 1.0), signal.SIGKILL)
        run(heap, out)
        assert (out / "dataset.json").read_text() == manifest  # a difference is told line by line
        assert snapshot(out) == wanted


def test_after_kill_9_the_next_run_ends_as_an_undisturbed_one(heap: Path, tmp_path: Path) -> None:
    kills(heap, tmp_path, 3)


@pytest.mark.soak
def test_after_fifty_kills(heap: Path, tmp_path: Path) -> None:
    kills(heap, tmp_path, 50)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_a_killed_parent_leaves_no_worker_behind(heap: Path, tmp_path: Path) -> None:
    child = subprocess.Popen(
        [*PREPARE, str(heap), "--out", str(tmp_path / "data"), "--size", "2048", "-q"], start_new_session=True
    )
    group = child.pid
    members: set[int] = set()
    deadline = time.monotonic() + 20
    while len(members) < 3 and time.monotonic() < deadline and child.poll() is None:
        members = in_session(group)
        time.sleep(0.02)
    child.kill()
    child.wait()
    while in_session(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not in_session(group)


def test_two_at_once_follow_each_other(heap: Path, tmp_path: Path) -> None:
    command = [*PREPARE, str(heap), "--out", str(tmp_path / "data"), "--size", "256", "--json"]
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    reports = [json.loads(child.communicate(timeout=60)[0]) for child in pair]
    assert sorted(len(report["made"]) for report in reports) == [0, 9]
    assert reports[0]["digest"] == reports[1]["digest"]


def in_session(session: int) -> set[int]:
    """The processes of a session."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.add(int(entry.name))
    return found


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_with_its_exit_code_and_the_next_run_goes_on(
    heap: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    child = subprocess.Popen(
        [*PREPARE, str(heap), "--out", str(tmp_path / "data"), "--size", "1024"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 20
    journal = tmp_path / "data" / ".prepare" / "made.jsonl"
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(number)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out) == (code, "")
    assert err.startswith("error: ") and "Traceback" not in err
    assert not (tmp_path / "data" / "dataset.json").exists()
    assert journal.stat().st_size, "what was made stays for the next run"
