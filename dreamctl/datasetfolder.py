"""A dataset on disk: pictures, `.txt` captions beside them, masks in `masks/`, and `dataset.json`.

Digests are computed when used: an edited caption or picture is a change, never a corruption.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dreamctl.domain.dataset import Dataset, Picture, Pictures, captions_digest, pictures_digest
from dreamctl.errors import DreamctlError, InvalidInput
from dreamctl.files import read_json, replacing, sha256_file, write_text

MANIFEST = "dataset.json"
_PICTURES, _END = b'  "pictures": [\n', b"  ],\n"


@dataclass(frozen=True)
class DatasetFolder:
    """The folder at `path`; it must hold `dataset.json`."""

    path: Path

    def manifest(self) -> Dataset:
        """`dataset.json`. Raises DreamctlError or InvalidInput that names the file."""
        file = self.path / MANIFEST
        return _by_line(file) or Dataset.parse(read_json(file), str(file))

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
        return {picture.file: self.caption(picture.file) for picture in self.manifest().pictures}

    def caption(self, picture: str) -> str:
        """The caption of a picture file; "" where there is none. Raises InvalidInput where it is not UTF-8."""
        file = self.caption_file(picture)
        try:
            return file.read_text(encoding="utf-8").strip() if file.exists() else ""
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{file} is not UTF-8 text", hint="save it as UTF-8") from error

    def write_caption(self, picture: str, caption: str) -> None:
        write_text(self.caption_file(picture), caption.strip() + "\n")

    def write_manifest(self, manifest: Dataset) -> None:
        """Write `dataset.json`, a line for each picture."""
        with replacing(self.path / MANIFEST) as temporary, open(temporary, "wb") as file:
            file.writelines(_text(manifest))

    def files(self) -> list[str]:
        """Names of all pictures and masks, relative to the folder."""
        return list(self.manifest().pictures.files())

    def digests(self) -> tuple[str, str]:
        """(pictures digest, captions digest) of what lies in the folder now."""
        self.pictures()
        return self.pictures_digest(self.manifest().pictures), captions_digest(self.captions())

    def pictures_digest(self, pictures: Pictures) -> str:
        """The digest of `pictures` as they lie in the folder now."""
        names = sorted(pictures.files())
        often = {picture.repeats for picture in pictures}
        repeats = {picture.file: picture.repeats for picture in pictures} if len(often) > 1 else {}
        return pictures_digest(((name, sha256_file(self.path / name)) for name in names), repeats)


def _by_line(file: Path) -> Dataset | None:
    """A `dataset.json` as `write_manifest` writes it, picture by picture: a large one is never held as objects.

    None for one that somebody else wrote, or that is not valid.
    """
    try:
        with open(file, "rb") as rows:
            head = b"".join(itertools.takewhile(lambda row: row != _PICTURES, rows))
            lines = [
                Picture.model_validate_json(row.strip().rstrip(b",")).line()
                for row in itertools.takewhile(lambda row: row != _END, rows)
            ]
            rest = json.loads(head + _PICTURES.rstrip() + b"]," + rows.read())
        return Dataset.model_validate({**rest, "pictures": Pictures(lines)})
    except (OSError, ValueError, TypeError):
        return None


def _text(manifest: Dataset) -> Iterator[bytes]:
    """`dataset.json`, indented but for its pictures, piece by piece."""
    rest = manifest.model_copy(update={"pictures": Pictures()}).plain()
    before, empty, after = json.dumps(rest, indent=2, ensure_ascii=False).partition('"pictures": []')
    yield (before + empty[:-1]).encode()
    for number, line in enumerate(manifest.pictures.lines):
        yield (b",\n    " if number else b"\n    ") + line
    yield (("\n  ]" if manifest.pictures else "]") + after + "\n").encode()


def is_dataset(path: Path) -> bool:
    return (path / MANIFEST).is_file()
