"""Runs that other computers see too: with the setting `runs`, each remote run is one object of a storage.

It holds the journal and the folder's small files, so that a computer without the folder follows, cancels and brings
home what another one started; conditions of the storage decide who submits. Pictures are never among them.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamctl import cargo, paths
from dreamctl.context import Context
from dreamctl.domain.remote import RemoteJob
from dreamctl.domain.run import RUN_ID
from dreamctl.errors import DreamctlError, NotFound
from dreamctl.files import locked, read_json, replacing_folder, sha256_file, write_json, write_text
from dreamctl.runfolder import RUN_JSON, RunFolder, read_events
from dreamctl.storage.base import Changed, Storage, StoredObject

_SMALL = (RUN_JSON, "recipe.toml", "concept.json", "dataset.json", "remote.json", "events.jsonl", "train.log")
_LOG_BYTES = 1 << 16
_SCHEMA = 1
UNDER_WAY_SECONDS = 45.0
"""How long a submission may take: its one request is given up sooner."""


def shared(context: Context, run: RunFolder) -> bool:
    """Whether the run is kept in the storage too."""
    return context.settings.runs is not None and run.record().backend != "local"


def publish(context: Context, run: RunFolder, strict: bool = False) -> None:
    """Put the run's small files into its object.

    `strict`: raises Changed where somebody else wrote it since it was read here, and what the storage raises; else
    the other's is read, and trouble is only told: the run itself goes on.
    """
    if not shared(context, run):
        return
    try:
        _put(context, run)
    except Changed:
        if strict:
            raise
        if not refresh(context, run):
            _put(context, run)
    except DreamctlError as error:
        if strict:
            raise
        context.reporter.warn(f"run {run.id} could not be kept in {context.settings.runs}: {error.message}")


def pull(context: Context) -> None:
    """Bring every run that changed in the storage here, new ones too."""
    if context.settings.runs is None:
        return
    known = _versions(context)
    for stored in _storage(context).list(recursive=False):
        name = stored.key.removesuffix(".json")
        if RUN_ID.fullmatch(name) and stored.key.endswith(".json") and known.get(name) != stored.version:
            _take(context, name, force=False)


def refresh(context: Context, run: RunFolder, force: bool = False) -> bool:
    """Read the run's object again; whether what it says was taken. `force`: even where less is known there."""
    return shared(context, run) and _take(context, run.id, force)


def may_be_under_way(context: Context, run: RunFolder) -> bool:
    """Whether another computer may be submitting the run at this moment: its journal says so, and is young."""
    job = run.remote()
    if job is None or job.id is not None or not run.at_work() or not shared(context, run):
        return False
    then = datetime.datetime.fromisoformat(job.began)
    return (datetime.datetime.now(datetime.UTC) - then).total_seconds() < UNDER_WAY_SECONDS


def await_submission(context: Context, run: RunFolder) -> None:
    """Wait while another computer may be submitting the run, until what came of it is known here."""
    told = False
    while may_be_under_way(context, run):
        if refresh(context, run) and not may_be_under_way(context, run):
            return
        if not told:
            context.reporter.note(f"run {run.id} is being submitted, perhaps from another computer: waiting")
            told = True
        time.sleep(1.0)


def claim(context: Context, name: str, run: RunFolder) -> str:
    """Give the run a name that no other has in the storage; returns the id of the run that has it, this or another.

    The run's own object is written first, so that whoever finds the name finds the run.
    """
    publish(context, run, strict=True)
    key = _name_key(name)
    value = {"schema": _SCHEMA, "name": name, "run": run.id, "key": run.record().key}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "name.json"
        write_json(file, value)
        storage = _storage(context)
        try:
            storage.put(key, file, sha256_file(file), create_only=True)
        except Changed:
            return claimed(context, name) or run.id
    return run.id


def claimed(context: Context, name: str) -> str | None:
    """The id of the run that has the name in the storage; its folder is here afterwards."""
    if context.settings.runs is None:
        return None
    value = _read(_storage(context), _name_key(name))
    if value is None:
        return None
    run_id = value.get("run")
    if not isinstance(run_id, str) or not RUN_ID.fullmatch(run_id):
        raise DreamctlError(f"the name {name!r} in {context.settings.runs} leads to no run")
    if not (context.runs / run_id).is_dir() and not _take(context, run_id, force=True):
        raise NotFound(f"run {run_id}, which is called {name!r}, is not in {context.settings.runs} any more")
    return run_id


def free_name(context: Context, name: str) -> None:
    """Take a name from the run that has it, for `--again`."""
    if context.settings.runs is not None:
        _storage(context).delete(_name_key(name))


def forget(context: Context, run: RunFolder) -> None:
    """Remove the run's object and its outcome."""
    if shared(context, run):
        storage = _storage(context)
        for key in (_key(run.id), _outcome_key(run.id)):
            storage.delete(key)


