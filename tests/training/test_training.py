"""Whole trainings of a tiny Stable Diffusion 1.5: what comes out, loads, and is what was taught."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from dreamctl.domain.recipe import Base
from dreamctl.generation.pipeline import open_pipeline
from dreamctl.runfolder import RunFolder
from tests.training.school import FULL, LORA, assert_succeeded, make_run, messages, steps_done, teach, weights

LORA_TEXT: dict[str, Any] = {"method": {**LORA["method"], "train_text_encoder": True}}


def answers(base: Path, model: Path | None) -> list[torch.Tensor]:
    """What the opened model says to fixed noise and a prompt: embeddings and prediction."""
    opened = open_pipeline(Base(source=str(base)), model, device="cpu").model
    source = torch.Generator().manual_seed(5)
    latents = torch.randn((1, 4, 8, 8), generator=source)
    with torch.no_grad():
        text = opened.embed(opened.tokenize(["a photo of sks person"]))
        noised = opened.noised(latents, torch.randn(latents.shape, generator=source), torch.tensor([0.5]))
        return [*text.values(), opened.predict(noised, text)]


def check_taught(run: RunFolder, base: Path, text_too: bool) -> None:
    """The model loads over its base and answers differently from it."""
    assert_succeeded(run)
    before, after = answers(base, None), answers(base, run.model)
    assert not torch.allclose(before[1], after[1], atol=1e-3)
    assert torch.equal(before[0], after[0]) != text_too


def test_full_with_text_encoder_and_prior(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, FULL)
    assert teach(run) == 0
    check_taught(run, tiny, text_too=True)
    model = run.model_file()
    assert model and model.format == "diffusers" and model.family == "sd15" and model.steps == 4
    assert {item.file.split("/")[0] for item in model.files} == {"unet", "text_encoder"}
    assert all(tensor.dtype == torch.float16 for tensor in weights(run).values())
    assert steps_done(run.events()) == 4
    assert [path.name for path in run.samples.iterdir()] == ["step-000004-0.png"]


def test_lora_with_text_encoder_is_read_by_diffusers(tmp_path: Path, tiny_v: Path) -> None:
    run = make_run(tmp_path, tiny_v, LORA_TEXT)
    assert teach(run) == 0
    check_taught(run, tiny_v, text_too=True)
    model = run.model_file()
    assert (
        model and model.format == "peft" and [item.file for item in model.files] == ["pytorch_lora_weights.safetensors"]
    )
    with safe_open(run.model / "pytorch_lora_weights.safetensors", "pt") as file:
        names = list(file.keys())
        assert '"unet.lora_alpha": 8.0' in file.metadata()["lora_adapter_metadata"]
    assert any(name.startswith("text_encoder.text_model.encoder.layers.0.") for name in names)
    assert any(name.startswith("unet.") and name.endswith("to_out.0.lora_B.weight") for name in names)
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_v)
    pipeline.load_lora_weights(run.model)  # as any user of diffusers does
    scales = {
        module.scaling["default_0"]
        for part in (pipeline.unet, pipeline.text_encoder)
        for module in part.modules()
        if hasattr(module, "scaling") and module.scaling
    }
    assert scales == {2.0}  # alpha 8 / rank 4


def test_every_knob_at_once(tmp_path: Path, tiny: Path) -> None:
    """Masks, offset noise, Min-SNR, caption dropout, accumulation, bf16, checkpointing, samples on the way."""
    changes = {
        "method": {**LORA["method"], "dropout": 0.1},
        "training": {
            "accumulation": 2,
            "batch_size": 1,
            "precision": "bf16",
            "gradient_checkpointing": True,
            "offset_noise": 0.1,
            "snr_gamma": 5.0,
            "caption_dropout": 0.5,
        },
        "optimizer": {"schedule": "cosine", "warmup_steps": 2},
        "samples": {"every": 2},
    }
    run = make_run(tmp_path, tiny, changes, masks=True)
    assert teach(run) == 0
    check_taught(run, tiny, text_too=False)
    assert sorted(path.name for path in run.samples.iterdir()) == ["step-000002-0.png", "step-000004-0.png"]


def test_a_finished_run_is_left_alone(tmp_path: Path, tiny: Path) -> None:
    run = make_run(
        tmp_path, tiny, LORA, {"training": {"steps": 1}, "prior": {"pictures": 0}, "samples": {"prompts": []}}
    )
    assert teach(run) == 0
    events = run.events()
    assert teach(run) == 0
    assert run.events() == events


def test_accumulation_is_the_same_as_a_larger_batch(tmp_path: Path, tiny: Path) -> None:
    results = []
    for size, parts in ((2, 1), (1, 2)):
        training = {"batch_size": size, "accumulation": parts, "steps": 2}
        run = make_run(tmp_path, tiny, LORA, {"training": training, "samples": {"prompts": []}})
        assert teach(run) == 0
        results.append(weights(run))
    assert max(float((results[0][name] - results[1][name]).abs().max()) for name in results[0]) < 1e-5


def test_a_training_that_died_after_saving_only_draws_its_samples(tmp_path: Path, tiny: Path) -> None:
    run = make_run(tmp_path, tiny, LORA, {"prior": {"pictures": 0}})
    assert teach(run) == 0
    lines = run.events_file.read_text().splitlines(keepends=True)
    before = weights(run)
    run.events_file.write_text("".join(lines[:-2]))  # as if killed before the sample's event
    (run.samples / "step-000004-0.png").unlink()
    assert teach(run) == 0
    assert_succeeded(run)
    assert (run.samples / "step-000004-0.png").exists()
    assert "going on" not in " ".join(messages(run))
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(run).items())


@pytest.mark.parametrize("targets", [("to_q", "to_qq"), ("nothing",)])
def test_a_target_that_fits_nothing_is_named(tmp_path: Path, tiny: Path, targets: tuple[str, ...]) -> None:
    run = make_run(tmp_path, tiny, {"method": {"targets": list(targets)}, "prior": {"pictures": 0}})
    assert teach(run) == 2
    assert repr(targets[-1]) in run.events()[-1].fields["message"]
