"""Teach a concept: show what is done, go on with what is not, start what is new; follow it to the registered model."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, fields, replace

from dreamctl import paths
from dreamctl.backends.base import Backend, RemoteBackend, Terms, Wishes, as_remote
from dreamctl.context import Context
from dreamctl.domain.concept import Concept
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.run import RunRecord, State
from dreamctl.domain.versions import Version
from dreamctl.errors import InvalidInput
from dreamctl.files import locked
from dreamctl.runfolder import EventTail, RunFolder, bring_data, create_run, new_run_id, now
from dreamctl.workflows import shared_runs
from dreamctl.workflows.agreeing import agree, archive_bytes, outlook
from dreamctl.workflows.dispatch import check_named_url, dispatch
from dreamctl.workflows.follow import follow, keep_home, stop
from dreamctl.workflows.harvest import harvest, record_run
from dreamctl.workflows.lesson import Lesson, Material, Wish, choose, completed, gather
from dreamctl.workflows.naming import attached, check_same_lesson, named_run
from dreamctl.workflows.notice import tell_notice
from dreamctl.workflows.runs import find_run

__all__ = ["Taught", "Wish", "train"]

_WITH_RESUME = ("resume", "detach", "yes", "resubmit", "cancel_on_interrupt")


@dataclass(frozen=True)
class Taught:
    """The outcome. `before`: it was taught already; `newest`: a prompt that names the concept gets this version."""

    concept: Concept
    recipe: Recipe
    pictures: int
    state: State
    run: RunFolder | None = None
    versions: tuple[Version, ...] = ()
    before: bool = False
    newest: bool = True


def train(context: Context, wish: Wish) -> Taught:
    """Teach what `wish` says. Raises InvalidInput before anything is started, RunFailed when the run fails."""
    shared_runs.pull(context)
    harvest(context)
    if wish.resume:
        _check_alone(wish)
        return _go_on(context, find_run(context, wish.resume), wish)
    if run := attached(context, wish.attach) if wish.attach else None:
        return _go_on(context, run, replace(wish, resume=run.id))
    wish = completed(context, wish)
    if wish.data_url:
        check_named_url(context, wish.data_url)
    material = gather(context, wish)
    if wish.dry_run:
        lesson = choose(context, wish, material)
        _tell_outlook(context, wish, lesson)
        return Taught(lesson.concept, lesson.recipe, len(lesson.dataset.manifest().pictures), State.created)
    if wish.attach:
        return _attach(context, wish, material)
    run, lesson = _claimed(context, wish, material, new=as_remote(context.backend()) is None)
    terms = None
    if run is None:
        terms = _agreed(context, wish, lesson)  # a person may think about it for long: nothing is locked meanwhile
        run, lesson = _claimed(context, wish, material, new=True)
    assert run is not None
    if run.state() is not State.succeeded:
        bring_data(run, lesson.dataset)  # another computer may have begun it
    return _go_on(context, run, wish, terms)


def _claimed(context: Context, wish: Wish, material: Material, new: bool) -> tuple[RunFolder | None, Lesson]:
    """The run that a lesson has already, or else, where `new`, one that is made for it.

    One at a time from choosing the identifier to the run that holds it: two commands at once must not teach the same
    twice, nor two subjects as one.
    """

    def on_wait(holder: str) -> None:
        context.reporter.note(f"waiting for {holder}")

    with locked(paths.locks_dir() / "train.lock", "another `dreamctl train` that begins", on_wait):
        lesson = choose(context, wish, material)
        run = named_run(context, wish, lesson.key) or (None if wish.again else _earlier(context, lesson))
        if run and lesson.concept.name:
            context.registry.name_concept(lesson.concept)
        if run is None and new:
            run = _new_run(context, wish, lesson)
    return run, lesson


def _attach(context: Context, wish: Wish, material: Material) -> Taught:
    """Adopt a provider's job, into the run whose submission's answer was lost, or else into a new one."""
    backend = as_remote(context.backend())
    provider, _, remote_id = (wish.attach or "").partition(":")
    if backend is None:
        raise InvalidInput(f"{provider} is no provider", field="--attach", hint="as in --attach runpod:ID")
    lost = _lost(context, choose(context, wish, material))
    run = lost or _claimed(context, replace(wish, again=True), material, new=True)[0]
    assert run is not None
    try:
        backend.attach(run, remote_id)
    except BaseException:
        if lost is None:
            context.registry.remove_run(run.id)
            shared_runs.discard(context, run)
        raise
    record_run(context, run)
    shared_runs.publish(context, run)
    return _go_on(context, run, wish)


def _lost(context: Context, lesson: Lesson) -> RunFolder | None:
    """A run of this lesson whose submission's answer was lost."""
    for row in context.registry.runs_of_key(lesson.key):
        run = RunFolder(context.runs / row.id)
        job = run.remote() if run.path.is_dir() else None
        if job and job.id is None and run.at_work() and row.backend == context.settings.backend:
            return run
    return None


def _check_alone(wish: Wish) -> None:
    """`--resume` goes on with a run as it is."""
    for field in fields(Wish):
        if field.name not in _WITH_RESUME and getattr(wish, field.name) not in (None, False, [], ()):
            names = {"dataset": "DATASET", "overrides": "--set", "inputs": "--input"}
            flag = names.get(field.name, "--" + field.name.replace("_", "-"))
            raise InvalidInput(f"--resume goes on with a run as it is: leave {flag} out", field=flag)


