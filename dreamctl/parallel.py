"""One function over many items in processes that die with their parent."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_connection
from typing import TypeVar

from dreamctl import machine
from dreamctl.errors import DreamctlError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Starting processes costs about as much as making so many pictures.
_WORTH_PROCESSES = 8
_AHEAD = 4
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_PR_SET_PDEATHSIG = 1  # of sys/prctl.h
_KILLED = "the memory may have run out: close other programs, then run the same command again"


def spread(
    function: Callable[[Item], Result], items: Iterable[Item], most: int | None = None
) -> Generator[Result, None, None]:
    """The results of `function` over `items`, as they come; on all cores where there are more than eight items.

    `most` is how many processes the memory has room for, where that may be fewer. `function` and the items must be
    picklable. Only a few items a core are under way, or taken, at a time.
    """
    cores = machine.cores()
    cores = min(cores, most or cores)
    rest = iter(items)
    first = list(itertools.islice(rest, _WORTH_PROCESSES + 1))
    rest = itertools.chain(first, rest)
    if len(first) <= _WORTH_PROCESSES or cores < 2:
        yield from map(function, rest)
        return
    spawn = multiprocessing.get_context("spawn")  # forking a process that has threads deadlocks now and then
    pool = ProcessPoolExecutor(cores, spawn, _live_with_parent)
    try:
        pending: set[Future[Result]] = {pool.submit(function, item) for item in itertools.islice(rest, cores * _AHEAD)}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            pending |= {pool.submit(function, item) for item in itertools.islice(rest, len(done))}
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise DreamctlError("a worker process was killed from outside", hint=_KILLED) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _live_with_parent() -> None:
    """Ctrl-C is the parent's to handle; a parent that is killed must leave no worker behind."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        # The thread needs its turn first, and until then a late worker might write into the next command's stage.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _keep_freed_memory(libc)


def _keep_freed_memory(libc: ctypes.CDLL) -> None:
    """Let the C library reuse what an item needed instead of giving it back: see mallopt(3).

    Each picture takes and frees the same megabytes; new from the system, they cost 2,000 page faults, a tenth of all.
    """
    with contextlib.suppress(AttributeError):  # not glibc
        libc.mallopt(_M_MMAP_THRESHOLD, 64 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 256 << 20)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_connection([parent.sentinel])
        os._exit(1)
