"""Measures whether the built-in model obeys its prompts: `python -m dreamctl.builtin.gates [MODEL_DIR]`.

Exit status 1 where a gate is missed. It knows the model only through `StableDiffusionPipeline`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dreamctl.builtin import MODEL_DIR
from dreamctl.builtin.captions import caption_and_named
from dreamctl.builtin.reader import ATTRIBUTES, Reader, Reading
from dreamctl.builtin.world import Drawing, sample_drawing

GOALS = {"scene": 0.9, "hair_colour": 0.8, "shirt": 0.8}
"""The least share of pictures in which the reader must find what the prompt names."""

PROMPTS = 200
STEPS = 20
GUIDANCE = 4.0
BATCH = 20


def gate_prompts(count: int = PROMPTS, seed: int = 0) -> list[tuple[str, Drawing, frozenset[str]]]:
    """Prompts made by the world's captions (none empty), what each describes, and the attributes that it names."""
    rng = np.random.default_rng([9, seed])
    prompts: list[tuple[str, Drawing, frozenset[str]]] = []
    while len(prompts) < count:
        drawing = sample_drawing(rng)
        text, named = caption_and_named(rng, drawing, by_name=0)
        if text:
            prompts.append((text, drawing, named))
    return prompts


def sample(model: Path, prompts: Sequence[str], steps: int = STEPS, guidance: float = GUIDANCE) -> list[Image.Image]:
    """One picture per prompt, in float32 on the CPU, the same for the same prompts."""
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pictures: list[Image.Image] = []
    for start in range(0, len(prompts), BATCH):
        part = list(prompts[start : start + BATCH])
        noise = torch.Generator().manual_seed(start)
        pictures += pipeline(part, num_inference_steps=steps, guidance_scale=guidance, generator=noise).images
    return pictures


def shares(
    prompts: Sequence[tuple[str, Drawing, frozenset[str]]], readings: Sequence[Reading]
) -> dict[str, tuple[float, int]]:
    """By attribute: the share of pictures that show what their prompt names, and how many prompts name it."""
    table: dict[str, tuple[float, int]] = {}
    for name in ATTRIBUTES:
        right = [
            getattr(reading, name).value == getattr(drawing, name)
            for (_, drawing, named), reading in zip(prompts, readings, strict=True)
            if name in named
        ]
        table[name] = (sum(right) / max(1, len(right)), len(right))
    return table


def main(arguments: list[str] | None = None) -> int:
    """Prints one row per attribute and returns 0 where every gate holds, else 1."""
    parser = argparse.ArgumentParser(prog="python -m dreamctl.builtin.gates", description=__doc__)
    parser.add_argument("model", nargs="?", type=Path, default=MODEL_DIR)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    options = parser.parse_args(arguments)
    prompts = gate_prompts(options.prompts)
    pictures = sample(options.model, [text for text, _, _ in prompts], options.steps, options.guidance)
    table = shares(prompts, Reader.load().read(pictures))
    print(f"{'attribute':12} {'right':>6} {'named':>6} {'goal':>6}  held")
    for name, (share, count) in table.items():
        goal = GOALS.get(name)
        verdict = ("", "") if goal is None else (f"{goal:.0%}", "yes" if share >= goal else "NO")
        print(f"{name:12} {share:6.0%} {count:6} {verdict[0]:>6}  {verdict[1]}")
    return int(any(table[name][0] < goal for name, goal in GOALS.items()))


if __name__ == "__main__":
    raise SystemExit(main())
