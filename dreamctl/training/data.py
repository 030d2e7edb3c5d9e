"""The pictures, captions and masks of a run, checked before anything expensive starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from dreamctl.domain.concept import Concept, taught_text
from dreamctl.domain.dataset import IMAGE_FORMATS
from dreamctl.domain.recipe import Recipe
from dreamctl.errors import DreamctlError, InvalidInput
from dreamctl.runfolder import RunFolder


@dataclass(frozen=True)
class Example:
    """One picture with the whole text that it is taught with. A mask is white where the loss counts.

    `repeats`: how often an epoch shows it.
    """

    path: Path
    text: str
    mask: Path | None = None
    repeats: int = 1

    @property
    def name(self) -> str:
        return self.path.name


def read_examples(run: RunFolder, recipe: Recipe, concept: Concept) -> list[Example]:
    """The run's pictures. Raises DreamctlError or InvalidInput naming a picture that is gone, broken or too small."""
    manifest = run.data.manifest()
    if not manifest.pictures:
        raise InvalidInput(f"{run.data.path} holds no pictures", hint="run `dreamctl prepare` on a folder with some")
    captions = run.data.captions()
    examples = []
    for path, picture in zip(run.data.pictures(), manifest.pictures, strict=True):
        _check_size(path, recipe.training.resolution)
        text = taught_text(recipe.prompt, concept, captions[picture.file], manifest.trigger)
        mask = run.data.path / picture.mask if picture.mask else None
        examples.append(Example(path, text, mask, picture.repeats))
    return examples


def _check_size(path: Path, resolution: int) -> None:
    with _opened(path) as image:
        width, height = image.size
    if min(width, height) < resolution:
        raise InvalidInput(
            f"{path.name} is {width}x{height} pixels, smaller than training.resolution = {resolution}",
            field="training.resolution",
            hint=f"run `dreamctl prepare --size {resolution}` on the original pictures, or train at a lower resolution",
        )


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=IMAGE_FORMATS)
    except FileNotFoundError as error:
        raise DreamctlError(f"{path} is gone", hint="run `dreamctl train` again with --again") from error
    except (OSError, UnidentifiedImageError) as error:
        raise DreamctlError(f"{path} cannot be read as a picture: {error}") from error


def _squared(path: Path, mode: str, side: int) -> Image.Image:
    """The picture's centre as a square of `side` pixels."""
    with _opened(path) as image:
        try:
            whole = image.convert(mode)
        except OSError as error:
            raise DreamctlError(f"{path} cannot be read as a picture: {error}") from error
    if whole.size == (side, side):
        return whole
    scale = side / min(whole.size)
    size = (max(side, round(whole.width * scale)), max(side, round(whole.height * scale)))
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return whole.resize(size, Image.Resampling.LANCZOS).crop((left, top, left + side, top + side))


def read_pixels(path: Path, side: int) -> Tensor:
    """A picture as (3, side, side) floats in [-1, 1]."""
    array = np.asarray(_squared(path, "RGB", side), dtype=np.float32)
    return torch.from_numpy(array / 127.5 - 1.0).permute(2, 0, 1).contiguous()


def read_mask(path: Path | None, side: int, reduction: int) -> Tensor:
    """Loss weights (1, side/reduction, side/reduction) in [0, 1]: each latent cell's white share; ones without mask."""
    cells = side // reduction
    if path is None:
        return torch.ones(1, cells, cells)
    array = np.asarray(_squared(path, "L", side), dtype=np.float32) / 255.0
    weights = array.reshape(cells, reduction, cells, reduction).mean(axis=(1, 3))
    if not weights.any():
        raise DreamctlError(f"{path} is black all over, so nothing of its picture would be taught")
    return torch.from_numpy(weights).unsqueeze(0)
