"""Teach a concept: choose dataset, concept and recipe, find out whether it was done before, start or go on, follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dreamctl import recipes
from dreamctl.context import Context
from dreamctl.datasetfolder import DatasetFolder, is_dataset
from dreamctl.domain.concept import CATEGORY_EXAMPLES, Concept, Kind
from dreamctl.domain.identifiers import first_free
from dreamctl.domain.recipe import Base, Recipe, parse_assignment
from dreamctl.domain.run import RunRecord, State, Target, run_key
from dreamctl.errors import DreamctlError, InvalidInput, NotFound, Terminated
from dreamctl.families.base import ResolvedBase
from dreamctl.families.sources import resolve_base
from dreamctl.registry import Version
from dreamctl.runfolder import EventTail, RunFolder, create_run, new_run_id, now
from dreamctl.workflows.datasets import check_not_interrupted
from dreamctl.workflows.follow import follow, stop
from dreamctl.workflows.harvest import harvest, record_run
from dreamctl.workflows.notice import tell_notice
from dreamctl.workflows.prepare import prepare_on_the_way
from dreamctl.workflows.runs import find_run


@dataclass(frozen=True)
class Wish:
    """What the line says; None where it says nothing."""

    dataset: Path | None = None
    identifier: str | None = None
    name: str | None = None
    category: str | None = None
    kind: Kind | None = None
    recipe: str | None = None
    base_model: str | None = None
    overrides: Sequence[str] = ()
    resume: str | None = None
    again: bool = False
    detach: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Lesson:
    """Everything that decides a training, chosen and checked."""

    dataset: DatasetFolder
    digests: tuple[str, str]
    concept: Concept
    recipe: Recipe
    target: Target

    @property
    def key(self) -> str:
        return run_key(*self.digests, self.recipe, self.concept, self.target)


@dataclass(frozen=True)
class Taught:
    """The outcome. `before`: it had been taught already; `planned`: a dry run, nothing was started."""

    concept: Concept
    recipe: Recipe
    pictures: int
    state: State
    run: RunFolder | None = None
    versions: list[Version] = field(default_factory=list)
    before: bool = False


def train(context: Context, wish: Wish) -> Taught:
    """Teach what `wish` says. Raises InvalidInput before anything is started, RunFailed when the run fails."""
    harvest(context)
    if wish.resume:
        return _go_on(context, find_run(context, wish.resume), wish.detach)
    lesson = choose(context, wish)
    if wish.dry_run:
        return _outcome(lesson, State.created)
    if not wish.again and (old := _earlier(context, lesson)):
        if old.state() is State.succeeded:
            versions = [item for item in context.registry.versions() if item.run_id == old.id]
            return _outcome(lesson, State.succeeded, old, versions, before=True)
        return _go_on(context, old, wish.detach)
    return _go_on(context, _new_run(context, lesson), wish.detach)


def choose(context: Context, wish: Wish) -> Lesson:
    """Choose and check everything, starting nothing."""
    target = context.settings.target
    if target is not Target.private:
        raise InvalidInput(
            f"training into target {target.value!r} is not there yet",
            field="--target",
            hint="use private: a model of its own for each concept",
        )
    style = wish.kind is Kind.style
    recipe, base = choose_recipe(context, wish.recipe, wish.base_model, wish.overrides, style)
    problems = context.backend().check(recipe)
    if problems:
        raise DreamctlError("; ".join(problems))
    dataset = _dataset(context, wish.dataset, recipe)
    digests = dataset.digests()
    concept = _concept(context, wish, dataset, digests[0])
    pinned = base.base.model_copy(update={"digest": base.digest})
    recipe = recipe.model_copy(update={"base": pinned, "family": base.family})
    return Lesson(dataset, digests, concept, recipe, target)


def choose_recipe(
    context: Context, named: str | None, base_model: str | None, overrides: Sequence[str], style: bool = False
) -> tuple[Recipe, ResolvedBase]:
    """The recipe and its base by the order of settings: line, then the recipe named on it, then the settings."""
    tables = [parse_assignment(text) for text in overrides]
    source = base_model or (None if named else context.settings.base_model)
    name = named or context.settings.recipe
    if name is None:
        source = source or "builtin"
        probe = resolve_base(Base(source=_absolute(source)))
        name = recipes.default_for(source, probe.family)
        if style and f"{name}-style" in recipes.names():
            name = f"{name}-style"
    if source:
        tables.insert(0, {"base": {"source": _absolute(source)}})
    recipe = recipes.resolve(name, tables)
    return recipe, resolve_base(recipe.base)


def _absolute(source: str) -> str:
    """A folder's path must still mean the same in the trainer's process."""
    path = Path(source).expanduser()
    return str(path.absolute()) if path.is_dir() else source


def _dataset(context: Context, wanted: Path | None, recipe: Recipe) -> DatasetFolder:
    size = recipe.training.resolution
    path = (wanted or context.project / context.settings.dataset).absolute()
    check_not_interrupted(path)
    if not path.exists():
        hint = "prepare one: dreamctl prepare ./original" if wanted is None else "check the path"
        raise NotFound(f"no dataset at {path}", field="DATASET", hint=hint)
    dataset = DatasetFolder(path) if is_dataset(path) else prepare_on_the_way(context, path, size)
    manifest = dataset.manifest()
    if not manifest.pictures:
        raise InvalidInput(f"{dataset.path} holds no picture", field="DATASET", hint="prepare it again")
    if manifest.size < size:
        raise InvalidInput(
            f"{dataset.path} is prepared at {manifest.size}×{manifest.size}, the recipe trains at {size}×{size}",
            field="training.resolution",
            hint=f"dreamctl prepare ORIGINALS --out {dataset.path.name} --size {size}",
        )
    return dataset


def _concept(context: Context, wish: Wish, dataset: DatasetFolder, pictures: str) -> Concept:
    """The concept: from the line, from what the registry or the dataset knows, else chosen or asked for."""
    trigger = dataset.manifest().trigger
    if trigger and wish.identifier and trigger.casefold() != wish.identifier.casefold():
        raise InvalidInput(
            f"the captions of {dataset.path} hold the word {trigger!r}, not {wish.identifier!r}",
            field="--identifier",
            hint=f"dreamctl caption {dataset.path.name} --trigger {wish.identifier} --overwrite",
        )
    identifier = wish.identifier or trigger
    if identifier:
        known = context.registry.concept(identifier)
    else:
        known = context.registry.concept(wish.name) if wish.name else context.registry.taught_as(dataset.path, pictures)
        if known and wish.category and known.category != wish.category:
            known = None
        taken = [item.identifier for item in context.registry.concepts()]
        identifier = known.identifier if known else first_free(taken)
    category = wish.category or (known.category if known else None) or context.reporter.ask(_CATEGORY_QUESTION)
    if not category:
        raise InvalidInput(
            "no category given: what are the pictures of?",
            field="--category",
            hint=f"a plain noun: --category {', '.join(CATEGORY_EXAMPLES)} …",
        )
    kind = wish.kind or (known.kind if known else Kind.subject)
    name = wish.name or (known.name if known else None)
    values = {"identifier": identifier, "category": category, "kind": kind, "name": name}
    concept = Concept.parse(values, "concept")
    if wish.dry_run:
        return concept
    return context.registry.add_concept(concept, now())


_CATEGORY_QUESTION = f"What are the pictures of ({', '.join(CATEGORY_EXAMPLES)} …)"


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
        key=lesson.key,
        pictures=lesson.digests[0],
        created=now(),
    )
    run = create_run(context.runs, record, lesson.recipe, lesson.concept, lesson.dataset)
    record_run(context, run, context.settings.backend)
    context.registry.record_dataset(
        lesson.dataset.path, context.project, lesson.digests, lesson.concept.identifier, now()
    )
    return run


def _go_on(context: Context, run: RunFolder, detach: bool) -> Taught:
    """Start the run, go on with it, or join it where a trainer already works on it."""
    row = context.registry.run(run.id)
    backend = context.backend(row.backend if row else None)
    state = run.state()
    if state in (State.succeeded, State.cancelled):
        if state is State.cancelled:
            raise InvalidInput(f"run {run.id} was cancelled", field="--resume", hint="start anew with `dreamctl train`")
        return _of_run(context, run, State.succeeded, before=True)
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
            return _of_run(context, run, State.running)
        follow(context, backend, run, tail)
    except (KeyboardInterrupt, Terminated) as signalled:
        stop(context, backend, run, signalled)
    backend.fetch(run)
    return _of_run(context, run, State.succeeded)


def _of_run(context: Context, run: RunFolder, state: State, before: bool = False) -> Taught:
    versions = record_run(context, run)
    count = len(run.data.manifest().pictures)
    return Taught(run.concept(), run.recipe(), count, state, run, versions, before)


def _outcome(
    lesson: Lesson,
    state: State,
    run: RunFolder | None = None,
    versions: list[Version] | None = None,
    before: bool = False,
) -> Taught:
    count = len(lesson.dataset.manifest().pictures)
    return Taught(lesson.concept, lesson.recipe, count, state, run, versions or [], before)
