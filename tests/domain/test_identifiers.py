"""Identifiers: how they are written, compared, offered and found."""

from __future__ import annotations

import pytest

from dreamctl.domain.identifiers import RARE_TOKENS, checked_identifier, find_words, first_free, identifier_key
from dreamctl.errors import InvalidInput


def test_spellings_of_one_identifier_share_a_key() -> None:
    assert identifier_key("  My  CAFÉ ") == identifier_key("my cafe\u0301")


@pytest.mark.parametrize("bad", ["", "   ", "a,b", "(sks:1.3)", "<lora>", "a\nb\x00", "x" * 65, "-x"])
def test_what_would_break_a_prompt_is_refused(bad: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be an identifier"):
        checked_identifier(bad)


@pytest.mark.parametrize(
    ("good", "stored"), [("sks", "sks"), (" blue  fox ", "blue fox"), ("O'Neil", "O'Neil"), ("猫", "猫")]
)
def test_words_and_phrases_are_allowed(good: str, stored: str) -> None:
    assert checked_identifier(good) == stored


def test_the_first_free_token_is_offered() -> None:
    assert first_free([]) == "sks"
    assert first_free(["SKS"]) == RARE_TOKENS[1]
    assert first_free(RARE_TOKENS) == "sks2"
    assert first_free([*RARE_TOKENS, *(f"{token}2" for token in RARE_TOKENS)]) == "sks3"


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("a photo of sks person", ["sks"]),
        ("SKS, and sks-like", ["sks", "sks"]),
        ("asks and sksy", []),
        ("the blue  fox jumps", ["blue fox"]),
        ("blue foxes", []),
        ("", []),
    ],
)
def test_only_whole_words_are_found(prompt: str, found: list[str]) -> None:
    assert [name for _, _, name in find_words(prompt, ["sks", "fox", "blue fox"])] == found


def test_the_longest_name_wins_where_two_begin() -> None:
    assert find_words("blue fox", ["fox", "blue", "blue fox"]) == [(0, 8, "blue fox")]