def _wishes(context: Context, wish: Wish) -> Wishes:
    return Wishes(
        yes=wish.yes,
        max_hours=context.settings.max_hours,
        webhook=context.settings.webhook,
        inputs=tuple(wish.inputs),
        resubmit=wish.resubmit,
        at_url=wish.data_url is not None,
    )


def _tell_outlook(context: Context, wish: Wish, lesson: Lesson) -> None:
    """For a dry run at a provider: what would be told before it is paid."""
    if remote := as_remote(context.backend()):
        terms = remote.terms(lesson.recipe, _wishes(context, wish), archive_bytes(lesson.dataset))
        for note in (*terms.notes, outlook(terms)):
            context.reporter.note(note)


def _agreed(context: Context, wish: Wish, lesson: Lesson) -> Terms | None:
    """Consent to what a new run will cost; nothing of it is on the disk before that."""
    remote = as_remote(context.backend())
    if remote is None:
        return None
    return agree(context, remote, lesson.recipe, lesson.dataset, _wishes(context, wish))


def _earlier(context: Context, lesson: Lesson) -> RunFolder | None:
    """The newest run of the same key that is done or at work anywhere; else one that can go on where settings say."""
    unfinished = None
    for row in context.registry.runs_of_key(lesson.key):
        run = RunFolder(context.runs / row.id)
        if row.state is State.cancelled or not run.path.is_dir():
            continue
        if row.state is State.succeeded or run.at_work():
            return run
        if unfinished is None and row.backend == context.settings.backend:
            unfinished = run
    return unfinished


def _new_run(context: Context, wish: Wish, lesson: Lesson) -> RunFolder:
    """A run of this lesson, on the disk and in the registry; or, where its name was just given to another, that one."""
    record = RunRecord(
        id=new_run_id(),
        project=context.project.name,
        target=lesson.target,
        backend=context.settings.backend,
        key=lesson.key,
        pictures=lesson.digests[0],
        created=now(),
        name=wish.name,
    )
    run = create_run(context.runs, record, lesson.recipe, lesson.concept, lesson.dataset)
    if run.data.digests() != lesson.digests:
        shutil.rmtree(run.path)
        raise InvalidInput(
            f"{lesson.dataset.path} changed meanwhile", field="DATASET", hint="run the same command again"
        )
    if wish.name and shared_runs.shared(context, run):
        if wish.again:
            shared_runs.free_name(context, wish.name)
        holder = shared_runs.claim(context, wish.name, run)
        if holder != run.id:
            shared_runs.discard(context, run)
            run = RunFolder(context.runs / holder)
            check_same_lesson(wish.name, run, lesson.key)
            record_run(context, run)
            return run
    context.registry.add_run(record, lesson.concept, lesson.recipe.base.source, now())
    files = [picture.sha256 for picture in lesson.dataset.manifest().pictures]
    context.registry.record_dataset(lesson.dataset.path, context.project, files, lesson.concept.identifier, now())
    return run


def _go_on(context: Context, run: RunFolder, wish: Wish, terms: Terms | None = None) -> Taught:
    """Show a run that is done; start it, go on with it, or join it where it is at work already."""
    state = run.state()
    if state is State.cancelled:
        raise InvalidInput(f"run {run.id} was cancelled", field="--resume", hint="start anew with `dreamctl train`")
    backend = context.backend(run.record().backend)
    if state is State.succeeded:
        _bring_model(context, backend, run)
        keep_home(context, run)
        return _taught(context, run, State.succeeded, before=True)
    tail = EventTail(run.events_file)
    old = tail.new()
    try:
        if remote := as_remote(backend):
            _begin_remote(context, remote, run, wish, terms)
        elif run.alive():
            context.reporter.note(f"run {run.id} is at work already: following it")
        else:
            tell_notice(context.reporter, run.recipe().base.source)
            if old:
                context.reporter.note(f"going on with run {run.id}")
            context.registry.set_remote_id(run.id, backend.submit(run))
        record_run(context, run)
        if wish.detach:
            return _taught(context, run, run.state() if as_remote(backend) else State.running)
        follow(context, backend, run, tail)
    except KeyboardInterrupt as signalled:
        stop(context, backend, run, signalled, wish.cancel_on_interrupt)
    backend.fetch(run)
    return _taught(context, run, State.succeeded)


def _begin_remote(context: Context, backend: RemoteBackend, run: RunFolder, wish: Wish, terms: Terms | None) -> None:
    """Submit the run, unless it is at the provider already, or may be, or was adopted from there."""
    while True:
        shared_runs.await_submission(context, run)
        job = run.remote()
        if (job and job.id and run.at_work()) or not backend.reconcile(run, wish.resubmit):
            shared_runs.publish(context, run)
            context.reporter.note(f"run {run.id} is at {backend.title} already: following it")
            return
        if wish.attach:
            backend.attach(run, wish.attach.partition(":")[2])
            return
        tell_notice(context.reporter, run.recipe().base.source)
        if dispatch(context, backend, run, _wishes(context, wish), terms, wish.data_url):
            return


def _bring_model(context: Context, backend: Backend, run: RunFolder) -> None:
    """What a run made on another computer, brought here."""
    if run.model_file() is None and not shared_runs.bring_outcome(context, run):
        backend.fetch(run)


def _taught(context: Context, run: RunFolder, state: State, before: bool = False) -> Taught:
    versions = tuple(record_run(context, run))
    count = len(run.manifest().pictures)
    concept = run.concept()
    newest = context.registry.versions(concept.identifier)[-1:]
    is_newest = not versions or newest[0] in versions
    return Taught(concept, run.recipe(), count, state, run, versions, before, is_newest)
