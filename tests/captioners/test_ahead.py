"""Working ahead in threads: in order, so many at a time, errors in their turn."""

from __future__ import annotations

import threading

import pytest

from dreamctl.captioners.ahead import ahead, batches


def test_results_come_in_order_and_so_many_are_worked_on_at_once() -> None:
    together = threading.Barrier(3, timeout=60)  # breaks unless three wait at it at once

    def work(number: int) -> int:
        together.wait()
        return -number

    assert list(ahead(work, range(9), 3)) == [-number for number in range(9)]


def test_nothing_is_begun_further_ahead_than_asked() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        return number

    results = ahead(work, range(10), 2)
    assert next(results) == 0
    assert set(begun) <= {0, 1}


def test_an_error_is_raised_in_its_turn() -> None:
    results = ahead(lambda number: 1 // number, [1, 0, 1], 3)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_batches_hold_all_in_order() -> None:
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batches([], 2)) == []
