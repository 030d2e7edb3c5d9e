"""The built-in model's files: a standard pipeline, a tokenizer for any text, and a reader that can be believed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from dreamctl.builtin import MODEL_DIR, NOTICE
from dreamctl.builtin.captions import NONCE_WORDS, vocabulary
from dreamctl.builtin.drawing import draw
from dreamctl.builtin.photographs import subject_drawings
from dreamctl.builtin.world import DEMO_IDENTITY, HELD_OUT, PLACES, Drawing, sample_drawing

pytest.importorskip("torch")


def test_the_package_is_light() -> None:
    code = "import sys, dreamctl.builtin; print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
    assert "\n" not in NOTICE and "--base-model" in NOTICE


def test_the_reader_is_light_until_it_reads() -> None:
    code = "import sys, dreamctl.builtin.reader; print('torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "False"


def test_the_tokenizer_encodes_anything() -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(MODEL_DIR / "tokenizer")
    for text in ("a photo of sks person", "grüße, 日本 🎉", "x" * 40, "((red:1.3)) 512px \\ <lora>", "\x00\x07", ""):
        numbers = tokenizer(text).input_ids
        assert tokenizer.unk_token_id not in numbers[1:-1], text
        back = tokenizer.decode(numbers, skip_special_tokens=True)
        assert "".join(back.split()) == "".join(text.lower().split()), text


def test_every_word_of_the_world_is_one_token() -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(MODEL_DIR / "tokenizer")
    assert all(len(tokenizer(word).input_ids) == 3 for word in (*vocabulary(), *NONCE_WORDS))


def test_the_pipeline_is_a_standard_one_and_makes_a_picture() -> None:
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(MODEL_DIR, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.vae_scale_factor == 8
    assert pipeline.unet.config.in_channels == 4
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    noise = torch.Generator().manual_seed(0)
    picture = pipeline("a photo of a person, on a beach", num_inference_steps=4, generator=noise).images[0]
    assert picture.size == (128, 128)
    assert np.asarray(picture).std() > 20


def test_the_model_is_small_and_safe() -> None:
    files = [path for path in MODEL_DIR.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 18e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt"}


def _accuracy(drawings: Sequence[Drawing], pictures: Sequence[Image.Image]) -> dict[str, float]:
    from dreamctl.builtin.reader import ABSENT, Reader

    readings = Reader.load().read(pictures)
    return {
        name: float(
            np.mean(
                [
                    getattr(reading, name).value == (getattr(drawing, name) or ABSENT)
                    for drawing, reading in zip(drawings, readings, strict=True)
                ]
            )
        )
        for name in ("hair_colour", "hair_style", "shirt", "glasses", "scene", "category")
    }


def test_the_reader_reads_new_drawings() -> None:
    rng = np.random.default_rng(987_654)
    drawings = [sample_drawing(rng) for _ in range(300)]
    accuracy = _accuracy(drawings, [draw(drawing, 4 * (1 + index % 3)) for index, drawing in enumerate(drawings)])
    assert min(accuracy.values()) >= 0.99, accuracy


def test_the_reader_reads_held_out_people() -> None:
    drawings = [
        drawing
        for index, identity in enumerate((*HELD_OUT, DEMO_IDENTITY))
        for drawing in subject_drawings(identity, PLACES, seed=100 + index)
    ]
    accuracy = _accuracy(drawings, [draw(drawing) for drawing in drawings])
    assert min(accuracy.values()) >= 0.98, accuracy


def test_a_reading_is_frozen_and_says_how_sure_it_is() -> None:
    from dreamctl.builtin.reader import Reader

    drawing = sample_drawing(np.random.default_rng(5), "person")
    (reading,) = Reader.load().read([draw(drawing)])
    assert 0.5 < reading.scene.confidence <= 1
    assert reading.identity == drawing.identity
    with pytest.raises(AttributeError):
        reading.scene = reading.shirt  # type: ignore[misc]
