"""Put a dataset's archive where a trainer can fetch it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dreamctl import paths
from dreamctl.archive import pack_dataset
from dreamctl.context import Context
from dreamctl.files import sha256_file
from dreamctl.storage.base import content_key
from dreamctl.workflows.datasets import chosen_dataset, locked_dataset, path_key


@dataclass(frozen=True)
class UploadReport:
    """Where the archive lies. `already_there`: it lay there already, nothing was sent."""

    dataset: Path
    url: str
    key: str
    sha256: str
    bytes: int
    already_there: bool


def upload(context: Context, dataset: Path | None = None, to: str | None = None) -> UploadReport:
    """Pack the dataset (pictures and captions) and put it under a key made of its content.

    The same dataset is not sent twice. Raises InvalidInput where no storage is named, NotFound for a kind of storage
    that does not exist.
    """
    storage = context.storage(to)
    folder = chosen_dataset(context, dataset)
    with locked_dataset(context, folder.path), _scratch(folder.path) as scratch:
        archive = pack_dataset(folder, scratch / f"{folder.path.name}.zip")
        sha256, size = sha256_file(archive), archive.stat().st_size
        key = content_key("datasets", sha256, archive.name)
        stored = storage.head(key)
        there = stored is not None and stored.sha256 == sha256
        if not there:
            context.reporter.note(f"uploading {archive.name}, {size} bytes")
            storage.put(key, archive, sha256)
    return UploadReport(folder.path, storage.link(key, None).url, key, sha256, size, there)


@contextlib.contextmanager
def _scratch(dataset: Path) -> Iterator[Path]:
    """An empty folder for the archive, always the same for a dataset, so that a killed upload leaves one at most."""
    folder = paths.cache_dir() / "uploads" / path_key(dataset)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
