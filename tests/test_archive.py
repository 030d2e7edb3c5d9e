"""Archives of the same files are the same bytes."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from dreamctl.archive import pack_dataset, write_zip
from dreamctl.errors import DreamctlError
from dreamctl.files import sha256_file
from tests.fakes import write_dataset


def test_the_same_files_give_the_same_bytes_whatever_their_dates_modes_and_order(tmp_path: Path) -> None:
    files = {}
    for name in ("b.jpg", "a.jpg", "c.txt"):
        files[name] = tmp_path / name
        files[name].write_text(name)
    write_zip(tmp_path / "one.zip", files)
    for file in files.values():
        os.utime(file, (1e9, 1e9))
        file.chmod(0o600)
    write_zip(tmp_path / "two.zip", dict(reversed(files.items())))
    assert sha256_file(tmp_path / "one.zip") == sha256_file(tmp_path / "two.zip")
    # Fixed for ever: what was uploaded once must be found again by its digest.
    assert sha256_file(tmp_path / "one.zip") == "0cc605c909b5f2ec2bd89495ae6754ec7cf20d2c585a9f3a7774dcd1a0f8e55b"
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == ["a.jpg", "b.jpg", "c.txt"]
        assert archive.testzip() is None
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}


def test_a_dataset_is_packed_as_trainers_read_it(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", count=2)
    dataset.write_caption("01.jpg", "")
    path = pack_dataset(dataset, tmp_path / "data.zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["00.jpg", "00.txt", "01.jpg"]
        assert archive.read("00.jpg") == (dataset.path / "00.jpg").read_bytes()


def test_a_missing_file_leaves_the_old_archive_alone(tmp_path: Path) -> None:
    path = tmp_path / "here" / "a.zip"
    path.parent.mkdir()
    path.write_bytes(b"old")
    with pytest.raises(DreamctlError, match=r"gone\.jpg: no such file"):
        write_zip(path, {"gone.jpg": tmp_path / "gone.jpg"})
    assert path.read_bytes() == b"old"
    assert [item.name for item in path.parent.iterdir()] == ["a.zip"]
