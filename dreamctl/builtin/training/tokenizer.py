"""Makes the built-in model's CLIPTokenizer: byte-level BPE in which every word of the world is one token.

It does not know what the words mean.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer

from dreamctl.builtin.captions import vocabulary

MAX_LENGTH = 48
"""Tokens a prompt may have, its start and end included."""

START, END = "<|startoftext|>", "<|endoftext|>"


def byte_characters() -> list[str]:
    """The 256 printable characters by which byte-level BPE writes bytes, in the order CLIP lists them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def merges_for(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent pair first (ties by alphabet), until each word is one symbol."""
    splits = {word: [*word[:-1], f"{word[-1]}</w>"] for word in words}
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for symbols in splits.values() for pair in pairwise(symbols))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        splits = {word: _merged(symbols, best) for word, symbols in splits.items()}


def _merged(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for symbol in symbols:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return out


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """Writes the tokenizer's files to the folder and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = merges_for(vocabulary())
    characters = byte_characters()
    symbols = [*characters, *(f"{character}</w>" for character in characters)]
    symbols += [*("".join(pair) for pair in merges), START, END]
    (folder / "vocab.json").write_text(json.dumps({symbol: index for index, symbol in enumerate(symbols)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    tokenizer = CLIPTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=MAX_LENGTH
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
