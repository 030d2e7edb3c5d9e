"""Zip files that are the same, byte for byte, whenever and wherever the same files are packed."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from dreamctl.datasetfolder import DatasetFolder
from dreamctl.files import replacing

_DATE = (1980, 1, 1, 0, 0, 0)  # the first that the format knows
_FILE_0644 = 0o100644 << 16


def pack_dataset(dataset: DatasetFolder, path: Path) -> Path:
    """Pack what trainers read, pictures and captions, side by side; returns `path`.

    No masks and no `dataset.json`: foreign trainers take every file for a picture.
    """
    files = {picture.name: picture for picture in dataset.pictures()}
    for picture, caption in dataset.captions().items():
        if caption:
            file = dataset.caption_file(picture)
            files[file.name] = file
    write_zip(path, files)
    return path


def write_zip(path: Path, files: Mapping[str, Path]) -> None:
    """Pack `files` (name in the archive → file) into `path`, atomically. Stored: JPEG does not shrink.

    Raises DreamctlError that names the file that cannot be read or written.
    """
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = 3  # Unix, also where it is written on Windows
            entry.external_attr = _FILE_0644
            entry.file_size = files[name].stat().st_size
            with open(files[name], "rb") as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)
