"""Reads a drawing's attributes back from a picture with a small classifier: the benchmarks' and the captioner's eyes.

It knows only the built-in model's world and will name something in any other picture, with a low confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from dreamctl.builtin import world
from dreamctl.builtin.world import Identity

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "reader.safetensors"
SIDE = 128
ABSENT = "absent"
"""What is read for an attribute that the category does not have."""

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "category": world.CATEGORIES,
    "scene": world.SCENES,
    "hair_colour": (*world.HAIR_COLOURS, ABSENT),
    "hair_style": (*world.HAIR_STYLES, ABSENT),
    "shirt": (*world.SHIRTS, ABSENT),
    "glasses": (*world.GLASSES, ABSENT),
    "skin": (*world.SKINS, ABSENT),
    "hat": (*world.HATS, ABSENT),
    "beard": (*world.BEARDS, ABSENT),
    "expression": (*world.EXPRESSIONS, ABSENT),
    "colour": (*dict.fromkeys(colour for colours in world.OBJECT_COLOURS.values() for colour in colours), ABSENT),
}
"""Every attribute that is read, and its possible values."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One attribute as read: its value, and the probability (0..1) that the reader gives it."""

    value: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What one picture shows; an attribute that the category lacks reads `ABSENT`."""

    category: Answer
    scene: Answer
    hair_colour: Answer
    hair_style: Answer
    shirt: Answer
    glasses: Answer
    skin: Answer
    hat: Answer
    beard: Answer
    expression: Answer
    colour: Answer

    @property
    def identity(self) -> Identity:
        """The four attributes by which the benchmarks know a person."""
        return Identity(self.hair_colour.value, self.hair_style.value, self.shirt.value, self.glasses.value)


class Reader:
    """The loaded classifier; pictures in, readings out."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    @classmethod
    def load(cls, weights: Path = WEIGHTS) -> Reader:
        """The reader with its weights (about a second); raises FileNotFoundError where they are missing."""
        from safetensors.torch import load_file

        if not weights.exists():
            raise FileNotFoundError(f"{weights}: the reader's weights are missing; `make builtin-model` makes them")
        network = build_network()
        network.load_state_dict(load_file(weights))
        return cls(network.eval())

    def read(self, pictures: Sequence[Image.Image]) -> list[Reading]:
        """One reading per picture, of any size and mode."""
        import torch

        readings: list[Reading] = []
        with torch.no_grad():
            for start in range(0, len(pictures), 32):
                scores = self._network(to_tensor(pictures[start : start + 32]))
                chances = {name: values.softmax(1).max(1) for name, values in scores.items()}
                for row in range(len(pictures[start : start + 32])):
                    answers = {
                        name: Answer(ATTRIBUTES[name][int(best.indices[row])], float(best.values[row]))
                        for name, best in chances.items()
                    }
                    readings.append(Reading(**answers))
        return readings


def to_tensor(pictures: Sequence[Image.Image]) -> Tensor:
    """Pictures of any size as float32 in 0..1 of shape (n, 3, 128, 128)."""
    import numpy as np
    import torch

    resized = [
        picture.convert("RGB")
        if picture.size == (SIDE, SIDE)
        else picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
        for picture in pictures
    ]
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in resized])).permute(0, 3, 1, 2).float() / 255


def build_network() -> nn.Module:
    """The untrained classifier: a trunk of strided convolutions, and one linear head per attribute."""
    import torch
    from torch import nn

    def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        )

    class Network(nn.Module):
        """Scores by attribute, from pictures in 0..1 of shape (n, 3, 128, 128)."""

        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Sequential(
                nn.Conv2d(3, 32, 4, 4), nn.ReLU(), stage(32, 48, 1), stage(48, 64, 2), stage(64, 64, 1),
                stage(64, 96, 2), stage(96, 96, 1), stage(96, 128, 2), nn.Flatten(), nn.Dropout(0.1),
            )  # fmt: skip
            self.heads = nn.ModuleDict({name: nn.Linear(128 * 16, len(values)) for name, values in ATTRIBUTES.items()})

        def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
            features = self.trunk(pictures * 2 - 1)
            return {name: head(features) for name, head in self.heads.items()}

    return Network()
