"""The parts of the built-in model's training that can be shown to be right without training it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dreamctl.builtin.captions import NONCE_WORDS  # noqa: E402
from dreamctl.builtin.training.parallel import (  # noqa: E402
    assert_all_trained,
    load_checkpoint,
    save_checkpoint,
    snapshot,
)
from dreamctl.builtin.training.pool import pool_drawing  # noqa: E402
from dreamctl.builtin.training.text import NonceWords, make_text_encoder  # noqa: E402
from dreamctl.builtin.training.tokenizer import make_tokenizer, merges_for  # noqa: E402
from dreamctl.builtin.training.unet import draw_timesteps, make_scheduler  # noqa: E402
from dreamctl.builtin.training.vae import draw_batch, make_vae, normalise_latents  # noqa: E402
from dreamctl.builtin.world import DEMO_IDENTITY, HELD_OUT, KNOWN_PEOPLE  # noqa: E402


def test_merges_end_with_whole_words() -> None:
    merged = {"".join(pair) for pair in merges_for(("beach", "beard", "sks"))}
    assert {"beach</w>", "beard</w>", "sks</w>"} <= merged


def test_normalised_latents_have_unit_deviation_and_decode_as_before() -> None:
    torch.manual_seed(0)
    vae = make_vae().eval()
    pictures = draw_batch(np.random.default_rng(0), 16)[:, :, :64, :64].contiguous()
    with torch.no_grad():
        before = vae.decode(vae.encode(pictures).latent_dist.mean).sample
        normalise_latents(vae, pictures)
        latents = vae.encode(pictures).latent_dist.mean
        after = vae.decode(latents).sample
    assert latents.mean((0, 2, 3)).abs().max() < 1e-3
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 1e-3
    assert torch.allclose(before, after, atol=1e-3)


def test_nonce_words_lie_in_the_middle_of_the_names(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    embedding = make_text_encoder(tokenizer).get_input_embeddings().weight.detach()
    NonceWords(tokenizer).centre(embedding)
    names = embedding[[tokenizer(name).input_ids[1] for name in KNOWN_PEOPLE]]
    nonces = embedding[[tokenizer(word).input_ids[1] for word in NONCE_WORDS]]
    assert (nonces.mean(0) - names.mean(0)).abs().max() < 0.01
    assert torch.pdist(nonces).min() > 0.05


def test_a_part_that_is_not_trained_is_named() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    before = snapshot(model)
    model[0](torch.ones(1, 2)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    with pytest.raises(RuntimeError, match=r"2 parameters.*1\.weight, 1\.bias"):
        assert_all_trained(model, before)


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "work" / "stage.ckpt"
    assert load_checkpoint(path) is None
    save_checkpoint(path, {"step": 3, "weight": torch.ones(2)})
    state = load_checkpoint(path)
    assert state is not None and state["step"] == 3
    assert [file.name for file in path.parent.iterdir()] == ["stage.ckpt"]


def test_the_schedule_ends_in_pure_noise_and_high_noise_is_frequent() -> None:
    assert make_scheduler().alphas_cumprod[-1] == 0
    steps = draw_timesteps(np.random.default_rng(0), 4000)
    assert steps.min() >= 0 and steps.max() <= 999
    assert (steps > 500).float().mean() > 0.55


def test_the_pool_has_no_held_out_person() -> None:
    never = {*HELD_OUT, DEMO_IDENTITY}
    assert not any(pool_drawing(index).identity in never for index in range(3000))
    assert pool_drawing(7) == pool_drawing(7)
