"""All pictures of a heap that are to be made, in processes, into the stage; each is noted as soon as it is whole."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dreamctl import machine
from dreamctl.cutout import get_ready, memory
from dreamctl.domain.dataset import MASKS, Dataset, Picture, Pictures, Skipped
from dreamctl.errors import InvalidInput
from dreamctl.fitting import Rules
from dreamctl.parallel import spread
from dreamctl.reporter import Reporter
from dreamctl.sources import Found, Source, clean_stem, output_names
from dreamctl.staging import Stage
from dreamctl.workflows.earlier import Earlier
from dreamctl.workflows.making import Job, Made, make


@dataclass(frozen=True)
class Batch:
    """What was made, what could not be, and by file name small pictures of what was made, where they were asked for."""

    made: Pictures
    refused: tuple[Skipped, ...]
    thumbs: Mapping[str, bytes]


def make_all(
    reporter: Reporter, stage: Stage, found: Found, rules: Rules, earlier: Earlier, before: Dataset | None, thumb: int
) -> Batch:
    """Make all of `found` that is not kept; `thumb` is the side of the small pictures, 0 for none.

    Raises InvalidInput before anything is made, where an output would replace a file that is not of `before`.
    """
    stems = output_names(found.sources, earlier.names)
    count = len(found.sources) - len(earlier.kept)

    def todo() -> Iterator[tuple[Source, str]]:
        named = zip(found.sources, stems, strict=True)
        return ((source, stem) for source, stem in named if source.name not in earlier.kept)

    _check_ours(stage.dataset, (stem for _, stem in todo()), rules, before)
    if count and rules.cutout:
        get_ready(rules.cutout, reporter.note)
    staged = _staged(stage, rules)
    jobs = (_job(source, stem, rules, stage, staged.get(source.name), thumb) for source, stem in todo())
    thumbs: dict[str, bytes] = {}
    lines: list[bytes] = []
    refused: list[Skipped] = []
    begun = time.monotonic()
    # Closed, so that no process writes on after an error.
    with stage.journal(str(rules)) as note, contextlib.closing(spread(make, jobs, _room(rules))) as outcomes:
        for done, outcome in enumerate(outcomes, 1):
            if isinstance(outcome, Made):
                note(outcome.plain())
                lines.append(Picture(**outcome.plain()).line())
                if outcome.thumb:
                    thumbs[outcome.file] = outcome.thumb
            else:
                refused.append(Skipped(source=outcome.source, reason=outcome.reason, advice=outcome.advice))
            rate = done / max(1e-3, time.monotonic() - begun)
            reporter.progress("prepare", done, count, f"{rate:.1f} a second")
    return Batch(Pictures.in_order(lines), tuple(refused), thumbs)


def _room(rules: Rules) -> int | None:
    """How many processes the memory has room for, where each holds a model."""
    free = machine.memory()[0] if rules.cutout else None
    return max(1, free // memory(rules.cutout)) if rules.cutout and free is not None else None


def _check_ours(folder: Path, stems: Iterable[str], rules: Rules, before: Dataset | None) -> None:
    ours = set(before.pictures.files()) if before else set()
    for stem in stems:
        for file in _outputs(stem, rules):
            if file not in ours and (folder / file).exists():
                raise InvalidInput(
                    f"{folder / file} is there and was not made by prepare",
                    field="--out",
                    hint="name another folder with --out",
                )


def _staged(stage: Stage, rules: Rules) -> dict[str, Made]:
    """By source: what a killed run had made by the same rules."""
    staged = {}
    for data in stage.made_before(str(rules)):
        with contextlib.suppress(TypeError):  # another version's
            made = Made.parse(data)
            staged[made.source] = made
    return staged


def _job(source: Source, stem: str, rules: Rules, stage: Stage, before: Made | None, thumb: int) -> Job:
    file, mask = _outputs(stem, rules)
    renamed = stem.startswith(f"{clean_stem(source.path.stem)}-")
    notes = (f"is stored as {file}, since another file has its name",) if renamed else ()
    return Job(source.path, source.name, file, mask, rules, stage.path, source.repeats, notes, before, thumb)


def _outputs(stem: str, rules: Rules) -> tuple[str, str]:
    """Names of the picture and of its mask."""
    return f"{stem}{rules.suffix}", f"{MASKS}/{stem}.png"
