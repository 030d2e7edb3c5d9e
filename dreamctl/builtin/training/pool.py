"""Encodes a large pool of drawings once, so that the UNet's training never waits for the autoencoder.

Drawing number i of the pool is made by chance from i alone: only latents are stored. It does not know captions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from dreamctl.builtin.drawing import NATIVE_CELL, draw_cells
from dreamctl.builtin.training.parallel import Place
from dreamctl.builtin.training.vae import load_vae
from dreamctl.builtin.world import Drawing, sample_drawing

SHARDS = 24
SHARD_SIZE = 2048
"""Drawings per file; 48 k drawings are 100 MB."""


def pool_drawing(index: int) -> Drawing:
    """Drawing number `index` of the pool."""
    return sample_drawing(np.random.default_rng([41, index]))


def _shard_path(work: Path, shard: int) -> Path:
    return work / "pool" / f"{shard:03d}.npy"


@torch.no_grad()
def make_pool(place: Place) -> None:
    """Writes `work/pool/NNN.npy`, each float16 of shape (SHARD_SIZE, 4, 16, 16); files that exist are kept."""
    (place.work / "pool").mkdir(exist_ok=True)
    vae = load_vae(place.work)
    for shard in range(place.rank, SHARDS, place.processes):
        path = _shard_path(place.work, shard)
        if path.exists():
            continue
        noise = torch.Generator().manual_seed(shard)
        parts = []
        for start in range(shard * SHARD_SIZE, (shard + 1) * SHARD_SIZE, 32):
            cells = np.stack([draw_cells(pool_drawing(index)) for index in range(start, start + 32)])
            pictures = torch.from_numpy(cells).permute(0, 3, 1, 2).float() / 127.5 - 1
            pictures = pictures.repeat_interleave(NATIVE_CELL, 2).repeat_interleave(NATIVE_CELL, 3)
            with torch.autocast("cpu", torch.bfloat16):
                posterior = vae.encode(pictures).latent_dist
            parts.append(posterior.sample(generator=noise).half().numpy())
        part = path.with_suffix(".part")
        with part.open("wb") as stream:
            np.save(stream, np.concatenate(parts))
        part.replace(path)
        place.say(f"pool: {shard + 1} of {SHARDS} files")


def load_pool(work: Path) -> npt.NDArray[np.float16]:
    """The latents of the pool's unbroken first files: float16 of shape (n, 4, 16, 16).

    Raises FileNotFoundError where there is none.
    """
    shards = []
    for shard in range(SHARDS):
        if not _shard_path(work, shard).exists():
            break
        shards.append(np.load(_shard_path(work, shard)))
    if not shards:
        raise FileNotFoundError(f"no latents under {work / 'pool'}: run the stage `pool` first")
    return np.concatenate(shards)
