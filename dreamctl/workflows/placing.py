"""Put a description's files in place: what is right stays, and nothing that somebody else wrote or edited is lost.

A hidden record in the folder holds what was written, by digest, so that an edited file is known from an old one.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from dreamctl.domain.dataset import IMAGE_FORMATS
from dreamctl.errors import DreamctlError, InvalidInput
from dreamctl.files import read_json, sha256_file, write_bytes, write_json
from dreamctl.reporter import Reporter
from dreamctl.trainers.base import Content, Copied, Description, Masked

RECORD = ".dreamctl.json"
_SHOWN = 3
_PENDING = ""  # in the record: about to be written


def place(description: Description, file: Path, folder: Path, overwrite: bool, reporter: Reporter) -> int:
    """Write what is new or changed, remove what is not described any more; returns how many files that concerned.

    Killed anywhere and run again, it ends with the same files. Raises InvalidInput that names files which were edited
    or are not dreamctl's, before anything is changed, unless `overwrite`.
    """
    wanted: dict[str, Content] = {**description.files, _name(file, folder): description.text}
    before = _read_record(folder, _name(file, folder))
    there = {name for name, content in wanted.items() if _is_there(_path(folder, name), content, before.get(name))}
    if not overwrite:
        _check_nothing_is_lost({**dict.fromkeys(before), **dict.fromkeys(wanted)}.keys() - there, before, folder)
    missing = [name for name in wanted if name not in there]
    old = [name for name in before if name not in wanted]
    known = {name: before[name] for name in there if before.get(name)}
    if len(known) == len(before) == len(wanted):
        return 0
    _write_record(folder, {**before, **dict.fromkeys(missing, _PENDING)})
    for done, name in enumerate(missing, 1):
        write_bytes(_path(folder, name), _bytes(wanted[name]))
        reporter.progress("write", done, len(missing))
    for name in old:
        (_path(folder, name)).unlink(missing_ok=True)
    _write_record(folder, {name: known.get(name) or sha256_file(_path(folder, name)) for name in wanted})
    return len(missing) + len(old)


def _check_nothing_is_lost(names: Iterable[str], before: Mapping[str, str], folder: Path) -> None:
    foreign, edited = [], []
    for name in sorted(names):
        path = _path(folder, name)
        if not path.exists():
            continue
        if name not in before:
            foreign.append(path)
        elif before[name] not in (_PENDING, sha256_file(path)):
            edited.append(path)
    for paths, what in ((edited, "edited since dreamctl wrote it"), (foreign, "not written by dreamctl")):
        if paths:
            more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
            shown = ", ".join(str(path) for path in paths[:_SHOWN])
            raise InvalidInput(
                f"{shown}{more}: {what}", field="--out", hint="--overwrite replaces it; --out FILE writes elsewhere"
            )


def _is_there(path: Path, content: Content, recorded: str | None) -> bool:
    """Whether the file holds the content. Pictures with their masks are known by the record, for they are made anew."""
    if not path.is_file():
        return False
    if isinstance(content, str):
        return path.read_bytes() == content.encode()
    if isinstance(content, Copied):
        return sha256_file(path) == sha256_file(content.source)
    return bool(recorded) and sha256_file(path) == recorded


def _bytes(content: Content) -> bytes:
    if isinstance(content, str):
        return content.encode()
    if isinstance(content, Copied):
        return content.source.read_bytes()
    from PIL import Image

    result = io.BytesIO()
    if not isinstance(content, Masked):
        Image.new("L", content.size, 255).save(result, "PNG")
        return result.getvalue()
    try:
        with (
            Image.open(content.source, formats=IMAGE_FORMATS) as opened,
            Image.open(content.mask, formats=IMAGE_FORMATS) as mask,
        ):
            picture, alpha = opened.convert("RGB"), mask.convert("L")
    except OSError as error:
        raise DreamctlError(f"{content.source} or its mask cannot be read: {error}") from error
    picture.putalpha(alpha if alpha.size == picture.size else alpha.resize(picture.size))
    picture.save(result, "PNG")
    return result.getvalue()


def _path(folder: Path, name: str) -> Path:
    """Where a name of the record lies; `..` is left out of it, for the folder may not be there yet."""
    return Path(os.path.normpath(folder / name))


def _name(file: Path, folder: Path) -> str:
    return Path(os.path.relpath(file, folder)).as_posix()


def _read_record(folder: Path, description: str) -> dict[str, str]:
    """What was written, by name. A folder may be anybody's: only the description itself may lie outside of it."""
    file = folder / RECORD
    if not file.is_file():
        return {}
    value = read_json(file)
    files = value.get("files") if isinstance(value, dict) and value.get("schema") == 1 else None
    if not isinstance(files, dict):
        raise InvalidInput(f"{file} is not a record of this dreamctl", field="--out", hint="choose another --out")
    for name in files:
        if name != description and not _path(folder, name).parent.resolve().is_relative_to(folder.resolve()):
            raise InvalidInput(f"{file} names {name!r}, which is not in it", field="--out", hint="choose another --out")
    return {str(name): str(digest) for name, digest in files.items()}


def _write_record(folder: Path, files: Mapping[str, str]) -> None:
    write_json(folder / RECORD, {"schema": 1, "files": dict(sorted(files.items()))})
