"""Commands for nights: a run under supervision, and the watcher of its signs of life."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from workflows.terminal import DONE, FAILED, Wrong, complain, say, say_json

Notify = Annotated[
    list[str] | None, typer.Option("--notify", metavar="URL", help="Tell somebody (an apprise URL); may be repeated.")
]
Out = Annotated[Path | None, typer.Option("--out", help="New folder for the run; runs/NAME-DATE by default.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def night(
    what: Annotated[Path, typer.Argument(metavar="RECIPE|DIR", help="A recipe to begin, or a run to go on with.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="New folder for the run; runs/NAME-DATE by default.")
    ] = None,
    instrument: Annotated[str | None, typer.Option(metavar="URL", help="Instead of the recipe's instrument.")] = None,
    model: Annotated[str, typer.Option(help="Folder of the segmentation model; none: no labels.")] = "package",
    restarts: Annotated[int, typer.Option(help="How often it may be resumed by itself.")] = 5,
    notify: Notify = None,
    watcher: Annotated[str, typer.Option(metavar="URL", help="Called every minute while the run is alive.")] = "",
) -> int:
    """Run a recipe through the night: a run that dies is resumed while it is armed, and people are told."""
    from workflows.night import Budget, Night
    from workflows.notify import messenger
    from workflows.recipe import load
    from workflows.store import RunFolder

    if restarts < 0:
        msg = f"--restarts is {restarts}; it can't be negative"
        raise Wrong(msg)
    begin: tuple[str, ...] = ()
    if RunFolder.is_run(what):
        folder = what
        if out is not None or instrument is not None:
            msg = f"{what} is a run already: --out and --instrument are for a recipe"
            raise Wrong(msg)
    else:
        folder = out or RunFolder.named(load(what).name)
        more = () if instrument is None else ("--instrument", instrument)
        begin = ("run", str(what), "--out", str(folder), "--model", model, *more)
    tell = messenger(notify or (), lambda message: kept(folder, message))
    return Night(
        folder, begin, tell, more=("--model", model), budget=Budget(restarts), watcher=watcher
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
    from workflows.heartbeat import EVERY_S, pulse
    from workflows.notify import messenger

    try:
        late_s = quantity(late, "time")
    except UnitError as error:
        msg = f"--late is {late!r}: {error.problem}; {error.remedy}"
        raise Wrong(msg) from error
    tell = messenger(notify or ())
    while True:
        found = pulse(place)
        why = found.alarm(late_s)
        if why is not None or found.ended or not watch:
            break
        time.sleep(EVERY_S)
    if as_json:
        say_json({"age_s": found.age_s, "state": found.state, "telling": found.telling, "alarm": why})
    if why is not None:
        tell.send("failure", f"kintsugi {place.name}: look at it", why)
        complain(f"{place}: {why}")
        return FAILED
    if not as_json:
        age = "" if found.age_s is None else f", {found.age_s:.0f} s ago"
        say(f"{place}: {found.state}{age}: {found.telling}")
    return DONE


COMMANDS = (night, heartbeat)


def kept(folder: Path, message: dict[str, object]) -> None:
    """Keep a message in the run's journal, once there is one."""
    from workflows.journal import Journal
    from workflows.store import RunFolder

    if RunFolder.is_run(folder):
        with Journal(RunFolder.open(folder).journal) as journal:
            journal.note("message", message)
