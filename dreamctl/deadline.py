"""A bound on how long an HTTP exchange takes in all; httpx limits each silence, and no sum of them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any


@contextlib.contextmanager
def cut_after(seconds: float | None) -> Iterator[dict[str, Any]]:
    """httpx's `extensions` for requests whose connections are cut after so many seconds, whatever goes on in them.

    What is cut ends with the error of a connection that broke. One that is made later is cut at once.
    """
    if seconds is None:
        yield {}
        return
    lines: list[socket.socket] = []
    over = threading.Event()

    def cut() -> None:
        over.set()
        for line in lines:
            with contextlib.suppress(OSError):  # it has ended by itself
                line.shutdown(socket.SHUT_RDWR)

    def trace(event: str, told: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            lines.append(told["return_value"].get_extra_info("socket").dup())  # TLS takes the socket itself over
            if over.is_set():
                cut()

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield {"trace": trace}
    finally:
        timer.cancel()
        timer.join()
        for line in lines:
            line.close()
