"""The `kintsugi` command. Exit codes: 0 done; 2 recipe or arguments wrong; 3 stopped; 4 failed, safe; 5 held."""

from __future__ import annotations

import importlib.util
import logging
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

try:
    import typer
except ModuleNotFoundError as error:  # the server's part alone is installed
    raise SystemExit(f"kintsugi: the package {error.name!r} is missing: install kintsugi with [all]") from error

from workflows import commands_analysis, commands_instrument, commands_night, commands_run
from workflows.terminal import DONE, FAILED, HELD, STOPPED, WRONG, complain, outlive_terminal, say, say_json

if TYPE_CHECKING:
    from workflows.store import RunFolder

PACKAGES = ("instrument", "simulator", "workflows", "analysis")

# Every complaint about arguments is one of these, whichever copy of click typer brings along.
_Complaint: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    help="Overnight kintsugi imaging of battery electrodes on a plasma FIB-SEM.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RunDir = Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    del debug  # read from the arguments before anything else, so that it works for every failure


@app.command()
def status(directory: RunDir, as_json: AsJson = False) -> None:
    """Show where a run stands."""
    from workflows.status import sentences, status_of
    from workflows.store import RunFolder

    found = status_of(RunFolder.open(directory))
    if as_json:
        say_json(found)
    else:
        for line in sentences(found):
            say(line)


@app.command()
def stop(
    directory: RunDir,
    after: Annotated[str, typer.Option(metavar="cut|slice|fill", help="What is finished first.")] = "slice",
    now: Annotated[bool, typer.Option("--now", help="End the pattern in hand; its rest is given on resume.")] = False,
) -> None:
    """Stop a run, leaving the instrument safe; `kintsugi resume` goes on with it."""
    _ask("stop", directory, "now" if now else after)


@app.command()
def pause(
    directory: RunDir,
    after: Annotated[str, typer.Option(metavar="cut|slice|fill", help="What is finished first.")] = "slice",
) -> None:
    """Hand the microscope to a person; `kintsugi resume` takes it back."""
    _ask("pause", directory, after)


def _ask(what: str, directory: Path, after: str) -> None:
    from pydantic import ValidationError

    from workflows.store import Request, RunFolder

    folder = RunFolder.open(directory)
    try:
        request = Request.model_validate({"what": what, "after": after, "by": "kintsugi " + what})
    except ValidationError as error:
        msg = f"--after is {after!r}; it can be cut, slice or fill"
        raise typer.BadParameter(msg) from error
    if not folder.attended:
        say(f"nothing runs in {directory}; there is nothing to {what}")
        return
    if (ended := _at_its_end(folder)) is not None:
        say(f"the run in {directory} is {ended} and makes its results; there is nothing left to {what}")
        return
    folder.ask(request)
    say(f"asked the run in {directory} to {what} " + ("now" if after == "now" else f"after the {after} in hand"))


def _at_its_end(folder: RunFolder) -> str | None:
    """Return where a run stands that is past its end, so that nothing would heed a request; else None.

    One that failed may be resumed by its night, which heeds it.
    """
    from workflows.journal import JournalDamaged, WrongSchema
    from workflows.status import status_of

    try:
        status = status_of(folder)
    except (JournalDamaged, WrongSchema):  # whatever is wrong with it, a stop is asked for
        return None
    state = str(status["state"])
    return state if status["making_results"] and not (state == "failed" and folder.supervised) else None


@app.command()
def note(directory: RunDir, text: Annotated[str, typer.Argument(help="What to remember.")]) -> None:
    """Write a note into a run's journal; it appears in the report's time line."""
    from workflows.journal import Journal
    from workflows.store import RunFolder

    if not text.strip():
        msg = "the note is empty; write what to remember"
        raise typer.BadParameter(msg)
    with Journal(RunFolder.open(directory).journal) as journal:
        journal.note("note", text)
    say(f"noted in {directory}")


