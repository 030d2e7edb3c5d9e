"""Write captions beside the pictures of a dataset; what people wrote stays."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dreamctl import plugins, recipes
from dreamctl.context import Context
from dreamctl.datasetfolder import DatasetFolder
from dreamctl.domain.dataset import captions_digest
from dreamctl.domain.identifiers import checked_identifier
from dreamctl.errors import InvalidInput
from dreamctl.workflows.datasets import chosen_dataset, command_on, locked_dataset


@dataclass(frozen=True)
class Captioned:
    """One picture's caption; `written`: this command wrote or changed it."""

    file: str
    caption: str
    written: bool


@dataclass(frozen=True)
class CaptionReport:
    """What `caption` did. `digest` is the captions' digest; `next` the command to run next."""

    dataset: Path
    captioner: str
    trigger: str | None
    captions: tuple[Captioned, ...]
    digest: str
    next: str


def caption(
    context: Context,
    dataset: Path | None = None,
    captioner: str | None = None,
    overwrite: bool = False,
    trigger: str | None = None,
    prefix: str = "",
    suffix: str = "",
) -> CaptionReport:
    """Caption the pictures that have no caption; all of them with `overwrite`.

    `trigger` is put first in every caption, exactly once, and recorded; "" takes the recorded one out again.
    `prefix` and `suffix` stand around what the captioner writes. Killed and run again, it goes on.
    """
    folder = chosen_dataset(context, dataset)
    name = captioner or _default_captioner(context)
    with locked_dataset(context, folder.path):
        manifest = folder.manifest()
        folder.pictures()
        word = manifest.trigger if trigger is None else _checked_trigger(trigger)
        before = folder.captions()
        texts = {file: without_trigger(text, manifest.trigger) for file, text in before.items()}
        for file, text in before.items():  # a trigger that changed; what it was taken out of is the user's own text
            _write(folder, file, text, with_trigger(texts[file], word) if texts[file] else text)
        _caption_all(context, folder, name, texts, overwrite, word, prefix, suffix)
        if word != manifest.trigger:
            folder.write_manifest(manifest.model_copy(update={"trigger": word}))
        after = folder.captions()
    return CaptionReport(
        dataset=folder.path,
        captioner=name,
        trigger=word,
        captions=tuple(Captioned(file, text, text != before[file]) for file, text in after.items()),
        digest=captions_digest(after),
        next=command_on(context, "train", folder.path),
    )


def with_trigger(text: str, trigger: str | None) -> str:
    """`WORD, caption`; as it is where the word is first already."""
    if not trigger or re.match(rf"{re.escape(trigger)}(?!\w)", text, re.IGNORECASE):
        return text
    return f"{trigger}, {text}" if text else trigger


def without_trigger(text: str, trigger: str | None) -> str:
    """The caption as it is without a trigger that `with_trigger` put there."""
    return re.sub(rf"\A{re.escape(trigger)}(,\s*|\Z)", "", text, flags=re.IGNORECASE) if trigger else text


def _caption_all(
    context: Context,
    folder: DatasetFolder,
    name: str,
    texts: dict[str, str],
    overwrite: bool,
    trigger: str | None,
    prefix: str,
    suffix: str,
) -> None:
    """Write each caption as soon as the captioner says it. An empty one never replaces words."""
    files = [file for file, text in texts.items() if overwrite or not text]
    writer = context.captioner(name)
    if not files:
        return
    captions = writer.caption([folder.path / file for file in files])
    for done, (file, said) in enumerate(zip(files, captions, strict=True), 1):
        text = _joined(prefix, said, suffix) or texts[file]
        folder.write_caption(file, with_trigger(text, trigger))
        context.reporter.progress("caption", done, len(files))


def _write(folder: DatasetFolder, file: str, old: str, new: str) -> None:
    if new != old:
        folder.write_caption(file, new)


def _joined(prefix: str, text: str, suffix: str) -> str:
    """The three with single spaces between them, and none before a comma that begins the suffix."""
    return re.sub(r"\s+([,.;:!?])", r"\1", " ".join(" ".join((prefix, text, suffix)).split())).strip(" ,")


def _checked_trigger(trigger: str) -> str | None:
    return checked_identifier(trigger) if trigger.strip() else None


def _default_captioner(context: Context) -> str:
    """The configured captioner; the built-in one where the built-in model is what is taught."""
    settings = context.settings
    if settings.captioner:
        return settings.captioner
    base = settings.base_model or "builtin"
    if settings.recipe and not settings.base_model:
        base = recipes.resolve(settings.recipe).base.source
    if base == "builtin":
        return "builtin"
    raise InvalidInput(
        f"no captioner is chosen, and the built-in one knows no pictures like those for {base}",
        field="--captioner",
        hint=f"--captioner {' | '.join(plugins.names('captioners'))}, or `dreamctl config set captioner NAME`",
    )
