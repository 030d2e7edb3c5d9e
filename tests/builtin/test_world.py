"""The world, its captions and its photographs: the same every time, true, and without the held-out identities."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from dreamctl.builtin import world
from dreamctl.builtin.captions import NONCE_WORDS, caption_and_named, vocabulary
from dreamctl.builtin.drawing import draw, draw_cells
from dreamctl.builtin.photographs import DEMO_PHOTOGRAPHS, photographs, write_photographs
from dreamctl.builtin.world import DEMO_IDENTITY, HELD_OUT, KNOWN_PEOPLE, SCENES, Drawing, sample_drawing, scene_phrase


def drawings(count: int, seed: int = 0) -> list[Drawing]:
    rng = np.random.default_rng(seed)
    return [sample_drawing(rng) for _ in range(count)]


def test_the_same_chance_draws_the_same_pictures() -> None:
    first, second = drawings(50), drawings(50)
    assert first == second
    assert all(np.array_equal(draw_cells(a), draw_cells(b)) for a, b in zip(first, second, strict=True))


def test_every_attribute_changes_the_picture() -> None:
    fields = ("scene", "hair_colour", "hair_style", "skin", "glasses", "hat", "beard", "shirt", "expression")
    base = Drawing("person", "beach", "red", "short", "tan", "none", "none", "none", "blue", "smiling")
    other = Drawing("person", "snow", "blue", "long", "dark", "glasses", "crown", "beard", "white", "serious")
    for field in fields:
        values = {name: getattr(base, name) for name in base.__slots__}
        changed = Drawing(**{**values, field: getattr(other, field)})
        assert (draw_cells(changed) != draw_cells(base)).any(-1).sum() >= 4, field


def test_hats_leave_hair_readable() -> None:
    assert all(d.hat in ("", "none") for d in drawings(3000) if d.hair_style in world.HATLESS_STYLES)


def test_a_cell_may_have_any_size() -> None:
    drawing = drawings(1)[0]
    assert draw(drawing).size == (128, 128)
    assert draw(drawing, 16).resize((128, 128), Image.Resampling.BOX).tobytes() == draw(drawing).tobytes()


def test_held_out_identities_are_never_sampled() -> None:
    never = {*HELD_OUT, DEMO_IDENTITY}
    assert len(never) == 9
    assert not never & {drawing.identity for drawing in drawings(20_000)}


def test_unnamed_attributes_are_balanced() -> None:
    people = [drawing for drawing in drawings(6000) if drawing.category == "person"]
    for name, values in (("hair_colour", world.HAIR_COLOURS), ("shirt", world.SHIRTS), ("glasses", world.GLASSES)):
        shares = [sum(getattr(person, name) == value for person in people) / len(people) for value in values]
        assert max(shares) - min(shares) < 0.05, name


def test_captions_are_true() -> None:
    rng = np.random.default_rng(1)
    words: dict[str, Callable[[Drawing], str]] = {
        "hair_colour": lambda d: d.hair_colour,
        "hair_style": lambda d: d.hair_style,
        "shirt": lambda d: f"{d.shirt} shirt",
        "category": lambda d: d.category,
        "colour": lambda d: d.colour,
    }
    for drawing in drawings(2000):
        text, named = caption_and_named(rng, drawing, by_name=0)
        for field in named & words.keys():
            assert words[field](drawing) in text, (text, drawing)
        if "shirt" not in named:
            assert "shirt" not in text
        if "hair_colour" not in named and "hair_style" not in named:
            assert "hair" not in text
        if not text:
            assert not named


def test_a_name_in_a_caption_is_that_of_the_person_drawn() -> None:
    rng = np.random.default_rng(4)
    called = 0
    for drawing in drawings(2000):
        text, named = caption_and_named(rng, drawing)
        for name in set(text.replace(",", "").split()) & KNOWN_PEOPLE.keys():
            called += 1
            assert KNOWN_PEOPLE[name] == drawing.identity
            assert {"hair_colour", "hair_style", "shirt", "glasses"} <= named
            assert "shirt" not in text and "hair" not in text
    assert called > 200


def test_known_people_are_not_the_held_out_ones() -> None:
    assert len(set(KNOWN_PEOPLE.values())) == len(KNOWN_PEOPLE) >= 256
    assert not {*HELD_OUT, DEMO_IDENTITY} & set(KNOWN_PEOPLE.values())
    assert not KNOWN_PEOPLE.keys() & set(NONCE_WORDS)


def test_a_good_share_of_captions_is_empty_or_bare() -> None:
    rng = np.random.default_rng(2)
    captions = [caption_and_named(rng, drawing, by_name=0)[0] for drawing in drawings(3000)]
    assert 0.07 < sum(not text for text in captions) / len(captions) < 0.13
    assert "a photo of a person" in captions


def test_captions_use_only_the_vocabulary() -> None:
    rng = np.random.default_rng(3)
    known = set(vocabulary())
    for drawing in drawings(1000):
        text = caption_and_named(rng, drawing, by_name=0)[0]
        assert set(text.replace(",", "").split()) <= known, text


def test_nonce_words_mean_nothing_else() -> None:
    assert len(set(NONCE_WORDS)) == len(NONCE_WORDS) >= 64
    assert "sks" in NONCE_WORDS
    assert not {phrase for scene in SCENES for phrase in scene_phrase(scene).split()} & set(NONCE_WORDS)


def test_scene_phrases() -> None:
    assert scene_phrase("beach") == "on a beach"
    assert scene_phrase("plain blue") == "on a blue background"
    assert len({scene_phrase(scene) for scene in SCENES}) == len(SCENES)


def test_photographs_of_the_demo(tmp_path: Path) -> None:
    paths = write_photographs(tmp_path / "a")
    assert [path.name for path in paths] == [name for name, _, _ in DEMO_PHOTOGRAPHS]
    again = write_photographs(tmp_path / "b")
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    orientations = []
    for path, (_, scene, size) in zip(paths, DEMO_PHOTOGRAPHS, strict=True):
        with Image.open(path) as picture:
            assert picture.size == (size, size)
            orientations.append(picture.getexif().get(0x0112, 1))
        assert scene != "beach"
    assert sorted(orientations) == [1, 1, 1, 1, 6]


def test_the_turned_photograph_is_upright_once_its_tag_is_obeyed(tmp_path: Path) -> None:
    paths = write_photographs(tmp_path)
    expected = photographs(DEMO_IDENTITY, [scene for _, scene, _ in DEMO_PHOTOGRAPHS])
    for path, upright in zip(paths, expected, strict=True):
        with Image.open(path) as picture:
            seen = ImageOps.exif_transpose(picture).convert("RGB").resize((128, 128), Image.Resampling.BOX)
        wanted = upright.resize((128, 128), Image.Resampling.BOX)
        assert np.abs(np.asarray(seen, int) - np.asarray(wanted, int)).mean() < 3, path.name


def test_photographs_refuse_a_size_that_does_not_fit_the_cells() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        photographs(HELD_OUT[0], ["beach"], size=500)
