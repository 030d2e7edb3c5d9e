"""Files are wholly there or not at all, and locks end with their process."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dreamctl.errors import DreamctlError
from dreamctl.files import (
    is_locked,
    lock_holder,
    locked,
    read_json,
    replacing,
    replacing_folder,
    write_json,
    write_new,
    write_text,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "here"
    path.mkdir()
    return path


def test_a_failed_write_leaves_the_old_file_and_no_other(folder: Path) -> None:
    file = folder / "a.txt"
    write_text(file, "old")
    with pytest.raises(RuntimeError), replacing(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert file.read_text() == "old"
    assert os.listdir(folder) == ["a.txt"]


def test_a_failed_folder_leaves_the_old_one(folder: Path) -> None:
    model = folder / "model"
    with replacing_folder(model) as new:
        (new / "a").write_text("1")
    with pytest.raises(RuntimeError), replacing_folder(model) as new:
        (new / "a").write_text("2")
        raise RuntimeError
    assert (model / "a").read_text() == "1"
    with replacing_folder(model) as new:
        (new / "b").write_text("3")
    assert os.listdir(model) == ["b"]
    assert os.listdir(folder) == ["model"]


def no_hard_links(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "a file system without hard links"])
def test_a_new_file_takes_the_first_free_name_whole(folder: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_hard_links)
    names = [folder / "a.png", folder / "a-2.png", folder / "a-3.png"]
    assert [write_new(names, text) for text in (b"1", b"2", b"3")] == names
    assert [name.read_bytes() for name in names] == [b"1", b"2", b"3"]
    assert sorted(os.listdir(folder)) == ["a-2.png", "a-3.png", "a.png"]


def test_a_kill_before_a_new_file_has_its_name_leaves_that_name_free(folder: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; from dreamctl import files\n"
        "os.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"files.write_new([Path({str(folder / 'a.png')!r})], b'whole')"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert not (folder / "a.png").exists()
    assert write_new([folder / "a.png"], b"whole").read_bytes() == b"whole"


def test_a_folders_files_are_as_open_as_the_folder(folder: Path) -> None:
    with replacing_folder(folder / "model") as new:
        (new / "unet").mkdir()
        save_file({"weight": torch.zeros(1)}, new / "unet" / "a.safetensors")
        (new / "model.json").write_text("{}")
    plain, weights = folder / "model" / "model.json", folder / "model" / "unet" / "a.safetensors"
    assert stat.S_IMODE(weights.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    assert stat.S_IMODE(weights.stat().st_mode) == stat.S_IMODE(folder.stat().st_mode) & 0o666


def test_errors_of_the_system_name_the_file_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(DreamctlError, match=r"gone\.json: no such file"):
        read_json(tmp_path / "gone.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DreamctlError, match=r"bad\.json is not valid JSON"):
        read_json(tmp_path / "bad.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(DreamctlError, match="file"):
        write_json(tmp_path / "file" / "below.json", {})


def test_a_lock_is_known_by_its_living_holder(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    assert not is_locked(lock)
    with locked(lock, "run 1"):
        held = f"from pathlib import Path; from dreamctl.files import *; p = Path({str(lock)!r})\n"
        told = subprocess.run(
            [sys.executable, "-c", held + "print(is_locked(p), lock_holder(p))"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.strip() == "True run 1"
    assert not is_locked(lock)


def test_a_killed_holder_frees_its_lock(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    code = (
        "from pathlib import Path; from dreamctl.files import locked; import time\n"
        f"with locked(Path({str(lock)!r}), 'me'):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    assert is_locked(lock)
    assert lock_holder(lock) == "me"
    holder.kill()
    holder.wait()
    assert not is_locked(lock)


def test_who_waits_is_told_for_what(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    code = (
        "from pathlib import Path; from dreamctl.files import locked\n"
        f"with locked(Path({str(lock)!r}), 'second', on_wait=lambda holder: print('waits for', holder, flush=True)):\n"
        "    print('has it', flush=True)"
    )
    with locked(lock, "run 1"):
        waiter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert waiter.stdout is not None
        assert waiter.stdout.readline().strip() == "waits for run 1"
    assert waiter.stdout.readline().strip() == "has it"
    assert waiter.wait() == 0
