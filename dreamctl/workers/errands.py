"""What a worker does with an errand, whichever provider brought it: describes itself, or trains a run."""

from __future__ import annotations

import base64
import binascii
import logging
import os
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dreamctl
from dreamctl import cargo, plugins
from dreamctl.domain.base import Stored
from dreamctl.domain.concept import Concept
from dreamctl.domain.dataset import Dataset
from dreamctl.domain.errand import INLINE_MODEL, Abilities, Answer, Archive, Errand, Outcome
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.run import RUN_ID, RunRecord
from dreamctl.errors import DiskFull, DreamctlError, InvalidInput
from dreamctl.fetch import Patience, fetch
from dreamctl.files import explained, sha256_file
from dreamctl.http import redact, remember_secret
from dreamctl.machine import ask_driver
from dreamctl.runfolder import RunFolder
from dreamctl.storage.base import Storage
from dreamctl.urls import public_name
from dreamctl.wire import FetchFailed, Limits
from dreamctl.workers import outbox
from dreamctl.workers.trainer import Cancelled, Tell, train

ALLOW_PRIVATE = "DREAMCTL_WORKER_ALLOW_PRIVATE"
"""The variable of a worker's environment that (as 1) lets datasets be fetched from its own network too."""

_STORED: Mapping[str, type[Stored]] = {"errand": Errand, "run": RunRecord, "recipe": Recipe, "dataset": Dataset}
_FETCH_SECONDS = 3600.0
_LONGEST_SENTENCE = 600

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """A `train` errand with all that it needs, but for the dataset's archive."""

    run: RunRecord
    recipe: Recipe
    concept: Concept
    dataset: Dataset


