"""Work over many items: all of it, on processes where there is much of it, and an end to it when something fails."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os

import pytest

from dreamctl import machine
from dreamctl.errors import DreamctlError
from dreamctl.parallel import spread


@pytest.mark.parametrize("count", [0, 1, 8, 9, 100])
def test_every_item_has_its_result(count: int) -> None:
    assert sorted(spread(math.sqrt, range(count))) == [math.sqrt(number) for number in range(count)]


def where(_: int) -> int:
    return os.getpid()


@pytest.mark.skipif(machine.cores() < 2, reason="needs two cores")
def test_no_more_processes_than_there_is_room_for() -> None:
    assert set(spread(where, range(20), most=1)) == {os.getpid()}
    assert os.getpid() not in set(spread(where, range(20), most=9))


def test_an_error_comes_through() -> None:
    with pytest.raises(ValueError, match="math domain error"):
        list(spread(math.sqrt, [4.0] * 20 + [-1.0]))
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_told() -> None:
    with pytest.raises(DreamctlError, match="a worker process was killed") as raised:
        list(spread(os._exit, [9] * 9))
    assert "memory" in str(raised.value.hint)


def test_who_stops_early_leaves_no_process() -> None:
    with contextlib.closing(spread(math.sqrt, range(100))) as results:
        next(results)
    assert not multiprocessing.active_children()
