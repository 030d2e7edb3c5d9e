"""Which dataset folder a line means, and holding it alone while it is written."""

from __future__ import annotations

import hashlib
import os
import shlex
from contextlib import AbstractContextManager
from pathlib import Path

from dreamctl import paths
from dreamctl.context import Context
from dreamctl.datasetfolder import DatasetFolder, is_dataset
from dreamctl.errors import InvalidInput, NotFound
from dreamctl.files import locked
from dreamctl.staging import STAGE


def default_folder(context: Context) -> Path:
    """The project's dataset folder, there or not."""
    return (context.project / context.settings.dataset).absolute()


def folder_at(path: Path, field: str) -> Path:
    """A folder that the line names, from the root and without `..`: its name becomes that of archives.

    Raises InvalidInput for a root, which has no name.
    """
    path = path.expanduser().absolute()
    if ".." in path.parts:
        path = path.resolve()
    if not path.name:
        raise InvalidInput(f"{path} cannot be a dataset folder", field=field, hint="name a folder inside it")
    return path


def chosen_dataset(context: Context, wanted: Path | None) -> DatasetFolder:
    """The prepared dataset that is meant: `wanted`, or the project's. Raises NotFound or InvalidInput."""
    path = folder_at(wanted, "DATASET") if wanted else default_folder(context)
    if not path.exists():
        hint = "check the path" if wanted else "prepare one: dreamctl prepare ./original"
        raise NotFound(f"no dataset at {path}", field="DATASET", hint=hint)
    if not path.is_dir():
        raise InvalidInput(f"{path} is a file, not a dataset folder", field="DATASET", hint="name the folder")
    check_not_interrupted(path)
    if not is_dataset(path):
        raise InvalidInput(
            f"{path} is not a prepared dataset",
            field="DATASET",
            hint=f"prepare its pictures first: dreamctl prepare {shlex.quote(str(wanted or path))} --out other",
        )
    return DatasetFolder(path)


def locked_dataset(context: Context, folder: Path) -> AbstractContextManager[None]:
    """Hold the dataset at `folder` alone: two commands that write one folder follow each other."""

    def on_wait(holder: str) -> None:
        context.reporter.note(f"waiting for {holder}")

    return locked(dataset_lock(path_key(folder)), f"another dreamctl command on {folder}", on_wait)


def dataset_lock(key: str) -> Path:
    """The lock of the dataset whose `path_key` this is."""
    return paths.locks_dir() / f"dataset-{key}.lock"


def path_key(folder: Path) -> str:
    """A short name for a folder's place on this computer."""
    return hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]


def check_not_interrupted(path: Path) -> None:
    """Raises InvalidInput where `path` is what an interrupted prepare left."""
    if (path / STAGE).is_dir() and not is_dataset(path):
        raise InvalidInput(
            f"prepare was interrupted before {path} was done",
            field="DATASET",
            hint="run the same `dreamctl prepare` again",
        )


def command_on(context: Context, verb: str, folder: Path) -> str:
    """The line that runs `verb` on the dataset at `folder`, as short as it can be typed here."""
    if folder == default_folder(context):
        return f"dreamctl {verb}"
    here = Path.cwd()
    shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
    return f"dreamctl {verb} {shlex.quote(str(shown))}"
