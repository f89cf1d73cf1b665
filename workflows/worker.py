"""The queue's worker: begins what is due, goes on with what a reboot has ended, one night at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime

from instrument.errors import InstrumentError, Refused
from instrument.settings import Description
from workflows.launch import is_simulator
from workflows.night import Budget, Night
from workflows.notify import Messenger, messenger
from workflows.preflight import fits_on, look, unseen, warnings
from workflows.recipe import load
from workflows.recipe_errors import RecipeProblem
from workflows.schedule import Entry, NightState, Queue, too_late
from workflows.store import RunFolder, free_bytes, keep_message
from workflows.terminal import DONE, HELD, STOPPED

log = logging.getLogger(__name__)

#: How often the queue is looked at, s.
LOOK_S = 10.0
_ENDS = {DONE: NightState.DONE, STOPPED: NightState.STOPPED, HELD: NightState.HELD}

Now = Callable[[], datetime]


def local_now() -> datetime:
    """Return the time of day with its zone."""
    return datetime.now().astimezone()


def work(queue: Queue, stopping: threading.Event, *, once: bool = False, now: Now = local_now) -> None:
    """Do nights as they come due until `stopping` is set; with `once` until none is due."""
    while not stopping.is_set():
        entry = queue.due(now())
        if entry is not None:
            begin(queue, entry, now(), stopping)
        elif once:
            return
        else:
            stopping.wait(LOOK_S)


def begin(queue: Queue, entry: Entry, now: datetime, stopping: threading.Event) -> None:
    """Do one night that is due, or write down why it can't be done.

    One that ends because the worker was told to end is still running for the queue: the next worker goes on with it.
    """
    tell = messenger(entry.options.get("notify", ()), lambda message: keep_message(entry.folder, message))
    problem, images = (None, None) if RunFolder.is_run(entry.folder) else _preflight(entry, now, tell)
    if problem is not None:
        queue.put(entry.id, NightState.MISSED, problem)
        tell.send("failure", f"kintsugi {entry.folder.name}: does not begin", problem)
        log.error("night %d does not begin: %s", entry.id, problem)
        return
    queue.put(entry.id, NightState.RUNNING)
    model = str(entry.options.get("model", "package"))
    begin_with = ["run", str(entry.recipe), "--out", str(entry.folder), "--model", model]
    if entry.options.get("instrument"):
        begin_with += ["--instrument", str(entry.options["instrument"])]
    if images is not None:
        begin_with += ["--images", str(images)]
    code = Night(
        entry.folder, begin_with, tell, stopping, by_hand=False, more=("--model", model),
        budget=Budget(int(entry.options.get("restarts", 5))), ends=entry.ends,
        watcher=str(entry.options.get("watcher", "")),
    ).work()  # fmt: skip
    if stopping.is_set() and code == STOPPED:
        return
    queue.put(entry.id, _ENDS.get(code, NightState.FAILED), f"exit code {code}" if code not in _ENDS else "")


def _preflight(entry: Entry, now: datetime, tell: Messenger) -> tuple[str | None, int | None]:
    """Return why a night may not begin now, None when it may, and how many images it is to take."""
    try:
        recipe = load(entry.recipe)
    except RecipeProblem as problem:
        return str(problem), None
    url = str(entry.options.get("instrument") or recipe.instrument)
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
    shorten = bool(entry.options.get("shorten", False))
    fit = fits_on(recipe, seen, begins, entry.ends, shorten=shorten, free_bytes=free_bytes(entry.folder.parent))
    if fit.problems:
        return "; ".join(fit.problems), None
    if seen.unseen:
        tell.send("warning", f"kintsugi {entry.folder.name}: begins without a look", seen.unseen)
    for one in warnings(fit.plan, seen):
        log.warning("night %d: %s", entry.id, one)
    wanted = [images for images in (fit.images, entry.images) if images is not None]
    return None, min(wanted) if wanted else None
