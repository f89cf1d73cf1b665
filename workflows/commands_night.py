"""Commands for nights: a run under supervision, the watcher of its signs of life, the queue and its worker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workflows.terminal import DONE, FAILED, Wrong, complain, in_one_sentence, say, say_json, stop_on_signals

if TYPE_CHECKING:
    from workflows.preflight import Look
    from workflows.recipe import Recipe
    from workflows.schedule import Entry, Fit, Queue

Notify = Annotated[
    list[str] | None, typer.Option("--notify", metavar="URL", help="Tell somebody (an apprise URL); may be repeated.")
]
Out = Annotated[Path | None, typer.Option("--out", help="New folder for the run; runs/NAME-DATE by default.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Instrument = Annotated[
    str | None, typer.Option("--instrument", metavar="URL", help="Instead of the recipe's instrument.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Don't look at the instrument: plan for a usual one.")]
Model = Annotated[
    str | None, typer.Option("--model", help="Folder of the segmentation model; none: no labels; a run's own.")
]
Restarts = Annotated[int, typer.Option("--restarts", min=0, help="How often it may be resumed by itself.")]
Watcher = Annotated[str, typer.Option("--watcher", metavar="URL", help="Called every minute while the run is alive.")]
QueueFile = Annotated[Path | None, typer.Option("--queue", help="The queue's file; this user's own by default.")]


def night(
    what: Annotated[Path, typer.Argument(metavar="RECIPE|DIR", help="A recipe to begin, or a run to go on with.")],
    out: Out = None,
    instrument: Instrument = None,
    offline: Offline = False,
    model: Model = None,
    restarts: Restarts = 5,
    notify: Notify = None,
    watcher: Watcher = "",
    adopt: Annotated[
        bool, typer.Option("--adopt/--restore", help="Keep what a person set by eye before this, or set it back.")
    ] = False,
    queue: QueueFile = None,
) -> int:
    """Run a recipe through the night: a run that dies is resumed while it is armed, and people are told.

    It stands in the queue meanwhile: after a reboot `schedule work` goes on with it, while it is armed.
    """
    from workflows.beginning import goes_on, known_model, known_watcher
    from workflows.launch import instrument_url
    from workflows.night import Budget, Night
    from workflows.notify import messenger
    from workflows.recipe import load
    from workflows.store import RunFolder, keep_message
    from workflows.worker import ByHand, local_now

    labels = () if model is None else ("--model", known_model(model))
    known_watcher(watcher)
    begin: tuple[str, ...] = ()
    if RunFolder.is_run(what):
        if out is not None:
            msg = f"{what} is a run already: --out is for a recipe"
            raise Wrong(msg)
        recipe, recipe_file, folder = None, RunFolder(what).recipe, what
    else:
        recipe, recipe_file = load(what), what
        folder = out or RunFolder.named(recipe.name)
    if recipe is None or goes_on(folder, recipe):
        url = _gone_on_with(folder, instrument)
    else:
        instrument_url(recipe, instrument)  # refuses what a simulator can't be
        url = instrument or recipe.instrument
        _fit(recipe, what, _look(url, "kintsugi night", offline=offline), local_now(), None, folder)
        more = () if instrument is None else ("--instrument", instrument)
        begin = ("run", str(what), "--out", str(folder), *labels, *more)
    tell = messenger(notify or (), lambda message: keep_message(folder, message))
    options = _options(instrument, url, labels, notify, watcher, restarts)
    stopping = stop_on_signals()
    kept = ByHand(_queue(queue), recipe_file, folder, options, stopping)
    return Night(
        folder, begin, tell, stopping, more=labels, budget=Budget(restarts), watcher=watcher,
        first=("--adopt",) if adopt else ("--restore",), taken=kept.taken, over=kept.over,
    ).work()  # fmt: skip


def heartbeat(
    place: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder, or its heartbeat.json.")],
    late: Annotated[str, typer.Option(metavar="TIME", help="Silence that counts as an alarm.")] = "5 min",
    watch: Annotated[bool, typer.Option("--watch", help="Go on until the run has ended or an alarm is due.")] = False,
    notify: Notify = None,
    as_json: AsJson = False,
) -> int:
    """Look after a run from another computer: exit code 4 and a message when it is silent, held or failed."""
    from instrument.units import UnitError, quantity
    from workflows.heartbeat import EVERY_S, LEAST_LATE_S, Watch, pulse
    from workflows.notify import messenger

    try:
        late_s = quantity(late, "time")
    except UnitError as error:
        msg = f"--late is {late!r}: {error.problem}; {error.remedy}"
        raise Wrong(msg) from error
    if not late_s >= LEAST_LATE_S:  # NaN is no time
        msg = f"--late is {late!r}; a run gives a sign of life every {EVERY_S:g} s, so allow {LEAST_LATE_S:g} s or more"
        raise Wrong(msg)
    tell = messenger(notify or ())
    watching = Watch(place)
    while True:
        found = watching.look() if watch else pulse(place)
        why = found.alarm(late_s)
        if why is not None or found.ended or not watch:
            break
        time.sleep(EVERY_S)
    if as_json:
        told = {"age_s": found.age_s, "state": found.state, "telling": found.telling, "may_resume": found.may_resume}
        say_json({**told, "alarm": why})
    if why is not None:
        tell.send("failure", f"kintsugi {place.name}: look at it", why)
        complain(f"{place}: {why}")
        return FAILED
    if not as_json:
        age = "" if found.age_s is None or found.ended else f", {max(0.0, found.age_s):.0f} s ago"
        say(f"{place}: {found.state}{age}: {found.telling}")
    return DONE


schedule = typer.Typer(help="Nights to come: add, list, remove, and the worker that does them.", no_args_is_help=True)


@schedule.command()
def add(
    recipe_file: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, YAML.")],
    start: Annotated[str, typer.Option(metavar="TIME", help="now, 20:00, or 2026-11-26 20:00.")] = "now",
    finish_by: Annotated[str | None, typer.Option(metavar="TIME", help="By when it must have ended.")] = None,
    shorten: Annotated[bool, typer.Option("--shorten", help="Take fewer images if not all fit.")] = False,
    armed: Annotated[bool, typer.Option("--armed", help="I have looked: it may begin without me.")] = False,
    out: Out = None,
    instrument: Instrument = None,
    offline: Offline = False,
    model: Model = None,
    restarts: Restarts = 5,
    notify: Notify = None,
    watcher: Watcher = "",
    queue: QueueFile = None,
) -> int:
    """Add a night, if its recipe fits the window and the instrument as it stands; what doesn't is said now."""
    from workflows.beginning import goes_on, known_model, known_watcher
    from workflows.launch import instrument_url, is_simulator
    from workflows.notify import messenger
    from workflows.recipe import load
    from workflows.schedule import next_time, too_far_ahead
    from workflows.store import RunFolder
    from workflows.worker import local_now

    recipe = load(recipe_file)
    instrument_url(recipe, instrument)  # refuses what a simulator can't be
    labels = () if model is None else ("--model", known_model(model))
    known_watcher(watcher)
    folder = out or RunFolder.named(recipe.name)
    there = goes_on(folder, recipe)
    url = _gone_on_with(folder, instrument) if there else instrument or recipe.instrument
    messenger(notify or ())  # refuses a target that can't be used
    try:
        now = local_now()
        begins = next_time(start, now)
        ends = None if finish_by is None else next_time(finish_by, begins)
    except ValueError as error:
        msg = f"--start {start} --finish-by {finish_by}: {error}"
        raise Wrong(msg) from error
    if not is_simulator(url) and (problem := too_far_ahead(now, begins)) is not None:
        msg = f"--start {start}: {problem}"
        raise Wrong(msg)
    seen = _look(url, "kintsugi schedule add", offline=offline)
    fit = _fit(recipe, recipe_file, seen, begins, None if there else ends, folder, shorten=shorten)
    described = None if seen.state is None else seen.description.model_dump(mode="json")
    options = _options(instrument, url, labels, notify, watcher, restarts) | {
        "shorten": shorten, "described": described,
    }  # fmt: skip
    nights = _queue(queue)
    with in_one_sentence():
        others = nights.in_the_way(begins, ends or begins + timedelta(seconds=fit.plan.total_s))
        entry = nights.add(recipe_file, folder, begins, ends, armed=armed, images=fit.images, options=options)
    say(_line(entry))
    for other in others:
        say(f"see to it: night {other.id} is {other.state}{_window(other)}; this one begins when that has ended")
    if fit.images is not None:
        say(f"shortened to {fit.images} images, so that it ends by {ends:%H:%M}")
    if not armed and not is_simulator(url):
        say("it is not armed: it will not begin without a person; add it again with --armed after a last look")
    return DONE


