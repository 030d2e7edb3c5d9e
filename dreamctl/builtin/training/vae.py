"""Trains the built-in model's AutoencoderKL on drawings: 8-fold reduction, 4 latent channels of unit deviation.

It does not know captions or the UNet.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from dreamctl.builtin.drawing import NATIVE_CELL, draw_cells
from dreamctl.builtin.training.parallel import (
    Place,
    assert_all_trained,
    average_gradients,
    load_checkpoint,
    save_checkpoint,
    snapshot,
)
from dreamctl.builtin.world import sample_drawing

CROPPED_STEPS, WHOLE_STEPS, EXACT_STEPS = 2400, 600, 150
"""First steps on quarter pictures, which cost a quarter; then whole ones, at the end in float32, not bfloat16."""
BATCH = 16
"""Pictures per step, over all processes."""
PEAK_RATE = 1.5e-3
KL_WEIGHT = 2e-4
SHIFTED_SHARE = 0.15
"""So many pictures are moved by single pixels: users' pictures do not keep to the grid of cells."""


def make_vae() -> AutoencoderKL:
    """An untrained autoencoder: 128 x 128 RGB to 4 x 16 x 16 latents."""
    blocks = 4
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=128,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def draw_batch(rng: np.random.Generator, count: int) -> Tensor:
    """Drawings by chance: float32 in -1..1 of shape (count, 3, 128, 128)."""
    cells = np.stack([draw_cells(sample_drawing(rng)) for _ in range(count)])
    pictures = torch.from_numpy(cells).permute(0, 3, 1, 2).float() / 127.5 - 1
    pictures = pictures.repeat_interleave(NATIVE_CELL, 2).repeat_interleave(NATIVE_CELL, 3)
    for index in range(count):
        if rng.random() < SHIFTED_SHARE:
            rows, columns = (int(value) for value in rng.integers(-3, 4, 2))
            pictures[index] = pictures[index].roll((rows, columns), (1, 2))
    return pictures


def rate_at(step: int, steps: int, peak: float, warm_up: int = 100) -> float:
    """Linear warm-up, then a cosine to a hundredth of the peak."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    done = min(1.0, (step - warm_up) / max(1, steps - warm_up))
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def _loss(vae: AutoencoderKL, pictures: Tensor, noise: torch.Generator, kl_weight: float) -> tuple[Tensor, Tensor]:
    """(the loss, its L1 part)"""
    posterior = vae.encode(pictures).latent_dist
    restored = vae.decode(posterior.sample(generator=noise)).sample
    error = nn.functional.l1_loss(restored.float(), pictures)
    mean, spread = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean.square() + spread.exp() - 1 - spread).mean()
    return error + kl_weight * kl, error


def _crop(rng: np.random.Generator, pictures: Tensor) -> Tensor:
    """One window of 64 x 64 pixels, on the grid of latents."""
    top, left = (8 * int(value) for value in rng.integers(0, 9, 2))
    return pictures[:, :, top : top + 64, left : left + 64].contiguous()


def train_vae(place: Place) -> None:
    """Trains, folds the latents' mean and deviation into the quant convolutions, and writes `work/vae`."""
    if (place.work / "vae" / "config.json").exists():
        return
    torch.manual_seed(1)
    vae = make_vae()
    optimiser = torch.optim.AdamW(vae.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=1e-4)
    path, start, steps = place.work / "vae.ckpt", 0, CROPPED_STEPS + WHOLE_STEPS
    if state := load_checkpoint(path):
        vae.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
    before, mean_error = snapshot(vae), 0.0
    for step in range(start, steps):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, steps, PEAK_RATE)
        rng = place.rng("vae", step)
        noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
        pictures = draw_batch(rng, BATCH // place.processes)
        if step < CROPPED_STEPS:
            pictures = _crop(rng, pictures)
        with torch.autocast("cpu", torch.bfloat16, enabled=step < steps - EXACT_STEPS):
            loss, error = _loss(vae, pictures, noise, KL_WEIGHT * min(1.0, step / (0.4 * steps)))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(vae.parameters(), place.processes)
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        mean_error += (error.item() - mean_error) * max(0.02, 1 / (step - start + 1))
        if step - start == 99:
            assert_all_trained(vae, before)
        if step % 50 == 0:
            place.say(f"vae step {step} of {steps}, L1 {mean_error:.4f}")
        if step % 200 == 199 and place.leads:
            save_checkpoint(path, {"model": vae.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1})
    if place.leads:
        normalise_latents(vae, draw_batch(place.rng("vae-norm", 0), 256))
        vae.save_pretrained(place.work / "vae")


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, pictures: Tensor) -> None:
    """Folds the mean and deviation of each latent channel into the two quant convolutions, so that the latents of
    these pictures are about unit normal and the scaling factor stays 1.
    """
    latents = torch.cat([vae.encode(part).latent_dist.mean for part in pictures.chunk(16)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, out, channels = vae.quant_conv, vae.post_quant_conv, len(mean)
    into.weight[:channels] /= deviation.view(-1, 1, 1, 1)
    into.bias[:channels] = (into.bias[:channels] - mean) / deviation
    into.bias[channels:] -= 2 * deviation.log()
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= deviation.view(1, -1, 1, 1)


def load_vae(work: Path, name: str = "vae") -> AutoencoderKL:
    """The trained autoencoder of that folder, frozen."""
    vae = AutoencoderKL.from_pretrained(work / name)
    vae.requires_grad_(False)
    return vae.eval()
