"""A dataset folder's next state, made beside the present one in `.prepare/` and put in place all at once.

A kill at any moment leaves the old state, the new one, or a plan by which the next run finishes the change:
`.prepare/dataset.json` is the point of no return, and while files move the folder has no `dataset.json` at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamctl.datasetfolder import MANIFEST, DatasetFolder
from dreamctl.domain.dataset import MASKS, Dataset, file_name, mask_name
from dreamctl.errors import DreamctlError
from dreamctl.files import explained, os_hint, os_reason, replacing, sync_folder

STAGE = ".prepare"
_JOURNAL = "made.jsonl"
_PLAN = "plan.jsonl"
_TEMPORARY = re.compile(r"\..+\.tmp-[0-9a-f]{8}(\.(txt|json))?")


@dataclass(frozen=True)
class Stage:
    """The stage of the dataset folder at `dataset`."""

    dataset: Path

    @property
    def path(self) -> Path:
        return self.dataset / STAGE

    # making: what is made, by whatever process, stays for the next run when this one is killed

    def open(self) -> None:
        """Make sure that the stage can be written, and put in place later. Raises DreamctlError that says why not."""
        self._check_masks()
        try:
            (self.path / MASKS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DreamctlError(f"cannot write into {self.dataset}: {os_reason(error)}", hint=os_hint(error)) from error

    def made_before(self, rules: str) -> list[dict[str, Any]]:
        """What a killed run noted by the same rules: see `journal`. A line that the kill tore is none."""
        noted = []
        with contextlib.suppress(FileNotFoundError), open(self.path / _JOURNAL, "rb") as lines:
            for line in lines:
                with contextlib.suppress(ValueError, TypeError):
                    by, data = json.loads(line)
                    if by == rules:
                        noted.append(data)
        return noted

    @contextlib.contextmanager
    def journal(self, rules: str) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """A function that notes a picture whose files lie in the stage, made by `rules`."""
        path = self.path / _JOURNAL
        with open(path, "ab", buffering=0) as file:

            def note(data: Mapping[str, Any]) -> None:
                try:
                    file.write(f"\n{json.dumps([rules, data])}".encode())  # the line's end first: one may be torn
                except OSError as error:
                    raise explained(error, path) from error

            yield note

    # putting in place

    def commit(self, manifest: Dataset, made: Iterable[str], gone: Iterable[str], captions: Mapping[str, str]) -> None:
        """Make `manifest` the folder's state.

        `made` names the staged pictures and masks, `gone` the folder's files that go, `captions` new texts by picture.
        """
        stage = DatasetFolder(self.path)
        for picture, text in captions.items():
            stage.write_caption(picture, text)
        with replacing(self.path / _PLAN) as temporary, open(temporary, "w", encoding="utf-8") as plan:
            for step, names in (("remove", gone), ("place", made), ("caption", captions)):
                plan.writelines(f"{json.dumps([step, name])}\n" for name in names)
        for folder in (self.path / MASKS, self.path):
            sync_folder(folder)
        stage.write_manifest(manifest)
        self._finish()

    def recover(self) -> bool:
        """Finish the change that a killed run had begun, and remove its temporary files. True where one was finished.

        Pictures that it had made without beginning the change stay for `made_before`.
        """
        begun = (self.path / MANIFEST).is_file()
        if begun:
            self._finish()
        name = re.escape(self.dataset.name[:80])
        archive = re.compile(rf"\.({name}\.tmp-[0-9a-f]{{8}}\.zip|{name}-contact-sheet\.tmp-[0-9a-f]{{8}}\.png)")
        for folder, pattern in ((self.dataset, _TEMPORARY), (self.dataset.parent, archive)):
            for file in _files(folder):
                if pattern.fullmatch(file.name):
                    file.unlink()
        return begun

    def noted(self) -> bool:
        """Whether a run noted pictures here that the next one need not make."""
        journal = self.path / _JOURNAL
        return journal.is_file() and journal.stat().st_size > 0

    def discard(self) -> None:
        """Remove the stage; never a change that was begun."""
        if not (self.path / MANIFEST).exists():
            shutil.rmtree(self.path, ignore_errors=True)

    def _finish(self) -> None:
        """Do what the plan says; each step may have been done before a kill."""
        try:
            self._check_masks()
            for _ in self._plan():
                pass  # all of it is looked at before anything moves
            masks, manifest = self.dataset / MASKS, self.dataset / MANIFEST
            manifest.unlink(missing_ok=True)
            masks.mkdir(exist_ok=True)
            for step, name in self._plan():
                _STEPS[step](self, name)
            for folder in (masks, self.dataset):
                sync_folder(folder)
            with contextlib.suppress(OSError):
                masks.rmdir()  # where no mask is left
            os.replace(self.path / MANIFEST, manifest)
            sync_folder(self.dataset)
            shutil.rmtree(self.path)
        except OSError as error:
            raise explained(error, self.dataset) from error

    def _check_masks(self) -> None:
        masks = self.dataset / MASKS
        if masks.is_symlink() or (masks.exists() and not masks.is_dir()):
            raise DreamctlError(
                f"{masks} is not a folder of this dataset", hint="move it away, or name another folder with --out"
            )

    def _plan(self) -> Iterator[tuple[str, str]]:
        """Steps and names. Raises DreamctlError for what no plan of ours holds: a folder may be anybody's."""
        path = self.path / _PLAN
        if not path.is_file():
            raise DreamctlError(f"{path} is not there", hint=f"remove {self.path}, and prepare again")
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line)
                    if not (isinstance(row, list) and len(row) == 2 and all(isinstance(item, str) for item in row)):
                        raise ValueError("not a step and a name")
                    step, name = row
                    if step not in _STEPS:
                        raise ValueError(f"unknown step {step!r}")
                    yield step, mask_name(name) if "/" in name else file_name(name)
                except ValueError as error:
                    raise DreamctlError(
                        f"{path}, line {number}, is no step of a plan: {error}",
                        hint=f"remove {self.path}, and prepare again",
                    ) from error

    def _remove(self, name: str) -> None:
        file = self.dataset / name
        if not file.is_dir():
            file.unlink(missing_ok=True)

    def _place(self, name: str) -> None:
        if (self.path / name).is_file():
            os.replace(self.path / name, self.dataset / name)

    def _place_caption(self, picture: str) -> None:
        """A caption that somebody wrote into the dataset is never replaced."""
        new, old = (DatasetFolder(folder).caption_file(picture) for folder in (self.path, self.dataset))
        if new.is_file() and not (old.is_file() and old.read_bytes().strip()):
            os.replace(new, old)


_STEPS: Mapping[str, Callable[[Stage, str], None]] = {
    "remove": Stage._remove, "place": Stage._place, "caption": Stage._place_caption,
}  # fmt: skip


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        with os.scandir(folder) as entries:
            yield from (Path(entry.path) for entry in entries if entry.is_file())
