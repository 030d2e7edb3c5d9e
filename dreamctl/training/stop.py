"""Being told to stop: signals save and stop (`interrupted`), a file named `cancel` in the run folder gives up."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType

from dreamctl.domain.run import State

CANCEL_FILE = "cancel"


class Stopped(Exception):
    """The training ends here because somebody asked; `state` says how, `together` that all processes end here."""

    def __init__(self, state: State, together: bool = False) -> None:
        super().__init__(state.value)
        self.state = state
        self.together = together


class Stop:
    """What was asked of this process so far."""

    def __init__(self, run: Path) -> None:
        self._cancel = run / CANCEL_FILE
        self._signalled = False

    def listen(self) -> None:
        """Take SIGTERM and SIGINT as a wish to stop at the next step; a closed terminal (SIGHUP) is no wish."""
        signal.signal(signal.SIGTERM, self._told)
        signal.signal(signal.SIGINT, self._told)
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _told(self, _number: int, _frame: FrameType | None) -> None:
        self._signalled = True

    def wish(self) -> State | None:
        """`cancelled`, `interrupted` or nothing."""
        if self._cancel.exists():
            return State.cancelled
        return State.interrupted if self._signalled else None

    def check(self) -> None:
        """Raises Stopped if somebody asked."""
        wish = self.wish()
        if wish:
            raise Stopped(wish)
