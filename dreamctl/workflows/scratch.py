"""Room for an archive while it is uploaded: one folder a dataset, so that killed uploads leave one archive at most."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from dreamctl import paths
from dreamctl.files import is_locked
from dreamctl.workflows.datasets import dataset_lock, path_key


@contextlib.contextmanager
def scratch(dataset: Path) -> Iterator[Path]:
    """An empty folder, which is gone afterwards. The caller holds the dataset alone."""
    folder = _root() / path_key(dataset)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep() -> int:
    """Remove what killed uploads left; returns how many bytes that were."""
    freed = 0
    for folder in _root().glob("*/"):
        if not is_locked(dataset_lock(folder.name)):
            freed += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            shutil.rmtree(folder, ignore_errors=True)
    return freed


def _root() -> Path:
    return paths.cache_dir() / "uploads"
