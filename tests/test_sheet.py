"""The contact sheet shows every picture, and what happened to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from dreamctl.datasetfolder import DatasetFolder
from dreamctl.domain.dataset import Dataset, Picture, Pictures
from dreamctl.errors import DreamctlError
from dreamctl.sheet import MOST, draw, marks, sheet_file, write_sheet
from tests.pictures import near, pixel


def made(file: str, **values: object) -> Picture:
    plain = {"file": file, "sha256": "0", "width": 64, "height": 64, "source": file, "source_sha256": "0"}
    return Picture.model_validate({**plain, **values})


@pytest.fixture
def folder(tmp_path: Path) -> DatasetFolder:
    dataset = DatasetFolder(tmp_path / "processed")
    dataset.path.mkdir()
    pictures = (made("a.png", box=(0, 16, 64, 48)), made("b.png", crop=(5, 0, 69, 64)), made("c.png"))
    for picture, colour in zip(pictures, ("red", "green", "blue"), strict=True):
        Image.new("RGB", (64, 64), colour).save(dataset.path / picture.file)
    dataset.write_manifest(Dataset(size=64, pictures=Pictures.of(pictures)))
    return dataset


def test_every_picture_is_shown_in_order(folder: DatasetFolder) -> None:
    sheet = draw(folder.path, folder.manifest(), {})
    colours = [pixel(sheet, 12 + 96 + 204 * place, 48 + 96)[:3] for place in range(3)]
    assert colours == [(255, 0, 0), (0, 128, 0), (0, 0, 255)]


def test_margins_are_outlined_and_marks_are_told_apart(folder: DatasetFolder) -> None:
    pictures = folder.manifest().pictures
    assert [marks(picture, {"c.png": "looks blurred"}) for picture in pictures] == [["padded"], ["cropped"], ["warned"]]
    sheet = draw(folder.path, folder.manifest(), {})
    corner = 12 + (192 - 64) // 2, 48 + (192 - 64) // 2
    assert near(pixel(sheet, corner[0], corner[1] + 16)[:3], (40, 110, 200))


def test_what_is_no_picture_any_more_is_crossed_out(folder: DatasetFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (64, 64), "red").save(folder.path / "a.png", "EPS")  # which would start Ghostscript
    monkeypatch.setattr("subprocess.check_call", pytest.fail)
    assert near(pixel(draw(folder.path, folder.manifest(), {}), 12 + 96, 48 + 96)[:3], (215, 95, 0), 40)


def test_a_picture_of_one_line_has_its_place(tmp_path: Path) -> None:
    Image.new("RGB", (600, 600), "red").save(tmp_path / "line.png")
    thin = made("line.png", width=600, height=600, box=(0, 300, 600, 301))
    assert draw(tmp_path, Dataset(size=600, pictures=Pictures.of([thin])), {}).size[0] > 200


def test_the_same_dataset_is_not_drawn_again(folder: DatasetFolder) -> None:
    path = write_sheet(folder.path, folder.manifest(), {})
    assert path == sheet_file(folder.path) == folder.path.parent / "processed-contact-sheet.png"
    first = path.stat()
    assert write_sheet(folder.path, folder.manifest(), {}).stat() == first
    blurred = write_sheet(folder.path, folder.manifest(), {"a.png": "looks blurred"})
    assert blurred.stat().st_mtime_ns != first.st_mtime_ns
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DreamctlError, match="is not a contact sheet"):
        write_sheet(folder.path, folder.manifest(), {})


def test_a_picture_of_the_user_is_not_replaced(folder: DatasetFolder) -> None:
    Image.new("RGB", (9, 9)).save(sheet_file(folder.path))
    with pytest.raises(DreamctlError, match="is there and is not a contact sheet"):
        write_sheet(folder.path, folder.manifest(), {})
    assert Image.open(sheet_file(folder.path)).size == (9, 9)


def test_of_very_many_those_with_warnings_come_first(folder: DatasetFolder) -> None:
    many = tuple(made(f"{number:04}.png") for number in range(MOST + 5))
    for picture in many:
        (folder.path / picture.file).symlink_to(folder.path / "a.png")
    warned = f"{MOST + 4:04}.png"
    (folder.path / warned).unlink()
    Image.new("RGB", (64, 64), "blue").save(folder.path / warned)
    sheet = draw(folder.path, Dataset(size=64, pictures=Pictures.of(many)), {warned: "looks blurred"})
    assert pixel(sheet, 12 + 64, 48 + 64)[:3] == (0, 0, 255)
