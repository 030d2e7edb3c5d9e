"""The small functions of the loop: draws, batches, losses, schedules, pictures and masks."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreamctl.domain.recipe import Optimizer, Recipe
from dreamctl.errors import DreamctlError
from dreamctl.training.batches import Batches
from dreamctl.training.data import read_mask, read_pixels
from dreamctl.training.draws import draw, picture_at
from dreamctl.training.lessons import Lessons, Texts
from dreamctl.training.schedule import rate_factor
from dreamctl.training.student import picture_losses
from tests.training.school import make_recipe

SHAPE = (4, 8, 8)


def lessons(count: int, name: str) -> Lessons:
    latents = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(count, *SHAPE).contiguous()
    names = [f"{name}{number}" for number in range(count)]
    return Lessons(names, names, latents, torch.ones(count, 1, 8, 8))


def batches(recipe: Recipe, rank: int = 0, world: int = 1) -> Batches:
    words = ["", *(f"{kind}{number}" for kind in ("subject", "class") for number in range(5))]
    texts = Texts({"ids": torch.arange(len(words)).view(-1, 1)}, words)
    return Batches(recipe, lessons(5, "subject"), lessons(5, "class"), texts, rank, world)


@pytest.mark.parametrize(
    ("repeats", "epoch"),
    [
        ((), [0, 1, 2]),
        ((1, 1, 1), [0, 1, 2]),
        ((10, 10, 10), [0, 1, 2]),
        ((10, 5, 5), [0, 0, 1, 2]),
        ((1, 3, 1), [0, 1, 1, 1, 2]),
    ],
)
def test_an_epoch_shows_pictures_as_often_as_their_repeats_say(repeats: tuple[int, ...], epoch: list[int]) -> None:
    shown = replace(lessons(3, "p"), repeats=repeats)
    assert shown.epoch == epoch
    texts = Texts({"x": torch.zeros(1, 1)}, ["p"])
    recipe = make_recipe(Path("base"), {"training": {"batch_size": 1}})
    batches = Batches(recipe, shown, None, texts)
    steps = [batches.pictures(step) for step in range(2 * len(epoch))]
    counted = Counter(name for step in steps for name in step)
    assert counted == Counter(f"p{place}" for place in epoch * 2)


def test_each_epoch_shows_every_picture_once_in_an_order_of_its_own() -> None:
    epochs = [[picture_at(0, "instance", 7 * epoch + place, 7) for place in range(7)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert epochs[0] != [picture_at(1, "instance", place, 7) for place in range(7)]


def test_a_draw_depends_on_seed_stream_and_position_alone() -> None:
    one, same = draw(3, "instance", 5, SHAPE, 0.0), draw(3, "instance", 5, SHAPE, 0.0)
    assert torch.equal(one.noise, same.noise) and one.moment == same.moment and one.dropout == same.dropout
    for other in (
        draw(4, "instance", 5, SHAPE, 0.0),
        draw(3, "class", 5, SHAPE, 0.0),
        draw(3, "instance", 6, SHAPE, 0.0),
    ):
        assert not torch.equal(one.noise, other.noise) and one.moment != other.moment
    moments = [draw(0, "instance", position, (1, 1, 1), 0.0).moment for position in range(2000)]
    assert 0.48 < sum(moments) / 2000 < 0.52 and min(moments) >= 0 and max(moments) < 1


def test_offset_noise_shifts_whole_channels() -> None:
    plain, shifted = draw(3, "instance", 5, SHAPE, 0.0), draw(3, "instance", 5, SHAPE, 0.1)
    shift = (shifted.noise - plain.noise).flatten(1)
    assert torch.allclose(shift, shift[:, :1].expand_as(shift), atol=1e-6) and len(set(shift[:, 0].tolist())) == 4
    channels = torch.stack([draw(0, "instance", at, SHAPE, 0.5).noise.mean(dim=(1, 2)) for at in range(500)])
    assert math.isclose(float(channels.std()), math.sqrt(0.25 + 1 / 64), rel_tol=0.1)


def test_processes_share_a_batch_without_overlap(tiny: Path) -> None:
    recipe = make_recipe(tiny, {"training": {"batch_size": 4}})
    whole = batches(recipe).batch(3, 0)
    halves = [batches(recipe, rank, 2).batch(3, 0) for rank in range(2)]
    assert whole.instances == 4 and len(whole.latents) == 8
    for field in ("latents", "noise", "moments"):
        parts = [getattr(half, field) for half in halves]
        rejoined = torch.cat([*(part[:2] for part in parts), *(part[2:] for part in parts)])
        assert torch.equal(rejoined, getattr(whole, field))


def test_caption_dropout_empties_its_share(tiny: Path) -> None:
    def share(dropout: float) -> float:
        source = batches(make_recipe(tiny, {"training": {"batch_size": 8, "caption_dropout": dropout}}))
        ids = torch.cat([source.batch(step, 0).text["ids"] for step in range(40)])
        return float((ids == 0).float().mean())

    assert share(0.0) == 0.0
    assert 0.2 < share(0.3) < 0.4
    assert share(1.0) == 1.0


def test_the_pictures_of_a_step_are_named(tiny: Path) -> None:
    recipe = make_recipe(tiny, {"training": {"batch_size": 2, "accumulation": 2}})
    names = batches(recipe).pictures(0)
    assert len([name for name in names if name.startswith("subject")]) == 4
    assert len([name for name in names if name.startswith("class picture class")]) == 4


def test_a_mask_leaves_out_and_does_not_dilute() -> None:
    prediction, target = torch.zeros(2, 4, 8, 8), torch.ones(2, 4, 8, 8)
    target[:, :, 4:] = 9.0
    half = torch.zeros(2, 1, 8, 8)
    half[:, :, :4] = 1.0
    ones = torch.ones(2)
    assert torch.allclose(picture_losses(prediction, target, ones, half), torch.ones(2))
    assert torch.allclose(picture_losses(prediction, target, ones, torch.ones(2, 1, 8, 8)), torch.full((2,), 41.0))
    assert torch.allclose(picture_losses(prediction, target, torch.tensor([1.0, 0.5]), half), torch.tensor([1.0, 0.5]))


def test_masks_are_averaged_over_latent_cells(tmp_path: Path) -> None:
    white = np.zeros((64, 64), dtype=np.uint8)
    white[:, :12] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png", 64, 8)
    assert mask.shape == (1, 8, 8)
    assert mask[0, 0].tolist() == [1.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert torch.equal(read_mask(None, 64, 8), torch.ones(1, 8, 8))
    Image.new("L", (64, 64)).save(tmp_path / "black.png")
    with pytest.raises(DreamctlError, match=r"black\.png is black all over"):
        read_mask(tmp_path / "black.png", 64, 8)


def test_larger_pictures_are_scaled_and_their_centre_taken(tmp_path: Path) -> None:
    picture = Image.new("RGB", (256, 128), "black")
    picture.paste("white", (64, 0, 192, 128))
    picture.save(tmp_path / "wide.png")
    pixels = read_pixels(tmp_path / "wide.png", 64)
    assert pixels.shape == (3, 64, 64)
    assert float(pixels.min()) > 0.85 and float(pixels.max()) == 1.0


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.5, 0.0]),
        ("cosine", [0.5, 1.0, 1.0, 0.5, 0.0]),
    ],
)
def test_schedules(schedule: str, expected: list[float]) -> None:
    optimizer = Optimizer.parse({"schedule": schedule, "warmup_steps": 2}, "test")
    found = [rate_factor(optimizer, step, 10) for step in (0, 1, 2, 6, 10)]
    assert found == pytest.approx(expected, abs=1e-9)