@schedule.command(name="list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="What is over as well.")] = False,
    queue: QueueFile = None,
    as_json: AsJson = False,
) -> int:
    """List the nights that wait or run."""
    from dataclasses import asdict

    with in_one_sentence():
        entries = _queue(queue).entries(all_=everything)
    if as_json:
        hidden = {"options": {"notify": "not shown"}}  # a target may hold a password
        say_json([{**{name: _plain(value) for name, value in asdict(one).items()}, **hidden} for one in entries])
        return DONE
    for entry in entries:
        say(_line(entry))
    if not entries:
        say("no night waits")
    return DONE


@schedule.command()
def remove(number: Annotated[int, typer.Argument(metavar="N", help="Its number.")], queue: QueueFile = None) -> int:
    """Take a night out that has not begun."""
    with in_one_sentence():
        entry = _queue(queue).remove(number)
    say(f"removed: {_line(entry)}")
    return DONE


@schedule.command()
def work(
    once: Annotated[bool, typer.Option("--once", help="End when nothing is due.")] = False,
    notify: Notify = None,
    queue: QueueFile = None,
) -> int:
    """Do nights as they come due, and go on with one that a reboot has ended; what a service runs.

    Whom a night tells says its own --notify; those here are told if the queue itself is damaged.
    """
    from instrument.durable import AlreadyLocked, FileLock, make_dir
    from workflows.notify import messenger
    from workflows.worker import work as do

    messenger(notify or ())  # refuses a target that can't be used
    nights = _queue(queue)
    make_dir(nights.path.parent)
    try:
        with FileLock(nights.path.with_suffix(".lock")), in_one_sentence():
            do(nights, stop_on_signals(), once=once, notify=notify or ())
    except AlreadyLocked as error:
        msg = f"another worker does the nights of {nights.path}: {error}"
        raise Wrong(msg) from error
    return DONE


