"""Turn pictures of any size and format into a dataset; run again, only what changed is made again."""

from __future__ import annotations

import contextlib
import itertools
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dreamctl.archive import pack_dataset
from dreamctl.context import Context
from dreamctl.datasetfolder import DatasetFolder
from dreamctl.domain.dataset import MASKS, Dataset, Pictures, Skipped
from dreamctl.errors import DiskFull, DreamctlError, InvalidInput, NotFound
from dreamctl.fitting import Rules
from dreamctl.looks import alike
from dreamctl.sheet import cell, write_sheet
from dreamctl.sources import Found, own_archive
from dreamctl.staging import Stage
from dreamctl.workflows.batch import make_all
from dreamctl.workflows.datasets import check_not_interrupted, command_on, default_folder, folder_at, locked_dataset
from dreamctl.workflows.earlier import Earlier, look_up, manifest_of
from dreamctl.workflows.gather import Gathered, brought, here, look, with_repeats
from dreamctl.workflows.heap import UrlOutcome
from dreamctl.workflows.overwriting import BEFORE, keep_before
from dreamctl.workflows.travelling import foreign_captions, gone_captions, has_caption, travelling_captions

DEFAULT_SIZE = 512
FEW_PICTURES = 5
_SIZES = range(64, 4097)


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` did. `made`, `kept` and `removed` (whose source is gone) name outputs, in their order.

    `digest` is the pictures' digest; `next` the command to run next; `urls` what became of each URL.
    """

    dataset: Path
    manifest: Dataset
    made: tuple[str, ...]
    kept: tuple[str, ...]
    removed: tuple[str, ...]
    warnings: tuple[str, ...]
    digest: str
    zip: Path | None
    sheet: Path | None
    next: str
    urls: tuple[UrlOutcome, ...] = ()

    @property
    def pictures(self) -> Pictures:
        return self.manifest.pictures

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        return self.manifest.skipped


def prepare(
    context: Context,
    sources: Sequence[str | Path],
    size: int | None = None,
    rules_at: Callable[[int], Rules] = Rules,
    out: Path | None = None,
    recursive: bool = False,
    zip_: bool = False,
    sheet: bool = False,
    strict: bool = False,
    allow_private: bool = False,
) -> PrepareReport:
    """Prepare `sources` (folders, files, archives, also in storages; URLs, lists of URLs) into the dataset folder
    `out`; the project's where None.

    `rules_at` gives the rules at a size: `size`, or where that is None the recipe's resolution. `zip_` packs the folder
    beside it, `sheet` draws a contact sheet there.

    The folder then holds what the sources hold, wholly, or is as it was before. Bad files are named and skipped.
    Raises NotFound for a missing source, whatever a storage raises, InvalidInput for a folder that is somebody else's,
    DreamctlError where nothing is usable, and under `strict` for whatever else would be a line of the report: a file
    that is skipped, a warning of a picture or a source (too few pictures is advice).
    """
    rules = rules_at(_size(context, size))
    target = folder_at(out, "--out") if out else default_folder(context)
    if target.exists() and not target.is_dir():
        raise InvalidInput(f"{target} is not a folder", field="--out", hint="name another one with --out")
    sources = [here(word) for word in sources]
    named = look(sources, target, recursive)
    with locked_dataset(context, target):
        stage, existed = Stage(target), target.is_dir()
        try:
            if stage.recover():
                context.reporter.note(f"finished what an interrupted command had begun in {target}")
            stage.open()
            with brought(context, named, stage.path, allow_private) as gathered:
                _check_found(sources, gathered.found)
                report, thumbs = _prepare(context, stage, gathered, rules, strict, sheet)
        except BaseException as error:
            if not stage.noted() or isinstance(error, DiskFull):  # else what was made stays for the next run
                stage.discard()
                if not existed:
                    with contextlib.suppress(OSError):
                        target.rmdir()
            raise
        zipped, drawn = _zip(report.dataset) if zip_ else None, _sheet(report, thumbs) if sheet else None
        return replace(report, zip=zipped, sheet=drawn)


def prepare_on_the_way(context: Context, source: Path, size: int) -> DatasetFolder:
    """Plain pictures given to `train`: prepare them into the project's dataset folder, and say how to do it alone."""
    check_not_interrupted(source)
    report = prepare(context, [source], size)
    command = f"dreamctl prepare {shlex.quote(str(source))} --size {size}"
    context.reporter.note(f"prepared {_count(len(report.pictures), 'picture')} into {report.dataset}, as `{command}`")
    return DatasetFolder(report.dataset)


def _size(context: Context, size: int | None) -> int:
    """The size asked for, else the resolution of the configured recipe or base, else 512."""
    if size is not None:
        if size not in _SIZES:
            raise InvalidInput(f"--size {size} is out of range", field="--size", hint="64 to 4096 pixels, such as 512")
        return size
    from dreamctl import recipes  # here, since a size on the line needs none

    settings = context.settings
    if settings.recipe:
        return recipes.resolve(settings.recipe).training.resolution
    if settings.base_model:
        with contextlib.suppress(NotFound):  # a base without a recipe of its own
            return recipes.resolve(recipes.default_for(settings.base_model, "sd15")).training.resolution
    return DEFAULT_SIZE


def _prepare(
    context: Context, stage: Stage, gathered: Gathered, rules: Rules, strict: bool, sheet: bool
) -> tuple[PrepareReport, Mapping[str, bytes]]:
    """The report, and for a contact sheet small pictures of what was made."""
    found = gathered.found
    before = manifest_of(stage.dataset)
    earlier = look_up(stage.dataset, before, found, rules)
    thumb = cell(len(found.sources)) if sheet else 0
    batch = make_all(context.reporter, stage, found, rules, earlier, before, thumb)
    skipped = _skipped(found, batch.refused, earlier)
    staying = with_repeats(Pictures(earlier.kept.values()), found)
    kept = Pictures((*staying, *earlier.absent.lines))
    pictures = Pictures.in_order(itertools.chain(batch.made.lines, kept.lines))
    dataset = DatasetFolder(stage.dataset)
    words = gone_captions(dataset, before, pictures, earlier)
    warnings = [*found.warnings, *earlier.warnings]
    captions = travelling_captions(dataset, found, pictures, words, warnings)
    told = pictures if strict else batch.made  # what is known of those that stay is a problem as well
    warnings += [f"{picture.source} {text}" for picture in told for text in picture.warnings]
    warnings += [*foreign_captions(dataset, batch.made, earlier), *_twins(pictures)]
    _tell(context, skipped, warnings)
    try:
        _check_usable(skipped, len(pictures), warnings, strict)
    except DreamctlError:
        stage.discard()  # it would be so the next time too
        raise
    advice = _advice(dataset, len(pictures), words)
    _tell(context, (), advice)
    trigger = before.trigger if before else None
    manifest = Dataset(**rules.plain(), pictures=pictures, skipped=tuple(skipped), trigger=trigger)
    gone = _gone(before, pictures)
    if captions or manifest != before:
        keep_before(dataset, words)
        texts = (dataset.caption_file(file).name for file in words)
        stage.commit(manifest, batch.made.files(), [*gone, *texts], captions)
    else:
        stage.discard()
    captioned = all(has_caption(context.reporter, dataset, picture.file) for picture in pictures)
    report = PrepareReport(
        dataset=dataset.path,
        manifest=manifest,
        made=tuple(picture.file for picture in batch.made),
        kept=tuple(sorted(picture.file for picture in kept)),
        removed=tuple(name for name in gone if not name.startswith(f"{MASKS}/")),
        warnings=(*warnings, *advice),
        digest=dataset.pictures_digest(pictures),
        zip=None,
        sheet=None,
        next=command_on(context, "train" if captioned else "caption", dataset.path),
        urls=gathered.outcomes(pictures, skipped),
    )
    return report, batch.thumbs


def _zip(dataset: Path) -> Path:
    return pack_dataset(DatasetFolder(dataset), own_archive(dataset))


def _sheet(report: PrepareReport, thumbs: Mapping[str, bytes]) -> Path:
    warned = {picture.file: text for picture in report.pictures for text in picture.warnings}
    return write_sheet(report.dataset, report.manifest, warned, thumbs)


# checking and telling


def _skipped(found: Found, refused: Sequence[Skipped], earlier: Earlier) -> list[Skipped]:
    """What did not become a picture; not what could not be fetched again and stays."""
    kept = [picture.source for picture in earlier.absent]
    staying = {
        absent.skipped
        for absent in found.absent
        if any(name == absent.name or name.startswith(f"{absent.archive}/") for name in kept)
    }
    bad = (item for item in (*found.skipped, *refused) if item.source not in staying)
    return sorted(bad, key=lambda item: item.source)


def _gone(before: Dataset | None, pictures: Pictures) -> list[str]:
    """The files of `before` that are none of `pictures`."""
    return sorted(set(before.pictures.files()).difference(pictures.files())) if before else []


def _check_found(sources: Sequence[str | Path], found: Found) -> None:
    if not found.sources and not found.skipped:
        where = ", ".join(str(source) for source in sources)
        places = [Path(source).expanduser() for source in sources]
        folders = any(item.is_dir() for place in places if place.is_dir() for item in place.iterdir())
        hint = "look into its folders too: --recursive" if folders else "put some JPEG or PNG pictures there"
        raise DreamctlError(f"{where} holds no pictures", field="SOURCE", hint=hint)


def _check_usable(skipped: Sequence[Skipped], usable: int, warnings: Sequence[str], strict: bool) -> None:
    first = f"{skipped[0].source} {skipped[0].reason}" if skipped else ""
    if not usable:
        raise DreamctlError(f"no file can be used: {first}", field="SOURCE", hint=skipped[0].advice or None)
    hint = "nothing was changed; mend or remove what is named above, or leave --strict out"
    if strict and skipped:
        raise DreamctlError(f"{_count(len(skipped), 'file')} cannot be used: {first}", field="--strict", hint=hint)
    if strict and warnings:
        raise DreamctlError(f"{_count(len(warnings), 'problem')}: {warnings[0]}", field="--strict", hint=hint)


def _advice(dataset: DatasetFolder, count: int, words: Mapping[str, str]) -> list[str]:
    """What is no problem of a file, and still to be known. `words`: captions that are kept aside, by picture."""
    few = [f"only {_count(count, 'picture')}: five or more teach a subject better"] if count < FEW_PICTURES else []
    kept_in = dataset.path / BEFORE
    aside = [f"captions of pictures that are gone are kept in {kept_in}: {_some(sorted(words))}"] if words else []
    return few + aside


def _tell(context: Context, skipped: Sequence[Skipped], warnings: Sequence[str]) -> None:
    for item in skipped:
        advice = f" ({item.advice})" if item.advice else ""
        context.reporter.warn(f"{item.source} {item.reason}: skipped{advice}")
    for text in warnings:
        context.reporter.warn(text)


def _twins(pictures: Pictures) -> list[str]:
    """A sentence for each picture that has others like it."""
    twins: dict[int, list[int]] = {}
    for place, earlier in alike(picture.fingerprint for picture in pictures):
        twins.setdefault(earlier, []).append(place)
    return [
        f"{_some([pictures[place].source for place in places])} {'look' if len(places) > 1 else 'looks'} like "
        f"{pictures[earlier].source}: one of them is enough"
        for earlier, places in twins.items()
    ]


def _some(names: Sequence[str]) -> str:
    """The first three, and how many more."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
