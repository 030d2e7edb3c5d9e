"""A Stable Diffusion 1.5 with random weights, small enough to be made and trained in a test.

The architecture is the real one (AutoencoderKL with 8-fold reduction, CLIP, UNet2DConditionModel), only narrow.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest

PredictionType = Literal["epsilon", "v_prediction", "sample"]


def write_tiny_sd15(folder: Path, prediction_type: PredictionType = "epsilon", seed: int = 0) -> Path:
    """Write a random model as a diffusers folder and return the folder. v-prediction comes with zero terminal SNR."""
    import torch
    from diffusers import StableDiffusionPipeline

    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        pipeline = StableDiffusionPipeline(
            vae=_autoencoder(),
            text_encoder=_text_encoder(),
            tokenizer=_tokenizer(folder),
            unet=_unet(),
            scheduler=_scheduler(prediction_type),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.save_pretrained(folder)
    finally:
        torch.set_rng_state(state)
    return folder


def _autoencoder() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
    )


def _text_encoder() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=514,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )
    return CLIPTextModel(config)


def _unet() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=2,
        cross_attention_dim=32,
    )


def _tokenizer(folder: Path) -> Any:
    """CLIP's tokenizer with the bytes as its words: any string can be encoded."""
    from transformers import CLIPTokenizer

    alphabet = byte_alphabet()
    words = [*alphabet, *(letter + "</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({word: number for number, word in enumerate(words)}), encoding="utf-8")
    merges.write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = CLIPTokenizer(str(vocabulary), str(merges), model_max_length=77)
    vocabulary.unlink()
    merges.unlink()
    return tokenizer


def byte_alphabet() -> list[str]:
    """The 256 printable characters by which byte-level BPE (GPT-2's) writes bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(hidden))]


def _scheduler(prediction_type: PredictionType) -> Any:
    from diffusers import DDIMScheduler, PNDMScheduler

    common: dict[str, Any] = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "steps_offset": 1,
        "set_alpha_to_one": False,
    }
    if prediction_type == "epsilon":
        return PNDMScheduler(**common, skip_prk_steps=True)
    return DDIMScheduler(
        **(common | {"set_alpha_to_one": True}),
        prediction_type=prediction_type,
        clip_sample=False,
        rescale_betas_zero_snr=prediction_type == "v_prediction",
        timestep_spacing="trailing",
    )


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that predicts the noise, with PNDM as its sampler, as Stable Diffusion 1.5 does."""
    return write_tiny_sd15(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_v(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with v-prediction and zero terminal SNR, as the built-in model has."""
    return write_tiny_sd15(tmp_path_factory.mktemp("tiny-v"), "v_prediction")
