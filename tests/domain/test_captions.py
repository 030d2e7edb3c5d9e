"""Captions as text: the trigger, prefix and suffix, and what many captions together look like."""

from __future__ import annotations

import pytest

from dreamctl.domain.captions import caption_statistics, joined, with_trigger, without_trigger


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("a lake", "sks, a lake"), ("", "sks"), ("sks", "sks"), ("sks, a lake", "sks, a lake"),
        ("SKS, a lake", "SKS, a lake"), ("sks man", "sks man"), ("sksy", "sks, sksy"),
    ],
)  # fmt: skip
def test_adding_a_trigger(text: str, result: str) -> None:
    assert with_trigger(text, "sks") == result
    assert with_trigger(result, "sks") == result


@pytest.mark.parametrize(
    ("text", "result"),
    [("sks, a lake", "a lake"), ("sks", ""), ("sks man", "sks man"), ("a sks, b", "a sks, b"), ("sksy, b", "sksy, b")],
)
def test_taking_a_trigger_out(text: str, result: str) -> None:
    assert without_trigger(text, "sks") == result


@pytest.mark.parametrize(
    ("parts", "result"),
    [
        (("a drawing,", "on a beach", ", grainy"), "a drawing, on a beach, grainy"),
        (("", "  two\n lines ", ""), "two lines"),
        (("indoors", "", ""), "indoors"),
        (("", "", ""), ""),
        (("", "", ", grainy"), "grainy"),
    ],
)
def test_prefix_and_suffix_stand_around_the_caption(parts: tuple[str, str, str], result: str) -> None:
    assert joined(*parts) == result


# statistics


def captions(*texts: str) -> dict[str, str]:
    return {f"{number}.jpg": text for number, text in enumerate(texts)}


def test_lengths_leave_out_the_trigger_and_empty_captions() -> None:
    found = caption_statistics(captions("sks, a dog", "sks, a dog on the beach", "sks, it's well-known", ""), "sks")
    assert (found.count, found.words, found.empty) == (4, (2, 2, 5), ("3.jpg",))
    assert found.without_trigger == ("3.jpg",)
    assert caption_statistics({}).words == (0, 0, 0)


def test_captions_without_the_trigger_are_named() -> None:
    found = caption_statistics(captions("sks, a dog", "a dog with sks", "SKS man", "sksy"), "sks")
    assert found.without_trigger == ("1.jpg", "3.jpg")
    assert caption_statistics(captions("a dog")).without_trigger == ()


def test_the_same_caption_twice_is_named() -> None:
    found = caption_statistics(captions("A dog ", "a cat", "a  dog", "", "", "a cat"))
    assert found.duplicates == (("0.jpg", "2.jpg"), ("1.jpg", "5.jpg"))


def test_phrases_that_stand_in_most_captions() -> None:
    found = caption_statistics(
        captions(
            "The image shows a man in front of a house.", "The image shows a dog, in front of a car",
            "The image shows a red car", "Two birds",
        )
    )  # fmt: skip
    assert found.repeated == (("the image shows a", 3),)


def test_a_phrase_counts_once_a_caption_and_ends_at_commas() -> None:
    found = caption_statistics(captions("one two three, one two three", "one two, three", "else"))
    assert found.repeated == ()


def test_tags_that_stand_in_most_captions_are_phrases_too() -> None:
    found = caption_statistics(captions("solo, long hair, hat", "solo, long hair", "solo, dress"))
    assert found.repeated == (("solo", 3), ("long hair", 2))


def test_one_caption_repeats_nothing() -> None:
    assert caption_statistics(captions("the image shows a dog")).repeated == ()


def test_the_longest_phrase_stands_for_its_parts() -> None:
    words = "a b c d e f g h"
    assert caption_statistics(captions(words, words)).repeated == ((words, 2),)
    assert len(caption_statistics(captions(*[" ".join(f"w{n}" for n in range(40))] * 3)).repeated) == 10
