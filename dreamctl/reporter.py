"""How long work tells what it is doing. Workflows talk to this door; the terminal stands behind it."""

from __future__ import annotations

from typing import Literal, Protocol

Unit = Literal["", "bytes"]


class Reporter(Protocol):
    """Everything here goes to stderr and may be thrown away."""

    def note(self, message: str) -> None:
        """A sentence that a user may want to read."""

    def warn(self, message: str) -> None:
        """A sentence that a user should read."""

    def progress(self, label: str, done: int, total: int, detail: str = "", unit: Unit = "") -> None:
        """`done` of `total` (things, or bytes) of the work named `label`; `done == total` ends it."""

    def confirm(self, question: str) -> bool | None:
        """Ask yes or no; None where nobody can be asked (off a terminal)."""

    def ask(self, question: str) -> str | None:
        """Ask for a word; None where nobody can be asked (off a terminal)."""


class Silent:
    """A reporter for nobody: programs that call workflows, and tests."""

    def note(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...

    def progress(self, label: str, done: int, total: int, detail: str = "", unit: Unit = "") -> None: ...

    def confirm(self, question: str) -> bool | None:
        return None

    def ask(self, question: str) -> str | None:
        return None
