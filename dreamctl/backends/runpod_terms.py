"""What a training at RunPod takes: a guess of its hours, and the limits that RunPod is told to keep."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dreamctl.domain.quantities import spoken
from dreamctl.domain.recipe import Recipe

SHORTEST, LONGEST = 5, 7 * 86_400
"""Seconds that RunPod lets a job run: the least and the most that it can be told."""

_START = 300.0  # a worker fetches its image and the base model
_LEAST_LIMIT = 1800
_GENEROSITY = 4.0
_QUEUE = 86_400  # seconds that a job may wait for a worker
_SIDE = 512
# Seconds for one picture of 512 x 512 through forward and backward pass on a GPU with 24 GB, by family and method.
_SECONDS = {("sd15", "lora"): 0.3, ("sd15", "full"): 0.5}
_OTHER = {"lora": 1.2, "full": 2.0}
_DRAWING = 0.1  # of one denoising step of one picture
_BUILTIN = 0.25  # the built-in model is small enough for the step itself to be all that counts


@dataclass(frozen=True)
class Limits:
    """`hours`: the guess. `seconds`: the most that the job may run."""

    hours: float
    seconds: int
    notes: tuple[str, ...] = ()


def limits(recipe: Recipe, max_hours: float | None, max_cost: float | None, price: float | None) -> Limits:
    """The limits for a recipe: some times the guess, but no more than hours and dollars that were agreed to."""
    guess = _guess(recipe)
    caps = [LONGEST] + ([int(max_hours * 3600)] if max_hours else [])
    if max_cost is not None and price:
        caps.append(int(max_cost / price * 3600))
    wanted = max(_LEAST_LIMIT, math.ceil(_GENEROSITY * guess))
    seconds = max(SHORTEST, min(wanted, *caps))
    notes = []
    if seconds < guess:
        notes.append(
            f"it may well not be enough: RunPod stops the job after {spoken(seconds)}, and it takes about "
            f"{spoken(guess)} by a guess; what is stopped has made nothing"
        )
    return Limits(guess / 3600, seconds, tuple(notes))


def lifetime(seconds: int) -> int:
    """Seconds from the submission until RunPod forgets a job that may run for `seconds`: it may wait a day before."""
    return min(LONGEST, seconds + _QUEUE)


def _guess(recipe: Recipe) -> float:
    """Seconds from the first to the last; rough, as nobody has measured it on the GPU that it will be."""
    training, method = recipe.training, recipe.method.name
    area = (training.resolution / _SIDE) ** 2
    pictures = training.steps * training.batch_size * training.accumulation
    drawn = recipe.prior.pictures if recipe.prior.weight > 0 else 0
    times = 1 + (training.steps - 1) // recipe.samples.every if recipe.samples.every else 1
    drawn += times * len(recipe.samples.prompts)
    if recipe.base.source == "builtin":
        return _START + training.steps * _BUILTIN + drawn * _BUILTIN
    one = _SECONDS.get((recipe.family, method), _OTHER[method])
    one *= 2.0 if recipe.prior.weight > 0 and recipe.prior.pictures else 1.0  # each picture beside one of the class
    one *= 1.25 if training.gradient_checkpointing else 1.0
    return _START + area * (pictures * one + drawn * recipe.sampling.steps * _DRAWING)
