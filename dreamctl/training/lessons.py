"""What is taught, encoded once: latents, masks and text. The encoders that are not needed again are let go."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dreamctl.domain.recipe import Recipe
from dreamctl.families.base import Model, Tensors
from dreamctl.training.data import Example, read_mask, read_pixels
from dreamctl.training.stop import Stop

CHUNK = 4  # pictures or texts that are encoded together
EMPTY = ""


class Texts:
    """Token ids (where a text encoder is taught) or finished embeddings, each different text once, on the CPU."""

    def __init__(self, tensors: Tensors, texts: Sequence[str]) -> None:
        self._tensors = tensors
        self._place = {text: place for place, text in enumerate(texts)}

    def batch(self, texts: Iterable[str]) -> Tensors:
        """The rows of these texts, stacked."""
        rows = torch.tensor([self._place[text] for text in texts])
        return {name: tensor[rows] for name, tensor in self._tensors.items()}


@dataclass(frozen=True)
class Lessons:
    """N pictures: names, texts, latents (N, C, h, w) and masks (N, 1, h, w), on the CPU, in fp32.

    `repeats`: how often an epoch shows each, where that is not the same for all.
    """

    names: list[str]
    texts: list[str]
    latents: Tensor
    masks: Tensor
    repeats: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def epoch(self) -> list[int]:
        """The places of the pictures that an epoch shows: as few as have the proportions of the repeats."""
        repeats = self.repeats or (1,) * len(self)
        common = math.gcd(*repeats)
        return [place for place, count in enumerate(repeats) for _ in range(count // common)]


def encode_lessons(
    model: Model, examples: Sequence[Example], resolution: int, device: torch.device, stop: Stop
) -> Lessons:
    """Encode pictures with the model's VAE. Raises DreamctlError that names a picture, and Stopped."""
    latents = []
    model.components["vae"].to(device, dtype=torch.float32)  # in fp16 some VAEs overflow, and this runs once
    with torch.no_grad():
        for start in range(0, len(examples), CHUNK):
            stop.check()
            pixels = torch.stack([read_pixels(example.path, resolution) for example in examples[start : start + CHUNK]])
            latents.append(model.encode_pictures(pixels.to(device)).float().cpu())
    masks = [read_mask(example.mask, resolution, model.family.reduction) for example in examples]
    return Lessons(
        [example.name for example in examples],
        [example.text for example in examples],
        torch.cat(latents),
        torch.stack(masks),
        tuple(example.repeats for example in examples),
    )


def encode_texts(model: Model, texts: Iterable[str], device: torch.device, trained: bool) -> Texts:
    """All texts, and the empty one that dropout puts in their place: tokens if encoders are taught, else embeddings."""
    unique = list(dict.fromkeys([EMPTY, *texts]))
    tokens = model.tokenize(unique)
    if trained:
        return Texts(tokens, unique)
    for encoder in model.text_encoders().values():
        encoder.to(device)
    pieces = []
    with torch.no_grad():
        for start in range(0, len(unique), CHUNK):
            chunk = {name: tensor[start : start + CHUNK].to(device) for name, tensor in tokens.items()}
            pieces.append({name: tensor.float().cpu() for name, tensor in model.embed(chunk).items()})
    return Texts({name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}, unique)


def release_encoders(model: Model, recipe: Recipe) -> None:
    """Let go of every component that is neither taught nor needed for samples on the way, and of its memory."""
    if recipe.samples.every and recipe.samples.prompts:
        return
    kept = model.taught(recipe.method)
    for name in list(model.components):
        if name not in kept:
            del model.components[name]
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
