"""`dataset.json` is what was written, whoever formatted it since."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamctl.datasetfolder import DatasetFolder
from dreamctl.domain.dataset import Dataset, Picture, Pictures, Skipped
from dreamctl.errors import DreamctlError, InvalidInput


def named(file: str, source: str) -> Picture:
    return Picture(file=file, sha256="0", width=8, height=8, source=source, source_sha256="1", warnings=('a "b" ],',))


@pytest.fixture
def manifest() -> Dataset:
    pictures = [named("a.jpg", 'heap/"pictures": [].png'), named("ä 漢.jpg", "heap/\\u0041 ],"), named("z.jpg", "  ],")]
    return Dataset(size=64, pictures=Pictures.of(pictures), skipped=(Skipped(source='"pictures": []', reason="x"),))


def test_it_is_read_as_it_was_written(tmp_path: Path, manifest: Dataset) -> None:
    folder = DatasetFolder(tmp_path)
    for wanted in (manifest, manifest.model_copy(update={"pictures": Pictures()})):
        folder.write_manifest(wanted)
        assert folder.manifest() == wanted
        assert json.loads((tmp_path / "dataset.json").read_text()) == wanted.plain()


@pytest.mark.parametrize("indent", [None, 2, 4])
def test_whoever_formats_it_anew_changes_nothing(tmp_path: Path, manifest: Dataset, indent: int | None) -> None:
    plain = manifest.plain()
    (tmp_path / "dataset.json").write_text(json.dumps(dict(sorted(plain.items())), indent=indent, sort_keys=True))
    assert DatasetFolder(tmp_path).manifest() == manifest


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('"width":8', '"widht":8', "unknown key 'pictures.0.widht'; 'pictures.0.width' is missing|'pictures.0.width'"),
        ('"a.jpg"', '"../a.jpg"', "pictures.0.file = '../a.jpg': must be the name of a file inside the dataset"),
        ('"width":8', '"width":8,"fingerprint":"x"', "pictures.0.fingerprint = 'x'"),
        ('"size": 64', '"size": 64, "sise": 3', r"unknown key 'sise' \(did you mean 'size'\?\)"),
        ("\n  ],", "\n  ", "is not valid JSON"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, manifest: Dataset, before: str, after: str, says: str) -> None:
    folder = DatasetFolder(tmp_path)
    folder.write_manifest(manifest)
    file = tmp_path / "dataset.json"
    file.write_text(file.read_text().replace(before, after, 1))
    with pytest.raises((DreamctlError, InvalidInput), match=says):
        folder.manifest()
