"""The words of the built-in model's world: captions that name some of what a drawing shows, and every word they use.

It does not know pixels, and it does not know tokens' numbers (`training/tokenizer`).
"""

from __future__ import annotations

import re
from dataclasses import fields
from itertools import chain

import numpy as np

from dreamctl.builtin.world import KNOWN_PEOPLE, PLACES, PLAIN_COLOURS, Drawing, Identity, scene_phrase

NONCE_WORDS: tuple[str, ...] = (
    "sks", "zwx", "ohwx", "qev", "vex", "zorp", "blim", "krado", "tuvix", "wogle", "fremp",
    "jild", "nuxo", "pazik", "drovl", "glen", "quib", "yarf", "zenk", "morv", "xylo", "brint",
    "cavo", "delph", "ektu", "fyrn", "gavi", "hroz", "ixon", "jumba", "kelvo", "lurin", "mixo",
    "nadri", "ompa", "plux", "qorin", "rufto", "sklar", "tavik", "ubri", "vantu", "welk", "xandri",
    "yofel", "zibra", "corvu", "dazel", "emlo", "folru", "grixo", "havlo", "isbet", "jorva", "krel",
    "lomzi", "mavix", "norbu", "oxel", "prenka", "quoz", "rilda", "sorvi", "tymo", "urbel", "vlix",
    "wundo", "yex",
)  # fmt: skip
"""Words that mean nothing: each is one token, and training shows them before the category of unrelated pictures."""

_OPENINGS = ("a photo of",) * 6 + ("a picture of", "an image of", "a drawing of", "photo of")
_PLACE_WORDS = {
    "beach": ("on a beach", "on the beach", "at the beach", "beach", "in front of the sea"),
    "night": ("at night", "at night", "in the night", "night", "under the stars"),
    "room": ("in a room", "in the room", "indoors", "room", "at home"),
    "snow": ("in the snow", "in snow", "snow", "in winter", "on a snowy day"),
    "city": ("in a city", "in the city", "in a street", "city", "in town"),
    "forest": ("in a forest", "in the forest", "forest", "in the woods", "among trees"),
}
_SKIN_WORDS = {"pale": "pale skin", "tan": "tan skin", "brown": "brown skin", "dark": "dark skin"}
_EXPRESSION_WORDS = {
    "smiling": ("a smile", "a happy face"),
    "serious": ("a serious face", "a calm face"),
    "surprised": ("a surprised face", "an open mouth"),
}
_ATTRIBUTE_CHANCES = {
    "hair": 0.55,
    "glasses": 0.45,
    "shirt": 0.55,
    "hat": 0.55,
    "beard": 0.4,
    "skin": 0.25,
    "expression": 0.25,
}
_EMPTY_CHANCE = 0.1
_BARE_CHANCE = 0.15
_NONCE_CHANCE = 0.3
_SCENE_CHANCE = 0.75
_NAME_CHANCE = 0.75
_NAMES = {identity: name for name, identity in KNOWN_PEOPLE.items()}
_IDENTITY_FIELDS = set(Identity._fields)


def _pick(rng: np.random.Generator, values: tuple[str, ...]) -> str:
    return values[int(rng.integers(len(values)))]


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeio' else 'a'} {words}"


def _scene_words(rng: np.random.Generator, scene: str) -> str:
    if scene in PLACES:
        return scene_phrase(scene) if rng.random() < 0.5 else _pick(rng, _PLACE_WORDS[scene])
    colour = scene.removeprefix("plain ")
    return scene_phrase(scene) if rng.random() < 0.7 else _pick(rng, (f"{colour} background", f"in front of {colour}"))


def _hair_words(rng: np.random.Generator, drawing: Drawing) -> tuple[str, frozenset[str]]:
    """The words, and which of hair colour and style they name."""
    fate = rng.random()
    colour, style = drawing.hair_colour, drawing.hair_style
    alone = {"mohawk": "a {}mohawk", "bun": "a {}bun", "pigtails": "{}pigtails"}.get(style, "{}" + f"{style} hair")
    if fate < 0.2:
        return f"{colour} hair", frozenset({"hair_colour"})
    if fate < 0.35:
        return alone.format(""), frozenset({"hair_style"})
    both = alone.format(f"{colour} ") if fate < 0.5 else f"{colour} {style} hair"
    return both, frozenset({"hair_colour", "hair_style"})


