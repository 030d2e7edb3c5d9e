"""Every random choice of a training, as a pure function of the seed and of the sample's position.

So nothing about randomness has to be saved: a resumed training, another number of processes and another split of the
batch by accumulation all draw the same. Numbers are drawn on the CPU, whose generator is the same everywhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

INSTANCE = "instance"
CLASS = "class"


@dataclass(frozen=True)
class Draw:
    """The randomness of one sample: noise (C, H, W), a moment and a dropout number in [0, 1)."""

    noise: Tensor
    moment: float
    dropout: float


def derived(seed: int, *parts: object) -> int:
    """A seed of 63 bits for one purpose; different purposes share nothing."""
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *parts: object) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(derived(seed, *parts))


@lru_cache(maxsize=8)
def _order(seed: int, stream: str, epoch: int, count: int) -> tuple[int, ...]:
    return tuple(torch.randperm(count, generator=generator(seed, "order", stream, epoch)).tolist())


def picture_at(seed: int, stream: str, position: int, count: int) -> int:
    """Which of `count` pictures the sample at `position` shows: each once an epoch, in an order of its own."""
    epoch, place = divmod(position, count)
    return _order(seed, stream, epoch, count)[place]


def draw(seed: int, stream: str, position: int, shape: tuple[int, ...], offset: float) -> Draw:
    """The draw at `position`. `offset` adds one shift per channel to the noise (offset noise)."""
    source = generator(seed, "sample", stream, position)
    moment, dropout = torch.rand(2, generator=source).tolist()
    noise = torch.randn(shape, generator=source)
    shift = torch.randn((shape[0], 1, 1), generator=source)
    return Draw(noise + offset * shift if offset else noise, moment, dropout)
