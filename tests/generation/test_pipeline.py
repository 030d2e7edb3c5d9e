"""Opening a model and drawing with it: the same seed is the same picture, and wrong files are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamctl.domain.concept import Concept
from dreamctl.domain.recipe import Base, Method
from dreamctl.domain.run import ModelFile, Weights, model_digest
from dreamctl.errors import DreamctlError, InvalidInput, NotFound
from dreamctl.families.base import load_family
from dreamctl.families.sources import resolve_base
from dreamctl.files import sha256_file, write_json
from dreamctl.generation.pipeline import Pipe, open_pipeline


def draw(pipe: Pipe, seeds: list[int], prompt: str = "a photo of a person") -> list[np.ndarray]:
    made = pipe.make(prompt, "bad", steps=2, guidance=4.0, width=64, height=72, seeds=seeds)
    return [np.asarray(image) for image in made]


@pytest.fixture
def taught(tmp_path: Path, tiny: Path) -> Path:
    """A model folder as the trainer writes it: the tiny base's UNet with one tensor changed."""
    import torch

    resolved = resolve_base(Base(source=str(tiny)))
    model = load_family("sd15").open(resolved)
    with torch.no_grad():
        for parameter in model.denoiser.parameters():
            parameter.mul_(1.2)
    folder = tmp_path / "model"
    model.save(folder, Method(name="full"), "fp16")
    files = tuple(
        Weights(file=path.relative_to(folder).as_posix(), sha256=sha256_file(path), bytes=path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )
    described = ModelFile(
        digest=model_digest(files),
        family="sd15",
        format="diffusers",
        base=str(tiny),
        base_digest=resolved.digest,
        steps=1,
        final_loss=0.1,
        concepts=(Concept(identifier="sks", category="person"),),
        files=files,
    )
    write_json(folder / "model.json", described.plain())
    return folder


def test_a_seed_is_a_picture_whatever_is_drawn_beside_it(tiny: Path) -> None:
    pipe = open_pipeline(Base(source=str(tiny)), device="cpu")
    together = draw(pipe, [1, 2, 3])
    assert [picture.shape for picture in together] == [(72, 64, 3)] * 3
    alone = draw(pipe, [3])
    assert np.array_equal(together[2], alone[0])
    assert not np.array_equal(together[0], together[1])
    assert not np.array_equal(alone[0], draw(pipe, [3], "another prompt")[0])


def test_progress_counts_all_steps(tiny: Path) -> None:
    told: list[tuple[int, int]] = []
    pipe = open_pipeline(Base(source=str(tiny)), device="cpu")
    list(pipe.make("a", steps=2, width=64, height=64, seeds=[1, 2], on_progress=lambda *now: told.append(now)))
    assert told[-1] == (4, 4) and len({total for _, total in told}) == 1
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_taught_model_draws_differently(tiny: Path, taught: Path) -> None:
    base = Base(source=str(tiny))
    before, after = draw(open_pipeline(base, device="cpu"), [5]), draw(open_pipeline(base, taught, "cpu"), [5])
    assert not np.array_equal(before[0], after[0])


def test_a_damaged_model_is_named(tiny: Path, taught: Path) -> None:
    weights = taught / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(DreamctlError, match=r"diffusion_pytorch_model\.safetensors is damaged"):
        open_pipeline(Base(source=str(tiny)), taught, "cpu")
    weights.unlink()
    with pytest.raises(DreamctlError, match=r"diffusion_pytorch_model\.safetensors is missing"):
        open_pipeline(Base(source=str(tiny)), taught, "cpu")


def test_a_model_of_another_base_is_refused(tiny: Path, tiny_v: Path, taught: Path) -> None:
    with pytest.raises(InvalidInput, match="taught on another base"):
        open_pipeline(Base(source=str(tiny_v)), taught, "cpu")


def test_an_edited_list_of_files_is_noticed(tiny: Path, taught: Path) -> None:
    described = json.loads((taught / "model.json").read_text())
    described["files"] = described["files"][1:]
    (taught / "model.json").write_text(json.dumps(described))
    with pytest.raises(DreamctlError, match="was edited"):
        open_pipeline(Base(source=str(tiny)), taught, "cpu")


def test_no_model_and_no_base(tmp_path: Path, tiny: Path, taught: Path) -> None:
    with pytest.raises(NotFound, match=r"model\.json is missing"):
        open_pipeline(Base(source=str(tiny)), tmp_path, "cpu")
    shutil.rmtree(taught)
    with pytest.raises(NotFound):
        open_pipeline(Base(source=str(tiny)), taught, "cpu")


def test_sides_that_do_not_fit_are_refused(tiny: Path) -> None:
    pipe = open_pipeline(Base(source=str(tiny)), device="cpu")
    with pytest.raises(InvalidInput, match="60x64: both sides must be multiples of 8"):
        list(pipe.make("a", width=60, height=64))


def test_pictures_are_rgb(tiny: Path) -> None:
    pipe = open_pipeline(Base(source=str(tiny)), device="cpu")
    image = next(pipe.make("a", steps=1, width=64, height=64))
    assert isinstance(image, Image.Image) and image.mode == "RGB"
