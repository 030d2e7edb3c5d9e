"""What a training is: dataset, concept, recipe and base, chosen from line, settings and registry, and checked."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dreamctl import recipes
from dreamctl.backends.base import RemoteBackend, as_remote
from dreamctl.context import Context
from dreamctl.datasetfolder import DatasetFolder, is_dataset
from dreamctl.domain.concept import CATEGORY_EXAMPLES, Concept, Kind
from dreamctl.domain.dataset import Dataset
from dreamctl.domain.identifiers import first_free
from dreamctl.domain.recipe import Base, Recipe, parse_assignment
from dreamctl.domain.run import Target, run_key
from dreamctl.errors import DreamctlError, InvalidInput
from dreamctl.families.base import ResolvedBase
from dreamctl.families.sources import on_hub, pinned, resolve_base
from dreamctl.workflows.datasets import check_not_interrupted, chosen_dataset, default_folder
from dreamctl.workflows.prepare import prepare_on_the_way


@dataclass(frozen=True)
class Wish:
    """What the line says; None where it says nothing. `called`: the concept's human name, `name`: the run's own."""

    dataset: Path | None = None
    identifier: str | None = None
    called: str | None = None
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
    attach: str | None = None
    data_url: str | None = field(default=None, repr=False)
    inputs: Sequence[str] = ()
    yes: bool = False
    resubmit: bool = False
    cancel_on_interrupt: bool = False


@dataclass(frozen=True)
class Material:
    """What is taught from and how. `known`: the concept that line or pictures mean, where the registry has one."""

    dataset: DatasetFolder
    digests: tuple[str, str]
    recipe: Recipe
    known: Concept | None
    category: str


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


def completed(context: Context, wish: Wish) -> Wish:
    """The wish, with what the settings say of identifier and kind where the line says nothing."""
    settings = context.settings
    return replace(wish, identifier=wish.identifier or settings.identifier, kind=wish.kind or settings.kind)


def gather(context: Context, wish: Wish) -> Material:
    """Choose and check dataset, recipe and base, and ask for the category; nothing is started or claimed."""
    known = known_concept(context, wish)
    kind = wish.kind or (known.kind if known else Kind.subject)
    backend = context.backend()
    style, remote = kind is Kind.style, as_remote(backend)
    if remote and not remote.carrier:
        recipe = foreign_recipe(context, wish, remote, style)
        base = None
    else:
        _check_named(context, wish, remote)
        recipe, base = choose_recipe(context, wish.recipe, wish.base_model, wish.overrides, style=style)
    problems = backend.check(recipe)
    if problems:
        raise DreamctlError("; ".join(problems))
    dataset = _dataset(context, wish, recipe)
    category = asked_category(context, wish.category, known)
    if base:
        recipe = recipe.model_copy(update={"base": pinned(base), "family": base.family})
    return Material(dataset, dataset.digests(), recipe, known, category)


def choose(context: Context, wish: Wish, material: Material) -> Lesson:
    """Choose the identifier, and check it against the registry. Under the lock of `train`: see there."""
    target = context.settings.target
    if target is not Target.private:
        raise InvalidInput(
            f"training into target {target.value!r} is not there yet",
            field="--target",
            hint="use private: a model of its own for each concept",
        )
    known = known_concept(context, wish) or material.known  # another `train` may just have taught it
    identifier = wish.identifier or material.dataset.manifest().trigger or (known.identifier if known else None)
    values = {
        "identifier": identifier or first_free(item.identifier for item in context.registry.concepts()),
        "category": material.category,
        "kind": wish.kind or (known.kind if known else Kind.subject),
        "name": wish.called or (known.name if known else None),
    }
    concept = Concept.parse(values, "concept")
    context.registry.check_concept(concept)
    return Lesson(material.dataset, material.digests, concept, material.recipe, target)


def choose_recipe(
    context: Context, named: str | None, base_model: str | None, overrides: Sequence[str], style: bool = False
) -> tuple[Recipe, ResolvedBase]:
    """The recipe and its base by the order of settings: line, then the recipe named on it, then the settings."""
    tables = [parse_assignment(text) for text in overrides]
    source = base_model or (None if named else context.settings.base_model)
    for table in tables:
        source = table.get("base", {}).get("source", source)
    name = named or context.settings.recipe
    reach_hub(context, source)
    if name is None:
        source = source or "builtin"
        probe = resolve_base(Base(source=absolute_source(source)))
        name = recipes.default_for(source, probe.family)
        if style and f"{name}-style" in recipes.names():
            name = f"{name}-style"
    if source:
        tables.append({"base": {"source": absolute_source(source)}})
    recipe = recipes.resolve(name, tables)
    reach_hub(context, recipe.base.source)
    return recipe, resolve_base(recipe.base)


def foreign_recipe(context: Context, wish: Wish, backend: RemoteBackend, style: bool) -> Recipe:
    """The recipe for another's trainer, which finds the base model itself: it is looked for nowhere here."""
    own, tables = backend.own_base, [parse_assignment(text) for text in wish.overrides]
    named = wish.recipe
    source = wish.base_model or (None if named else context.settings.base_model)
    for table in tables:
        source = table.get("base", {}).get("source", source)
    name = named or context.settings.recipe or (own.recipe if own else None)
    if name is None and source:
        name = recipes.default_for(source, "")
    if name is None:
        raise InvalidInput(
            f"no recipe is named for {backend.title}'s trainer, and dreamctl does not know what it teaches",
            field="--recipe",
            hint="name the base that it teaches: --recipe NAME --base-model OWNER/NAME",
        )
    if style and own and named is None and f"{name}-style" in recipes.names():
        name = f"{name}-style"
    if source:
        tables.append({"base": {"source": source}})
    recipe = recipes.resolve(name, tables)
    if own and own.source not in ("", recipe.base.source):
        raise InvalidInput(
            f"{backend.title}'s trainer teaches {own.source}, not {recipe.base.source}",
            field="base.source",
            hint=f"--recipe {own.recipe}, or another trainer",
        )
    return recipe