def service(
    system: Annotated[str, typer.Argument(metavar="systemd|windows", help="What starts it after a reboot.")],
    out: Annotated[Path | None, typer.Option("--out", help="File to write.")] = None,
) -> int:
    """Write what makes the worker come back after a reboot, and say how to install it."""
    import sys

    from workflows.service import account, how_to, unit

    if system == "systemd":
        text, name = unit("systemd", sys.executable, Path.cwd(), account()), "kintsugi.service"
    elif system == "windows":
        text, name = unit("windows", sys.executable, Path.cwd(), account()), "kintsugi-task.xml"
    else:
        msg = f"{system!r} is no system; write systemd or windows"
        raise Wrong(msg)
    file = out or Path(name)
    file.write_text(text, encoding="utf-16" if system == "windows" else "utf-8")
    say(f"wrote {file}; install it with:")
    say(how_to("windows" if system == "windows" else "systemd", file))
    return DONE


COMMANDS = (night, heartbeat, service)
GROUPS = {"schedule": schedule}

# -- private ----------------------------------------------------------------------------------------------------------


def _queue(file: Path | None) -> Queue:
    from workflows.schedule import Queue, usual_file

    return Queue(file or usual_file())


def _options(
    instrument: str | None, url: str, labels: Sequence[str], notify: list[str] | None, watcher: str, restarts: int
) -> dict[str, Any]:
    """Return what the queue keeps of how a night was asked for."""
    return {
        "instrument": instrument, "url": url, "model": labels[-1] if labels else None, "notify": list(notify or ()),
        "watcher": watcher, "restarts": restarts,
    }  # fmt: skip


