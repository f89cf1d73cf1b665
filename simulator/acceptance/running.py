"""Runs the checks, those that share what takes long to make in one process, two processes at a time."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

from instrument.errors import InstrumentError
from simulator.acceptance import cuts, images, naive, times
from simulator.acceptance.finding import Check, Finding

#: Checks that share what takes long to make run in one process, the longest of these groups first.
GROUPS: tuple[tuple[Check, ...], ...] = (cuts.CHECKS, images.CHECKS, naive.CHECKS, times.CHECKS)
NAMES = tuple(sorted(check.__name__ for group in GROUPS for check in group))


def run(group: tuple[Check, ...]) -> list[Finding]:
    """Return what some checks find; one that breaks is a finding that fails, named after it."""
    found = []
    for check in group:
        try:
            found += check()
        except (InstrumentError, ValueError, ArithmeticError, LookupError) as error:
            why = f"{type(error).__name__}: {error}"
            found.append(Finding(f"{check.__name__} broke: {why}", "", "", float("nan"), 0.0, 0.0))
    return found


def acceptance(names: tuple[str, ...] = NAMES) -> list[Finding]:
    """Return all findings of the checks named, in the order of the groups, on two cores."""
    groups = [tuple(check for check in group if check.__name__ in names) for group in GROUPS]
    groups = [group for group in groups if group]
    if len(groups) == 1:
        return run(groups[0])
    # two processes that each would use both cores in numpy would stand in each other's way
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        return [one for findings in pool.map(run, groups) for one in findings]
