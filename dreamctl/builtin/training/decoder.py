"""Sharpens the built-in model's decoder: its encoder stays, so the latents, and the UNet trained on them, stay true.

The decoder sees latents with a little noise, as a UNet makes them. It does not know the UNet.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
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
from dreamctl.builtin.training.pool import load_pool, pool_drawing
from dreamctl.builtin.training.vae import load_vae, rate_at

STEPS = 1000
BATCH = 16
PEAK_RATE = 6e-4
NOISE = 0.15
"""The largest deviation of the noise on latents, which themselves have deviation 1."""


class Decoder(nn.Module):
    """The half of the autoencoder that is trained."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.post_quant_conv, self.decoder = vae.post_quant_conv, vae.decoder
        self.requires_grad_(True)

    def forward(self, latents: Tensor) -> Tensor:
        """Pictures in -1..1 of shape (n, 3, 128, 128), from latents of shape (n, 4, 16, 16)."""
        pictures: Tensor = self.decoder(self.post_quant_conv(latents))
        return pictures


def _batch(rng: np.random.Generator, latents: npt.NDArray[np.float16], count: int) -> tuple[Tensor, Tensor]:
    picks = rng.integers(len(latents), size=count)
    cells = np.stack([draw_cells(pool_drawing(int(index))) for index in picks])
    pictures = torch.from_numpy(cells).permute(0, 3, 1, 2).float() / 127.5 - 1
    pictures = pictures.repeat_interleave(NATIVE_CELL, 2).repeat_interleave(NATIVE_CELL, 3)
    deviation = rng.uniform(0, NOISE, (count, 1, 1, 1))
    noisy = latents[picks].astype(np.float32) + deviation * rng.standard_normal((count, *latents.shape[1:]))
    return torch.from_numpy(noisy).float(), pictures


def train_decoder(place: Place) -> None:
    """Writes `work/vae_sharp`, which `export` prefers to `work/vae`."""
    if (place.work / "vae_sharp" / "config.json").exists():
        return
    vae, path, start = load_vae(place.work), place.work / "decoder.ckpt", 0
    decoder = Decoder(vae)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=1e-4)
    if state := load_checkpoint(path):
        decoder.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
    latents, before, mean_error = load_pool(place.work), snapshot(decoder), 0.0
    for step in range(start, STEPS):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, STEPS, PEAK_RATE)
        noisy, pictures = _batch(place.rng("decoder", step), latents, BATCH // place.processes)
        with torch.autocast("cpu", torch.bfloat16, enabled=step < 0.85 * STEPS):
            restored = decoder(noisy)
        loss = nn.functional.l1_loss(restored.float(), pictures)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(decoder.parameters(), place.processes)
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        mean_error += (loss.item() - mean_error) * max(0.02, 1 / (step - start + 1))
        if step - start == 99:
            assert_all_trained(decoder, before)
        if step % 50 == 0 or step == STEPS - 1:
            place.say(f"decoder step {step} of {STEPS}, L1 {mean_error:.4f}")
        if step % 100 == 99 and place.leads:
            weights = {"model": decoder.state_dict(), "optimiser": optimiser.state_dict()}
            save_checkpoint(path, {**weights, "step": step + 1})
    if place.leads:
        vae.save_pretrained(place.work / "vae_sharp")
