"""The door to a place where runs are trained."""

from __future__ import annotations

from typing import Protocol

from dreamctl.domain.recipe import Recipe
from dreamctl.runfolder import RunFolder


class Backend(Protocol):
    """A backend brings a run folder to a computer, starts the training there and brings events and `model/` back.

    Its class is built with the settings. Foreign errors leave it as DreamctlError.
    """

    name: str

    def check(self, recipe: Recipe) -> list[str]:
        """What stands against training this recipe here, one sentence a problem; nothing is started or paid."""

    def submit(self, run: RunFolder) -> str:
        """Start the run, or let it go on from its last checkpoint; returns the place's own id of it."""

    def poll(self, run: RunFolder) -> None:
        """Bring the run's new events home."""

    def fetch(self, run: RunFolder) -> None:
        """Bring `model/` home after success; nothing to do where it is already there."""

    def interrupt(self, run: RunFolder) -> bool:
        """Ask the training to save a checkpoint and stop. False where it cannot be asked; it then goes on."""

    def cancel(self, run: RunFolder) -> None:
        """Stop the training for good."""
