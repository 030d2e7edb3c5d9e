"""A backend at a provider: one journal, one way to submit, settle, follow and bring home, whoever the provider is."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dreamctl import cargo, credentials, paths
from dreamctl.backends import journal
from dreamctl.backends.base import Look, OwnBase, Parcel, Support, Terms, Wishes
from dreamctl.backends.foreign import take_foreign
from dreamctl.backends.provider import Draft, Order, Provider, Unknowable
from dreamctl.backends.unbroken import unbroken
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.remote import ENDED, RemoteJob, Report, Result
from dreamctl.domain.run import State
from dreamctl.errors import DreamctlError, InvalidInput, NotFound, ProviderError
from dreamctl.files import is_locked, sha256_file
from dreamctl.http import AnswerLost, local_network
from dreamctl.runfolder import RunFolder, now

_ARRIVING = ".arriving"
_FIRST_PAUSE, _GROWTH, _LONGEST_PAUSE = 1.0, 1.4, 30.0
_BUSY_SECONDS = 2.0


class Remote:
    """See `dreamctl.backends.base.RemoteBackend`."""

    remote = True

    def __init__(self, provider: Provider, support: Support) -> None:
        self._provider = provider
        self._support = support
        self._pauses: dict[str, float] = {}
        self._asked_to_end: set[str] = set()
        self.name = provider.name
        self.title = provider.title

    @property
    def carrier(self) -> bool:
        return self._provider.carrier

    @property
    def own_base(self) -> OwnBase | None:
        return self._provider.own_base

    @property
    def near(self) -> bool:
        """Whether the provider's API is on this computer or its network: then it may fetch from there too."""
        url = getattr(self._support.settings, f"{self.name}_url", "")
        return local_network(urlsplit(url).hostname or "")

    def check(self, recipe: Recipe) -> list[str]:
        return self._provider.problems(recipe)

    def terms(self, recipe: Recipe, wishes: Wishes, archive_bytes: int) -> Terms:
        return self._provider.terms(recipe, wishes, archive_bytes)

    def ready(self, recipe: Recipe) -> None:
        self._provider.ready(recipe)

    def examine(self, ask_worker: bool) -> list[Look]:
        return self._provider.examine(ask_worker)

    # submitting

    def submit(self, run: RunFolder) -> str:
        raise InvalidInput(f"run {run.id} trains at {self.title}: its data must be sent along", field="RUN")

    def send(
        self, run: RunFolder, parcel: Parcel, wishes: Wishes, terms: Terms, journaled: Callable[[RemoteJob], None]
    ) -> str:
        with journal.held(run):
            before = run.remote()
            if before and not journal.settled(run):
                if before.id is not None or not wishes.resubmit:
                    raise InvalidInput(f"run {run.id} was submitted already", hint=f"dreamctl status {run.id}")
                self._withdraw(run, before, "given up by --resubmit: whether it arrived is not known")
            order = self._order(run, parcel, wishes, terms)
            draft = self._provider.draft(order)
            job = RemoteJob(
                backend=self.name,
                place=draft.place,
                contract=draft.contract,
                began=now(),
                attempt=before.attempt + 1 if before else 1,
                by=paths.computer(),
                payload=draft.digest,
                seconds=terms.seconds,
                limited_by=terms.limited_by,
                price_per_hour=terms.price_per_hour,
                forgotten=draft.forgotten,
                storage=order.storage,
                access=order.access,
                facts=draft.facts,
            )
            journal.keep(run, job)
            journal.change(run, job, State.submitting)
            try:
                journaled(job)
            except BaseException:
                self._withdraw(run, job, "nothing was sent")
                raise
            with unbroken():
                remote_id = self._submitted(run, job, draft)
                self._remember(run, job, remote_id)
            return remote_id

    def _submitted(self, run: RunFolder, job: RemoteJob, draft: Draft) -> str:
        """Send the one request; what is refused is told as the run's failure."""
        try:
            return self._provider.submit(draft)
        except AnswerLost as error:
            error.hint = f"`dreamctl status {run.id}` finds out what became of it; it is not sent again blindly"
            raise
        except DreamctlError as error:
            journal.change(run, job, State.failed, message=f"not accepted: {error.message}", hint=error.hint)
            raise

    def _remember(self, run: RunFolder, job: RemoteJob, remote_id: str) -> None:
        """Journal that the job was accepted. Where that fails the id is told at least: the job runs, and costs."""
        try:
            self._accepted(run, job, remote_id)
        except (DreamctlError, OSError) as error:
            reason = error.message if isinstance(error, DreamctlError) else str(error)
            raise ProviderError(
                f"run {run.id} was accepted by {self.title} as {remote_id}, which could not be written down: {reason}",
                hint=f"mend that, then: dreamctl train --attach {self.name}:{remote_id}",
            ) from error

    def _order(self, run: RunFolder, parcel: Parcel, wishes: Wishes, terms: Terms) -> Order:
        """The order, with the storage that a worker may leave its result in."""
        if not self._support.settings.storage:
            return Order(run, parcel, wishes, terms)
        from dreamctl.storage.base import travelling

        storage = self._support.storage(None, None)
        return Order(run, parcel, wishes, terms, self._support.settings.storage, travelling(storage.access))

    def _accepted(self, run: RunFolder, job: RemoteJob, remote_id: str) -> RemoteJob:
        job = journal.keep(run, job.model_copy(update={"id": remote_id, "accepted": now()}))
        journal.change(run, job, State.queued)
        return job

    def _withdraw(self, run: RunFolder, job: RemoteJob, why: str) -> None:
        journal.change(run, job, State.interrupted, message=why)

    def reconcile(self, run: RunFolder, resubmit: bool) -> bool:
        with journal.held(run):
            job = run.remote()
            if job is None or job.id is not None or journal.settled(run):
                return run.state() in (State.created, State.interrupted, State.failed)
            try:
                found = self._provider.find(run, job)
            except Unknowable:
                if not resubmit:
                    raise
                return True  # `send` gives the old one up, when the new one is agreed to
            if found is None:
                self._withdraw(run, job, f"the request never arrived at {self.title}")
                return True
            self._accepted(run, job, found)
            self._support.reporter.note(f"run {run.id} had arrived at {self.title} as {found}")
            return False

    def attach(self, run: RunFolder, remote_id: str) -> None:
        with journal.held(run):
            job, before = self._provider.adopt(remote_id), run.remote()
            if before:
                job = job.model_copy(update={"attempt": before.attempt})
            journal.keep(run, job)
            journal.change(run, job, State.queued)

    # following

    def poll(self, run: RunFolder) -> bool:
        if _is_held(run):
            return False  # another command is at it, perhaps fetching for long: it writes what there is to know
        with journal.held(run):
            job = run.remote()
            if job is None or job.id is None or journal.settled(run):
                return False
            if run.model_file() is not None:
                return True  # a kill came between the model and the last event
            report = self._provider.report(run, job)
            job = _missed(run, job, report)
            if report.told in ("queued", "running"):
                job, report = self._within_limits(run, job, report)
            before = run.state()
            job = journal.apply(run, job, report)
            if run.state() is not before:
                self._pauses.pop(run.id, None)
            return report.told == "succeeded" and report.result is not None

    def _within_limits(self, run: RunFolder, job: RemoteJob, report: Report) -> tuple[RemoteJob, Report]:
        """Cancel a job that runs longer than was agreed, where the provider does not see to that."""
        ran = report.seconds if report.seconds is not None else journal.elapsed(job)
        if job.limited_by != "follower" or not job.seconds or report.told != "running" or ran <= job.seconds:
            return job, report
        self._provider.cancel(job)
        report = self._provider.report(run, job)
        if report.told == "cancelled":
            message = f"cancelled after {ran / 3600:.2f} hours, the most that was agreed to"
            report = Report("timed_out", message, "a higher --max-hours or --max-cost allows more", log=report.log)
        elif report.told in ("queued", "running") and run.id not in self._asked_to_end:
            self._asked_to_end.add(run.id)
            self._support.reporter.warn(
                f"run {run.id} has run as long as was agreed to, and {self.title} has not ended it yet: asking again"
            )
        return job, report

    def fetch(self, run: RunFolder) -> None:
        with journal.held(run):
            job = run.remote()
            if job is None or job.id is None:
                return
            if run.model_file() is not None:
                journal.arrived(run, job)
                return
            report = self._provider.report(run, job)
            if report.told != "succeeded" or report.result is None:
                if journal.settled(run):
                    raise NotFound(
                        f"what run {run.id} made is not at {self.title} any more", hint="train it again with --again"
                    )
                journal.apply(run, job, report)
                return
            try:
                self._bring(run, job, report.result)
            except DreamctlError as error:
                if not _unusable(error):
                    raise
                told = Report("failed", f"the result cannot be used: {error.message}", error.hint or "")
                journal.apply(run, job, told)
                shutil.rmtree(run.path / _ARRIVING, ignore_errors=True)

    def _bring(self, run: RunFolder, job: RemoteJob, result: Result) -> None:
        """Fetch, verify, unpack; the run has succeeded when its model is whole."""
        file = self._downloaded(run, job, result)
        if result.kind == "run":
            journal.arrived(run, job, cargo.take_outcome(file, run))
        else:
            take_foreign(file, run)
            journal.arrived(run, job)
        shutil.rmtree(file.parent, ignore_errors=True)

    def _downloaded(self, run: RunFolder, job: RemoteJob, result: Result) -> Path:
        """The result as a file in the run's folder, whole and with the digest that was promised."""
        from dreamctl.storage.web import bring

        folder = run.path / _ARRIVING
        folder.mkdir(exist_ok=True)
        file = folder / "result"

        def progress(done: int, total: int) -> None:
            self._support.reporter.progress("fetching the model", done, total, unit="bytes")

        if result.data:
            file.write_bytes(result.data)
        elif result.key:
            self._storage_of(job).get(result.key, file, progress)
        else:
            token = credentials.required(self.name, self._support.project) if result.with_token else None
            bring(result.url, file, token=token, sha256=result.sha256, allow_private=self.near, progress=progress)
        size, digest = file.stat().st_size, sha256_file(file)
        if (result.bytes and size != result.bytes) or (result.sha256 and digest != result.sha256):
            shutil.rmtree(folder)
            sentence = "the result came damaged: its size or its SHA-256 is not the one that was told"
            if result.data:
                raise DreamctlError(sentence)
            raise ProviderError(sentence, hint="it is fetched again")  # the way here may be at fault
        return file

    def _storage_of(self, job: RemoteJob) -> Any:
        from dreamctl.storage.base import arrived

        access = arrived(job.access, self._support.settings) if job.access else None
        return self._support.storage(job.facts.get("result_storage") or job.storage, access)

    # ending

    def pause(self, run: RunFolder) -> float:
        """Longer and longer, and begun anew at each change; never the same for all who wait."""
        pause = self._pauses.get(run.id, _FIRST_PAUSE)
        self._pauses[run.id] = min(pause * _GROWTH, _LONGEST_PAUSE)
        return pause * random.uniform(0.8, 1.2)

    def interrupt(self, run: RunFolder) -> bool:
        return False

    def cancel(self, run: RunFolder) -> None:
        """Ask for the job's end. A job that had ended before keeps what it made: `poll` then says so."""
        job = run.remote()
        if job is not None and job.id is not None and (job.told is None or job.told not in ENDED):
            self._provider.cancel(job)  # without the lock: another command may hold it for long
            return
        with journal.held(run):
            if run.state() in (State.created, State.interrupted, State.failed):
                # nothing of it is at the provider
                blank = job or RemoteJob(backend=self.name, place="", contract="", began=now())
                journal.change(run, blank, State.cancelled, message="cancelled before it was at work")


def _missed(run: RunFolder, job: RemoteJob, report: Report) -> RemoteJob:
    """Remember since when the provider says that it knows no such job: one such answer may be a mistake of its own."""
    since = (job.missing_since or now()) if report.missing else None
    if since == job.missing_since:
        return job
    return journal.keep(run, job.model_copy(update={"missing_since": since}))


def _unusable(error: DreamctlError) -> bool:
    """Whether what came is at fault, and not the way here: then fetching again is no help."""
    return type(error) is DreamctlError or isinstance(error, InvalidInput)


def _is_held(run: RunFolder) -> bool:
    """Whether another command speaks with the provider about this run, and does so for some time already."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while is_locked(run.remote_lock):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.05)
    return False
