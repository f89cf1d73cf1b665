"""Commands that check, rehearse, run and resume a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workflows.terminal import DONE, Wrong, complain, console, say, say_json

if TYPE_CHECKING:
    from workflows.handover import Choice
    from workflows.journal import Journal
    from workflows.plan import Plan
    from workflows.recipe import Recipe
    from workflows.store import RunFolder

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, YAML.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Out = Annotated[Path | None, typer.Option("--out", help="New folder for the run; runs/NAME-DATE by default.")]
Without = Annotated[
    list[str] | None, typer.Option("--without", metavar="WHAT", help="Leave out: refill, eds, or a whole step.")
]
Model = Annotated[
    str, typer.Option("--model", help="Folder of the segmentation model; none: no labels; elsewhere: see follow.")
]
Fault = Annotated[
    list[str] | None,
    typer.Option("--fault", metavar="NAME@HH:MM", help="Let something go wrong on the simulator; may be repeated."),
]
Faults = Annotated[
    float | None, typer.Option("--faults", metavar="RATE", help="Others at random on the simulator, 1: as usual.")
]


def check(
    recipe_file: RecipeFile,
    finish_by: Annotated[str | None, typer.Option(metavar="TIME", help='"08:00", or a duration as "12 h".')] = None,
    without: Without = None,
    out: Out = None,
    as_json: AsJson = False,
) -> int:
    """Check a recipe and print its plan: hours, dose, gas, disk, images that fit, every limit it would hit."""
    from instrument.hydra import hydra
    from workflows.launch import instrument_url
    from workflows.plan import lines

    recipe = _recipe(recipe_file, without)
    instrument_url(recipe)  # refuses what a simulator can't be
    found = _plan(recipe, hydra(), out or Path.cwd(), finish_by)
    if as_json:
        say_json({**found.model_dump(mode="json"), "total_s": found.total_s, "images_planned": found.images_planned})
    elif not found.problems:
        for line in lines(found):
            say(line)
    _refuse(found, recipe_file)
    return DONE


def dry_run(
    recipe_file: RecipeFile,
    out: Out = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the virtual electrode.")] = None,
    without: Without = None,
    until: Annotated[str | None, typer.Option(metavar="STEP", help="Stop after this step.")] = None,
    model: Model = "package",
    fault: Fault = None,
    faults: Faults = None,
) -> int:
    """Run a recipe on the virtual microscope, whatever instrument it names."""
    from workflows.launch import dry, instrument_url

    recipe = _recipe(recipe_file, without)
    url = instrument_url(recipe, dry(recipe, seed), fault or (), faults)
    return _run(recipe, recipe_file, url, out, until, model)


def run(
    recipe_file: RecipeFile,
    instrument: Annotated[str | None, typer.Option(metavar="URL", help="Instead of the recipe's instrument.")] = None,
    out: Out = None,
    without: Without = None,
    until: Annotated[str | None, typer.Option(metavar="STEP", help="Stop after this step.")] = None,
    images: Annotated[int | None, typer.Option(metavar="N", help="Take at most so many images.")] = None,
    model: Model = "package",
    fault: Fault = None,
    faults: Faults = None,
) -> int:
    """Run a recipe on its instrument."""
    from workflows.launch import instrument_url
    from workflows.recipe import at_most

    recipe = _recipe(recipe_file, without)
    if images is not None:
        recipe = at_most(recipe, images)
    url = instrument_url(recipe, instrument, fault or (), faults)
    return _run(recipe, recipe_file, url, out, until, model)


def resume(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder.")],
    until: Annotated[str | None, typer.Option(metavar="STEP", help="Stop after this step.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="As for run; that of the run if not given.")] = None,
    adopt: Annotated[
        bool | None, typer.Option("--adopt/--restore", help="Keep what a person set by eye meanwhile, or set it back.")
    ] = None,
    alone: Annotated[
        bool, typer.Option("--alone", hidden=True, help="By a supervisor: it is armed no longer.")
    ] = False,
) -> int:
    """Go on with a run that was stopped, paused, held, or whose process died."""
    from instrument.durable import FileLock
    from workflows.beginning import known_model
    from workflows.journal import Journal
    from workflows.kept_recipe import recipe_of
    from workflows.launch import runs
    from workflows.salvage import salvage
    from workflows.session import Session
    from workflows.store import RunFolder

    given = None if model is None else known_model(model)
    folder = RunFolder(directory)
    if runs(folder):
        msg = f"{directory} is being worked on by another process; `kintsugi status {directory}` shows it"
        raise Wrong(msg)
    if any(folder.root.glob("journal.*")):
        with FileLock(folder.lock):
            told = salvage(folder.journal)
        if told is not None:
            complain(told)
    folder = RunFolder.open(directory)
    hands: Choice | None = None if adopt is None else "adopt" if adopt else "restore"
    with Journal(folder.journal) as journal:
        recipe = recipe_of(folder, journal, complain)
        _known_step(recipe, until)
        labels = given or str(journal.meta("model") or "package")
        with Session(folder, journal, recipe, model=labels, hands=hands, alone=alone) as session:
            return session.work(until)


def mark(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder.")],
    number: Annotated[int, typer.Argument(metavar="SLICE", help="Its number.")],
    verdict: Annotated[str, typer.Argument(metavar="bad|good", help="What to say of it.")],
    why: Annotated[str, typer.Option(help="What is wrong with it.")] = "",
) -> int:
    """Mark a slice bad, or good again; it is kept, and said in summary and report."""
    from workflows.journal import Journal
    from workflows.store import RunFolder

    folder = RunFolder.open(directory)
    names = folder.slice_names()
    if verdict not in ("bad", "good"):
        msg = f"the mark is {verdict!r}; it can be bad or good"
        raise Wrong(msg)
    if f"s{number:04d}" not in names:
        msg = f"there is no slice {number}; {directory} has {len(names)}, the last is {names[-1] if names else 'none'}"
        raise Wrong(msg)
    with Journal(folder.journal) as journal:
        journal.note("mark", {"slice": number, "as": verdict, "why": why})
    say(f"slice {number} is marked {verdict}")
    return DONE


def set_(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder.")],
    change: Annotated[str, typer.Argument(metavar="PATH=VALUE", help='As in a recipe: slice.until.depth="30 um".')],
) -> int:
    """Change what lies ahead of a run; it is taken up after the slice in hand, and what was cut is as it was."""
    from workflows.amendments import all_amendments, parsed
    from workflows.amendments import change as change_of
    from workflows.journal import Journal
    from workflows.kept_recipe import recipe_of
    from workflows.store import RunFolder

    folder = RunFolder.open(directory)
    path, value = parsed(change)
    with Journal(folder.journal) as journal:
        recipe = recipe_of(folder, journal, complain)
        _slices_ahead(folder, journal, recipe)
        change_of(recipe, all_amendments(journal), path, value)
        journal.note("amended", {"path": path, "value": value})
    say(f"{path} is {value} from the next slice on")
    return DONE


def do(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder.")],
    what: Annotated[
        str, typer.Argument(metavar="infiltrate|eds|image|skip", help="What to do after the slice in hand.")
    ],
) -> int:
    """Ask a run for a fill, an element map or another picture after the slice in hand, or to skip the next fill."""
    from workflows.amendments import WISHES
    from workflows.journal import Journal
    from workflows.kept_recipe import recipe_of
    from workflows.store import RunFolder

    if what not in WISHES:
        msg = f"{what!r} can't be asked for; it can be {', '.join(WISHES)}"
        raise Wrong(msg)
    folder = RunFolder.open(directory)
    needs = {"eds": "eds", "infiltrate": "refill", "skip": "refill"}.get(what)
    with Journal(folder.journal) as journal:
        recipe = recipe_of(folder, journal, complain)
        _slices_ahead(folder, journal, recipe)
        slicing = recipe.slicing
        if slicing is None or (needs is not None and getattr(slicing, needs) is None):
            msg = f"the recipe of {directory} does not say how: it has no slice{'' if needs is None else f'.{needs}'}"
            raise Wrong(msg)
        journal.note("do", {"what": what})
    say("the next fill that labels ask for is skipped" if what == "skip" else f"{what} is done after the slice in hand")
    return DONE


def answer(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder.")],
    said: Annotated[str, typer.Argument(metavar="yes|no", help="What to say to the pictures.")],
) -> int:
    """Say yes or no to the question that a run waits with."""
    from workflows.journal import Journal
    from workflows.store import RunFolder

    if said not in ("yes", "no"):
        msg = f"the answer is {said!r}; it can be yes or no"
        raise Wrong(msg)
    folder = RunFolder.open(directory)
    with Journal(folder.journal) as journal:
        asked = [act for act in journal.unsettled() if act.kind == "answer"]
        if not asked:
            say(f"{directory} asks nothing")
            return DONE
        what = asked[-1].key.removeprefix("confirm/")
        journal.set_meta(f"answer/{what}", said)
        journal.note("answer", {"question": what, "answer": said})
    say(f"{what}: {said}; `kintsugi resume {directory}` goes on")
    return DONE


def serve(
    url: Annotated[str, typer.Argument(metavar="URL", help="The instrument, such as simulator:3.")] = "",
    state: Annotated[Path | None, typer.Option(help="Folder for ledger, audit log, spool and token files.")] = None,
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 0,
    lease: Annotated[float, typer.Option(help="Seconds without a heartbeat until it makes safe: 0.5 to 60.")] = 10.0,
    host: Annotated[str, typer.Option(help="Address to listen on; the loopback by default.")] = "",
    certificates: Annotated[Path | None, typer.Option(help="Folder of certificates: two-way TLS.")] = None,
    make_certificates: Annotated[
        bool, typer.Option("--make-certificates", help="Make them in that folder, for the hosts given, and end.")
    ] = False,
    for_: Annotated[list[str] | None, typer.Option("--for", metavar="HOST", help="Name or address of the PC.")] = None,
) -> int:
    """Hold an instrument for runs to come: the instrument server, in the foreground."""
    from instrument.server import main

    if make_certificates:
        from instrument.certificates import make

        for path in make(certificates or Path("certificates"), for_ or ()):
            say(str(path))
        say("the server keeps server*.pem and ca.pem; a client gets ca.pem and operate*.pem or observe*.pem, safely")
        return DONE
    if not url or state is None:
        msg = "serve needs an instrument and --state DIR, as in `kintsugi serve simulator:3 --state STATE`"
        raise Wrong(msg)
    arguments: list[str] = [url, "--state", str(state), f"--port={port}", f"--lease={lease}", "--linger", "0"]
    arguments += ["--host", host] if host else []
    arguments += ["--certificates", str(certificates)] if certificates is not None else []
    return int(main(arguments) or 0)


COMMANDS = (check, dry_run, run, resume, answer, mark, do, serve)


# -- private ----------------------------------------------------------------------------------------------------------


def _slices_ahead(folder: RunFolder, journal: Journal, recipe: Recipe) -> None:
    """See that a run has slices ahead of it, which alone can be changed or asked for; Wrong where it has none."""
    from workflows.run import state_of

    names = ["site", *(name for name, _ in recipe.named_steps())]
    steps = journal.events(kind="step")
    step = str(steps[-1].data) if steps else names[0]
    done = state_of(journal) == "done"
    if done or ("slice" in names and step in names and names.index(step) > names.index("slice")):
        what = "is done" if done else f"has all its slices, and is at its step {step}"
        msg = (
            f"{folder.root} {what}: no slice comes any more; go on with its block in a new run, whose recipe begins "
            f"with `adopt: {{site: NAME, run: {folder.root}}}`, or begin another one"
        )
        raise Wrong(msg)


def _recipe(path: Path, without: list[str] | None) -> Recipe:
    from workflows.recipe import load
    from workflows.recipe import without as leave_out

    recipe = load(path)
    for what in without or []:
        recipe = leave_out(recipe, what)
    return recipe


def _plan(recipe: Recipe, description: Any, place: Path, finish_by: str | None = None) -> Plan:
    from workflows.plan import plan
    from workflows.store import free_bytes

    try:
        return plan(recipe, description, finish_by=finish_by, free_bytes=free_bytes(place))
    except ValueError as error:
        msg = f"--finish-by {finish_by}: {error}"
        raise Wrong(msg) from error


def _refuse(plan: Plan, path: Path) -> None:
    if plan.problems:
        raise Wrong("\n".join(f"{path}: {problem}" for problem in plan.problems))


def _known_step(recipe: Recipe, until: str | None) -> None:
    names = ["site", *(name for name, _ in recipe.named_steps())]
    if until is not None and until not in names:
        msg = f"--until is {until!r}; this recipe has the steps {', '.join(names)}"
        raise Wrong(msg)


def _run(recipe: Recipe, path: Path, url: str, out: Path | None, until: str | None, model: str) -> int:
    """Check, make the run folder, start the server, check again with what it says, and work."""
    from instrument.hydra import hydra
    from workflows.beginning import known_model
    from workflows.journal import Journal
    from workflows.kept_recipe import keep
    from workflows.launch import is_simulator
    from workflows.recipe import dump
    from workflows.session import Session
    from workflows.store import RunFolder

    _known_step(recipe, until)
    model = known_model(model)
    if is_simulator(url):
        console().print("VIRTUAL: a simulated microscope", style="bold red", highlight=False)
    target = out or RunFolder.named(recipe.name)
    _refuse(_plan(recipe, hydra(), target), path)
    folder = RunFolder.create(target)
    text = dump(recipe)
    folder.write_recipe(text)
    with (
        Journal.create(folder.journal, url=url, recipe=str(path), recipe_text=keep(text)) as journal,
        Session(folder, journal, recipe, model=model) as session,
    ):
        return session.work(until)