def _check_named(context: Context, wish: Wish, backend: RemoteBackend | None) -> None:
    """Nobody pays for a demonstration by oversight: at a provider the base is named."""
    tables = [parse_assignment(text) for text in wish.overrides]
    named = wish.recipe or wish.base_model or context.settings.recipe or context.settings.base_model
    if backend and not named and not any("source" in table.get("base", {}) for table in tables):
        raise InvalidInput(
            f"no base model is named: what is {backend.title} to teach?",
            field="--base-model",
            hint="--base-model OWNER/NAME, or `dreamctl config set base_model OWNER/NAME`",
        )


def reach_hub(context: Context, source: str | None) -> None:
    """Make the hub reachable where a base lies there; tokens are looked for only then."""
    if source and on_hub(source):
        context.reach_hub()


def absolute_source(source: str) -> str:
    """A folder's path must still mean the same in the trainer's process."""
    path = Path(source).expanduser()
    return str(path.absolute()) if path.is_dir() else source


def known_concept(context: Context, wish: Wish) -> Concept | None:
    """The concept that the line names, or that these pictures were taught as, where the registry has it."""
    path = wish.dataset.expanduser().absolute() if wish.dataset else default_folder(context)
    dataset = DatasetFolder(path) if is_dataset(path) else None
    identifier = wish.identifier or (dataset.manifest().trigger if dataset else None)
    word = identifier or wish.called
    named = context.registry.concept(word) if word else None
    if identifier or named or dataset is None:
        return named
    files = [picture.sha256 for picture in dataset.manifest().pictures]
    known = context.registry.taught_as(path, dataset.digests()[0], files)
    if known is None or wish.category not in (None, known.category):
        return None
    return None if wish.called and known.name else known  # a name of its own makes it another


def asked_category(context: Context, given: str | None, known: Concept | None) -> str:
    """The category: of the line, of the known concept, or the person's answer. Raises InvalidInput without any."""
    category = given or (known.category if known else None) or context.settings.category
    category = category or context.reporter.ask(_CATEGORY_QUESTION)
    if not category:
        raise InvalidInput(
            "no category given: what are the pictures of?",
            field="--category",
            hint=f"a plain noun: --category {', '.join(CATEGORY_EXAMPLES)} …",
        )
    return category


def check_trigger(dataset: DatasetFolder, identifier: str | None) -> None:
    """Raises InvalidInput where the captions were written for another identifier than the line's."""
    trigger = dataset.manifest().trigger
    if trigger and identifier and trigger.casefold() != identifier.casefold():
        raise InvalidInput(
            f"the captions of {dataset.path} hold the word {trigger!r}, not {identifier!r}",
            field="--identifier",
            hint=f"dreamctl caption {shlex.quote(str(dataset.path))} --trigger {shlex.quote(identifier)}",
        )


def _check_large_enough(dataset: DatasetFolder, manifest: Dataset, size: int, named: Path | None) -> None:
    """Pictures are taught as squares: none may have a shorter side, as most in buckets of that size have."""
    small = next((picture for picture in manifest.pictures if min(picture.width, picture.height) < size), None)
    if small is None:
        return
    fit = " --fit crop" if manifest.fit == "bucket" else ""
    raise InvalidInput(
        f"{dataset.path / small.file} has {small.width}×{small.height} pixels, the recipe trains on {size}×{size}",
        field="training.resolution",
        hint=f"dreamctl prepare ORIGINALS --out {shlex.quote(str(named or dataset.path))} --size {size}{fit}",
    )


def _dataset(context: Context, wish: Wish, recipe: Recipe) -> DatasetFolder:
    """The prepared dataset, large enough, and not written for another identifier."""
    path = wish.dataset.expanduser().absolute() if wish.dataset else default_folder(context)
    check_not_interrupted(path)
    size = recipe.training.resolution
    if wish.dataset and path.exists() and not is_dataset(path):
        if wish.dry_run:
            raise InvalidInput(
                f"{path} is not prepared yet, and a dry run prepares nothing",
                field="DATASET",
                hint=f"dreamctl prepare {shlex.quote(str(wish.dataset))} --size {size}",
            )
        dataset = prepare_on_the_way(context, path, size)
    else:
        dataset = chosen_dataset(context, wish.dataset)
    manifest = dataset.manifest()
    if not manifest.pictures:
        raise InvalidInput(f"{dataset.path} holds no picture", field="DATASET", hint="prepare it again")
    _check_large_enough(dataset, manifest, size, wish.dataset)
    check_trigger(dataset, wish.identifier)
    return dataset


_CATEGORY_QUESTION = f"What are the pictures of ({', '.join(CATEGORY_EXAMPLES)} …)"