def carry_out(
    errand: Errand, job_id: str, tell: Tell, keys: Mapping[str, Any] | None = None, stop: threading.Event | None = None
) -> Answer | Abilities:
    """The answer to an errand. `tell` is given news of a training; `keys` (RunPod's s3Config) open its storage.

    Raises Cancelled once `stop` is set, and DreamctlError with a sentence for the user. Nothing is left behind.
    """
    if errand.op == "describe":
        return describe()
    order, archive = complete(errand), _archive_of(errand)
    stop = stop or threading.Event()
    with tempfile.TemporaryDirectory(prefix="dreamctl-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        try:
            if errand.storage is None:
                return inline(_trained(order, archive, folder, tell, stop))
            storage = outbox.open_storage(errand.storage, keys)
            done = outbox.earlier(storage, order.run.id, folder)
            if done:
                return done
            holder = outbox.claim(storage, order.run.id, job_id, folder)
            if holder:
                return Answer(claimed_by=holder)
            try:
                return delivered(storage, order.run.id, _trained(order, archive, folder, tell, stop))
            except BaseException:
                outbox.release(storage, order.run.id, job_id, folder)
                raise
        except OSError as error:
            raise _of_this_worker(explained(error, folder)) from error
        except DiskFull as error:
            raise _of_this_worker(error) from error


def describe() -> Abilities:
    """What this worker is and accepts."""
    gpus = ask_driver()
    return Abilities(
        dreamctl=dreamctl.__version__,
        accepts={name: newest_schema(noun) for name, noun in _STORED.items()},
        families=tuple(plugins.names("families")),
        device=gpus[0].name if gpus else "cpu",
    )


def newest_schema(noun: type[Stored]) -> int:
    return int(noun.model_fields["schema_version"].default)


def read_errand(data: Any) -> Errand:
    """An errand of plain data. Raises InvalidInput that names what is wrong, and a schema that is too new."""
    if not isinstance(data, dict):
        raise InvalidInput("the request is no errand of dreamctl's", hint="a table with op = describe or train")
    for name, noun in _STORED.items():
        table = data if name == "errand" else data.get(name)
        schema = table.get("schema") if isinstance(table, dict) else None
        if isinstance(schema, int) and schema > newest_schema(noun):
            raise InvalidInput(
                f"the {name} has schema {schema}, and this worker (dreamctl {dreamctl.__version__}) accepts "
                f"{newest_schema(noun)}",
                field=name,
                hint="deploy the worker of a newer dreamctl",
            )
    try:
        return Errand.parse(data, "the errand")
    except InvalidInput as error:  # whose sentence repeats values, such as a URL in the wrong place
        said = redact(error.message)[:_LONGEST_SENTENCE]
        raise InvalidInput(said, field=error.field, hint="client and worker may be of different versions") from None


def complete(errand: Errand) -> Order:
    """What a `train` errand says. Raises InvalidInput for one that lacks something."""
    parts = (errand.run, errand.recipe, errand.concept, errand.dataset)
    missing = [name for name, part in zip(("run", "recipe", "concept", "dataset"), parts, strict=True) if part is None]
    if missing or errand.run is None or errand.recipe is None or errand.concept is None or errand.dataset is None:
        raise InvalidInput(f"the errand lacks {', '.join(missing)}", field=missing[0])
    if not RUN_ID.fullmatch(errand.run.id):
        raise InvalidInput(f"run.id = {errand.run.id[:60]!r} is no run's id", field="run.id")
    return Order(errand.run, errand.recipe, errand.concept, errand.dataset)


def taught(order: Order, archive: Path, folder: Path, tell: Tell, stop: threading.Event) -> Path:
    """Train the run on the dataset in `archive`, inside `folder`; returns the archive of the outcome."""
    run = RunFolder(folder / order.run.id)
    cargo.unpack_run(archive, run.path, order.run, order.recipe, order.concept, order.dataset)
    train(run, tell, stop)
    outcome = folder / "outcome.zip"
    cargo.pack_outcome(run, outcome)
    return outcome


def _trained(order: Order, archive: Archive, folder: Path, tell: Tell, stop: threading.Event) -> Path:
    packed = folder / "data.zip"
    _bring(archive, packed, stop)
    if stop.is_set():
        raise Cancelled(f"the training of run {order.run.id} was cancelled")
    return taught(order, packed, folder, tell, stop)


def _archive_of(errand: Errand) -> Archive:
    archive = errand.archive
    if archive is None or (archive.url is None) == (archive.data is None):
        raise InvalidInput("the errand's archive must come at a url, or as data", field="archive")
    if archive.url:
        remember_secret(archive.url)
    return archive


def _bring(archive: Archive, target: Path, stop: threading.Event) -> None:
    """The dataset's archive as a file, which is the one that the errand describes."""
    if archive.url is not None:
        limits = Limits(bytes=archive.bytes, total=_FETCH_SECONDS)
        allowed = os.environ.get(ALLOW_PRIVATE) == "1"
        try:
            fetch(archive.url, target, allow_private=allowed, patience=Patience(limits, stop=stop))
        except FetchFailed as error:
            if stop.is_set():
                return
            hint = (error.hint or "").replace("--allow-private", f"{ALLOW_PRIVATE}=1 in the worker's environment")
            raise DreamctlError(f"the dataset at {public_name(archive.url)} {error.message}", hint=hint) from None
    else:
        try:
            target.write_bytes(base64.b64decode(archive.data or "", validate=True))
        except binascii.Error:
            raise InvalidInput("archive.data is not base64", field="archive.data") from None
    if target.stat().st_size != archive.bytes or sha256_file(target) != archive.sha256:
        raise DreamctlError(
            "the dataset that came is not the one that was sent: its size or SHA-256 is another",
            hint="upload it again with `dreamctl upload`, then train again",
        )


def delivered(storage: Storage, run_id: str, archive: Path) -> Answer:
    """The outcome in the storage; where that fails after all, in the answer, if it fits: hours may have been paid."""
    try:
        return outbox.leave(storage, run_id, archive)
    except DreamctlError as error:
        if archive.stat().st_size > INLINE_MODEL:
            raise
        log.warning("the storage does not take the outcome, which goes into the answer: %s", redact(error.message))
        return inline(archive)


def inline(archive: Path) -> Answer:
    """The outcome inside of the answer. Raises DreamctlError for one that does not fit."""
    size = archive.stat().st_size
    if size > INLINE_MODEL:
        raise DreamctlError(
            f"what was trained has {size / 1e6:.1f} MB, and {INLINE_MODEL / 1e6:.0f} MB fit into an answer",
            hint="name a bucket for it: storage = s3://bucket/folder in the profile",
        )
    data = base64.b64encode(archive.read_bytes()).decode()
    return Answer(outcome=Outcome(sha256=sha256_file(archive), bytes=size, data=data))


def _of_this_worker(error: DreamctlError) -> DreamctlError:
    """What is wrong with the disk is told to somebody who does not sit at it."""
    if isinstance(error, DiskFull):
        error.hint = "give the worker a larger disk"
    return error
