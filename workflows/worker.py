"""The queue's worker: begins what is due, goes on with what a reboot has ended, one night at a time."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from instrument.errors import InstrumentError, Refused
from instrument.settings import Description
from workflows.beginning import begun_on, goes_on, room_bytes
from workflows.launch import is_simulator
from workflows.night import Budget, Night
from workflows.notify import Messenger, messenger
from workflows.preflight import fits_on, look, unseen, warnings
from workflows.recipe import load
from workflows.recipe_errors import RecipeProblem
from workflows.schedule import Entry, NightState, Queue, QueueDamaged, too_late
from workflows.store import RunFolder, keep_message
from workflows.terminal import DONE, HELD, STOPPED, Stopping, complain

log = logging.getLogger(__name__)

#: How often the queue is looked at, s.
LOOK_S = 10.0
_ENDS = {DONE: NightState.DONE, STOPPED: NightState.STOPPED, HELD: NightState.HELD}

Now = Callable[[], datetime]


def local_now() -> datetime:
    """Return the time of day with its zone."""
    return datetime.now().astimezone()


def work(
    queue: Queue,
    stopping: threading.Event,
    *,
    once: bool = False,
    now: Now = local_now,
    notify: Sequence[str] = (),
) -> None:
    """Do nights as they come due until `stopping` is set; with `once` until none is due.

    `notify` : whom to tell, besides those whom its nights tell, that the queue itself is damaged; then an empty one is
    gone on with
    """
    while not stopping.is_set():
        try:
            entry = queue.due(now())
            if entry is not None:
                begin(queue, entry, now(), stopping)
                continue
        except QueueDamaged as damaged:
            log.error(damaged.message)
            targets = dict.fromkeys((*notify, *queue.targets))
            messenger(tuple(targets)).send("failure", "kintsugi: the queue of nights is damaged", damaged.message)
            continue
        if once:
            return
        stopping.wait(LOOK_S)


def begin(queue: Queue, entry: Entry, now: datetime, stopping: threading.Event) -> None:
    """Do one night that is due, or write down why it can't be done.

    One that ends because the worker was told to end is still running for the queue: the next worker goes on with it.
    """
    tell = messenger(entry.options.get("notify", ()), lambda message: keep_message(entry.folder, message))
    there = RunFolder.is_run(entry.folder)
    again = there and entry.state is NightState.RUNNING
    problem, images = (None, None) if again else _preflight(entry, now, tell)
    if problem is not None:
        queue.put(entry.id, NightState.MISSED, problem)
        tell.send("failure", f"kintsugi {entry.folder.name}: does not begin", problem)
        log.error("night %d does not begin: %s", entry.id, problem)
        return
    queue.put(entry.id, NightState.RUNNING)
    model = entry.options.get("model")
    more = () if model is None else ("--model", str(model))
    begin_with = ["run", str(entry.recipe), "--out", str(entry.folder), *more]
    if entry.options.get("instrument"):
        begin_with += ["--instrument", str(entry.options["instrument"])]
    if images is not None:
        begin_with += ["--images", str(images)]
    code = Night(
        entry.folder, begin_with, tell, stopping, by_hand=there and not again, more=more,
        budget=Budget(int(entry.options.get("restarts", 5))), ends=entry.ends,
        watcher=str(entry.options.get("watcher", "")),
    ).work()  # fmt: skip
    over(queue, entry, code, with_process=stopping.is_set())


def over(queue: Queue, entry: Entry, code: int, *, with_process: bool) -> None:
    """Write down how a night ended, by its exit code.

    One that was stopped because its process was told to end, as at a reboot, is still running for the queue.
    """
    if with_process and code == STOPPED:
        return
    queue.put(entry.id, _ENDS.get(code, NightState.FAILED), f"exit code {code}" if code not in _ENDS else "")


class ByHand:
    """A night that a person has begun, kept in the queue while it goes on: after a reboot a worker goes on with it.

    Whatever is wrong with the queue is told, and no reason for the night to end.

    Parameters
    ----------
    queue, recipe, folder, options : of the entry
    stopping : the night's; one that the system has ended, and no Ctrl-C, is still running for the queue
    """

    def __init__(self, queue: Queue, recipe: Path, folder: Path, options: dict[str, Any], stopping: Stopping) -> None:
        self._queue, self._stopping = queue, stopping
        self._put_in = partial(queue.begun, recipe, folder, options=options)
        self._entry: Entry | None = None

    def taken(self) -> None:
        """Put the night into the queue."""
        with _told("after a reboot nobody goes on with this night"):
            try:
                self._entry = self._put_in(local_now())
            except QueueDamaged as damaged:
                complain(damaged.message)
                self._entry = self._put_in(local_now())  # into a new one

    def over(self, code: int) -> None:
        """Write down how it ended."""
        if self._entry is not None:
            with _told("the queue may take this night for one that runs"):
                told_to_end = self._stopping.is_set() and not self._stopping.by_hand
                over(self._queue, self._entry, code, with_process=told_to_end)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Tell what comes of it that the queue can't be used within."""
    try:
        yield
    except (sqlite3.Error, OSError, ValueError, QueueDamaged) as error:
        complain(f"{what}: {error}")


def _preflight(entry: Entry, now: datetime, tell: Messenger) -> tuple[str | None, int | None]:
    """Return why a night may not begin now, None when it may, and how many images it is to take.

    One that goes on with a run has its number of images, and its window ends it wherever it is then.
    """
    try:
        recipe = load(entry.recipe)
        there = goes_on(entry.folder, recipe)
    except RecipeProblem as problem:
        return str(problem), None
    except Refused as refused:
        return refused.message, None
    url = begun_on(entry.folder) if there else str(entry.options.get("instrument") or recipe.instrument)
    if not is_simulator(url):
        if not entry.armed:
            return "nobody has armed it for this mounting (`kintsugi schedule add --armed`)", None
        if (late := too_late(entry, now)) is not None:
            return late, None
    begins = max(now, entry.begins)
    if entry.ends is not None and begins >= entry.ends:
        return f"its window ended at {entry.ends:%Y-%m-%d %H:%M}", None
    described = entry.options.get("described")
    known = None if described is None else Description.model_validate(described)
    try:
        seen = look(url, "kintsugi schedule work", known)
    except Refused as refused:
        return refused.message, None
    except InstrumentError as error:  # it may come back: the run tries again
        seen = unseen(error.message, known)
    shorten, ends = bool(entry.options.get("shorten", False)), None if there else entry.ends
    fit = fits_on(recipe, seen, begins, ends, shorten=shorten, free_bytes=room_bytes(entry.folder))
    if fit.problems:
        return "; ".join(fit.problems), None
    if seen.unseen:
        tell.send("warning", f"kintsugi {entry.folder.name}: begins without a look", seen.unseen)
    for one in warnings(fit.plan, seen):
        log.warning("night %d: %s", entry.id, one)
    wanted = [images for images in (fit.images, entry.images) if images is not None]
    return None, min(wanted) if wanted else None
