"""The optimizer and its learning rate: AdamW, and a factor that is a pure function of the step."""

from __future__ import annotations

import math

import torch

from dreamctl.domain.recipe import Optimizer, Recipe
from dreamctl.families.base import Family
from dreamctl.training.student import Student


def rate_factor(optimizer: Optimizer, step: int, steps: int) -> float:
    """What the learning rates are multiplied with in step `step` (from 0) of `steps`."""
    if step < optimizer.warmup_steps:
        return (step + 1) / optimizer.warmup_steps
    if optimizer.schedule == "constant":
        return 1.0
    share = (step - optimizer.warmup_steps) / max(1, steps - optimizer.warmup_steps)
    return 1.0 - share if optimizer.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * share))


def make_optimizer(student: Student, family: Family, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with one group for the denoiser and, where they are taught, one for the text encoders."""
    settings = recipe.optimizer
    denoiser: list[torch.nn.Parameter] = []
    text: list[torch.nn.Parameter] = []
    for name, parameter in student.named_weights().items():
        (denoiser if name.partition(".")[0] == family.denoiser else text).append(parameter)
    groups = [{"params": denoiser, "lr": settings.learning_rate, "full_rate": settings.learning_rate}]
    if text:
        rate = settings.text_encoder_learning_rate
        groups.append({"params": text, "lr": rate, "full_rate": rate})
    return torch.optim.AdamW(
        groups,
        betas=settings.betas,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        fused=_can_fuse(denoiser),
    )


def _can_fuse(parameters: list[torch.nn.Parameter]) -> bool:
    """One kernel for all weights, where torch has it: about twice as fast on a CPU."""
    return parameters[0].device.type in ("cpu", "cuda")


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["full_rate"] * factor
