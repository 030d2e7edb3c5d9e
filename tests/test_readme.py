"""The README's generated blocks are what the program says now."""

from __future__ import annotations

import re

from tests.readme import BLOCKS, README, rendered


def test_generated_blocks_are_current() -> None:
    text = README.read_text()
    assert rendered(text) == text, "run `make docs`"


def test_every_block_stands_in_the_readme() -> None:
    assert set(re.findall(r"<!-- (\w+) -->", README.read_text())) - {"end"} == set(BLOCKS)
