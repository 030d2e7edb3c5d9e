"""Prompts: the category is added where it is missing, and names stand for their tokens."""

from __future__ import annotations

import pytest

from dreamctl.domain.concept import Concept, compose_caption
from dreamctl.domain.prompts import concepts_in, expand

SKS = Concept(identifier="sks", category="person", name="Luna")
ZWX = Concept(identifier="zwx", category="coffee mug")


@pytest.mark.parametrize(
    ("prompt", "expanded"),
    [
        ("a photo of sks", "a photo of sks person"),
        ("a photo of sks person", "a photo of sks person"),
        ("a photo of SKS Person on a beach", "a photo of sks Person on a beach"),
        ("a photo of sks, on a beach", "a photo of sks person, on a beach"),
        ("sks personal", "sks person personal"),
        ("Luna at night", "sks person at night"),
        ("LUNA person", "sks person"),
        ("a zwx and a zwx coffee mug", "a zwx coffee mug and a zwx coffee mug"),
        ("nothing taught", "nothing taught"),
    ],
)
def test_the_category_is_added_where_the_next_word_is_not_it(prompt: str, expanded: str) -> None:
    assert expand(prompt, [SKS, ZWX]) == expanded


def test_concepts_are_named_once_in_the_prompts_order() -> None:
    assert concepts_in("zwx beside sks, Luna and zwx", [SKS, ZWX]) == [ZWX, SKS]


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("on a beach", "a photo of sks person, on a beach"),
        ("", "a photo of sks person"),
        ("sks, on a beach", "a photo of sks person, on a beach"),
        ("sks", "a photo of sks person"),
    ],
)
def test_a_caption_is_composed_with_the_identifier_once(caption: str, text: str) -> None:
    assert compose_caption("a photo of {identifier} {category}, {caption}", SKS, caption) == text
