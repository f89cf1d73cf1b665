"""Work side by side gives what it gives one after the other, also within such work, and tells what went wrong."""

from __future__ import annotations

import threading

import pytest

from simulator.sidebyside import beside, side_by_side


def test_results_come_in_order() -> None:
    assert side_by_side(lambda a, b: a * b, range(50), range(50)) == [n * n for n in range(50)]
    assert side_by_side(len, []) == []


def test_work_within_work_never_waits_for_itself() -> None:
    def deep(level: int) -> int:
        return 1 if level == 0 else sum(side_by_side(deep, [level - 1] * 3))

    done = beside(deep, 5)
    assert deep(5) == done() == 3**5


def test_what_goes_wrong_is_raised_after_all_has_ended() -> None:
    running, ended = threading.Barrier(2), threading.Event()

    def work(number: int) -> None:
        running.wait(30.0)
        if number == 0:
            msg = "number 0"
            raise ValueError(msg)
        ended.set()

    with pytest.raises(ValueError, match="number 0"):
        side_by_side(work, [0, 1])
    assert ended.is_set()


def test_after_something_went_wrong_nothing_more_is_begun() -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        msg = f"number {number}"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="number"):
        side_by_side(work, range(100))
    assert len(begun) <= 2
