"""Prompts: where a concept is named, and adding the category where the user left it out."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from dreamctl.domain.concept import Concept
from dreamctl.domain.identifiers import find_words, identifier_key


def concepts_in(prompt: str, concepts: Sequence[Concept]) -> list[Concept]:
    """The concepts that the prompt names, by identifier or by human name, in the prompt's order, each once."""
    by_word = _by_word(concepts)
    found = [by_word[identifier_key(word)] for _, _, word in find_words(prompt, _words(concepts))]
    return list(dict.fromkeys(found))


def expand(prompt: str, concepts: Sequence[Concept]) -> str:
    """The prompt with human names replaced by identifiers, and each category added where the next word is not it."""
    text = unicodedata.normalize("NFC", prompt)
    by_word = _by_word(concepts)
    for start, end, word in reversed(find_words(text, _words(concepts))):
        concept = by_word[identifier_key(word)]
        rest = text[end:]
        follows = re.match(rf"\s+{re.escape(concept.category)}(?!\w)", rest, re.IGNORECASE)
        taught = concept.identifier if follows else f"{concept.identifier} {concept.category}"
        text = text[:start] + taught + rest
    return text


def _words(concepts: Sequence[Concept]) -> list[str]:
    return [word for concept in concepts for word in (concept.identifier, concept.name) if word]


def _by_word(concepts: Sequence[Concept]) -> dict[str, Concept]:
    return {
        identifier_key(word): concept for concept in concepts for word in (concept.identifier, concept.name) if word
    }
