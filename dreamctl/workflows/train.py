"""Teach a concept: show what is done, go on with what is not, start what is new; follow it to the registered model."""

from __future__ import annotations

from dataclasses import dataclass, fields

from dreamctl import paths
from dreamctl.context import Context
from dreamctl.domain.concept import Concept
from dreamctl.domain.recipe import Recipe
from dreamctl.domain.run import RunRecord, State
from dreamctl.domain.versions import Version
from dreamctl.errors import InvalidInput
from dreamctl.files import locked
from dreamctl.runfolder import EventTail, RunFolder, create_run, new_run_id, now
from dreamctl.workflows.follow import follow, stop
from dreamctl.workflows.harvest import harvest, record_run
from dreamctl.workflows.lesson import Lesson, Wish, choose, gather
from dreamctl.workflows.notice import tell_notice
from dreamctl.workflows.runs import find_run

__all__ = ["Taught", "Wish", "train"]


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
    harvest(context)
    if wish.resume:
        _check_alone(wish)
        return _go_on(context, find_run(context, wish.resume), wish.detach)
    material = gather(context, wish)
    if wish.dry_run:
        lesson = choose(context, wish, material)
        return Taught(lesson.concept, lesson.recipe, len(lesson.dataset.manifest().pictures), State.created)
    # One at a time from choosing the identifier to the run that holds it: two commands at once must not teach the same
    # twice, nor two subjects as one.
    with locked(paths.locks_dir() / "train.lock", "another `dreamctl train` that begins"):
        lesson = choose(context, wish, material)
        run = None if wish.again else _earlier(context, lesson)
        if run and lesson.concept.name:
            context.registry.name_concept(lesson.concept)
        run = run or _new_run(context, lesson)
    return _go_on(context, run, wish.detach)


def _check_alone(wish: Wish) -> None:
    """`--resume` goes on with a run as it is."""
    for field in fields(Wish):
        if field.name not in ("resume", "detach") and getattr(wish, field.name) not in (None, False, [], ()):
            flag = {"dataset": "DATASET", "overrides": "--set"}.get(field.name, "--" + field.name.replace("_", "-"))
            raise InvalidInput(f"--resume goes on with a run as it is: leave {flag} out", field=flag)


def _earlier(context: Context, lesson: Lesson) -> RunFolder | None:
    """The newest run of the same key that is done or can go on."""
    for row in context.registry.runs_of_key(lesson.key):
        run = RunFolder(context.runs / row.id)
        if row.state is not State.cancelled and run.path.is_dir():
            return run
    return None


def _new_run(context: Context, lesson: Lesson) -> RunFolder:
    record = RunRecord(
        id=new_run_id(),
        project=context.project.name,
        target=lesson.target,
        backend=context.settings.backend,
        key=lesson.key,
        pictures=lesson.digests[0],
        created=now(),
    )
    run = create_run(context.runs, record, lesson.recipe, lesson.concept, lesson.dataset)
    context.registry.add_run(record, lesson.concept, lesson.recipe.base.source, now())
    files = [picture.sha256 for picture in lesson.dataset.manifest().pictures]
    context.registry.record_dataset(lesson.dataset.path, context.project, files, lesson.concept.identifier, now())
    return run


def _go_on(context: Context, run: RunFolder, detach: bool) -> Taught:
    """Show a run that is done; start it, go on with it, or join it where a trainer already works on it."""
    state = run.state()
    if state is State.succeeded:
        return _taught(context, run, State.succeeded, before=True)
    if state is State.cancelled:
        raise InvalidInput(f"run {run.id} was cancelled", field="--resume", hint="start anew with `dreamctl train`")
    backend = context.backend(run.record().backend)
    tail = EventTail(run.events_file)
    old = tail.new()
    try:
        if run.alive():
            context.reporter.note(f"run {run.id} is at work already: following it")
        else:
            tell_notice(context.reporter, run.recipe().base.source)
            if old:
                context.reporter.note(f"going on with run {run.id}")
            context.registry.set_remote_id(run.id, backend.submit(run))
        record_run(context, run)
        if detach:
            return _taught(context, run, State.running)
        follow(context, backend, run, tail)
    except KeyboardInterrupt as signalled:
        stop(context, backend, run, signalled)
    backend.fetch(run)
    return _taught(context, run, State.succeeded)


def _taught(context: Context, run: RunFolder, state: State, before: bool = False) -> Taught:
    versions = tuple(record_run(context, run))
    count = len(run.data.manifest().pictures)
    concept = run.concept()
    newest = context.registry.versions(concept.identifier)[-1:]
    is_newest = not versions or newest[0] in versions
    return Taught(concept, run.recipe(), count, state, run, versions, before, is_newest)
