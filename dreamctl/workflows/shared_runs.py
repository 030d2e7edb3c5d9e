"""Runs that other computers see too: with the setting `runs`, each remote run is one object of a storage.

It holds the journal and the folder's small files, so that a computer without the folder follows, cancels and brings
home what another one started; conditions of the storage decide who submits. Pictures are never among them.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from dreamctl import cargo, paths
from dreamctl.context import Context
from dreamctl.domain.remote import RemoteJob
from dreamctl.domain.run import FINAL, RUN_ID, State
from dreamctl.errors import DreamctlError, InvalidInput, ProviderError
from dreamctl.files import locked, replacing_folder, sha256_file
from dreamctl.runfolder import RunFolder
from dreamctl.storage.base import Changed
from dreamctl.workflows import shared_files
from dreamctl.workflows import shared_objects as objects

UNDER_WAY_SECONDS = 150.0
"""How long a submission may take: its one request is given up sooner."""
_TRIES = 4
_first_seen: dict[tuple[str, int, str], float] = {}
_told: set[str] = set()


class _Busy(Exception):
    """Another command of this computer is at the run: it writes and tells what there is to know."""


def shared(context: Context, run: RunFolder) -> bool:
    """Whether the run is kept in the storage too."""
    return context.settings.runs is not None and run.record().backend != "local"


def publish(context: Context, run: RunFolder, strict: bool = False) -> bool:
    """Put the run's small files into its object. Whether what is known here is in the storage now, if it is to be.

    `strict`: raises Changed where somebody else wrote it since it was read here, and what the storage raises; else
    the two are brought together, and trouble is only told, once: the run itself goes on.
    """
    if not shared(context, run):
        return True
    known = objects.versions(context).get(run.id)  # before the files are read: they are never older than it
    try:
        try:
            _put(context, run, known)
        except Changed:
            if not strict:
                _agree(context, run)
            elif objects.storage(context).head(objects.run_key(run.id)) is None:
                _put(context, run, None)
            else:
                raise
    except DreamctlError as error:
        if strict:
            raise
        about = f"run {run.id} could not be kept in {context.settings.runs}"
        _tell_once(context, about, error)
        return False
    return True


def pull(context: Context) -> None:
    """Bring every run that changed in the storage here, new ones too. Trouble is told: what is known here stays."""
    if context.settings.runs is None:
        return
    known = objects.versions(context)
    try:
        there = list(objects.storage(context).list(recursive=False))
    except InvalidInput:
        raise
    except DreamctlError as error:
        _tell_once(context, f"only what is known on this computer: {context.settings.runs} cannot be read", error)
        return
    for stored in there:
        run_id = stored.key.removesuffix(".json")
        if stored.key == objects.run_key(run_id) and RUN_ID.fullmatch(run_id) and known.get(run_id) != stored.version:
            try:
                _settle(context, run_id, wait=False)
            except (Changed, _Busy):
                continue  # somebody writes it just now: the next command reads it
            except DreamctlError as error:
                _tell_once(context, f"run {run_id} in {context.settings.runs} is passed over", error)


def refresh(context: Context, run: RunFolder, force: bool = False) -> bool:
    """Read the run's object again; whether what it says was taken. `force`: even where less is known there.

    A final state is never taken back.
    """
    try:
        return shared(context, run) and _settle(context, run.id, force) == "theirs"
    except Changed:  # somebody writes it just now
        return False


def may_be_under_way(context: Context, run: RunFolder) -> bool:
    """Whether another computer may be submitting the run at this moment: its journal says so, and is young.

    Its clock may be wrong: nothing is under way for longer than that since this process saw it first.
    """
    job = run.remote()
    if job is None or job.id is not None or not run.at_work() or not shared(context, run):
        return False
    if job.by == paths.computer():
        return False  # here, whoever submits holds the run's lock
    seen = _first_seen.setdefault((run.id, job.attempt, job.began), time.monotonic())
    return max(shared_files.age(job.began), time.monotonic() - seen) < UNDER_WAY_SECONDS


def await_submission(context: Context, run: RunFolder) -> None:
    """Wait while another computer may be submitting the run, until what came of it is known here."""
    told = False
    while may_be_under_way(context, run):
        try:
            refresh(context, run)
        except DreamctlError as error:
            _tell_once(context, f"what became of run {run.id} elsewhere is not known", error)
        if not may_be_under_way(context, run):
            return
        if not told:
            context.reporter.note(f"run {run.id} is being submitted, perhaps from another computer: waiting")
            told = True
        time.sleep(1.0)


def claim(context: Context, name: str, run: RunFolder) -> str:
    """Give the run a name that no other has in the storage; returns the id of the run that has it, this or another.

    The run's own object is written first, so that whoever finds the name finds the run. The name of a run that is
    gone or cancelled is free: of those who take it at once, one gets it.
    """
    publish(context, run, strict=True)
    value = {"name": name, "run": run.id, "key": run.record().key}
    key = objects.name_key(name)
    for _ in range(_TRIES):
        found = _holder(context, name)
        if found and found[0] == run.id:
            return run.id
        held = found is not None and _is_known(context, found[0])
        if found and held and RunFolder(context.runs / found[0]).state() is not State.cancelled:
            return found[0]
        try:
            objects.put(context, key, value, found[1] if found else None)
        except Changed:
            continue
        if found and held:
            context.reporter.note(f"{name!r} was run {found[0]}, which is cancelled: it is given to run {run.id}")
        return run.id
    raise Changed(f"the name {name!r} changes hands all the time", hint="run the same command again")


def claimed(context: Context, name: str) -> str | None:
    """The id of the run that has the name in the storage; its folder is here afterwards. None: nobody has it."""
    if context.settings.runs is None:
        return None
    found = _holder(context, name)
    return found[0] if found and _is_known(context, found[0]) else None


def free_name(context: Context, name: str) -> None:
    """Take a name from the run that has it, for `--again`."""
    if context.settings.runs is not None:
        objects.storage(context).delete(objects.name_key(name))


def forget(context: Context, run: RunFolder) -> None:
    """Remove the run's name, where it has one, its object and its outcome."""
    if not shared(context, run):
        return
    storage, name = objects.storage(context), run.record().name
    if name and _has_name(context, name, run.id):
        storage.delete(objects.name_key(name))
    for key in (objects.run_key(run.id), objects.outcome_key(run.id)):
        storage.delete(key)
    objects.remember(context, {run.id: None, objects.outcome_key(run.id): None})


