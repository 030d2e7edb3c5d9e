"""Trains the reader, a small classifier of drawings, on the renderer with what happens to pictures on their way.

It does not know the base model, but for its autoencoder, whose round trips the reader must survive.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageFilter
from safetensors.torch import save
from torch import Tensor, nn

from dreamctl.builtin import world
from dreamctl.builtin.drawing import draw
from dreamctl.builtin.reader import ABSENT, ATTRIBUTES, WEIGHTS, build_network, to_tensor
from dreamctl.builtin.training.parallel import (
    Place,
    assert_all_trained,
    average_gradients,
    load_checkpoint,
    save_checkpoint,
    snapshot,
)
from dreamctl.builtin.training.vae import load_vae, rate_at
from dreamctl.builtin.world import Drawing, Identity, draw_person, sample_drawing, sample_scene
from dreamctl.files import write_bytes

STEPS = 1400
BATCH = 64
PEAK_RATE = 2e-3
ANY_IDENTITY_SHARE = 0.3
"""So many training drawings may show a held-out identity: the reader must not learn that they do not exist."""


def any_drawing(rng: np.random.Generator) -> Drawing:
    """A drawing by chance, of any identity."""
    if rng.random() > ANY_IDENTITY_SHARE:
        return sample_drawing(rng)
    choices = (world.HAIR_COLOURS, world.HAIR_STYLES, world.SHIRTS, world.GLASSES)
    identity = Identity(*(values[int(rng.integers(len(values)))] for values in choices))
    return draw_person(rng, identity, sample_scene(rng))


def weather(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    """The picture after some of: being moved, scaled there and back, blurred, or saved as JPEG."""
    if rng.random() < 0.3:
        dx, dy = (int(value) for value in rng.integers(-6, 7, 2))
        picture = Image.fromarray(np.roll(np.asarray(picture), (dy, dx), (0, 1)))
    if rng.random() < 0.3:
        side = int(rng.integers(72, 400))
        resample = (Image.Resampling.BILINEAR, Image.Resampling.LANCZOS, Image.Resampling.BICUBIC)[int(rng.integers(3))]
        picture = picture.resize((side, side), resample).resize((128, 128), resample)
    if rng.random() < 0.15:
        picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 2.5))))
    if rng.random() < 0.3:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=int(rng.integers(25, 95)))
        picture = Image.open(buffer).convert("RGB")
    return picture


@torch.no_grad()
def _round_trip(vae: AutoencoderKL, rng: np.random.Generator, pictures: Tensor) -> Tensor:
    """The pictures, float in 0..1, through the autoencoder, with some noise on their latents."""
    noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
    latents = vae.encode(pictures * 2 - 1).latent_dist.mean
    latents += float(rng.uniform(0, 0.3)) * torch.randn(latents.shape, generator=noise)
    restored: Tensor = vae.decode(latents).sample
    return restored.clamp(-1, 1) / 2 + 0.5


def _batch(rng: np.random.Generator, count: int, vae: AutoencoderKL) -> tuple[Tensor, dict[str, Tensor]]:
    drawings = [any_drawing(rng) for _ in range(count)]
    pictures = to_tensor([weather(rng, draw(drawing)) for drawing in drawings])
    pictures[: count // 12] = _round_trip(vae, rng, pictures[: count // 12])
    pictures *= torch.from_numpy(rng.uniform(0.9, 1.1, (count, 1, 1, 1)).astype(np.float32))
    pictures += torch.from_numpy(rng.normal(0, 1, pictures.shape).astype(np.float32)) * float(rng.uniform(0, 0.04))
    labels = {
        name: torch.tensor([values.index(getattr(drawing, name) or ABSENT) for drawing in drawings])
        for name, values in ATTRIBUTES.items()
    }
    return pictures.clamp(0, 1), labels


def loss_of(scores: dict[str, Tensor], labels: dict[str, Tensor]) -> Tensor:
    """Mean cross-entropy over all attributes."""
    return torch.stack(
        [nn.functional.cross_entropy(scores[name], labels[name], label_smoothing=0.02) for name in labels]
    ).mean()


def train_reader(place: Place) -> None:
    """Trains and writes `dreamctl/builtin/reader.safetensors`."""
    path, start = place.work / "reader.ckpt", 0
    torch.manual_seed(4)
    network, vae = build_network(), load_vae(place.work)
    optimiser = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=0.01)
    if state := load_checkpoint(path):
        network.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
    before = snapshot(network)
    for step in range(start, STEPS):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, STEPS, PEAK_RATE)
        pictures, labels = _batch(place.rng("reader", step), BATCH // place.processes, vae)
        scores = network(pictures)
        loss = loss_of(scores, labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(network.parameters(), place.processes)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if step - start == 99:
            assert_all_trained(network, before)
        if step % 50 == 0:
            right = {name: (scores[name].argmax(1) == labels[name]).float().mean().item() for name in labels}
            worst = min(right, key=lambda name: right[name])
            place.say(f"reader step {step} of {STEPS}, loss {loss.item():.3f}, worst {worst} {right[worst]:.2f}")
        if step % 200 == 199 and place.leads:
            weights = {"model": network.state_dict(), "optimiser": optimiser.state_dict()}
            save_checkpoint(path, {**weights, "step": step + 1})
    if place.leads:
        _write(network)


def _write(network: nn.Module) -> None:
    write_bytes(WEIGHTS, save({name: weight.contiguous() for name, weight in network.state_dict().items()}))