def discard(context: Context, run: RunFolder) -> None:
    """Remove a run that came to nothing before it was submitted, here and in the storage."""
    forget(context, run)
    shutil.rmtree(run.path)


def keep_outcome(context: Context, run: RunFolder, job: RemoteJob) -> None:
    """Put what a run made into the storage, where no worker has put it into the user's own already."""
    if not shared(context, run) or (job.storage and job.contract == "dreamctl"):
        return
    with tempfile.TemporaryDirectory(dir=run.path) as folder:
        file = Path(folder) / "outcome.zip"
        cargo.pack_outcome(run, file)
        try:
            _storage(context).put(_outcome_key(run.id), file, sha256_file(file))
        except DreamctlError as error:
            context.reporter.warn(
                f"the model of {run.id} could not be kept in {context.settings.runs}: {error.message}"
            )


def bring_outcome(context: Context, run: RunFolder) -> bool:
    """Bring what a run made on another computer here; whether it was there."""
    if not shared(context, run):
        return False
    storage = _storage(context)
    if storage.head(_outcome_key(run.id)) is None:
        return False
    with tempfile.TemporaryDirectory(dir=run.path) as folder:
        file = Path(folder) / "outcome.zip"
        storage.get(_outcome_key(run.id), file)
        cargo.take_outcome(file, run)
    return True


def _put(context: Context, run: RunFolder) -> None:
    storage, known = _storage(context), _versions(context).get(run.id)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.json"
        write_json(file, {"schema": _SCHEMA, "files": _files(run)})
        stored = storage.put(
            _key(run.id), file, sha256_file(file), create_only=known is None, if_version=known
        )  # fmt: skip
    _remember(context, run.id, stored)


def _files(run: RunFolder) -> dict[str, str]:
    """The small files as text; of a long log the end."""
    found = {}
    for name in _SMALL:
        file = run.path / name
        if file.exists():
            text = file.read_text(encoding="utf-8", errors="replace")
            found[name] = text[-_LOG_BYTES:] if name == "train.log" else text
    return found


def _take(context: Context, run_id: str, force: bool) -> bool:
    """Bring one run's object here, where it knows more than the folder does."""
    storage = _storage(context)
    stored = storage.head(_key(run_id))
    value = _read(storage, _key(run_id)) if stored else None
    files = value.get("files") if value else None
    if stored is None or not isinstance(files, Mapping) or RUN_JSON not in files:
        return False
    run = RunFolder(context.runs / run_id)
    if not run.path.exists():
        with replacing_folder(run.path) as folder:
            _write(folder, files)
        _remember(context, run_id, stored)
        return True
    with locked(run.remote_lock, f"following run {run.id}"):
        newer = force or _knows_more(files, run)
        if newer:
            _write(run.path, files)
        _remember(context, run_id, stored)
    return newer


def _write(folder: Path, files: Mapping[str, Any]) -> None:
    # the journal comes last: what a kill leaves behind knows no more than it should
    for name in sorted(_SMALL, key=lambda name: name == "remote.json"):
        if isinstance(files.get(name), str):
            write_text(folder / name, files[name])


def _knows_more(files: Mapping[str, Any], run: RunFolder) -> bool:
    """Whether what lies in the storage is further than the folder: it knows the job's id, or more events."""
    here = run.remote()
    there = json.loads(files["remote.json"]) if "remote.json" in files else {}
    known_here, known_there = bool(here and here.id), bool(there.get("id"))
    if known_here != known_there:
        return known_there
    count = sum(1 for _ in read_events(run.events_file))
    return str(files.get("events.jsonl", "")).count("\n") >= count


def _read(storage: Storage, key: str) -> dict[str, Any] | None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "object"
        try:
            storage.get(key, file)
        except NotFound:
            return None
        value = read_json(file)
    if not isinstance(value, dict) or value.get("schema") != _SCHEMA:
        raise DreamctlError(f"{key} was written by a newer dreamctl", hint="upgrade dreamctl")
    return value


def _storage(context: Context) -> Storage:
    return context.storage(context.settings.runs)


def _key(run_id: str) -> str:
    return f"{run_id}.json"


def _outcome_key(run_id: str) -> str:
    return f"{run_id}.outcome.zip"


def _name_key(name: str) -> str:
    return f"names/{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"


def _versions_file(context: Context) -> Path:
    place = hashlib.sha256(str(context.settings.runs).encode()).hexdigest()[:16]
    return paths.data_dir() / "shared-runs" / f"{place}.json"


def _versions(context: Context) -> dict[str, str]:
    """The version of each run's object that was read or written here last."""
    file = _versions_file(context)
    known: dict[str, str] = read_json(file) if file.exists() else {}
    return known


def _remember(context: Context, run_id: str, stored: StoredObject) -> None:
    with locked(paths.locks_dir() / "shared-runs.lock", "remembering shared runs"):
        write_json(_versions_file(context), {**_versions(context), run_id: stored.version})
