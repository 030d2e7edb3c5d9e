"""What a shared run's object holds: the folder's small files, checked before they count; and who knows more."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dreamctl.datasetfolder import MANIFEST
from dreamctl.domain.run import FINAL, WORKING, Event, State
from dreamctl.errors import DreamctlError
from dreamctl.files import read_json, write_text
from dreamctl.runfolder import RUN_JSON, RunFolder
from dreamctl.storage.base import travelling

Verdict = Literal["theirs", "ours", "even", "apart"]
"""Who knows more of a run, the storage or this computer; `apart`: what they know cannot be brought together."""

_NEEDED = (RUN_JSON, "recipe.toml", "concept.json", MANIFEST)
_SMALL = (*_NEEDED, "events.jsonl", "train.log", "remote.json")
# the journal is written last: what a kill leaves behind knows no more than it should
_LOG_BYTES = 1 << 16


def collected(run: RunFolder) -> dict[str, str]:
    """The small files as text; of a long log the end. Nothing in them means something on this computer alone."""
    found = {}
    for name in _SMALL:
        file = run.path / name
        if file.exists():
            text = file.read_text(encoding="utf-8", errors="replace")
            found[name] = text[-_LOG_BYTES:] if name == "train.log" else text
    if "remote.json" in found:
        journal = read_json(run.remote_file)
        if isinstance(journal, dict) and isinstance(journal.get("access"), dict):
            journal["access"] = travelling(journal["access"])
            found["remote.json"] = json.dumps(journal, indent=2, ensure_ascii=False) + "\n"
    return found


def lay_out(files: Any, run_id: str, folder: Path, where: str) -> RunFolder:
    """Write the files of the object at `where` into an empty folder, and read each as everybody will.

    Raises DreamctlError where one is missing, is no text, cannot be read, or is another run's.
    """
    if not isinstance(files, Mapping) or not all(isinstance(files.get(name), str) for name in _NEEDED):
        raise DreamctlError(f"{where} does not hold a run's files")
    run = RunFolder(folder)
    try:
        for name in _SMALL:
            if name in files:
                (folder / name).write_bytes(files[name].encode())
        _read_all(run, run_id)
    except DreamctlError as error:
        raise DreamctlError(f"{where}: " + error.message.replace(f"{folder}/", ""), hint=error.hint) from error
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise DreamctlError(f"{where} is damaged") from error
    return run


def write(there: RunFolder, run: RunFolder) -> None:
    """Give a run's folder the files that were laid out."""
    for name in _SMALL:
        file = there.path / name
        if file.exists():
            write_text(run.path / name, file.read_bytes().decode())


def compared(run: RunFolder, there: RunFolder) -> Verdict:
    """Who knows more of the run, this computer or what was laid out. A final state is never taken back.

    Of two submissions at once, the one in the storage was let through.
    """
    ours, theirs = _standing(run), _standing(there)
    if ours.state in FINAL:
        if theirs.attempt > ours.attempt:
            return "apart"
        return "even" if theirs.end >= ours.end else "ours"
    if ours.attempt != theirs.attempt:
        return "ours" if ours.attempt > theirs.attempt else "theirs"
    if ours.known != theirs.known:
        return "ours" if ours.known else "theirs"
    if ours.began != theirs.began:
        return "theirs"
    if ours.end != theirs.end:
        return "ours" if ours.end > theirs.end else "theirs"
    if ours.events == theirs.events and collected(run) == collected(there):
        return "even"
    return "ours" if ours.events > theirs.events else "theirs"


def age(moment: str) -> float:
    """Seconds since a time that maybe another computer's clock told; 0 for one to come, and for what is no time."""
    try:
        then = datetime.datetime.fromisoformat(moment)
        return max(0.0, (datetime.datetime.now(datetime.UTC) - then).total_seconds())
    except (TypeError, ValueError):
        return 0.0


@dataclass(frozen=True)
class _Standing:
    """How far a run is. `end`: 0 at work, more the surer it has ended."""

    attempt: int
    began: str
    known: bool
    state: State
    events: int

    @property
    def end(self) -> int:
        if self.state in FINAL:
            return 3 if self.state is State.succeeded else 2
        return 0 if self.state in WORKING or self.state is State.created else 1


def _standing(run: RunFolder) -> _Standing:
    job, events = run.remote(), run.events()
    state = run.state(events)
    if job is None:
        return _Standing(0, "", False, state, len(events))
    return _Standing(job.attempt, job.began, job.id is not None, state, len(events))


def _read_all(run: RunFolder, run_id: str) -> None:
    record = run.record()
    if record.id != run_id:
        raise DreamctlError(f"it holds run {record.id}, which is another")
    run.recipe(), run.concept(), run.manifest(), run.remote()
    events = run.events()
    run.state(events)
    if not all(map(_whole, events)):
        raise DreamctlError("events.jsonl holds steps without numbers")


def _whole(event: Event) -> bool:
    """Whether a step has the numbers that its readers count on."""
    if event.type != "step":
        return True
    step, loss = event.fields.get("step"), event.fields.get("loss")
    return isinstance(step, int) and 0 <= step < 1 << 53 and isinstance(loss, (int, float))
