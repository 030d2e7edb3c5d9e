"""The user's storage as a worker uses it: who has claimed a run, and what the run made."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dreamctl import plugins
from dreamctl.domain.errand import Answer, Outcome, Place, claim_key, outcome_key, result_key
from dreamctl.domain.quantities import LONGEST_LINK
from dreamctl.errors import DreamctlError, InvalidInput, NotFound
from dreamctl.files import sha256_file, write_json
from dreamctl.http import remember_secret
from dreamctl.storage.base import Access, Changed, Storage

_SCHEME = re.compile(r"([a-z0-9+.-]+)://", re.IGNORECASE)
_KEYS = {"accessId": "AWS_ACCESS_KEY_ID", "accessSecret": "AWS_SECRET_ACCESS_KEY"}
_BESIDE_KEYS = ("AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE")


def open_storage(place: Place, keys: Mapping[str, Any] | None) -> Storage:
    """The storage that an errand names. `keys` (RunPod's s3Config) beat those of the worker's own environment.

    Raises InvalidInput for a place that is none, NotFound for a kind of storage that this worker does not know, and
    what opening one raises.
    """
    scheme = _SCHEME.match(place.url)
    if scheme is None:
        raise InvalidInput("storage.url names no storage", field="storage.url", hint="for example s3://bucket/folder")
    told = dict(place.access)
    if keys:
        told.pop("s3_profile", None)  # it names a section in a file of the client's
    try:
        access = Access(**told)
    except TypeError:
        known = ", ".join(Access.__dataclass_fields__)
        raise InvalidInput("storage.access holds a key that is none", field="storage.access", hint=known) from None
    kind = plugins.load("storages", scheme[1].lower())
    with _in_environment(keys or {}):
        storage: Storage = kind(place.url, access)
        if keys:
            _ = storage.access  # opened now, while the keys are there
    return storage


def claim(storage: Storage, run_id: str, job_id: str, folder: Path) -> str | None:
    """Take the run for this job; the id of the job that has it already, or None where it is ours now.

    A job that the provider runs again has its own claim still. One that has ended (`release`) has none any more.
    """
    key, mine = claim_key(run_id), {"schema": 1, "job": job_id}
    if _put(storage, key, mine, folder, create_only=True):
        return None
    stored = storage.head(key)
    holder = _read(storage, key, folder)
    if holder.get("job") == job_id:
        return None
    if holder.get("ended") and stored and _put(storage, key, mine, folder, if_version=stored.version):
        return None
    return str(_read(storage, key, folder).get("job") or "unknown")


def release(storage: Storage, run_id: str, job_id: str, folder: Path) -> None:
    """Say that this job ended without an outcome, so that another one may train the run."""
    with contextlib.suppress(DreamctlError):  # the failure before this one is told
        _put(storage, claim_key(run_id), {"schema": 1, "job": job_id, "ended": True}, folder)


def earlier(storage: Storage, run_id: str, folder: Path) -> Answer | None:
    """What an earlier job of this run left, if that is whole: the provider may run a job again that has ended."""
    try:
        answer = Answer.parse(_read(storage, result_key(run_id), folder), result_key(run_id))
    except (NotFound, InvalidInput):  # nothing, or nothing whole: it is made anew
        return None
    outcome = answer.outcome
    stored = storage.head(outcome_key(run_id)) if outcome else None
    if outcome is None or stored is None or stored.bytes != outcome.bytes:
        return None
    if stored.sha256 and stored.sha256 != outcome.sha256:
        return None
    return _linked(storage, run_id, outcome)


def leave(storage: Storage, run_id: str, archive: Path) -> Answer:
    """Store the outcome, and then `result.json`, which says that it is whole."""
    outcome = Outcome(sha256=sha256_file(archive), bytes=archive.stat().st_size, key=outcome_key(run_id))
    storage.put(outcome_key(run_id), archive, outcome.sha256)
    _put(storage, result_key(run_id), Answer(outcome=outcome).plain(), archive.parent)
    return _linked(storage, run_id, outcome)


def _linked(storage: Storage, run_id: str, outcome: Outcome) -> Answer:
    """The answer with a URL where the storage can sign one; the key suffices for who has the storage's keys."""
    with contextlib.suppress(DreamctlError):
        url = storage.link(outcome_key(run_id), LONGEST_LINK).url
        remember_secret(url)
        if url.startswith(("http://", "https://")):
            outcome = outcome.model_copy(update={"url": url})
    return Answer(outcome=outcome)


def _put(storage: Storage, key: str, value: Mapping[str, Any], folder: Path, **conditions: Any) -> bool:
    """Store plain data as JSON; False where a condition does not hold."""
    file = folder / "note.json"
    write_json(file, value)
    try:
        storage.put(key, file, sha256_file(file), **conditions)
    except Changed:
        return False
    return True


def _read(storage: Storage, key: str, folder: Path) -> dict[str, Any]:
    """The JSON table under a key. Raises NotFound, and InvalidInput where it is none."""
    file = folder / "read.json"
    storage.get(key, file)
    try:
        value = json.loads(file.read_bytes())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InvalidInput(f"{storage.place(key)} is not what a worker leaves there", hint="remove it")
    return value


@contextlib.contextmanager
def _in_environment(keys: Mapping[str, Any]) -> Iterator[None]:
    """The keys as variables while the block lasts, where Amazon's library looks for them first."""
    if not keys:
        yield
        return
    given = {name: keys.get(field) for field, name in _KEYS.items()}
    if not all(isinstance(value, str) and value for value in given.values()):
        raise InvalidInput("s3Config holds no accessId and accessSecret", field="s3Config")
    for value in given.values():
        remember_secret(str(value))
    before = {name: os.environ.pop(name, None) for name in (*given, *_BESIDE_KEYS)}
    os.environ.update({name: str(value) for name, value in given.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
