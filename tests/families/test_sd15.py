"""Stable Diffusion 1.x behind the door: encoding, noise and targets against diffusers' own, adapters, errors."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from dreamctl.domain.recipe import Base, Method
from dreamctl.errors import InvalidInput
from dreamctl.families.base import Model, load_family
from dreamctl.families.noising import DiscreteNoise
from dreamctl.families.sources import resolve_base
from tests.tiny_models import write_tiny_sd15


def opened(folder: Path) -> Model:
    resolved = resolve_base(Base(source=str(folder)))
    return load_family(resolved.family).open(resolved)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_noise_and_targets_are_those_of_the_scheduler(prediction: str) -> None:
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(prediction_type=prediction, beta_schedule="scaled_linear")
    ours = DiscreteNoise(scheduler.config)
    latents, noise = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    noised = ours.noised(latents, noise, torch.tensor([0.0, 0.5, 0.9999]), None)
    assert noised.timesteps.tolist() == [0, 500, 999]
    assert torch.allclose(noised.inputs, scheduler.add_noise(latents, noise, noised.timesteps), atol=1e-5)
    expected = {
        "epsilon": noise,
        "sample": latents,
        "v_prediction": scheduler.get_velocity(latents, noise, noised.timesteps),
    }[prediction]
    assert torch.allclose(noised.target, expected, atol=1e-5)
    assert torch.equal(noised.weights, torch.ones(3))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weights(prediction: str) -> None:
    """As in diffusers' scripts: snr from `compute_snr`, divided by snr (epsilon) or snr + 1 (v)."""
    from diffusers import DDPMScheduler
    from diffusers.training_utils import compute_snr

    scheduler = DDPMScheduler(prediction_type=prediction, beta_schedule="scaled_linear")
    ours = DiscreteNoise(scheduler.config)
    latents = torch.randn(4, 4, 8, 8)
    noised = ours.noised(latents, latents, torch.tensor([0.01, 0.2, 0.5, 0.99]), 5.0)
    snr = compute_snr(scheduler, noised.timesteps)
    capped = snr.clamp(max=5.0)
    expected = {"epsilon": capped / snr, "v_prediction": capped / (snr + 1), "sample": capped}[prediction]
    assert torch.allclose(noised.weights, expected, rtol=1e-3)


def test_zero_terminal_snr_has_finite_weights_and_pure_noise() -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    ours = DiscreteNoise(scheduler.config)
    assert float(ours.alphas_cumprod[-1]) == 0.0
    latents, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    noised = ours.noised(latents, noise, torch.tensor([0.9999]), 5.0)
    assert torch.equal(noised.inputs, noise) and torch.equal(noised.target, -latents)
    assert float(noised.weights) == 0.0


def test_a_scheduler_that_predicts_something_else_is_refused() -> None:
    with pytest.raises(InvalidInput, match="flow"):
        DiscreteNoise({"prediction_type": "flow"})


def test_any_text_can_be_encoded_and_pictures_give_the_same_latents_twice(tiny: Path) -> None:
    model = opened(tiny)
    tokens = model.tokenize(["a photo of sks pérson", "日本 🎉", "", "long " * 200])
    assert tokens["ids"].shape == (4, 77)
    with torch.no_grad():
        assert model.embed(tokens)["prompt"].shape == (4, 77, 32)
        pixels = torch.rand(2, 3, 64, 64) * 2 - 1
        latents = model.encode_pictures(pixels)
        assert latents.shape == (2, 4, 8, 8)
        assert torch.equal(latents, model.encode_pictures(pixels))


def test_adapters_leave_a_fresh_model_as_it_was_and_train_alone(tiny: Path) -> None:
    model = opened(tiny)
    noised = model.noised(torch.ones(1, 4, 8, 8), torch.ones(1, 4, 8, 8), torch.tensor([0.5]))
    with torch.no_grad():
        text = model.embed(model.tokenize(["a"]))
        before = model.predict(noised, text)
        model.prepare(
            Method(name="lora", rank=2, alpha=2.0, targets=("to_q", "ff.net.2", "conv1"), train_text_encoder=True)
        )
        assert torch.allclose(before, model.predict(noised, model.embed(model.tokenize(["a"]))), atol=1e-6)
    for component in (model.denoiser, model.components["text_encoder"]):
        taught = [name for name, parameter in component.named_parameters() if parameter.requires_grad]
        assert taught and all("lora_" in name for name in taught)
    assert any("conv1" in name for name, parameter in model.denoiser.named_parameters() if parameter.requires_grad)
    assert not any(parameter.requires_grad for parameter in model.components["vae"].parameters())


def test_a_misspelt_target_names_the_nearest(tiny: Path) -> None:
    with pytest.raises(InvalidInput, match="ends with 'to_kk'") as caught:
        opened(tiny).prepare(Method(name="lora", targets=("to_kk",)))
    assert caught.value.hint == "did you mean 'to_k'?"


def test_pickled_weights_are_not_opened(tmp_path: Path) -> None:
    folder = write_tiny_sd15(tmp_path / "pickled")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        opened(folder)


def test_a_component_that_is_missing_is_told(tmp_path: Path, tiny: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "broken")
    shutil.rmtree(folder / "vae")
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        opened(folder)
