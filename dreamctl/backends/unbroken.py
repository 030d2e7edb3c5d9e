"""A block that ends before Ctrl-C or SIGTERM is heard."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from dreamctl.errors import DreamctlError, Signalled


@contextlib.contextmanager
def unbroken() -> Iterator[None]:
    """Let the block end before Ctrl-C or SIGTERM is heard, so that an answer which is on its way is not lost.

    The second signal is heard at once. Only the main thread can be interrupted, so only there is something to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []

    def note(number: int, _frame: Any) -> None:
        if heard:
            raise Signalled if number == signal.SIGTERM else KeyboardInterrupt
        heard.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    old = {number: signal.signal(number, note) for number in numbers}
    failed: DreamctlError | None = None
    try:
        yield
    except DreamctlError as error:
        failed = error
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    if heard:
        raise (Signalled if heard[0] == signal.SIGTERM else KeyboardInterrupt) from failed
    if failed:
        raise failed
