"""Send a run to a provider: pack its data, bring it to where the provider finds it, submit once, remember."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from dreamctl import cargo
from dreamctl.archive import write_zip
from dreamctl.backends.base import Parcel, RemoteBackend, Terms, Wishes, as_remote
from dreamctl.context import Context
from dreamctl.dataurls import check_data_url
from dreamctl.domain.concept import taught_text
from dreamctl.domain.remote import RemoteJob
from dreamctl.errors import InvalidInput, ProviderError
from dreamctl.files import sha256_file, stamp_of
from dreamctl.runfolder import RunFolder
from dreamctl.storage.base import Changed
from dreamctl.workflows import shared_runs
from dreamctl.workflows.agreeing import agree
from dreamctl.workflows.datasets import locked_dataset
from dreamctl.workflows.scratch import scratch
from dreamctl.workflows.upload import Parcel as Upload
from dreamctl.workflows.upload import deliver

_URL_SECONDS = 3600
"""The least that a URL must still work: the job may wait in a queue."""
_PUBLISH_SECONDS = 60.0


def dispatch(
    context: Context,
    backend: RemoteBackend,
    run: RunFolder,
    wishes: Wishes,
    terms: Terms | None = None,
    data_url: str | None = None,
) -> bool:
    """Submit the run; `terms` where they were agreed to already. False where another command was quicker."""
    recipe = run.recipe()
    if not (run.path / "data").is_dir():
        raise InvalidInput(
            f"the pictures of run {run.id} are on the computer that began it, and it was never submitted",
            field="RUN",
            hint="run `dreamctl train` there, or train the dataset from here",
        )
    terms = terms or agree(context, backend, recipe, run.data, wishes)
    backend.ready(recipe)

    def journaled(job: RemoteJob) -> None:
        shared_runs.publish(context, run, strict=True)

    try:
        # alone from packing to the answer: two commands at once must neither share the archive's place nor submit twice
        with locked_dataset(context, run.path):
            if (job := run.remote()) and job.id and run.at_work():
                return False
            with _parcel(context, backend, run, terms, data_url) as parcel:
                remote_id = backend.send(run, parcel, wishes, terms, journaled)
    except Changed:
        shared_runs.refresh(context, run, force=True)
        context.reporter.note(f"run {run.id} was submitted from another computer just now: following it")
        return False
    except BaseException:  # Ctrl-C too: the answer may have come before it was heard
        shared_runs.publish(context, run)
        raise
    context.registry.set_remote_id(run.id, remote_id)
    context.reporter.note(
        f"run {run.id} is at {terms.who}: {remote_id} (elsewhere: dreamctl train --attach {backend.name}:{remote_id})"
    )
    _publish_surely(context, run, remote_id, backend)
    return True


def _publish_surely(context: Context, run: RunFolder, remote_id: str, backend: RemoteBackend) -> None:
    """Keep what was paid where other computers find it; a storage that is away for a moment is waited for.

    Raises ProviderError with the job's id where it cannot be kept.
    """
    deadline = time.monotonic() + _PUBLISH_SECONDS
    while not shared_runs.publish(context, run):
        if time.monotonic() > deadline:
            raise ProviderError(
                f"run {run.id} is at {backend.title} as {remote_id}, and {context.settings.runs} does not know of it",
                hint=f"elsewhere it is found by: dreamctl train --attach {backend.name}:{remote_id}",
            )
        time.sleep(2.0)


@contextlib.contextmanager
def _parcel(
    context: Context, backend: RemoteBackend, run: RunFolder, terms: Terms, data_url: str | None
) -> Iterator[Parcel]:
    """The run's data, packed as its trainer reads it, and at a URL where the request does not carry it."""
    if data_url:
        yield _at_named_url(backend, run, data_url)
        return
    with scratch(run.path) as folder:
        archive = folder / "dataset.zip"
        if backend.carrier:
            cargo.pack_data(run.data, archive)
        else:
            _pack_taught(run, archive)
        parcel = Parcel(archive, sha256_file(archive), archive.stat().st_size)
        if terms.carries == "url" and context.settings.storage:
            yield _uploaded(context, backend, run, parcel)
        else:
            yield parcel


def check_named_url(context: Context, url: str) -> None:
    """Look at a URL that the line names, before anything is paid. Raises as `check_data_url`."""
    backend = as_remote(context.backend())
    if backend is None:
        raise InvalidInput("--data-url is for a training at a provider", field="--data-url", hint="leave it out")
    check_data_url(url, allow_private=backend.near, needed=_URL_SECONDS)


def _at_named_url(backend: RemoteBackend, run: RunFolder, url: str) -> Parcel:
    """What lies at a URL that the user named. Our own trainer is told its digest, so it is read once as a whole."""
    found = check_data_url(url, allow_private=backend.near, needed=_URL_SECONDS)
    if not backend.carrier:
        return Parcel(None, "", found.bytes, url)
    from dreamctl.storage.web import bring

    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "dataset.zip"
        fetched = bring(url, archive, allow_private=backend.near)
        _check_pictures(archive, run)
    return Parcel(None, fetched.sha256, fetched.bytes, url)


def _check_pictures(archive: Path, run: RunFolder) -> None:
    """Raises InvalidInput unless the archive holds the run's very pictures, and its masks."""
    try:
        with zipfile.ZipFile(archive) as opened:
            names = set(opened.namelist())
            for picture in run.manifest().pictures:
                data = opened.read(picture.file) if picture.file in names else b""
                if hashlib.sha256(data).hexdigest() != picture.sha256 or (picture.mask and picture.mask not in names):
                    raise InvalidInput(
                        f"what lies at the dataset's URL does not hold {picture.file} as the dataset has it",
                        field="--data-url",
                        hint="leave --data-url out: dreamctl then uploads what it needs",
                    )
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise InvalidInput(
            f"what lies at the dataset's URL is no archive that can be read: {error}", field="--data-url"
        ) from error


def _uploaded(context: Context, backend: RemoteBackend, run: RunFolder, parcel: Parcel) -> Parcel:
    """The archive in the user's storage, under a key of its content, and its signed URL, tried as a stranger would."""
    assert parcel.file is not None
    stamp = stamp_of(parcel.file.stat())
    content = hashlib.sha256(f"{run.record().key} {parcel.sha256}".encode()).hexdigest()
    report = deliver(context, context.storage(), Upload(run.path, parcel.file, parcel.sha256, stamp, content))
    if report.note:
        context.reporter.note(report.note)
    check_data_url(
        report.url,
        sha256=parcel.sha256,
        size=parcel.bytes,
        allow_private=backend.near,
        needed=_URL_SECONDS,
    )
    return Parcel(parcel.file, parcel.sha256, parcel.bytes, report.url)


def _pack_taught(run: RunFolder, path: Path) -> None:
    """Pack pictures and, beside each, the whole text that it is taught with: other trainers add nothing to it."""
    recipe, concept, data = run.recipe(), run.concept(), run.data
    trigger = data.manifest().trigger
    with tempfile.TemporaryDirectory() as folder:
        files = {picture.name: picture for picture in data.pictures()}
        for picture, caption in data.captions().items():
            file = Path(folder) / data.caption_file(picture).name
            file.write_text(taught_text(recipe.prompt, concept, caption, trigger) + "\n", encoding="utf-8")
            files[file.name] = file
        write_zip(path, files)
