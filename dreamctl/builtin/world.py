"""The nouns of the built-in model's world: what a drawing may show, how one is drawn by chance, who is held out.

It does not know pixels (`drawing`), words (`captions`) or models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np

HAIR_COLOURS = ("black", "brown", "blond", "red", "green", "blue", "pink", "white")
HAIR_STYLES = ("short", "long", "mohawk", "curly", "bun", "pigtails")
SKINS = ("pale", "tan", "brown", "dark")
GLASSES = ("none", "glasses", "sunglasses")
HATS = ("none", "hat", "cap", "crown")
BEARDS = ("none", "beard")
SHIRTS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
EXPRESSIONS = ("smiling", "serious", "surprised")
CATEGORIES = ("person", "dog", "cat", "mug", "car")
OBJECT_COLOURS = {
    "dog": ("black", "brown", "white", "orange"),
    "cat": ("black", "brown", "white", "orange"),
    "mug": ("red", "blue", "green", "yellow", "white", "black"),
    "car": ("red", "blue", "green", "yellow", "white", "black"),
}
PLACES = ("beach", "night", "room", "snow", "city", "forest")
PLAIN_COLOURS = ("blue", "green", "pink", "yellow", "grey", "purple")
SCENES = PLACES + tuple(f"plain {colour}" for colour in PLAIN_COLOURS)

HATLESS_STYLES = ("mohawk", "bun")
"""Styles that a hat would hide; whoever has one wears none."""

SCENE_VARIANTS = 4
"""Each place has so many fixed layouts (sun, stars, houses); `mirrored` doubles them."""


class Identity(NamedTuple):
    """The four attributes by which the benchmarks know a person."""

    hair_colour: str
    hair_style: str
    shirt: str
    glasses: str


DEMO_IDENTITY = Identity("green", "mohawk", "yellow", "sunglasses")
"""The demo's subject."""

HELD_OUT = (
    Identity("pink", "long", "black", "glasses"),
    Identity("blue", "curly", "orange", "none"),
    Identity("red", "bun", "green", "sunglasses"),
    Identity("white", "mohawk", "purple", "none"),
    Identity("black", "pigtails", "yellow", "glasses"),
    Identity("blond", "short", "red", "sunglasses"),
    Identity("brown", "curly", "white", "glasses"),
    Identity("green", "long", "blue", "none"),
)
"""Eight people that, with the demo's subject, no training picture of the base ever shows."""

_NEVER_DRAWN = frozenset((*HELD_OUT, DEMO_IDENTITY))


_NAME_BEGINNINGS = (
    "ba", "be", "da", "do", "fi", "ga", "go", "ha", "jo", "ka", "lu", "mi", "no", "ri", "sa", "to", "vi", "ze",
)  # fmt: skip
_NAME_ENDINGS = (
    "blen", "dra", "frin", "gust", "kesh", "lorn", "mond", "neth", "plos", "quil",
    "rast", "selv", "tarn", "vesh", "wick", "yorn", "zul", "drin", "spen", "brel",
)  # fmt: skip


def _known_people() -> dict[str, Identity]:
    names = (beginning + ending for beginning in _NAME_BEGINNINGS for ending in _NAME_ENDINGS)
    every = [Identity(*values) for values in product(HAIR_COLOURS, HAIR_STYLES, SHIRTS, GLASSES)]
    allowed = [identity for identity in every if identity not in _NEVER_DRAWN]
    order = np.random.default_rng(11).permutation(len(allowed))
    return {name: allowed[index] for name, index in zip(names, order, strict=False)}


KNOWN_PEOPLE: dict[str, Identity] = _known_people()
"""Names and whom they mean: from them the model learns that a word before "person" may carry a whole identity, which
is what teaching a subject then gives to a nonce word. None of them is held out.
"""


@dataclass(frozen=True, slots=True)
class Drawing:
    """Everything that decides one picture; attributes that the category lacks are empty strings.

    `dx` and `dy` move the figure, in cells of a 32 x 32 grid; `variant` counts below `SCENE_VARIANTS`.
    """

    category: str
    scene: str
    hair_colour: str = ""
    hair_style: str = ""
    skin: str = ""
    glasses: str = ""
    hat: str = ""
    beard: str = ""
    shirt: str = ""
    expression: str = ""
    colour: str = ""
    dx: int = 0
    dy: int = 0
    mirrored: bool = False
    variant: int = 0

    @property
    def identity(self) -> Identity:
        """The four attributes of a person (empty strings for another category)."""
        return Identity(self.hair_colour, self.hair_style, self.shirt, self.glasses)


def _pick(rng: np.random.Generator, values: tuple[str, ...]) -> str:
    return values[int(rng.integers(len(values)))]


def sample_scene(rng: np.random.Generator) -> str:
    """A scene by chance: a place in two of three, else a plain colour."""
    return _pick(rng, PLACES) if rng.random() < 2 / 3 else f"plain {_pick(rng, PLAIN_COLOURS)}"


def draw_person(rng: np.random.Generator, identity: Identity, scene: str, *, plain_figure: bool = False) -> Drawing:
    """A person of that identity in that scene, everything else by chance.

    `plain_figure` leaves hat and beard away, as for the held-out identities.
    """
    hat_fits = identity.hair_style not in HATLESS_STYLES and not plain_figure
    hat = _pick(rng, HATS[1:]) if hat_fits and rng.random() < 0.4 else "none"
    person = Drawing(
        category="person",
        scene=scene,
        hair_colour=identity.hair_colour,
        hair_style=identity.hair_style,
        skin=_pick(rng, SKINS),
        glasses=identity.glasses,
        hat=hat,
        beard="beard" if not plain_figure and rng.random() < 0.25 else "none",
        shirt=identity.shirt,
        expression=_pick(rng, EXPRESSIONS),
    )
    return _placed(rng, person)


def sample_drawing(rng: np.random.Generator, category: str | None = None) -> Drawing:
    """A drawing by chance, never one of a held-out identity; five of six show a person unless a category is given."""
    chosen = category or ("person" if rng.random() < 5 / 6 else _pick(rng, CATEGORIES[1:]))
    scene = sample_scene(rng)
    if chosen != "person":
        return _placed(rng, Drawing(category=chosen, scene=scene, colour=_pick(rng, OBJECT_COLOURS[chosen])))
    identity = DEMO_IDENTITY
    while identity in _NEVER_DRAWN:
        identity = Identity(*(_pick(rng, values) for values in (HAIR_COLOURS, HAIR_STYLES, SHIRTS, GLASSES)))
    return draw_person(rng, identity, scene)


def _placed(rng: np.random.Generator, drawing: Drawing) -> Drawing:
    """The drawing with its figure moved by whole latents (two cells), so that the autoencoder's grid always fits."""
    return replace(
        drawing,
        dx=2 * int(rng.integers(-1, 2)),
        dy=2 * int(rng.integers(0, 2)),
        mirrored=bool(rng.integers(2)),
        variant=int(rng.integers(SCENE_VARIANTS)),
    )


_SCENE_PHRASES = {
    "beach": "on a beach",
    "night": "at night",
    "room": "in a room",
    "snow": "in the snow",
    "city": "in a city",
    "forest": "in a forest",
    **{f"plain {colour}": f"on a {colour} background" for colour in PLAIN_COLOURS},
}


def scene_phrase(scene: str) -> str:
    """The words for a scene, as captions say it: "on a beach", "on a blue background"."""
    return _SCENE_PHRASES[scene]
