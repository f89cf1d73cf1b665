"""Work on arrays in parts, side by side: numpy and scipy let go of the interpreter while they reckon."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")

#: So many parts, and threads that work at one thing.
PARTS = 2
#: How the threads are called that lend a hand. They wait for work, as starting one takes as long as many a part.
HAND = "hand"
_HANDS = ThreadPoolExecutor(4, HAND)


def parts(count: int) -> list[tuple[int, int]]:
    """Return the first and the last index (not included) of every part of `count` rows; some may be empty."""
    edges = [round(share * count / PARTS) for share in range(PARTS + 1)]
    return list(pairwise(edges))


def beside(function: Callable[..., T], *arguments: object) -> Callable[[], T]:
    """Let a function work beside the caller; return what gives its result, or raises what it has raised.

    A caller that comes for it before a hand was free does the work itself: so nobody ever waits for one who waits. One
    that never comes leaves it to its end.
    """
    begun = _HANDS.submit(function, *arguments)

    def result() -> T:
        return function(*arguments) if begun.cancel() else begun.result()

    return result


def side_by_side(function: Callable[..., T], *arguments: Iterable[object]) -> list[T]:
    """Return what a function gives for each of its arguments, in order; raises what it raises, when all has ended."""
    left = deque(enumerate(zip(*arguments, strict=True)))
    done: dict[int, T] = {}

    def work() -> None:
        while True:
            try:
                index, these = left.popleft()
            except IndexError:
                return
            try:
                done[index] = function(*these)
            except BaseException:
                left.clear()
                raise

    others = [beside(work) for _ in range(min(PARTS, len(left)) - 1)]
    try:
        work()
    finally:
        for other in others:
            other()
    return [done[index] for index in sorted(done)]
