"""Captions as text: the trigger first exactly once, and what many captions together look like."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

_PHRASES = range(3, 9)  # words; shorter ones ("of the") stand in every text
_MOST_PHRASES = 10
_WORD = re.compile(r"[^\W_]+(?:['’_-][^\W_]+)*")
_PART_END = re.compile(r"[,.;:!?\n]")


@dataclass(frozen=True)
class CaptionStatistics:
    """What the captions of a dataset look like together; words are counted without the trigger.

    `words`: fewest, median and most, empty captions left out. `repeated`: phrases (3 to 8 words, or a whole tag) that
    stand in more than half of the captions, with the number of those. `duplicates`: pictures that share a caption.
    """

    count: int
    words: tuple[int, float, int]
    empty: tuple[str, ...]
    without_trigger: tuple[str, ...]
    repeated: tuple[tuple[str, int], ...]
    duplicates: tuple[tuple[str, ...], ...]


def caption_statistics(captions: Mapping[str, str], trigger: str | None = None) -> CaptionStatistics:
    """Statistics of captions by picture file; `trigger` is the word that each should begin with."""
    texts = {file: without_trigger(text, trigger) for file, text in captions.items()}
    lengths = [len(_WORD.findall(text)) for text in texts.values() if text]
    groups: dict[str, list[str]] = {}
    for file, text in texts.items():
        if text:
            groups.setdefault(" ".join(text.lower().split()), []).append(file)
    return CaptionStatistics(
        count=len(captions),
        words=(min(lengths), median(lengths), max(lengths)) if lengths else (0, 0, 0),
        empty=tuple(file for file, text in texts.items() if not text),
        without_trigger=tuple(file for file, text in captions.items() if with_trigger(text, trigger) != text),
        repeated=_repeated([text for text in texts.values() if text]),
        duplicates=tuple(tuple(files) for files in groups.values() if len(files) > 1),
    )


def with_trigger(text: str, trigger: str | None) -> str:
    """`WORD, caption`; as it is where the word is first already."""
    if not trigger or re.match(rf"{re.escape(trigger)}(?!\w)", text, re.IGNORECASE):
        return text
    return f"{trigger}, {text}" if text else trigger


def without_trigger(text: str, trigger: str | None) -> str:
    """The caption as it is without a trigger that `with_trigger` put there."""
    return re.sub(rf"\A{re.escape(trigger)}(,\s*|\Z)", "", text, flags=re.IGNORECASE) if trigger else text


def joined(prefix: str, text: str, suffix: str) -> str:
    """The three with single spaces between them, and none before a comma that begins the suffix."""
    return re.sub(r"\s+([,.;:!?])", r"\1", " ".join(" ".join((prefix, text, suffix)).split())).strip(" ,")


def _repeated(texts: list[str]) -> tuple[tuple[str, int], ...]:
    """The longest phrases that stand in more than half of the texts, the most frequent first."""
    split = [[_WORD.findall(part) for part in _PART_END.split(text.lower())] for text in texts]
    counts = Counter(word for parts in split for word in {word for part in parts for word in part})
    # Only words that stand in most captions can make such a phrase: few are left, however many captions there are.
    common = {word for word, count in counts.items() if 2 * count > len(texts) > 1}
    phrases = Counter(phrase for parts in split for phrase in set(_phrases(parts, common)))
    found = [(phrase, count) for phrase, count in phrases.items() if 2 * count > len(texts)]
    whole = [
        (phrase, count)
        for phrase, count in found
        if not any(count == other and phrase != longer and phrase in longer for longer, other in found)
    ]
    whole.sort(key=lambda item: (-item[1], -len(item[0]), item[0]))
    return tuple((" ".join(phrase.split()), count) for phrase, count in whole[:_MOST_PHRASES])


def _phrases(parts: list[list[str]], common: set[str]) -> Iterator[str]:
    """The phrases of one caption that hold common words alone, with a space at both ends to compare whole words by."""
    for part in parts:
        if 0 < len(part) < _PHRASES.start and common.issuperset(part):
            yield f" {' '.join(part)} "
        for start in range(len(part)):
            for size in _PHRASES:
                words = part[start : start + size]
                if len(words) < size or words[-1] not in common:
                    break
                if common.issuperset(words):
                    yield f" {' '.join(words)} "
