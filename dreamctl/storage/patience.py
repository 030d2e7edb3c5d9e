"""Trying again what may pass, for as long as somebody waits gladly; and telling a dead endpoint soon."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from dreamctl.errors import ProviderError
from dreamctl.http import backoff
from dreamctl.storage.base import Passing

FIRST_SECONDS = 14.0  # an endpoint that has not answered anything by then is called dead
FIRST_PATIENCE = 8.0
PATIENCE_SECONDS = 120.0  # without any progress
_LONGEST_PAUSE = 8.0

Result = TypeVar("Result")


class Patience:
    """How long trouble is borne: until nothing went forward for `seconds`. Shared by the threads of one transfer."""

    def __init__(self, seconds: float = PATIENCE_SECONDS, stop: threading.Event | None = None) -> None:
        self.seconds = seconds
        self.stop = stop or threading.Event()
        self._since = time.monotonic()

    def progressed(self) -> None:
        """Something went forward: the time starts again."""
        self._since = time.monotonic()

    def wait(self, attempt: int, trouble: Passing) -> None:
        """Pause before another try. Raises `trouble` when there is none, and when `stop` was set."""
        pause = min(backoff(attempt), _LONGEST_PAUSE) if trouble.wait is None else trouble.wait
        if time.monotonic() + pause - self._since > self.seconds or self.stop.wait(pause):
            raise trouble


def patiently(action: Callable[[], Result], patience: Patience) -> Result:
    """The result of `action`, which is called again as long as it raises Passing and the patience lasts."""
    attempt = 0
    while True:
        try:
            return action()
        except Passing as trouble:
            patience.wait(attempt, trouble)
            attempt += 1


class Line:
    """The line to one endpoint: a dead one is told soon, one that answered once is borne with patience.

    `contact` asks something that changes nothing; whatever it raises beside Passing is an answer, and the caller's.
    """

    def __init__(self, host: Callable[[], str], contact: Callable[[], object]) -> None:
        self._host = host
        self._contact = contact
        self._answered = False

    def call(self, action: Callable[[], Result], patience: Patience | None = None) -> Result:
        """The result of `action`, tried again where it raises Passing. Raises ProviderError for a dead endpoint."""
        if not self._answered:
            self._reach()
            self._answered = True
        return patiently(action, patience or Patience())

    def _reach(self) -> None:
        """In a thread that is left behind when it hangs: in the resolver, in a handshake, in a silent server."""
        raised: list[BaseException] = []
        done = threading.Event()

        def ask() -> None:
            try:
                patiently(self._contact, Patience(FIRST_PATIENCE, done))
            except BaseException as error:  # raised again below, in the thread that waits
                raised.append(error)
            done.set()

        threading.Thread(target=ask, daemon=True, name="first contact").start()
        if not done.wait(FIRST_SECONDS):
            done.set()
            raise ProviderError(
                f"{self._host()} did not answer within {FIRST_SECONDS:.0f} seconds",
                hint="check the endpoint, the network and the proxy",
            )
        if raised:
            raise raised[0]
