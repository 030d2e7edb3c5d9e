"""Write captions beside the pictures of a dataset; what people wrote stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from dreamctl import recipes
from dreamctl.captioners.base import Captioner
from dreamctl.context import Context
from dreamctl.datasetfolder import DatasetFolder
from dreamctl.domain.base import digest
from dreamctl.domain.captioning import CaptionOptions
from dreamctl.domain.captions import CaptionStatistics, caption_statistics, joined, with_trigger, without_trigger
from dreamctl.domain.dataset import captions_digest
from dreamctl.domain.identifiers import checked_identifier
from dreamctl.errors import ConsentRequired
from dreamctl.staging import Stage
from dreamctl.workflows.datasets import chosen_dataset, command_on, locked_dataset
from dreamctl.workflows.overwriting import Overwriting, keep_before


@dataclass(frozen=True)
class Wish:
    """What a line asks of `caption`. `prefix` and `suffix` stand around what the captioner writes; `yes`: it may cost
    money. `trigger` is put first in every caption, exactly once, and recorded; "" takes the recorded one out again.
    """

    captioner: str | None = None
    options: CaptionOptions = field(default_factory=CaptionOptions)
    overwrite: bool = False
    trigger: str | None = None
    prefix: str = ""
    suffix: str = ""
    yes: bool = False


@dataclass(frozen=True)
class Captioned:
    """One picture's caption; `written`: this command wrote or changed it."""

    file: str
    caption: str
    written: bool


@dataclass(frozen=True)
class CaptionReport:
    """What `caption` did. `digest` is the captions' digest; `before` the file that keeps the captions which were
    there, where some were to be replaced; `next` the command to run next. `captioner` is None after --edit."""

    dataset: Path
    captioner: str | None
    trigger: str | None
    captions: tuple[Captioned, ...]
    digest: str
    statistics: CaptionStatistics
    before: Path | None
    next: str


def caption(context: Context, dataset: Path | None, wish: Wish) -> CaptionReport:
    """Caption the pictures that have no caption; all of them with `overwrite`, which keeps the replaced ones.

    Each caption is written as soon as it is known: failed or killed, and run again, it goes on. Raises ConsentRequired
    where it would cost money and nobody agreed, and what the captioner raises.
    """
    folder = chosen_dataset(context, dataset)
    name = wish.captioner or _default_captioner(context)
    with locked_dataset(context, folder.path):
        Stage(folder.path).recover()  # the temporary files of a killed one too
        manifest = folder.manifest()
        folder.pictures()
        writer = context.captioner(name, wish.options)
        word = manifest.trigger if wish.trigger is None else _checked_trigger(wish.trigger)
        before = folder.captions()
        texts = {file: without_trigger(text, manifest.trigger) for file, text in before.items()}
        files = [file for file, text in texts.items() if wish.overwrite or not text]
        if files:
            _consent(context, writer, len(files), wish.yes)
        for file, text in before.items():  # a trigger that changed; what it was taken out of is the user's own text
            new = with_trigger(texts[file], word) if texts[file] else text
            if new != text:
                folder.write_caption(file, new)
        if word != manifest.trigger:
            folder.write_manifest(manifest.model_copy(update={"trigger": word}))
        kept = _caption_all(context, folder, writer, files, texts, replace(wish, captioner=name, trigger=word))
        done = report(context, folder, before, name, kept)
        if (empty := len(done.statistics.empty)) and name != "none":
            other = "" if name == "florence2" else "--captioner florence2 describes any picture, "
            context.reporter.warn(
                f"{empty} of {len(before)} pictures have no caption: {name} knew nothing to say of them "
                f"({other}--edit takes words of your own)"
            )
        return done


def report(
    context: Context, folder: DatasetFolder, before: Mapping[str, str], captioner: str | None, kept: Path | None
) -> CaptionReport:
    """What stands in the dataset now, beside the captions `before`."""
    captions, trigger = folder.captions(), folder.manifest().trigger
    return CaptionReport(
        dataset=folder.path,
        captioner=captioner,
        trigger=trigger,
        captions=tuple(Captioned(file, text, text != before[file]) for file, text in captions.items()),
        digest=captions_digest(captions),
        statistics=caption_statistics(captions, trigger),
        before=kept,
        next=command_on(context, "train", folder.path),
    )


def _caption_all(
    context: Context, folder: DatasetFolder, writer: Captioner, files: list[str], texts: dict[str, str], wish: Wish
) -> Path | None:
    """Write the caption of each of `files` as soon as the captioner says it. An empty one never replaces words.

    Returns the file that keeps those that were there, where some were.
    """
    kept, progress = None, None
    if wish.overwrite:
        progress = Overwriting(folder, _key(context, folder, wish))
        if done := sum(map(progress.is_done, files)):
            context.reporter.note(f"going on with an --overwrite that was interrupted: {done} of {len(files)} are done")
        files = [file for file in files if not progress.is_done(file)]
        kept = keep_before(folder, {file: texts[file] for file in files})
    if files:
        captions = writer.caption([folder.path / file for file in files])
        for done, (file, said) in enumerate(zip(files, captions, strict=True), 1):
            if said is not None:
                text = joined(wish.prefix, said, wish.suffix) or texts[file]
                folder.write_caption(file, with_trigger(text, wish.trigger))
                if progress:
                    progress.add(file)
            context.reporter.progress("caption", done, len(files))
    if progress:
        progress.finish()
    return kept


def _consent(context: Context, writer: Captioner, count: int, yes: bool) -> None:
    """Raises ConsentRequired unless it is free, or somebody agreed.

    No endpoint tells its price, so that a `max_cost` cannot be held, and is no consent here.
    """
    if writer.bill is None or yes:
        return
    what = f"{writer.bill} may charge money for {count} captions"
    if not context.reporter.confirm(f"{what}. Go on?"):
        raise ConsentRequired(
            f"{what}: nothing was asked of it",
            field="--yes",
            hint="--yes agrees; max_cost does not, since the endpoint tells no price to hold against it",
        )


def _key(context: Context, folder: DatasetFolder, wish: Wish) -> str:
    """One digest for everything that decides what an --overwrite writes."""
    settings = context.settings
    options = {key: value for key, value in asdict(wish.options).items() if key not in ("batch_size", "timeout")}
    pictures = [(picture.file, picture.sha256) for picture in folder.manifest().pictures]
    names = (wish.captioner, wish.prefix, wish.suffix, settings.caption_endpoint, settings.caption_model)
    return digest([names, options, pictures])


def _checked_trigger(trigger: str) -> str | None:
    return checked_identifier(trigger) if trigger.strip() else None


def _default_captioner(context: Context) -> str:
    """The configured captioner; the built-in one where the built-in model is what is taught, else Florence-2."""
    settings = context.settings
    if settings.captioner:
        return settings.captioner
    base = settings.base_model or "builtin"
    if settings.recipe and not settings.base_model:
        base = recipes.resolve(settings.recipe).base.source
    return "builtin" if base == "builtin" else "florence2"
