"""Which samples a step sees, and this process's share of them as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dreamctl.domain.recipe import Recipe
from dreamctl.families.base import Tensors
from dreamctl.training.draws import CLASS, INSTANCE, draw, picture_at
from dreamctl.training.lessons import EMPTY, Lessons, Texts


@dataclass(frozen=True)
class Batch:
    """`instances` samples of the subject first, then as many class pictures, if there is prior preservation."""

    instances: int
    latents: Tensor
    noise: Tensor
    moments: Tensor
    masks: Tensor
    text: Tensors

    def on(self, device: torch.device) -> dict[str, Tensor | Tensors]:
        """The arguments of the student's forward pass."""
        return {
            "latents": self.latents.to(device),
            "noise": self.noise.to(device),
            "moments": self.moments.to(device),
            "masks": self.masks.to(device),
            "text": {name: tensor.to(device) for name, tensor in self.text.items()},
        }


class Batches:
    """The samples of every forward pass, for process `rank` of `world`. Positions count through the whole training."""

    def __init__(
        self, recipe: Recipe, instances: Lessons, classes: Lessons | None, texts: Texts, rank: int = 0, world: int = 1
    ) -> None:
        self._training = recipe.training
        self._streams = [(INSTANCE, instances), *([(CLASS, classes)] if classes else [])]
        self._texts = texts
        self._share = recipe.training.batch_size // world
        self._rank = rank

    def _positions(self, step: int, part: int) -> range:
        """The positions of the whole batch of forward pass `part` of optimiser step `step` (from 0)."""
        size = self._training.batch_size
        start = (step * self._training.accumulation + part) * size
        return range(start, start + size)

    def pictures(self, step: int) -> list[str]:
        """The names of the pictures of step `step`, over all processes; class pictures after the subject's."""
        seed = self._training.seed
        names = [
            f"class picture {lessons.names[place]}" if stream == CLASS else lessons.names[place]
            for stream, lessons in self._streams
            for part in range(self._training.accumulation)
            for place in (_shown(seed, stream, at, lessons) for at in self._positions(step, part))
        ]
        return list(dict.fromkeys(names))

    def batch(self, step: int, part: int) -> Batch:
        """This process's share of forward pass `part` of step `step`."""
        mine = self._positions(step, part)[self._rank * self._share : (self._rank + 1) * self._share]
        seed, offset = self._training.seed, self._training.offset_noise
        places: list[tuple[Lessons, int]] = []
        draws = []
        for stream, lessons in self._streams:
            for at in mine:
                places.append((lessons, _shown(seed, stream, at, lessons)))
                draws.append(draw(seed, stream, at, tuple(lessons.latents.shape[1:]), offset))
        dropped = [one.dropout < self._training.caption_dropout for one in draws]
        return Batch(
            instances=len(mine),
            latents=torch.stack([lessons.latents[place] for lessons, place in places]),
            noise=torch.stack([one.noise for one in draws]),
            moments=torch.tensor([one.moment for one in draws]),
            masks=torch.stack([lessons.masks[place] for lessons, place in places]),
            text=self._texts.batch(
                EMPTY if without else lessons.texts[place]
                for (lessons, place), without in zip(places, dropped, strict=True)
            ),
        )


def _shown(seed: int, stream: str, position: int, lessons: Lessons) -> int:
    """The picture that the sample at `position` shows."""
    return lessons.epoch[picture_at(seed, stream, position, len(lessons.epoch))]