def _look(url: str, what: str, *, offline: bool) -> Look:
    """Look at the instrument of a night to come; one that can't be reached is no reason not to plan, with --offline."""
    from instrument import name_of
    from instrument.errors import InstrumentError, Refused
    from workflows.preflight import look, unseen

    name_of(url)  # refuses one that there is no backend for
    if offline:
        return unseen("--offline")
    try:
        return look(url, what)
    except Refused:
        raise
    except InstrumentError as error:
        msg = f"{url} can't be looked at: {error.message}; see that it is on, or plan without it: --offline"
        raise type(error)(msg, **error.evidence) from error


def _gone_on_with(run: Path, instrument: str | None) -> str:
    """Return the URL of the instrument of a run that exists already; Wrong where a night can't go on with it."""
    from workflows.beginning import begun_on

    if instrument is not None:
        msg = f"{run} is a run already: --instrument is for a new one"
        raise Wrong(msg)
    _alone(run)
    return begun_on(run)


def _alone(run: Path) -> None:
    """See that a run that exists already can go on without people; Wrong where it can't."""
    from instrument.hydra import hydra
    from workflows.journal import Journal
    from workflows.kept_recipe import read_recipe
    from workflows.recipe_rules import unattended_problems
    from workflows.store import RunFolder

    folder = RunFolder.open(run)
    with in_one_sentence(), Journal(folder.journal, read_only=True) as journal:
        instrument = journal.meta("instrument")
        recipe = read_recipe(folder, journal)
    if instrument is None:  # it has not begun
        return
    known = hydra().replace(virtual=bool(instrument["virtual"]), maps_by=instrument.get("maps_by"))
    problems = unattended_problems(recipe, known)
    if problems:
        raise Wrong("\n".join(f"{run}: {problem}" for problem in problems))


def _fit(
    recipe: Recipe,
    file: Path,
    seen: Look,
    begins: datetime,
    ends: datetime | None,
    folder: Path,
    *,
    shorten: bool = False,
) -> Fit:
    """Return the plan for a window on an instrument; says what to see to before. Wrong for what can't be met."""
    from workflows.beginning import room_bytes
    from workflows.preflight import fits_on, warnings

    fit = fits_on(recipe, seen, begins, ends, shorten=shorten, free_bytes=room_bytes(folder))
    if fit.problems:
        raise Wrong("\n".join(f"{file}: {problem}" for problem in fit.problems))
    for one in warnings(fit.plan, seen):
        say(f"see to it: {one}")
    return fit


def _window(entry: Entry) -> str:
    return f", {entry.begins:%Y-%m-%d %H:%M}" + ("" if entry.ends is None else f" to {entry.ends:%Y-%m-%d %H:%M}")


def _line(entry: Entry) -> str:
    until = "" if entry.ends is None else f" to {entry.ends:%Y-%m-%d %H:%M}"
    images = "" if entry.images is None else f", {entry.images} images"
    why = f": {entry.why}" if entry.why else ""
    armed = ", armed" if entry.armed else ""
    return (
        f"{entry.id}  {entry.begins:%Y-%m-%d %H:%M}{until}  {entry.recipe.name} -> {entry.folder}{images}{armed}  "
        f"{entry.state}{why}"
    )


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path | datetime) else value
