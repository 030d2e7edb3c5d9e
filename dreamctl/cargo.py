"""What travels between a client and dreamctl's own trainer elsewhere: a run's data there, its outcome back.

Both are plain zip archives, the same for the same files. What comes in is checked against digests before it counts.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import tomlkit

from dreamctl.archive import write_zip
from dreamctl.datasetfolder import MANIFEST, DatasetFolder
from dreamctl.domain.concept import Concept
from dreamctl.domain.dataset import Dataset
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.run import ModelFile, RunRecord, model_digest
from dreamctl.errors import DreamctlError
from dreamctl.files import read_json, replacing_folder, sha256_file, write_json, write_text
from dreamctl.runfolder import RUN_JSON, RunFolder, read_events
from dreamctl.weights import check_safetensors

_PIECE = 1 << 20
_OUTCOME = ("model", "samples", "events.jsonl", "train.log")


def pack_data(data: DatasetFolder, path: Path) -> None:
    """Pack a run's frozen dataset for our own trainer: pictures, captions, masks. `dataset.json` travels beside it."""
    files = {name: data.path / name for name in data.files()}
    for picture in data.pictures():
        caption = data.caption_file(picture.name)
        if caption.exists():
            files[caption.name] = caption
    write_zip(path, files)


def unpack_run(archive: Path, folder: Path, record: RunRecord, recipe: Recipe, concept: Concept, data: Dataset) -> None:
    """Make the run folder `folder` of its nouns and its packed data. Raises DreamctlError where they do not fit."""
    with replacing_folder(folder) as made:
        frozen = DatasetFolder(made / "data")
        _unpack(archive, frozen.path, None)
        frozen.write_manifest(data)
        for picture in data.pictures:
            file = frozen.path / picture.file
            if not file.is_file() or sha256_file(file) != picture.sha256:
                raise DreamctlError(f"the archive does not hold {picture.file} as {MANIFEST} describes it")
            if picture.mask and not (frozen.path / picture.mask).is_file():
                raise DreamctlError(f"the archive does not hold {picture.mask}", hint="pack masks with the pictures")
        write_json(made / RUN_JSON, record.plain())
        write_json(made / "concept.json", concept.plain())
        write_text(made / "recipe.toml", tomlkit.dumps(recipe.plain()))
        write_json(made / MANIFEST, data.plain())


def pack_outcome(run: RunFolder, path: Path) -> None:
    """Pack what the trainer made: `model/`, `samples/`, `events.jsonl`, `train.log`."""
    files = {}
    for name in _OUTCOME:
        place = run.path / name
        for file in [place] if place.is_file() else sorted(place.rglob("*")):
            if file.is_file():
                files[file.relative_to(run.path).as_posix()] = file
    write_zip(path, files)


def take_outcome(archive: Path, run: RunFolder) -> list[dict[str, Any]]:
    """Put the trainer's model, samples and log into the run folder; returns the trainer's events as plain data.

    The model is checked before it counts: every file by its digest and its safetensors header, and that it is of this
    run's concept and base. Raises DreamctlError, and leaves the folder as it was.
    """
    with replacing_folder(run.path / ".outcome") as folder:
        _unpack(archive, folder, _OUTCOME)
        check_model(folder / "model", run)
    arrived = run.path / ".outcome"
    events = [
        {"seq": event.seq, "attempt": event.attempt, "time": event.time, "type": event.type, **event.fields}
        for event in read_events(arrived / "events.jsonl")
    ]
    if (arrived / "train.log").exists():
        (arrived / "train.log").replace(run.log_file)
    for name in ("samples", "model"):
        if (arrived / name).is_dir():
            shutil.rmtree(run.path / name, ignore_errors=True)
            (arrived / name).replace(run.path / name)
    shutil.rmtree(arrived)
    return events


def check_model(folder: Path, run: RunFolder) -> ModelFile:
    """The description of a model that has arrived. Raises DreamctlError where it is not whole, or not this run's."""
    if not (folder / "model.json").is_file():
        raise DreamctlError("what came holds no model: model.json is missing")
    model = ModelFile.parse(read_json(folder / "model.json"), "model.json")
    for weights in model.files:
        file = folder / _safe(weights.file)
        if not file.is_file() or file.stat().st_size != weights.bytes or sha256_file(file) != weights.sha256:
            raise DreamctlError(f"the model's file {weights.file} is missing or damaged")
        if file.suffix == ".safetensors":
            check_safetensors(file, weights.file)
    if model.digest != model_digest(model.files):
        raise DreamctlError("the model's digest is not that of its files")
    recipe, concept = run.recipe(), run.concept()
    if recipe.base.digest and model.base_digest != recipe.base.digest:
        raise DreamctlError(f"the model was taught on {model.base} ({model.base_digest[:12]}), which is another base")
    if concept.identifier not in {known.identifier for known in model.concepts}:
        raise DreamctlError(f"the model does not know {concept.identifier!r}: it is another run's")
    return model


def _safe(name: str) -> PurePosixPath:
    """A name inside of an archive or a model. Raises DreamctlError for one that leaves it."""
    path = PurePosixPath(name)
    bad = path.is_absolute() or not path.parts or any(part in ("", ".", "..") for part in path.parts)
    if bad or "\\" in name or ":" in name or not name.isprintable():
        raise DreamctlError(f"a file is called {name!r}, which leaves its folder")
    return path


def _unpack(archive: Path, folder: Path, tops: tuple[str, ...] | None) -> None:
    """Write an archive's regular files below `folder`, those whose names begin with one of `tops` alone."""
    try:
        with zipfile.ZipFile(archive) as opened:
            entries: Mapping[str, zipfile.ZipInfo] = {entry.filename: entry for entry in opened.infolist()}
            for name, entry in entries.items():
                if entry.is_dir():
                    continue
                path = _safe(name)
                if tops and path.parts[0] not in tops:
                    raise DreamctlError(f"the archive holds {name}, which belongs to no outcome")
                if entry.compress_type != zipfile.ZIP_STORED:  # ours are; another could be a bomb
                    raise DreamctlError(f"the archive holds {name} compressed, which dreamctl never does")
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(entry) as source, open(target, "xb") as file:
                    shutil.copyfileobj(source, file, _PIECE)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, FileExistsError) as error:
        raise DreamctlError(f"the archive is damaged: {error}") from error