def discard(context: Context, run: RunFolder) -> None:
    """Remove a run that came to nothing before it was submitted, here and in the storage."""
    forget(context, run)
    shutil.rmtree(run.path)


def outcome_kept(context: Context, run: RunFolder) -> bool:
    """Whether what the run made is where other computers find it, as far as this one knows; nobody is asked."""
    if not shared(context, run):
        return True
    job = run.remote()
    by_worker = job is not None and job.storage is not None and job.contract == "dreamctl"
    return by_worker or objects.outcome_key(run.id) in objects.versions(context)


def keep_outcome(context: Context, run: RunFolder, job: RemoteJob) -> None:
    """Put what a run made into the storage, unless it is there, or where a worker has put it, already."""
    if outcome_kept(context, run) or run.model_file() is None:
        return
    key, storage = objects.outcome_key(run.id), objects.storage(context)
    try:
        stored = storage.head(key)
        if stored is None:
            with tempfile.TemporaryDirectory(dir=run.path, prefix=".outcome-") as folder:
                file = Path(folder) / "outcome.zip"
                cargo.pack_outcome(run, file)
                stored = storage.put(key, file, sha256_file(file))
    except DreamctlError as error:
        _tell_once(context, f"the model of {run.id} could not be kept in {context.settings.runs}", error)
        return
    objects.remember(context, {key: stored.version})


