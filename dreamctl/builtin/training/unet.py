"""Trains the built-in model's UNet2DConditionModel, and its text encoder a little more, on the pool of latents.

v-prediction, cosine schedule rescaled to zero terminal SNR. It does not know pixels.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from dreamctl.builtin.captions import caption
from dreamctl.builtin.training.parallel import (
    Place,
    assert_all_trained,
    average_gradients,
    load_checkpoint,
    save_checkpoint,
    snapshot,
)
from dreamctl.builtin.training.pool import load_pool, pool_drawing
from dreamctl.builtin.training.text import NonceWords, tokenise
from dreamctl.builtin.training.vae import rate_at

STEPS = 9_000
BATCH = 64
"""Samples per step, over all processes."""
PEAK_RATE = 8e-4
TEXT_RATE = 0.1
"""The text encoder's learning rate, as a share of the UNet's."""
SAVE_SECONDS = 120.0


def make_scheduler() -> DDIMScheduler:
    """The noise schedule, for training and for sampling."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def make_unet(text_width: int) -> UNet2DConditionModel:
    """An untrained UNet: attention at 16 x 16, 8 x 8 and 4 x 4."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(64, 96, 144),
        layers_per_block=1,
        cross_attention_dim=text_width,
        attention_head_dim=(2, 4, 4),
        norm_num_groups=16,
    )


def draw_timesteps(rng: np.random.Generator, count: int) -> Tensor:
    """Timesteps below 1000, high noise more often: there the scene and the colours are decided."""
    return torch.from_numpy(np.minimum(999, 1000 * rng.random(count) ** 0.7).astype(np.int64))


def decay_at(step: int) -> float:
    """The exponential average's decay: short at first."""
    return min(0.9995, (1 + step) / (20 + step))


class Models(nn.Module):
    """What is trained together."""

    def __init__(self, work: Path) -> None:
        super().__init__()
        self.text = CLIPTextModel.from_pretrained(work / "text_encoder", attn_implementation="eager")
        self.unet = make_unet(self.text.config.hidden_size)
        # On CPU the fused attention's backward pass in bfloat16 costs more than all convolutions together.
        self.unet.set_attn_processor(AttnProcessor())

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """The velocity, in the shape of `noisy`."""
        velocity: Tensor = self.unet(noisy, timesteps, self.text(tokens).last_hidden_state).sample
        return velocity


def _loss(models: Models, latents: Tensor, tokens: Tensor, rng: np.random.Generator, schedule: Tensor) -> Tensor:
    timesteps = draw_timesteps(rng, len(latents))
    noise = torch.from_numpy(rng.standard_normal(latents.shape, np.float32))
    signal = schedule[timesteps].sqrt().view(-1, 1, 1, 1)
    spread = (1 - schedule[timesteps]).sqrt().view(-1, 1, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        velocity = models(signal * latents + spread * noise, timesteps, tokens)
    return nn.functional.mse_loss(velocity.float(), signal * noise - spread * latents)


def _optimiser(models: Models) -> torch.optim.AdamW:
    groups: list[dict[str, Any]] = [
        {"params": list(models.unet.parameters()), "share": 1.0},
        {"params": list(models.text.parameters()), "share": TEXT_RATE},
    ]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)


@torch.no_grad()
def _follow(average: dict[str, Tensor], models: Models, decay: float) -> None:
    weights = models.state_dict()
    floating = [name for name in average if average[name].is_floating_point()]
    torch._foreach_lerp_([average[name] for name in floating], [weights[name] for name in floating], 1 - decay)


def train_unet(place: Place, steps: int = STEPS) -> None:
    """Trains to `steps`, going on from `work/unet.ckpt`; that file holds the averaged weights for `export`."""
    torch.manual_seed(3)
    tokenizer = CLIPTokenizer.from_pretrained(place.work / "tokenizer")
    models, schedule = Models(place.work), make_scheduler().alphas_cumprod
    optimiser, path, start = _optimiser(models), place.work / "unet.ckpt", 0
    average = {name: weight.detach().clone() for name, weight in models.state_dict().items()}
    if state := load_checkpoint(path):
        models.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average, start = state["average"], state["step"]
    latents, parameters, nonces = load_pool(place.work), list(models.parameters()), NonceWords(tokenizer)
    place.say(f"unet: {sum(p.numel() for p in models.unet.parameters()) / 1e6:.2f} M weights, {len(latents)} latents")
    before, running, saved, began = snapshot(models), 0.0, time.monotonic(), time.monotonic()
    for step in range(start, steps):
        for group in optimiser.param_groups:
            group["lr"] = group["share"] * rate_at(step, steps, PEAK_RATE, 300)
        rng = place.rng("unet", step)
        picks = rng.integers(len(latents), size=BATCH // place.processes)
        tokens = tokenise(tokenizer, [caption(rng, pool_drawing(int(index))) for index in picks])
        loss = _loss(models, torch.from_numpy(latents[picks]).float(), tokens, rng, schedule)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(parameters, place.processes)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        nonces.centre(models.text.get_input_embeddings().weight)
        _follow(average, models, decay_at(step))
        running += (loss.item() - running) * max(0.01, 1 / (step - start + 1))
        if step - start == 99:
            assert_all_trained(models, before)
        if step % 50 == 0 or step == steps - 1:
            pace = (step - start + 1) * BATCH / (time.monotonic() - began)
            place.say(f"unet step {step} of {steps}, loss {running:.4f}, {pace:.0f} samples/s")
        if place.leads and (time.monotonic() - saved > SAVE_SECONDS or step == steps - 1):
            saved = time.monotonic()
            weights = {"model": models.state_dict(), "average": average, "optimiser": optimiser.state_dict()}
            save_checkpoint(path, {**weights, "step": step + 1})


def load_average(work: Path) -> tuple[CLIPTextModel, UNet2DConditionModel, int]:
    """The averaged text encoder and UNet of `work/unet.ckpt`, and the steps behind them.

    Raises FileNotFoundError where there is no such file.
    """
    state = load_checkpoint(work / "unet.ckpt")
    if state is None:
        raise FileNotFoundError(f"{work / 'unet.ckpt'}: run the stage `unet` first")
    models = Models(work)
    models.load_state_dict(state["average"])
    return models.text, models.unet, state["step"]
