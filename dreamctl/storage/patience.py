"""Trying again what may pass, for as long as somebody waits gladly; and telling a dead endpoint soon."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from dreamctl.errors import ProviderError
from dreamctl.http import backoff
from dreamctl.storage.base import Passing

FIRST_SECONDS = 12.0  # an endpoint that has not answered anything by then is called dead
FIRST_PATIENCE = 7.0
PATIENCE_SECONDS = 120.0  # without any progress
_LONGEST_PAUSE = 8.0
_LONGEST_CUT_PAUSE = 0.2
_CHECK = "check the endpoint, the network and the proxy, or try again later"

Result = TypeVar("Result")


class Patience:
    """How long trouble is borne: until nothing went forward for `seconds` since it began.

    Shared by the threads of one transfer.
    """

    def __init__(self, seconds: float | None = None, stop: threading.Event | None = None) -> None:
        self.seconds = PATIENCE_SECONDS if seconds is None else seconds
        self.stop = stop or threading.Event()
        self._since: float | None = None

    def progressed(self) -> None:
        """Something went forward: trouble begins anew."""
        self._since = None

    def wait(self, attempt: int, trouble: Passing) -> None:
        """Pause before another try. Raises `trouble` when there is none, and when `stop` was set."""
        now = time.monotonic()
        since = self._since = self._since or now  # a slow request that fails in the end is tried again all the same
        pause = min(backoff(attempt), _LONGEST_PAUSE) if trouble.wait is None else trouble.wait
        if now + pause - since > self.seconds or self.stop.wait(pause):
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


def cut_pause(began: float) -> float:
    """Seconds to wait after what was cut while it ran, since `began`: whoever cuts lines answers again at once.

    Short beside what it took, so that of several that are cut again and again most are under way at a time.
    """
    return min((time.monotonic() - began) / 4, _LONGEST_CUT_PAUSE)


def within(seconds: float, action: Callable[[], Result]) -> Result:
    """The result of `action`; raises TimeoutError where it takes longer.

    It is called in a thread that is left behind when it hangs: in the resolver, in a handshake, in a silent server.
    """
    results: list[Result] = []
    raised: list[BaseException] = []

    def act() -> None:
        try:
            results.append(action())
        except BaseException as error:  # raised again below, in the thread that waits
            raised.append(error)

    thread = threading.Thread(target=act, daemon=True, name="in time")
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not results:
        raise TimeoutError
    return results[0]


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
        stop = threading.Event()
        try:
            within(FIRST_SECONDS, lambda: patiently(self._contact, Patience(FIRST_PATIENCE, stop)))
        except TimeoutError:
            sentence = f"{self._host()} did not answer within {FIRST_SECONDS:.0f} seconds"
            raise ProviderError(sentence, hint=_CHECK) from None
        except Passing as trouble:
            trouble.hint = _CHECK
            raise
        finally:
            stop.set()
