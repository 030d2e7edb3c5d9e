"""What `caption` leaves in a dataset so that nothing is lost: replaced captions, and how far an --overwrite came."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamctl.datasetfolder import DatasetFolder
from dreamctl.errors import DreamctlError
from dreamctl.files import read_json, write_json, write_text

BEFORE = "captions.before.json"
_PROGRESS = ".overwriting.txt"


def keep_before(folder: DatasetFolder, captions: Mapping[str, str]) -> Path | None:
    """Add captions that are to be replaced to `captions.before.json`, whoever wrote them, each text once.

    It is written before the first of them is replaced, so no kill loses one. None where all are empty. Raises
    DreamctlError where the file is there and cannot be read.
    """
    path = folder.path / BEFORE
    known: list[Any] = []
    if path.exists():
        try:
            data = read_json(path)
        except DreamctlError as error:
            raise DreamctlError(error.message, hint="mend it, or move it away: it keeps captions of before") from error
        known = data.get("captions", []) if isinstance(data, dict) else [data]
    rows = [{"file": file, "caption": text} for file, text in captions.items() if text]
    if new := [row for row in rows if row not in known]:
        write_json(path, {"schema": 1, "captions": [*known, *new]})
    return path if rows else None


class Overwriting:
    """How far an --overwrite came, in a file of the dataset that is there only while one is unfinished.

    Its first line is `key`, which stands for everything that decides the captions: an unfinished one with another key
    is forgotten. Each further line is the name of a picture whose caption is replaced.
    """

    def __init__(self, folder: DatasetFolder, key: str) -> None:
        self._path = folder.path / _PROGRESS
        lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines() if self._path.exists() else [""]
        self._done = frozenset(lines[1:] if lines[0] == key else ())
        if lines[0] != key:
            write_text(self._path, f"{key}\n")

    def is_done(self, file: str) -> bool:
        """Whether the caption of `file` is replaced already."""
        return json.dumps(file) in self._done

    def add(self, file: str) -> None:
        """Note that the caption of `file` is replaced."""
        with open(self._path, "a", encoding="utf-8") as journal:
            journal.write(f"\n{json.dumps(file)}\n")  # on a line of its own, though the last one may be torn
            journal.flush()
            os.fsync(journal.fileno())

    def finish(self) -> None:
        self._path.unlink(missing_ok=True)