@app.command()
def export(
    directory: RunDir,
    to: Annotated[str, typer.Option(metavar="tiff|fiji|raw", help="Format.")] = "tiff",
    out: Annotated[Path | None, typer.Option(help="New folder for the files; DIR/export-FORMAT by default.")] = None,
    even: Annotated[bool, typer.Option("--even", help="Resample slices to even spacing.")] = False,
) -> None:
    """Write aligned greys and labels for Fiji, Avizo or Dragonfly."""
    from typing import cast

    from analysis.phases import COLOURS
    from workflows.export import Format
    from workflows.export import export as write
    from workflows.journal import Journal
    from workflows.soundness import set_aside_damaged
    from workflows.store import RunFolder

    if to not in ("tiff", "fiji", "raw"):
        msg = f"--to is {to!r}; it can be tiff, fiji or raw"
        raise typer.BadParameter(msg)
    target = out or directory / f"export-{to}"
    folder = RunFolder.open(directory)
    with Journal(folder.journal) as journal:
        for name in set_aside_damaged(folder, journal):
            complain(f"{name} is damaged or missing; it is set aside, and left out of the stack")
    for path in write(
        folder,
        cast(Format, to),
        target,
        {int(phase): colour for phase, colour in COLOURS.items()},
        even=even,
    ):
        say(str(path))


for _command in (
    *commands_run.COMMANDS, *commands_night.COMMANDS, *commands_analysis.COMMANDS, *commands_instrument.COMMANDS
):  # fmt: skip
    app.command()(_command)
# its help is its own parser's, which knows all its options
app.command(add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(
    commands_instrument.autoscript
)
app.command(name="set")(commands_run.set_)
for _name, _group in commands_night.GROUPS.items():
    app.add_typer(_group, name=_name)


def shadowed() -> str:
    """Return a sentence when one of our four generic package names is somebody else's package, else nothing."""
    root = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        origin = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
        if origin is None or origin.parent.parent != root:
            return (
                f"the package {name!r} that Python finds is not kintsugi's ({origin or 'missing'}, not under {root}): "
                "install kintsugi into an environment of its own"
            )
    return ""


def run_command(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; problems are told in one sentence each."""
    debug = "--debug" in arguments
    asked = [argument for argument in arguments if argument != "--debug"]
    problem = shadowed()
    if problem:
        complain(problem)
        return WRONG
    try:
        code = app(asked, standalone_mode=False)
    except _Complaint as error:
        text = getattr(error, "format_message", error.__str__)()
        if text:
            complain(text if text.endswith(".") else f"{text}; `kintsugi --help` shows what can be said")
        return WRONG
    except (KeyboardInterrupt, typer.Abort):
        complain("stopped")
        return STOPPED
    except Exception as error:
        code, text = _explain(error)
        logging.getLogger(__name__).debug("failed", exc_info=error)
        if debug:
            traceback.print_exception(error)
        complain(text)
    return code if isinstance(code, int) else DONE


def _explain(error: Exception) -> tuple[int, str]:
    from pydantic import ValidationError

    from instrument import durable
    from instrument.errors import InstrumentError, Refused
    from workflows.acts import Held, Interrupted
    from workflows.journal import JournalDamaged, ReplayMismatch, WrongSchema
    from workflows.recipe_errors import RecipeProblem
    from workflows.terminal import Wrong

    if isinstance(error, RecipeProblem | Wrong):
        return WRONG, str(error)
    if isinstance(error, Interrupted):
        return STOPPED, error.message
    if isinstance(error, Held):
        return HELD, f"held for a person: {error.message}"
    if isinstance(error, ReplayMismatch):
        return HELD, f"held for a person: {error}"
    if isinstance(error, Refused):  # another may let go of the instrument, and then the same is right
        return (FAILED if error.rule == "one-controller" else WRONG), error.message
    if isinstance(error, InstrumentError):
        return FAILED, error.message
    if isinstance(error, JournalDamaged | WrongSchema):
        return FAILED, str(error)
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return WRONG, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    if durable.no_room(error):
        return HELD, f"the disk is full: {error}; make room, then `kintsugi resume`"
    if isinstance(error, OSError):
        return FAILED, f"{error.filename or 'the system'}: {error.strerror or error}"
    return FAILED, f"{type(error).__name__}: {error} (--debug shows where)"


def main() -> None:
    """Run `kintsugi` and exit with its code."""
    outlive_terminal()
    raise SystemExit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
