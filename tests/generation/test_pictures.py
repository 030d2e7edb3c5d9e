"""Pictures on disk: their names, what is embedded in them, and grids."""

from __future__ import annotations

import datetime
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamctl.errors import DreamctlError
from dreamctl.generation.pictures import grid, read_parameters, save_picture, slug

WHEN = datetime.datetime(2026, 11, 20, 10, 15, 2)
PARAMETERS: dict[str, Any] = {
    "negative": "blurred, 暗い", "steps": 30, "guidance": 7.5, "width": 8, "height": 8, "model": "sks@1"
}  # fmt: skip


def save(folder: Path, prompt: str = "a photo of sks person, beach", seed: int = 7) -> Path:
    return save_picture(Image.new("RGB", (8, 8), "red"), folder, prompt, WHEN, seed, PARAMETERS)


def test_names_say_prompt_time_and_seed_and_never_collide(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: save(tmp_path / "out"), range(16)))
    assert len(set(paths)) == 16
    assert paths[0].parent == tmp_path / "out"
    assert (tmp_path / "out" / "a-photo-of-sks-person-beach-20261120-101502-7.png").is_file()
    assert all(read_parameters(path) for path in paths)
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_the_parameters_come_back(tmp_path: Path) -> None:
    path = save(tmp_path)
    assert read_parameters(path) == {"prompt": "a photo of sks person, beach", "seed": 7, **PARAMETERS}
    with Image.open(path) as image:
        image.load()
        text = str(image.info["parameters"])
    assert text.splitlines() == [
        "a photo of sks person, beach",
        "Negative prompt: blurred, 暗い",
        "Steps: 30, CFG scale: 7.5, Seed: 7, Size: 8x8, Model: sks@1",
    ]


def test_foreign_pictures_have_no_parameters_and_other_files_are_no_pictures(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "foreign.png")
    assert read_parameters(tmp_path / "foreign.png") is None
    Image.new("RGB", (4, 4)).save(tmp_path / "foreign.jpg")
    assert read_parameters(tmp_path / "foreign.jpg") is None
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DreamctlError, match=r"text\.png cannot be read"):
        read_parameters(tmp_path / "text.png")


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A photo of sks person!", "a-photo-of-sks-person"),
        ("../../etc/passwd", "etc-passwd"),
        ("Ünïcode 日本", "ünïcode-日本"),
        ("!!!", "picture"),
        ("word " * 100, "-".join(["word"] * 12)),
        ("x" * 300, "picture"),
    ],
)
def test_slugs(prompt: str, name: str) -> None:
    assert slug(prompt) == name


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DreamctlError, match="file"):
        save(tmp_path / "file")
    assert not list(tmp_path.glob("*.png"))


def test_a_grid_has_all_pictures_in_their_places() -> None:
    colours = ["red", "green", "blue"]
    sheet = grid([Image.new("RGB", (4, 4), colour) for colour in colours], columns=2)
    assert sheet.size == (8, 8)
    assert [sheet.getpixel(at) for at in ((1, 1), (5, 1), (1, 5), (5, 5))] == [
        (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255),
    ]  # fmt: skip
    assert grid([Image.new("RGB", (4, 2))] * 5).size == (12, 4)
    assert grid([Image.new("RGB", (4, 2))]).size == (4, 2)
    with pytest.raises(ValueError, match="at least one"):
        grid([])
