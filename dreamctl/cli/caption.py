"""`dreamctl caption`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dreamctl.cli.command import Session, command
from dreamctl.cli.output import Table

if TYPE_CHECKING:
    from dreamctl.domain.captions import CaptionStatistics
    from dreamctl.workflows.caption import Captioned, CaptionReport, Wish

Captioner = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Who writes: florence2, openai, wd14, builtin, template, none."),
]
Trigger = Annotated[str | None, typer.Option(metavar="WORD", help='First word of every caption; "" takes it out.')]
Prefix = Annotated[str, typer.Option(help="Words before each new caption.")]
Suffix = Annotated[str, typer.Option(help="Words after each new caption.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace captions that are there; the old ones are kept.")]
Edit = Annotated[bool, typer.Option("--edit", help="Open one file with all captions in your editor.")]
Yes = Annotated[bool, typer.Option("--yes", help="Agree that captions of a remote endpoint may cost money.")]
Model = Annotated[
    str | None, typer.Option(help="florence2, wd14: hub id or folder. openai: the endpoint's name of a model.")
]
Revision = Annotated[str | None, typer.Option(help="florence2, wd14: the hub's branch, tag or commit.")]
Task = Annotated[str | None, typer.Option(help="florence2: caption, detailed or more-detailed.")]
Prompt = Annotated[
    str | None, typer.Option(help='florence2, openai: what to ask instead ("Describe this image in detail.").')
]
Template = Annotated[
    str | None, typer.Option(help="template: text with {stem}, {words} (of the file's name), {folder}.")
]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="florence2, openai: longest caption, in tokens.")]
BatchSize = Annotated[int | None, typer.Option(min=1, max=256, help="florence2, openai: pictures at a time.")]
Timeout = Annotated[float | None, typer.Option(min=0.001, help="openai: seconds to wait for one answer.")]
Threshold = Annotated[
    float | None, typer.Option(min=0, max=1, help="wd14: how sure a tag must be, 0 to 1; 0.35 when not given.")
]
CharacterThreshold = Annotated[
    float | None, typer.Option(min=0, max=1, help="wd14: the same for characters' names; 0.85 when not given.")
]
Exclude = Annotated[
    list[str] | None, typer.Option(metavar="TAG", help="wd14: never write this tag; may stand more than once.")
]
Device = Annotated[str | None, typer.Option(help="cuda, cuda:1, mps or cpu; the best there is when not given.")]
Endpoint = Annotated[
    str | None, typer.Option(metavar="URL", help="openai: any compatible endpoint, http://localhost:11434/v1.")
]


def register(app: typer.Typer) -> None:
    command(app, "caption")(caption)


def caption(
    session: Session,
    dataset: Annotated[Path | None, typer.Argument(help="Dataset folder; the project's when not given.")] = None,
    captioner: Captioner = None,
    trigger: Trigger = None,
    prefix: Prefix = "",
    suffix: Suffix = "",
    overwrite: Overwrite = False,
    edit: Edit = False,
    yes: Yes = False,
    model: Model = None,
    revision: Revision = None,
    task: Task = None,
    prompt: Prompt = None,
    template: Template = None,
    max_tokens: MaxTokens = None,
    batch_size: BatchSize = None,
    timeout: Timeout = None,
    threshold: Threshold = None,
    character_threshold: CharacterThreshold = None,
    exclude: Exclude = None,
    device: Device = None,
    caption_endpoint: Endpoint = None,
) -> None:
    """Describe what else is in the pictures.

    The caption, a .txt file beside each picture, names everything but the subject.

    Captions that are there stay. The subject's identifier is not written: training adds it.
    """
    from dreamctl.domain.captioning import CaptionOptions
    from dreamctl.workflows import caption as workflow

    options = CaptionOptions(
        model, revision, task, prompt, template, max_tokens, batch_size, timeout, threshold, character_threshold,
        tuple(tag for word in exclude or () for tag in word.split(",")),
    )  # fmt: skip
    wish = workflow.Wish(captioner, options, overwrite, trigger, prefix, suffix, yes)
    context = session.context(device=device, caption_endpoint=caption_endpoint)
    if edit:
        from dreamctl.workflows.captionedit import edit_captions

        _only_edit(wish)
        report = edit_captions(context, dataset, session.output.interactive)
    else:
        report = workflow.caption(context, dataset, wish)
    session.output.emit(_data(report), _text(report), [str(report.dataset)])


def _only_edit(wish: Wish) -> None:
    """Raises InvalidInput where --edit stands beside what only a captioner would heed."""
    from dreamctl.errors import InvalidInput
    from dreamctl.workflows.caption import Wish

    given = [name for name, value in vars(wish).items() if name != "options" and value != vars(Wish())[name]]
    other = [f"--{name.replace('_', '-')}" for name in (*given, *wish.options.given())]
    if other:
        raise InvalidInput(
            f"--edit and {', '.join(other)} exclude each other", field="--edit", hint="caption first, then --edit"
        )


def _data(report: CaptionReport) -> dict[str, Any]:
    written = [item.file for item in report.captions if item.written]
    fewest, middle, most = report.statistics.words
    statistics = {
        **asdict(report.statistics),
        "words": {"min": fewest, "median": middle, "max": most},
        "repeated": [{"phrase": phrase, "captions": count} for phrase, count in report.statistics.repeated],
    }
    return {
        "dataset": str(report.dataset),
        "captioner": report.captioner,
        "trigger": report.trigger,
        "digest": report.digest,
        "captions": {item.file: item.caption for item in report.captions},
        "written": written,
        "kept": [item.file for item in report.captions if _became(item) == "kept"],
        "statistics": statistics,
        "before": str(report.before) if report.before else None,
        "next": report.next,
    }


def _text(report: CaptionReport) -> list[str | Table]:
    rows = [(item.file, item.caption, _became(item)) for item in report.captions]
    counted = Counter(became for *_, became in rows)
    done = ", ".join(f"{counted[word]} {word}" for word in ("written", "kept", "empty") if counted[word])
    by = f"captioner {report.captioner}" if report.captioner else "edited"
    trigger = f", trigger {report.trigger!r}" if report.trigger else ""
    lines: list[str | Table] = [
        Table(("picture", "caption", ""), rows),
        f"{report.dataset}: {done} ({by}{trigger})",
        *_statistics(report.statistics),
    ]
    if report.before:
        lines.append(f"the captions before are kept in {report.before}")
    return [*lines, f"next: {report.next}"]


def _became(item: Captioned) -> str:
    return "written" if item.written else "kept" if item.caption else "empty"


def _statistics(found: CaptionStatistics) -> list[str | Table]:
    """Lengths always; the rest where there is something to look at."""
    fewest, middle, most = found.words
    rows = [("words a caption", f"{fewest} to {most}, median {middle:g}")]
    if found.empty:
        rows.append(("empty", _some(found.empty)))
    if found.without_trigger and len(found.without_trigger) > len(found.empty):
        rows.append(("without the trigger", _some(found.without_trigger)))
    if found.duplicates:
        rows.append(("the same caption", "; ".join(" = ".join(group[:6]) for group in found.duplicates[:3])))
    if found.repeated:
        written = found.count - len(found.empty)
        phrases = "; ".join(f"{phrase!r} in {count} of {written}" for phrase, count in found.repeated[:3])
        rows.append(("in most captions", phrases))
    return [Table(("statistics", ""), rows)]


def _some(files: tuple[str, ...]) -> str:
    more = f" and {len(files) - 5} more" if len(files) > 5 else ""
    return f"{len(files)}: {', '.join(files[:5])}{more}"
