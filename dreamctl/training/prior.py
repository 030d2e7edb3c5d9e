"""Prior preservation's class pictures: made once by the base model, kept by content, continued after a stop."""

from __future__ import annotations

import gc
from pathlib import Path

import torch

from dreamctl import paths
from dreamctl.domain.base import digest
from dreamctl.domain.concept import Concept
from dreamctl.domain.recipe import Recipe
from dreamctl.families.base import Drawing, ResolvedBase
from dreamctl.files import replacing
from dreamctl.generation.pipeline import Pipe, open_pipeline, precision_on
from dreamctl.training.data import Example
from dreamctl.training.device import process_count, process_number
from dreamctl.training.draws import derived
from dreamctl.training.progress import Reporter
from dreamctl.training.stop import Stop

PHASE = "class pictures"
GROUP = 4
"""Pictures drawn together. Always whole groups, since the last bits of a picture may depend on its batch's size."""


def uses_prior(recipe: Recipe) -> bool:
    return recipe.prior.weight > 0 and recipe.prior.pictures > 0


def class_prompt(recipe: Recipe, concept: Concept, number: int) -> str:
    """The prompt of class picture `number`: the recipe's, in turn."""
    template = recipe.prior.prompts[number % len(recipe.prior.prompts)]
    return " ".join(template.format(identifier="", category=concept.category, caption="").split())


def class_folder(recipe: Recipe, concept: Concept, resolved: ResolvedBase, device: torch.device) -> Path:
    """Where these class pictures are kept: a name made of everything that decides how they look.

    Not of their number: more of them continue the same sequence.
    """
    key = digest(
        {
            "base": resolved.digest,
            "prompts": [class_prompt(recipe, concept, number) for number in range(len(recipe.prior.prompts))],
            "resolution": recipe.training.resolution,
            "sampling": recipe.sampling.plain(),
            "seed": recipe.training.seed,
            "precision": precision_on(device),
            "group": GROUP,
        }
    )
    return paths.cache_dir() / "class" / key[:32]


def class_examples(
    recipe: Recipe, concept: Concept, resolved: ResolvedBase, device: torch.device, reporter: Reporter, stop: Stop
) -> list[Example]:
    """The class pictures with their prompts; those that are not in the cache yet are made. Raises Stopped.

    Each process makes its share of the missing groups; the caller waits for all of them.
    """
    folder = class_folder(recipe, concept, resolved, device)
    files = [folder / f"{number:04d}.png" for number in range(recipe.prior.pictures)]
    wanted = {number // GROUP for number, file in enumerate(files) if not file.exists()}
    mine = [group for group in sorted(wanted) if group % process_count() == process_number()]
    if mine:
        _make(mine, files, folder, recipe, concept, resolved, device, reporter, stop)
    return [Example(file, class_prompt(recipe, concept, number)) for number, file in enumerate(files)]


def _make(
    groups: list[int],
    files: list[Path],
    folder: Path,
    recipe: Recipe,
    concept: Concept,
    resolved: ResolvedBase,
    device: torch.device,
    reporter: Reporter,
    stop: Stop,
) -> None:
    total = len(groups) * GROUP
    reporter.phase(PHASE, total)
    pipe = open_pipeline(resolved, device=device)
    for done, group in enumerate(groups, start=1):
        stop.check()
        _make_group(pipe, group, folder, recipe, concept)
        reporter.phase_progress(PHASE, total, done * GROUP)
    del pipe
    gc.collect()  # modules refer to themselves in circles; the memory is needed for the training


def _make_group(pipe: Pipe, group: int, folder: Path, recipe: Recipe, concept: Concept) -> None:
    numbers = range(group * GROUP, (group + 1) * GROUP)
    side = recipe.training.resolution
    drawing = Drawing(
        prompts=[class_prompt(recipe, concept, number) for number in numbers],
        seeds=[derived(recipe.training.seed, "class picture", number) for number in numbers],
        negative="",
        steps=recipe.sampling.steps,
        guidance=recipe.sampling.guidance,
        width=side,
        height=side,
    )
    for number, image in zip(numbers, pipe.draw(drawing), strict=True):
        with replacing(folder / f"{number:04d}.png") as temporary:
            image.save(temporary, format="PNG")
