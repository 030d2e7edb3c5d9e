"""Write another trainer's own description of a dataset, and beside it the pictures and whole texts that it reads."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from dreamctl import recipes
from dreamctl.context import Context
from dreamctl.datasetfolder import DatasetFolder
from dreamctl.domain.concept import Concept, taught_text
from dreamctl.domain.dataset import IMAGE_SUFFIXES
from dreamctl.domain.identifiers import first_free
from dreamctl.domain.recipe import Recipe
from dreamctl.errors import InvalidInput, NotFound
from dreamctl.files import sha256_file
from dreamctl.trainers.base import Description, Item, Material, Trainer
from dreamctl.workflows import lesson
from dreamctl.workflows.datasets import chosen_dataset, locked_dataset
from dreamctl.workflows.placing import place


@dataclass(frozen=True)
class Wish:
    """What the line says; None where it says nothing. `options` are `--set KEY=VALUE`, keys of the trainer."""

    trainer: str
    dataset: Path | None = None
    identifier: str | None = None
    category: str | None = None
    recipe: str | None = None
    options: tuple[str, ...] = ()
    reg: Path | None = None
    out: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Described:
    """The description's file, the folder of its pictures and texts, and the command that trains with it.

    `written`: how many files were new, changed or removed.
    """

    trainer: str
    file: Path
    folder: Path
    concept: Concept
    pictures: int
    regularisation: int
    command: str
    notes: tuple[str, ...]
    written: int


def describe(context: Context, wish: Wish) -> Described:
    """Describe the prepared dataset for `wish.trainer`. Same input, same bytes; again, only what changed is written.

    Raises NotFound or InvalidInput for what is not there or not possible, and InvalidInput where a file that would be
    replaced was edited or is not dreamctl's, unless `wish.overwrite`.
    """
    trainer = context.trainer(wish.trainer)
    dataset = chosen_dataset(context, wish.dataset)
    recipe = _recipe(context, wish.recipe)
    file, folder = _places(trainer, dataset.path, wish.out)
    without = next((option for option in wish.options if option.startswith("reg.")), None) if not wish.reg else None
    if without:
        raise InvalidInput(f"--set {without}: there are no regularisation pictures", field="--set", hint="--reg FOLDER")
    with locked_dataset(context, dataset.path):
        concept = _concept(context, wish, dataset)
        material = Material(
            items=_items(dataset, recipe, concept),
            regularisation=_regularisation(wish.reg) if wish.reg else (),
            concept=concept,
            recipe=recipe,
            file=file,
            folder=folder,
            options=wish.options,
        )
        description = trainer.describe(material)
        written = place(description, file, folder, wish.overwrite, context.reporter)
    return Described(
        trainer=trainer.name,
        file=file,
        folder=folder,
        concept=concept,
        pictures=len(material.items),
        regularisation=len(material.regularisation),
        command=description.command,
        notes=_notes(material, description),
        written=written,
    )


def _recipe(context: Context, named: str | None) -> Recipe | None:
    """The recipe named on the line or configured; its base is neither resolved nor fetched."""
    name = named or context.settings.recipe
    if name is None:
        return None
    base = context.settings.base_model if named is None else None
    return recipes.resolve(name, [{"base": {"source": lesson.absolute_source(base)}}] if base else [])


def _places(trainer: Trainer, dataset: Path, out: Path | None) -> tuple[Path, Path]:
    """(the description's file, its folder): beside the dataset, where no trainer takes them for its data."""
    suffix = Path(trainer.file_name).suffix
    if "{name}" not in trainer.file_name:  # the description lies among the pictures
        folder = out.expanduser().absolute() if out else dataset.with_name(f"{dataset.name}.{trainer.name}")
        folder = folder.parent if folder.name == trainer.file_name else folder
        file = folder / trainer.file_name
    else:
        file = dataset.with_name(trainer.file_name.format(name=dataset.name))
        file = out.expanduser().absolute() if out else file
        folder = file.with_suffix("")
        if file.suffix != suffix:
            raise InvalidInput(
                f"--out {out}: {trainer.name} reads a {suffix} file", field="--out", hint=f"{out}{suffix}"
            )
    ours, theirs = dataset.resolve(), folder.resolve()
    if theirs.is_relative_to(ours) or ours.is_relative_to(theirs) or file.resolve().is_relative_to(ours):
        raise InvalidInput(
            f"the folder {folder} and the dataset {dataset} would lie in each other",
            field="--out",
            hint="choose another name beside the dataset",
        )
    return file, folder


def _concept(context: Context, wish: Wish, dataset: DatasetFolder) -> Concept:
    """The concept as `train` would choose it; nothing is claimed for it."""
    asked = lesson.Wish(dataset=dataset.path, identifier=wish.identifier, category=wish.category)
    known = lesson.known_concept(context, asked)
    lesson.check_trigger(dataset, wish.identifier)
    identifier = wish.identifier or dataset.manifest().trigger or (known.identifier if known else None)
    values: dict[str, str | None] = {
        "identifier": identifier or first_free(item.identifier for item in context.registry.concepts()),
        "category": lesson.asked_category(context, wish.category, known),
    }
    if known:
        values |= {"kind": known.kind, "name": known.name}
    concept = Concept.parse(values, "concept")
    context.registry.check_concept(concept)
    return concept


def _items(dataset: DatasetFolder, recipe: Recipe | None, concept: Concept) -> tuple[Item, ...]:
    """The pictures with the texts that a training here would teach them with."""
    manifest, captions = dataset.manifest(), dataset.captions()
    if not manifest.pictures:
        raise InvalidInput(f"{dataset.path} holds no picture", field="DATASET", hint="prepare it again")
    template = recipe.prompt if recipe else str(Recipe.model_fields["prompt"].default)
    items = []
    for path, picture in zip(dataset.pictures(), manifest.pictures, strict=True):
        whole = taught_text(template, concept, captions[picture.file], manifest.trigger)
        mask = dataset.path / picture.mask if picture.mask else None
        if mask and not mask.is_file():
            raise NotFound(f"{mask} is gone", field="DATASET", hint="run `dreamctl prepare` again")
        items.append(
            Item(
                file=path,
                sha256=sha256_file(path),
                size=(picture.width, picture.height),
                text=" ".join(whole.split()),
                mask=mask,
                mask_sha256=sha256_file(mask) if mask else None,
                repeats=picture.repeats,
            )
        )
    return tuple(items)


def _regularisation(folder: Path) -> tuple[Item, ...]:
    """The pictures of a folder (not of its sub-folders), each with the text beside it, where there is one."""
    path = folder.expanduser().absolute()
    if not path.is_dir():
        raise NotFound(f"{path} is not a folder", field="--reg", hint="name a folder of pictures of the category")
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != ".")
    if not found:
        raise InvalidInput(f"{path} holds no picture", field="--reg", hint=f"known: {', '.join(IMAGE_SUFFIXES)}")
    return tuple(Item(file, sha256_file(file), (0, 0), _text_beside(file)) for file in found)


def _text_beside(picture: Path) -> str | None:
    file = picture.with_suffix(".txt")
    try:
        return " ".join(file.read_text(encoding="utf-8").split()) or None
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8 text", field="--reg", hint="save it as UTF-8") from error


def _notes(material: Material, description: Description) -> tuple[str, ...]:
    smallest = min(min(item.size) for item in material.items)
    asked = any(option.partition("=")[0].strip().endswith("resolution") for option in material.options)
    if asked or smallest >= material.resolution or not material.square:
        return description.notes
    wanted = f"prepare them with --size {material.resolution}, or use {shlex.quote(f'--set=resolution={smallest}')}"
    enlarged = (
        f"the pictures are {smallest} pixels wide, so the trainer enlarges them to {material.resolution}: {wanted}"
    )
    return (*description.notes, enlarged)