def bring_outcome(context: Context, run: RunFolder) -> bool:
    """Bring what a run made on another computer here, unless it is; whether it was there."""
    if not shared(context, run):
        return False
    key, storage = objects.outcome_key(run.id), objects.storage(context)
    with locked(run.remote_lock, f"following run {run.id}"):
        if run.model_file() is not None:
            return True
        stored = storage.head(key)
        if stored is None:
            return False
        with tempfile.TemporaryDirectory(dir=run.path, prefix=".outcome-") as folder:
            file = Path(folder) / "outcome.zip"
            storage.get(key, file)
            cargo.take_outcome(file, run)
    objects.remember(context, {key: stored.version})
    return True


def _put(context: Context, run: RunFolder, known: str | None) -> None:
    """Put the run's files in the place of the version that was read here, or where nothing is. Raises Changed."""
    version = objects.put(context, objects.run_key(run.id), {"files": shared_files.collected(run)}, known)
    objects.remember(context, {run.id: version})


def _agree(context: Context, run: RunFolder) -> None:
    """Bring object and folder together, though others write too. Raises Changed where they write all the time."""
    for left in reversed(range(_TRIES)):
        try:
            if _settle(context, run.id) is None:
                _put(context, run, None)
            return
        except Changed:
            if not left:
                raise


def _settle(context: Context, run_id: str, force: bool = False, wait: bool = True) -> shared_files.Verdict | None:
    """Bring one run's object and its folder here together: whichever knows more is kept in both. None: no object.

    A version counts as read only when nothing that it says is missing here. Raises Changed where somebody else
    writes the object meanwhile, _Busy where a command here is at the run and is not to be waited for.
    """
    found = objects.read(context, objects.run_key(run_id))
    if found is None:
        return None
    files, version = found[0].get("files"), found[1]
    where = f"{objects.run_key(run_id)} in {context.settings.runs}"
    run = RunFolder(context.runs / run_id)
    with locked(paths.locks_dir() / "shared-runs-new.lock", "bringing runs here"):
        if not run.path.exists():
            with replacing_folder(run.path) as folder:
                shared_files.lay_out(files, run_id, folder, where)
            objects.remember(context, {run_id: version})
            return "theirs"

    def give_up() -> None:
        if not wait:
            raise _Busy

    with tempfile.TemporaryDirectory() as place:
        there = shared_files.lay_out(files, run_id, Path(place), where)
        with locked(run.remote_lock, f"following run {run.id}", check=give_up):
            verdict = shared_files.compared(run, there)
            if verdict == "theirs" or (force and run.state() not in FINAL):
                verdict = "theirs"
                shared_files.write(there, run)
            if verdict == "ours":
                _put(context, run, version)
            elif verdict == "apart":
                again = DreamctlError(f"`dreamctl status {run_id}` there tells more")
                _tell_once(context, f"run {run_id} is {run.state()} here, and was sent again elsewhere", again)
            else:
                objects.remember(context, {run_id: version})
    return verdict


def _holder(context: Context, name: str) -> tuple[str, str] | None:
    """The run that a name leads to, and the version of the claim that says so."""
    found = objects.read(context, objects.name_key(name))
    if found is None:
        return None
    run_id = found[0].get("run")
    if not isinstance(run_id, str) or not RUN_ID.fullmatch(run_id):
        raise DreamctlError(f"the name {name!r} in {context.settings.runs} leads to no run", hint="--again renews it")
    return run_id, found[1]


def _has_name(context: Context, name: str, run_id: str) -> bool:
    try:
        found = _holder(context, name)
    except ProviderError:
        raise
    except DreamctlError:
        return False
    return found is not None and found[0] == run_id


def _is_known(context: Context, run_id: str) -> bool:
    """Whether a run's folder is here, or can be brought here."""
    return (context.runs / run_id).is_dir() or _settle(context, run_id) is not None


def _tell_once(context: Context, what: str, error: DreamctlError) -> None:
    """Tell trouble that does not stop anything; not again in this process, whatever its reason is then."""
    if what not in _told:
        _told.add(what)
        context.reporter.warn(f"{what}: {error.message}")
