"""A run's folder: writing it whole, reading it, its events, and whether its trainer is alive.

`run.json recipe.toml concept.json dataset.json data/` say what to do; the trainer adds
`events.jsonl train.log checkpoints/ samples/ model/`. No absolute path and no URL in any of them. Where the run trains
at a provider, `remote.json` is the journal of its job, and whoever follows it writes the events.
"""

from __future__ import annotations

import datetime
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from dreamctl.datasetfolder import MANIFEST, DatasetFolder
from dreamctl.domain.concept import Concept
from dreamctl.domain.dataset import Dataset
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.remote import RemoteJob
from dreamctl.domain.run import WORKING, Event, ModelFile, RunRecord, State, newest, state_of
from dreamctl.errors import DreamctlError, InvalidInput, NotFound
from dreamctl.files import is_locked, read_json, read_toml, replacing_folder, write_json, write_text

RUN_JSON = "run.json"
_EVENT_HEAD = {"v": int, "seq": int, "attempt": int, "time": str, "type": str}
_LAST_BYTES = 16384
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def now() -> str:
    """The time as UTC, ISO 8601 with milliseconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_run_id() -> str:
    """A time-sortable id such as 20261120-101502-k3f9."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    return f"{stamp}-{''.join(secrets.choice(_ALPHABET) for _ in range(4))}"


