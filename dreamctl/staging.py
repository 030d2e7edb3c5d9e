"""A dataset folder's next state, made beside the present one in `.prepare/` and put in place all at once.

A kill at any moment leaves the old state, the new one, or a journal by which the next run finishes the change:
`.prepare/dataset.json` is the point of no return, and while files move the folder has no `dataset.json` at all.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dreamctl.datasetfolder import MANIFEST, MASKS, DatasetFolder
from dreamctl.domain.dataset import Dataset, Picture
from dreamctl.errors import DreamctlError
from dreamctl.files import os_hint, os_reason, read_json, sha256_file, sync_folder, write_bytes, write_json, write_text

STAGE = ".prepare"
_RECORDS = "records"
_PREVIOUS = "previous.json"
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}(\.(txt|json))?")


@dataclass(frozen=True)
class Stage:
    """The stage of the dataset folder at `dataset`."""

    dataset: Path

    @property
    def path(self) -> Path:
        return self.dataset / STAGE

    # making: may happen in many processes, and what is made stays for the next run when this one is killed

    def put(self, picture: Picture, data: bytes, mask: bytes | None, rules: str) -> None:
        """Keep a made picture; `rules` says by what rules. The record comes last: with it, the files are whole."""
        write_bytes(self.path / picture.file, data)
        if mask and picture.mask:
            write_bytes(self.path / picture.mask, mask)
        write_json(self._record(picture.file), {"rules": rules, "picture": picture.plain()})

    def find(self, file: str, source: str, source_sha256: str, rules: str) -> Picture | None:
        """The picture `file` where a killed run already made it from the same source by the same rules."""
        record = self._record(file)
        if not record.exists():
            return None
        with contextlib.suppress(DreamctlError, KeyError, TypeError, OSError):
            data = read_json(record)
            picture = Picture.parse(data["picture"], str(record))
            same = (picture.source, picture.source_sha256, data["rules"]) == (source, source_sha256, rules)
            mask_there = not picture.mask or (self.path / picture.mask).is_file()
            if same and mask_there and sha256_file(self.path / file) == picture.sha256:
                return picture
        return None

    def _record(self, file: str) -> Path:
        return self.path / _RECORDS / f"{file}.json"

    # putting in place

    def open(self) -> None:
        """Make sure that the stage can be written. Raises DreamctlError that names the dataset folder."""
        try:
            (self.path / _RECORDS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DreamctlError(f"cannot write into {self.dataset}: {os_reason(error)}", hint=os_hint(error)) from error

    def commit(self, manifest: Dataset, made: Iterable[Picture], captions: Mapping[str, str]) -> None:
        """Make `manifest` the folder's state: `made` are the staged pictures, `captions` new texts by picture file."""
        wanted = {name for picture in made for name in (picture.file, picture.mask) if name}
        for folder in (self.path, self.path / MASKS):
            for file in _files(folder):
                if file.relative_to(self.path).as_posix() not in wanted:
                    file.unlink()  # left by a killed run that had other sources
        stage = DatasetFolder(self.path)
        for file_name, text in captions.items():
            write_text(stage.caption_file(file_name), text.strip() + "\n")
        write_json(self.path / MANIFEST, manifest.plain())
        self._finish()

    def recover(self) -> bool:
        """Finish the change that a killed run had begun, and remove its temporary files. True where one was finished.

        Pictures that it had made without beginning the change stay for `find`.
        """
        begun = (self.path / MANIFEST).is_file()
        if begun:
            self._finish()
        archive = re.compile(rf"\.{re.escape(self.dataset.name[:80])}\.[0-9a-f]{{8}}\.zip")
        for folder, pattern in ((self.dataset, _TEMPORARY), (self.dataset.parent, archive)):
            for file in _files(folder):
                if pattern.fullmatch(file.name):
                    file.unlink()
        return begun

    def discard(self) -> None:
        """Remove the stage, and the folder itself where nothing else is in it; never a change that was begun."""
        if (self.path / MANIFEST).exists():
            return
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.dataset.rmdir()

    def _finish(self) -> None:
        manifest, previous = self.dataset / MANIFEST, self.path / _PREVIOUS
        staged = DatasetFolder(self.path)
        if manifest.exists():
            os.replace(manifest, previous)
        files = set(staged.files())
        if previous.exists():
            for name in set(_listed(previous)) - files:
                (self.dataset / name).unlink(missing_ok=True)
        for name in sorted(files):
            if (self.path / name).is_file():
                (self.dataset / name).parent.mkdir(exist_ok=True)
                os.replace(self.path / name, self.dataset / name)
        self._place_captions(staged)
        masks = self.dataset / MASKS
        with contextlib.suppress(OSError):
            masks.rmdir()  # where no mask is left
        for folder in (masks, self.dataset):
            if folder.is_dir():
                sync_folder(folder)
        os.replace(self.path / MANIFEST, manifest)
        sync_folder(self.dataset)
        shutil.rmtree(self.path)

    def _place_captions(self, staged: DatasetFolder) -> None:
        """A caption that somebody wrote into the dataset is never replaced."""
        dataset = DatasetFolder(self.dataset)
        for picture in staged.manifest().pictures:
            new, old = staged.caption_file(picture.file), dataset.caption_file(picture.file)
            if new.is_file() and not (old.is_file() and old.read_bytes().strip()):
                os.replace(new, old)


def _listed(manifest: Path) -> list[str]:
    pictures = Dataset.parse(read_json(manifest), str(manifest)).pictures
    return [name for picture in pictures for name in (picture.file, picture.mask) if name]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
