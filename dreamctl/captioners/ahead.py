"""Work on the next pictures while the present one is used."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(function: Callable[[Item], Result], items: Iterable[Item], count: int) -> Iterator[Result]:
    """`function` of each item, in order, `count` of them at a time in threads. What it raises is raised in its turn.

    The threads are daemons: Ctrl-C and errors do not wait for a request that hangs.
    """
    started: deque[Future[Result]] = deque()
    for item in items:
        started.append(_start(function, item))
        if len(started) == count:
            yield started.popleft().result()
    while started:
        yield started.popleft().result()


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`; the last may be shorter."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _start(function: Callable[[Item], Result], item: Item) -> Future[Result]:
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(function(item))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future
