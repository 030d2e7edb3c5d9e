"""Trainers at Replicate of which more is known than their inputs: what they teach, and about how long they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dreamctl.backends.base import OwnBase
from dreamctl.backends.replicate_schema import Schema
from dreamctl.domain.recipe import Recipe


@dataclass(frozen=True)
class Trainer:
    """A trainer, `owner/name`, in the version that is used. `carries`: it is dreamctl's own."""

    name: str
    version: str
    schema: Schema
    carries: bool = False

    @property
    def known(self) -> Known | None:
        return KNOWN.get(self.name)


@dataclass(frozen=True)
class Known:
    """`start`: seconds until the first step; `picture`: seconds a picture and step. Both are guesses from what others
    tell of these trainers, good to a factor of two. `notes`: what one should know before paying.
    """

    own: OwnBase
    start: float
    picture: float
    hourly: bool = True
    notes: tuple[str, ...] = ()

    def hours(self, recipe: Recipe) -> float:
        """About how long a training takes."""
        training = recipe.training
        return (self.start + self.picture * training.batch_size * training.steps) / 3600


_FLUX = OwnBase("replicate-flux", "black-forest-labs/FLUX.1-dev", "flux")
_SDXL = Known(
    OwnBase("replicate-sdxl", "stabilityai/stable-diffusion-xl-base-1.0", "sdxl"),
    start=180,
    picture=0.2,
    notes=("it does not read the dataset's captions: it writes its own, and begins each with the recipe's prompt",),
)
KNOWN: Mapping[str, Known] = {
    "ostris/flux-dev-lora-trainer": Known(_FLUX, start=300, picture=1.3),
    "replicate/fast-flux-trainer": Known(
        _FLUX,
        start=60,
        picture=0.1,
        hourly=False,
        notes=(
            "it has a price for each training and none an hour: price_per_hour and max_cost say nothing about it "
            "(its page at Replicate shows the price; --yes agrees to it)",
        ),
    ),
    "stability-ai/sdxl": _SDXL,
    "replicate/sdxl": _SDXL,
}
