"""What travels between a client and dreamctl's own trainer elsewhere: a run's data there, its outcome back.

Both are plain zip archives, the same for the same files. What comes in is checked against digests before it counts.
"""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import tomlkit

from dreamctl.archive import write_zip
from dreamctl.datasetfolder import MANIFEST, DatasetFolder
from dreamctl.domain.concept import Concept
from dreamctl.domain.dataset import Dataset
from dreamctl.domain.identifiers import identifier_key
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.run import ModelFile, RunRecord, model_digest
from dreamctl.errors import DreamctlError
from dreamctl.files import explained, replacing_folder, sha256_file, sync_folder, write_json, write_text
from dreamctl.http import printable
from dreamctl.runfolder import RUN_JSON, RunFolder, read_events
from dreamctl.weights import check_safetensors, sort_of

_PIECE = 1 << 20
_OUTCOME = ("model", "samples", "events.jsonl", "train.log")
_STAGED, _ARRIVED = ".outcome", ".model.arrived"
_LEFT = (_STAGED, f".{_STAGED}.*", _ARRIVED)  # what a kill may leave in a run's folder
_MOST_STEPS = 1 << 53
_DEEPEST = 32  # folders in folders; whoever removes them goes down one call for each
_LONGEST_TEXT = 500
_LONGEST_NAME = 200  # bytes; file systems take 255, and names are lengthened while they are written


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
    run's concept and base. It comes last, in one step, and after that nothing else is left to do here. What a kill left
    is removed first, so whoever calls holds the run's `remote.lock`. Raises DreamctlError, and leaves the folder as it
    was.
    """
    for pattern in _LEFT:
        for left in run.path.glob(pattern):
            shutil.rmtree(left, ignore_errors=True)
    with replacing_folder(run.path / _STAGED) as folder:
        _unpack(archive, folder, _OUTCOME)
        for name in _OUTCOME:
            place = folder / name
            if place.exists() and place.is_dir() is not (name in ("model", "samples")):
                raise DreamctlError(f"the outcome's {name} is {'a folder' if place.is_dir() else 'a file'}")
        check_model(folder / "model", run)
        events = _plain_events(folder / "events.jsonl")
    try:
        _place(run.path / _STAGED, run)
    except OSError as error:
        raise explained(error, run.path) from error
    return events


def _place(staged: Path, run: RunFolder) -> None:
    """Move what was staged and checked to its places, the model last."""
    if (staged / "train.log").exists():
        (staged / "train.log").replace(run.log_file)
    if (staged / "samples").exists():
        shutil.rmtree(run.samples, ignore_errors=True)
        (staged / "samples").replace(run.samples)
    (staged / "model").replace(run.path / _ARRIVED)
    shutil.rmtree(staged)
    shutil.rmtree(run.model, ignore_errors=True)
    (run.path / _ARRIVED).replace(run.model)
    sync_folder(run.path)


def _plain_events(file: Path) -> list[dict[str, Any]]:
    """The events in a file that came from elsewhere. Raises DreamctlError where they cannot be read."""
    try:
        return [
            {**event.fields, "seq": event.seq, "attempt": event.attempt, "time": event.time, "type": event.type}
            for event in read_events(file)
        ]
    except RecursionError:
        raise DreamctlError("the outcome's events cannot be read") from None


def check_model(folder: Path, run: RunFolder) -> ModelFile:
    """The description of a model that has arrived. Raises DreamctlError where it is not whole, or not this run's."""
    model = _described(folder)
    sorts = set()
    for weights in model.files:
        file, name = folder / _safe(weights.file), printable(weights.file)
        if not file.is_file() or file.stat().st_size != weights.bytes or sha256_file(file) != weights.sha256:
            raise DreamctlError(f"the model's file {name} is missing or damaged")
        sort = sort_of(file)
        if file.suffix == ".safetensors" or sort == "safetensors":
            check_safetensors(file, name)
        sorts.add(file.suffix if file.suffix == ".safetensors" else sort)
    if ".safetensors" not in sorts and not (model.format == "pickle" and "pickle" in sorts):
        raise DreamctlError("the model holds no weights")
    unlisted = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if unlisted := unlisted - {"model.json", *(weights.file for weights in model.files)}:
        raise DreamctlError(f"the model holds {printable(min(unlisted))}, which model.json does not list")
    if model.digest != model_digest(model.files):
        raise DreamctlError("the model's digest is not that of its files")
    recipe, concept = run.recipe(), run.concept()
    if recipe.base.digest and model.base_digest != recipe.base.digest:
        raise DreamctlError(f"the model was taught on {model.base} ({model.base_digest[:12]}), which is another base")
    if concept.identifier not in {known.identifier for known in model.concepts}:
        raise DreamctlError(f"the model does not know {concept.identifier!r}: it is another run's")
    return model