@dataclass(frozen=True)
class RunFolder:
    """The run at `path`."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def data(self) -> DatasetFolder:
        """The frozen dataset, with the manifest inside `data/`."""
        return DatasetFolder(self.path / "data")

    @property
    def events_file(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def log_file(self) -> Path:
        return self.path / "train.log"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def lock_file(self) -> Path:
        """Held by the trainer as long as it lives."""
        return self.path / "trainer.lock"

    @property
    def leader_file(self) -> Path:
        """The number of the trainer's process group, written by the trainer; true only while the lock is held."""
        return self.path / "trainer.pid"

    @property
    def remote_file(self) -> Path:
        """There where the run trains, or is to train, at a provider."""
        return self.path / "remote.json"

    @property
    def remote_lock(self) -> Path:
        """Held by whoever speaks with the provider about this run, and writes what it says."""
        return self.path / "remote.lock"

    def remote(self) -> RemoteJob | None:
        """The journal of the run's job at a provider, or None."""
        if not self.remote_file.exists():
            return None
        return RemoteJob.parse(read_json(self.remote_file), str(self.remote_file))

    def manifest(self) -> Dataset:
        """What the run is taught from; there also where the pictures themselves are on another computer."""
        return Dataset.parse(read_json(self.path / MANIFEST), str(self.path / MANIFEST))

    def record(self) -> RunRecord:
        return RunRecord.parse(read_json(self.path / RUN_JSON), str(self.path / RUN_JSON))

    def recipe(self) -> Recipe:
        return Recipe.parse(read_toml(self.path / "recipe.toml"), str(self.path / "recipe.toml"))

    def concept(self) -> Concept:
        return Concept.parse(read_json(self.path / "concept.json"), str(self.path / "concept.json"))

    def model_file(self) -> ModelFile | None:
        """`model/model.json`, or None before the trainer has written it."""
        file = self.model / "model.json"
        return ModelFile.parse(read_json(file), str(file)) if file.exists() else None

    def events(self) -> list[Event]:
        return list(read_events(self.events_file))

    def last_events(self) -> list[Event]:
        """The newest events, back to a change of state at least: enough to tell state and progress."""
        if not self.events_file.exists():
            return []
        with open(self.events_file, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_BYTES))
            events = [event for event in map(_parse_event, file) if event]  # a cut first line is passed over
        return events if newest(events, "state") else self.events()

    def alive(self) -> bool:
        """Whether a trainer works on this run now, on this computer. Known by its lock, not by a pid."""
        return is_locked(self.lock_file)

    def at_work(self) -> bool:
        """Whether the run goes on by itself: a living trainer here, or a job at a provider that has not ended."""
        if self.remote_file.exists():
            return self.state() in WORKING
        return self.alive()

    def state(self, events: Sequence[Event] | None = None) -> State:
        """The state that the events tell; a run that trains here and has no living trainer is interrupted.

        `events`: those of the run, or its last ones, where they have been read already. Raises DreamctlError where
        they are a newer program's.
        """
        state = self._told(self.events() if events is None else events)
        if state not in WORKING or self.remote_file.exists() or self.alive():
            return state
        state = self._told(self.events())  # it may have ended since they were read
        return State.interrupted if state in WORKING else state

    def _told(self, events: Sequence[Event]) -> State:
        try:
            return state_of(events)
        except ValueError as error:
            raise DreamctlError(f"{self.events_file}: {error}", hint="it was written by a newer dreamctl") from error

    def log_tail(self, lines: int) -> list[str]:
        """The last lines of the trainer's log."""
        if not self.log_file.exists():
            return []
        with open(self.log_file, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            start, text = size, ""
            while start > 0 and text.count("\n") <= lines:
                start = max(0, start - 65536)
                file.seek(start)
                text = file.read(size - start).decode(errors="replace")
        return text.splitlines()[-lines:] if lines else []


def create_run(runs: Path, record: RunRecord, recipe: Recipe, concept: Concept, dataset: DatasetFolder) -> RunFolder:
    """Write a run folder, wholly or not at all."""
    run = RunFolder(runs / record.id)
    with replacing_folder(run.path) as folder:
        write_json(folder / RUN_JSON, record.plain())
        write_json(folder / "concept.json", concept.plain())
        write_text(folder / "recipe.toml", tomlkit.dumps(recipe.plain()))
        _freeze(dataset, folder / "data")
        write_json(folder / MANIFEST, dataset.manifest().plain())
    return run


def bring_data(run: RunFolder, dataset: DatasetFolder) -> None:
    """Give a run that another computer began its pictures: those of a dataset that is the same."""
    if not run.data.path.exists():
        with replacing_folder(run.data.path) as folder:
            _freeze(dataset, folder)


def _freeze(dataset: DatasetFolder, folder: Path) -> None:
    """Copy the pictures, masks and captions as they are now."""
    frozen = DatasetFolder(folder)
    for name in dataset.files():
        target = frozen.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(dataset.path / name, target)  # a link would follow edits in place
    for picture, caption in dataset.captions().items():
        frozen.write_caption(picture, caption)
    frozen.write_manifest(dataset.manifest())


class LineTail:
    """Reads a growing file piece by piece: each line once, however long the file becomes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self, torn: bool = False) -> list[bytes]:
        """The whole lines that came since the last call; `torn`: a last one without its end too."""
        if not self._path.exists():
            return []
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            lines = [line for line in file.readlines() if torn or line.endswith(b"\n")]
        self._offset += sum(len(line) for line in lines)
        return lines


class EventTail:
    """The events of a growing `events.jsonl`, each once."""

    def __init__(self, path: Path) -> None:
        self._lines = LineTail(path)

    def new(self) -> list[Event]:
        """The events that came since the last call."""
        return [event for event in map(_parse_event, self._lines.new()) if event]


class EventWriter:
    """The one writer of a run's events. A new writer raises `attempt`, unless it is given, and truncates nothing."""

    def __init__(self, path: Path, attempt: int | None = None) -> None:
        before = list(read_events(path))
        self._seq = before[-1].seq if before else 0
        self._attempt = attempt or (before[-1].attempt + 1 if before else 1)
        self._file = open(path, "ab")  # noqa: SIM115 - lives as long as the trainer
        if self._file.tell() and not path.read_bytes().endswith(b"\n"):
            self._file.write(b"\n")  # a torn line of a killed writer stays, and is ignored by readers

    def write(self, type_: str, **fields: Any) -> Event:
        """Append one event; it is with the system when this returns, so a killed process loses none."""
        self._seq += 1
        event = Event(seq=self._seq, attempt=self._attempt, time=now(), type=type_, fields=fields)
        head = {key: getattr(event, key) for key in _EVENT_HEAD}
        self._file.write(json.dumps({**head, **fields}, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        return event

    def state(self, state: State, **fields: Any) -> None:
        """Append a change of state, durably."""
        self.write("state", state=state.value, **fields)
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_events(path: Path) -> Iterator[Event]:
    """The events in a file. A torn line is passed over."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        for line in file:
            event = _parse_event(line)
            if event:
                yield event


def _parse_event(line: bytes) -> Event | None:
    if not line.endswith(b"\n"):
        return None
    try:
        data = json.loads(line)
        head = {key: data.pop(key) for key in _EVENT_HEAD}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    whole = all(isinstance(head[key], kind) for key, kind in _EVENT_HEAD.items())
    return Event(**head, fields=data) if whole else None


def resolve_run_id(wanted: str, known: list[str]) -> str:
    """The one id that `wanted` means: an id, a unique prefix, or `last`. Raises NotFound or InvalidInput."""
    ordered = sorted(known)
    if wanted == "last":
        if not ordered:
            raise NotFound("there is no run yet", hint="start one with `dreamctl train`")
        return ordered[-1]
    matches = [name for name in ordered if name.startswith(wanted)] if wanted else []
    if wanted in matches:
        return wanted
    if len(matches) > 1:
        raise InvalidInput(f"{wanted!r} begins {len(matches)} runs: {', '.join(matches[-5:])}", field="RUN")
    if not matches:
        raise NotFound(f"no run {wanted!r}", field="RUN", hint="`dreamctl status` lists them; `last` is the newest")
    return matches[0]
