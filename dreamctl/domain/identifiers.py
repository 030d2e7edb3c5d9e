"""Identifiers: how they are written and compared, which rare tokens are offered, and how they are found in a prompt."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable

from dreamctl.errors import InvalidInput

MAX_LENGTH = 64

# Short, and without meaning in the vocabularies of CLIP and of the built-in model. The habit `sks` comes first although
# it is also a rifle (huggingface/diffusers discussions): people know it, and one training hides the meaning.
RARE_TOKENS = (
    "sks", "zwx", "ohwx", "qev", "vxz", "zkq", "wqf", "xjq", "kzv", "qzw", "vqk", "jxv", "zqj", "wvx", "qkx", "xzv",
)  # fmt: skip

_ALLOWED = re.compile(r"[\w][\w .'-]*", re.UNICODE)


def identifier_key(identifier: str) -> str:
    """What two spellings of one identifier have in common: NFC, case-folded, single spaces."""
    return " ".join(unicodedata.normalize("NFC", identifier).casefold().split())


def checked_identifier(identifier: str) -> str:
    """The identifier as it is stored (NFC, single spaces). Raises InvalidInput when it cannot stand in a prompt."""
    text = " ".join(unicodedata.normalize("NFC", identifier).split())
    if not text or len(text) > MAX_LENGTH or not _ALLOWED.fullmatch(text):
        raise InvalidInput(
            f"{identifier!r} cannot be an identifier",
            field="identifier",
            hint=f"letters, digits, spaces and . ' - are allowed, up to {MAX_LENGTH} characters, for example 'sks'",
        )
    return text


def first_free(taken: Iterable[str]) -> str:
    """The first rare token that no concept has yet; numbered ones when all are taken."""
    keys = {identifier_key(word) for word in taken}
    for number in range(1, len(keys) + 2):
        for token in RARE_TOKENS:
            candidate = token if number == 1 else f"{token}{number}"
            if candidate not in keys:
                return candidate
    raise AssertionError("more candidates than taken identifiers were tried")


def find_words(prompt: str, names: Collection[str]) -> list[tuple[int, int, str]]:
    """Where which of `names` stands in `prompt` as whole words: (start, end, name), longest first at one place.

    Compared by `identifier_key`, so case and Unicode composition do not matter. The offsets are into the NFC prompt.
    """
    text = unicodedata.normalize("NFC", prompt)
    found: list[tuple[int, int, str]] = []
    for name in sorted(names, key=len, reverse=True):
        words = r"\s+".join(re.escape(word) for word in unicodedata.normalize("NFC", name).split())
        for match in re.finditer(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE):
            if not any(match.start() < end and start < match.end() for start, end, _ in found):
                found.append((match.start(), match.end(), name))
    return sorted(found)