def _described(folder: Path) -> ModelFile:
    """What a model's `model.json` says. Raises DreamctlError where it says what the registry could not hold or show."""
    if not (folder / "model.json").is_file():
        raise DreamctlError("what came holds no model: model.json is missing")
    try:
        model = ModelFile.parse(json.loads((folder / "model.json").read_bytes()), "model.json")
    except (ValueError, RecursionError):
        raise DreamctlError("model.json is not valid JSON") from None
    texts = (model.family, model.format, model.base, model.base_digest, model.parent or "")
    if not all(text.isprintable() and len(text) <= _LONGEST_TEXT for text in texts):
        raise DreamctlError("model.json holds a text that cannot be shown")
    if not 0 <= model.steps <= _MOST_STEPS or not math.isfinite(model.final_loss):
        raise DreamctlError("model.json tells steps or a loss that cannot be")
    if len({identifier_key(concept.identifier) for concept in model.concepts}) != len(model.concepts):
        raise DreamctlError("model.json tells a concept twice")
    if len({weights.file for weights in model.files}) != len(model.files):
        raise DreamctlError("model.json lists a file twice")
    return model


def _safe(name: str) -> PurePosixPath:
    """A name inside of an archive or a model. Raises DreamctlError for one that leaves it."""
    path = PurePosixPath(name)
    bad = path.is_absolute() or not path.parts or any(part in ("", ".", "..") for part in path.parts)
    if bad or "\\" in name or ":" in name or not name.isprintable():
        raise DreamctlError(f"a file is called {printable(name)[:120]!r}, which leaves its folder")
    if len(path.parts) > _DEEPEST or any(len(part.encode()) > _LONGEST_NAME for part in path.parts):
        raise DreamctlError(f"a file is called {printable(name)[:120]!r}, which is too long or too deep")
    return path


def _unpack(archive: Path, folder: Path, tops: tuple[str, ...] | None) -> None:
    """Write an archive's regular files below `folder`, those whose names begin with one of `tops` alone."""
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.filename.endswith("/")]
            _check_entries(entries, archive.stat().st_size, tops)
            for entry in entries:
                target = folder / _safe(entry.filename)
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(entry) as source, open(target, "xb") as file:
                    shutil.copyfileobj(source, file, _PIECE)
    except (DreamctlError, MemoryError):
        raise
    except (FileExistsError, NotADirectoryError):
        raise DreamctlError("the archive is damaged: it holds a name twice") from None
    except OSError:
        raise  # of the disk
    except Exception as error:  # zipfile lets out whatever a broken archive makes it stumble over
        raise DreamctlError(f"the archive is damaged: {printable(str(error))[:120]}") from error


def _check_entries(entries: Iterable[zipfile.ZipInfo], size: int, tops: tuple[str, ...] | None) -> None:
    """Raise DreamctlError where an archive of so many bytes holds what ours never do."""
    total = 0
    for entry in entries:
        path, name = _safe(entry.filename), printable(entry.filename)[:120]
        if tops and path.parts[0] not in tops:
            raise DreamctlError(f"the archive holds {name}, which belongs to no outcome")
        if entry.compress_type != zipfile.ZIP_STORED:  # ours are; another could be a bomb
            raise DreamctlError(f"the archive holds {name} compressed, which dreamctl never does")
        total += entry.file_size
    if total > size:  # entries may share their bytes
        raise DreamctlError("the archive unpacks to more than it holds (a bomb?)")
