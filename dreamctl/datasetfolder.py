"""A dataset on disk: pictures, `.txt` captions beside them, masks in `masks/`, and `dataset.json`.

Digests are computed when used: an edited caption or picture is a change, never a corruption.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dreamctl.domain.dataset import Dataset, captions_digest, pictures_digest
from dreamctl.errors import DreamctlError, InvalidInput
from dreamctl.files import read_json, sha256_file, write_json, write_text

MANIFEST = "dataset.json"
MASKS = "masks"


@dataclass(frozen=True)
class DatasetFolder:
    """The folder at `path`; it must hold `dataset.json`."""

    path: Path

    def manifest(self) -> Dataset:
        """`dataset.json`. Raises DreamctlError or InvalidInput that names the file."""
        file = self.path / MANIFEST
        return Dataset.parse(read_json(file), str(file))

    def pictures(self) -> list[Path]:
        """The pictures in the manifest's order. Raises DreamctlError that names one that is gone."""
        paths = [self.path / picture.file for picture in self.manifest().pictures]
        for path in paths:
            if not path.is_file():
                raise DreamctlError(
                    f"{path} is listed in {MANIFEST} but not there", hint="run `dreamctl prepare` again"
                )
        return paths

    def caption_file(self, picture: str) -> Path:
        return (self.path / picture).with_suffix(".txt")

    def captions(self) -> dict[str, str]:
        """Caption by picture file; "" where there is none. Raises InvalidInput that names one that is not UTF-8."""
        result = {}
        for picture in self.manifest().pictures:
            file = self.caption_file(picture.file)
            try:
                result[picture.file] = file.read_text(encoding="utf-8").strip() if file.exists() else ""
            except UnicodeDecodeError as error:
                raise InvalidInput(f"{file} is not UTF-8 text", hint="save it as UTF-8") from error
        return result

    def write_caption(self, picture: str, caption: str) -> None:
        write_text(self.caption_file(picture), caption.strip() + "\n")

    def write_manifest(self, manifest: Dataset) -> None:
        write_json(self.path / MANIFEST, manifest.plain())

    def files(self) -> list[str]:
        """Names of all pictures and masks, relative to the folder."""
        pictures = self.manifest().pictures
        return [item for picture in pictures for item in (picture.file, picture.mask) if item]

    def digests(self) -> tuple[str, str]:
        """(pictures digest, captions digest) of what lies in the folder now."""
        self.pictures()
        files = {name: sha256_file(self.path / name) for name in self.files()}
        repeats = {picture.file: picture.repeats for picture in self.manifest().pictures}
        return pictures_digest(files, repeats), captions_digest(self.captions())


def is_dataset(path: Path) -> bool:
    return (path / MANIFEST).is_file()