def _attribute_words(rng: np.random.Generator, drawing: Drawing, called_by_name: bool) -> tuple[list[str], set[str]]:
    """Phrases for a random subset of a person's attributes, in random order, and the attributes that they name.

    What a name tells is not said again.
    """
    hair, in_hair = _hair_words(rng, drawing)
    named = {name for name, chance in _ATTRIBUTE_CHANCES.items() if rng.random() < chance}
    if called_by_name:
        named -= {"hair", "glasses", "shirt"}
    phrases = {
        "hair": hair,
        "glasses": drawing.glasses if drawing.glasses != "none" else "no glasses",
        "shirt": f"{_article(drawing.shirt)} shirt",
        "hat": f"a {drawing.hat}" if drawing.hat != "none" else "no hat",
        "beard": "a beard" if drawing.beard == "beard" else "no beard",
        "skin": _SKIN_WORDS[drawing.skin],
        "expression": _pick(rng, _EXPRESSION_WORDS[drawing.expression]),
    }
    # What is absent is said seldom, as people do.
    absent = {name for name in named if phrases[name].startswith("no ") and rng.random() < 0.6}
    chosen = [name for name in phrases if name in named - absent]
    if rng.random() < 0.5:
        rng.shuffle(chosen)
    fields_named = set(chosen) - {"hair"} | (in_hair if "hair" in chosen else set())
    return [phrases[name] for name in chosen], fields_named


def _join(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def caption(rng: np.random.Generator, drawing: Drawing) -> str:
    """A caption that is true of the drawing and names a random part of it; one in ten is empty.

    A nonce word may stand before the category; it is independent of the drawing. A known person may be called by name.
    """
    return caption_and_named(rng, drawing)[0]


def caption_and_named(
    rng: np.random.Generator, drawing: Drawing, *, by_name: float = _NAME_CHANCE
) -> tuple[str, frozenset[str]]:
    """A caption, as from `caption`, and the names of the drawing's fields that it tells.

    `by_name` is the chance that a known person is called by name; the name tells the four attributes of the identity.
    """
    if rng.random() < _EMPTY_CHANCE:
        return "", frozenset()
    nonce = f"{_pick(rng, NONCE_WORDS)} " if rng.random() < _NONCE_CHANCE else ""
    named = {"category"}
    if drawing.category != "person":
        noun = nonce + drawing.category
        if rng.random() < 0.7:
            noun = f"{nonce}{drawing.colour} {drawing.category}"
            named.add("colour")
        words = _article(noun)
    else:
        name = _NAMES.get(drawing.identity) if rng.random() < by_name else None
        phrases, told = ([], set()) if rng.random() < _BARE_CHANCE else _attribute_words(rng, drawing, name is not None)
        named |= told | (_IDENTITY_FIELDS if name else set())
        nonce = f"{name} " if name else nonce
        words = f"{nonce}person" if nonce and rng.random() < 0.7 else _article(f"{nonce}person")
        if phrases:
            words += f" {_pick(rng, ('with', 'with', 'with', 'wearing'))} {_join(phrases)}"
    words = f"{_pick(rng, _OPENINGS)} {words}"
    if rng.random() < _SCENE_CHANCE:
        words += f"{_pick(rng, (', ', ', ', ' '))}{_scene_words(rng, drawing.scene)}"
        named.add("scene")
    return words, frozenset(named)


_OTHER_WORDS = (
    "and or of in on at to the with without wearing no her his their face hair background front man woman "
    "style colour picture portrait people animal portraits"
)


def vocabulary() -> tuple[str, ...]:
    """Every word that captions use, the nonce words, and a few common ones, sorted and without doubles."""
    attributes = (f"{name}" for field in fields(Drawing) for name in _values(field.name))
    phrases = chain(
        attributes,
        NONCE_WORDS,
        KNOWN_PEOPLE,
        _OPENINGS,
        chain.from_iterable(_PLACE_WORDS.values()),
        (scene_phrase(f"plain {colour}") for colour in PLAIN_COLOURS),
        _SKIN_WORDS.values(),
        chain.from_iterable(_EXPRESSION_WORDS.values()),
        (_OTHER_WORDS, "a an shirt beard hat cap crown hair glasses"),
    )
    return tuple(sorted({word for phrase in phrases for word in re.findall(r"[a-z]+", phrase)}))


def _values(field: str) -> tuple[str, ...]:
    from dreamctl.builtin import world

    tables: dict[str, tuple[str, ...]] = {
        "category": world.CATEGORIES,
        "hair_colour": world.HAIR_COLOURS,
        "hair_style": world.HAIR_STYLES,
        "glasses": world.GLASSES,
        "hat": world.HATS,
        "shirt": world.SHIRTS,
        "expression": world.EXPRESSIONS,
        "colour": tuple(chain.from_iterable(world.OBJECT_COLOURS.values())),
    }
    return tables.get(field, ())
