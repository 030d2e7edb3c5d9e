"""The one honest line about the built-in model, said before it trains or draws."""

from __future__ import annotations

from dreamctl.builtin import NOTICE
from dreamctl.reporter import Reporter


def tell_notice(reporter: Reporter, source: str) -> None:
    """Say what the built-in model is, where it is the base."""
    if source == "builtin":
        reporter.note(NOTICE)
