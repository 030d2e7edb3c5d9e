"""How large an outcome's archive will be, known before anything is paid and without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from dreamctl.domain.recipe import Recipe

Layers = tuple[tuple[str, tuple[int, ...]], ...]
"""Weights of layers that an adapter may lie beside: the end of the name, and the shape (outputs, inputs, kernel…)."""

_BUILTIN = Path(__file__).parents[1] / "builtin" / "model"
_TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
_ADAPTER_BYTES = 4  # an adapter is stored in fp32
_MODEL_BYTES = 2  # and a whole component in fp16, if that answers as it should
_TENSOR_BYTES = 250  # what a safetensors header says of one tensor, at most
_PICTURE_BYTES = 2.4  # of a PNG for each pixel; photographs seldom need more
_LOG_BYTES, _STEP_BYTES = 100_000, 200


def _blocks(width: int, count: int) -> Layers:
    """The attention layers of `count` transformer blocks of Stable Diffusion 2, whose texts are wider than 1.x's."""
    square, text = (width, width), (width, 1024)
    one = (
        ("attn1.to_q", square), ("attn1.to_k", square), ("attn1.to_v", square), ("attn1.to_out.0", square),
        ("attn2.to_q", square), ("attn2.to_k", text), ("attn2.to_v", text), ("attn2.to_out.0", square),
        ("ff.net.0.proj", (8 * width, width)), ("ff.net.2", (width, 4 * width)),
    )  # fmt: skip
    return one * count


_HUB: dict[str, tuple[Layers, Layers, int, int]] = {
    # of a family: the layers of denoiser and text encoder, and the numbers in each; the larger of its versions
    "sd15": (
        _blocks(320, 5) + _blocks(640, 5) + _blocks(1280, 6),
        tuple((name, (1024, 1024)) for name in _TEXT_TARGETS) * 23,
        866_000_000,
        341_000_000,
    )
}


def outcome_bytes(recipe: Recipe) -> int | None:
    """About how large the archive is that comes back: weights, samples, log. None where that cannot be known."""
    weights = _weights_bytes(recipe)
    if weights is None:
        return None
    training, samples = recipe.training, recipe.samples
    times = 1 + (training.steps - 1) // samples.every if samples.every else 1
    pictures = times * len(samples.prompts) * training.resolution**2 * _PICTURE_BYTES
    return int(weights + pictures + _LOG_BYTES + training.steps * _STEP_BYTES)


def _weights_bytes(recipe: Recipe) -> int | None:
    if recipe.base.source == "builtin":
        unet, text = (_layers_in(_BUILTIN / name) for name in ("unet", "text_encoder"))
        sizes = [sum(math.prod(shape) for _, shape in layers) for layers in (unet, text)]
    elif recipe.family in _HUB:
        unet, text, *sizes = _HUB[recipe.family]
    else:
        return None
    both = recipe.method.train_text_encoder
    if recipe.method.name == "full":
        return _MODEL_BYTES * (sizes[0] + (sizes[1] if both else 0))
    denoiser = _adapter_bytes(unet, recipe.method.targets, recipe.method.rank)
    encoder = _adapter_bytes(text, _TEXT_TARGETS, recipe.method.rank) if both else 0
    return None if denoiser is None or encoder is None else denoiser + encoder


def _adapter_bytes(layers: Layers, targets: Sequence[str], rank: int) -> int | None:
    """What adapters of all layers whose names end as one of `targets` take; None where one of these fits no layer."""
    if not all(any(_ends(name, (target,)) for name, _ in layers) for target in targets):
        return None
    shapes = [shape for name, shape in layers if _ends(name, targets) and len(shape) > 1]
    numbers = sum(rank * (shape[0] + math.prod(shape[1:])) for shape in shapes)
    return _ADAPTER_BYTES * numbers + 2 * _TENSOR_BYTES * len(shapes)


def _ends(name: str, targets: Iterable[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _layers_in(folder: Path) -> Layers:
    """All weights in the safetensors files of a component."""
    layers = []
    for file in sorted(folder.glob("*.safetensors")):
        with open(file, "rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        layers += [
            (name.removesuffix(".weight"), tuple(tensor["shape"]))
            for name, tensor in header.items()
            if name != "__metadata__"
        ]
    return tuple(layers)
