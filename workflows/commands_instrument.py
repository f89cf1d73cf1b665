"""Commands about the instrument itself: what it is, which way it goes, and AutoScript scripts on a virtual one."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workflows.terminal import DONE, HELD, WRONG, Wrong, complain, say, say_json

if TYPE_CHECKING:
    from instrument.settings import Description, State
    from workflows.rehearse import Sign

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
#: What is told of what is installed, and what each is for.
PACKAGES = {
    "kintsugi": "this", "numpy": "all", "Pyro5": "the server", "pydantic": "all", "tifffile": "pictures",
    "scipy": "the virtual microscope", "torch": "labels", "ruamel.yaml": "recipes", "apprise": "messages",
    "cryptography": "certificates", "autoscript-sdb-microscope-client": "the microscope itself",
}  # fmt: skip


def doctor(
    url: Annotated[
        str | None, typer.Argument(metavar="[URL]", help="An instrument, as autoscript://localhost.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="A recipe: what of it this instrument can't do.")] = None,
    as_json: AsJson = False,
) -> int:
    """Tell what is installed, and what an instrument is and can do; reads only."""
    found: dict[str, Any] = {"python": sys.version.split()[0], "packages": {name: _version(name) for name in PACKAGES}}
    problems: list[str] = []
    if url is not None:
        described, state, more = _asked(url)
        found |= {"instrument": described.model_dump(mode="json"), "state": state.model_dump(mode="json"), **more}
        if recipe is not None:
            problems = _cannot(recipe, described)
            found["problems"] = problems
    elif recipe is not None:
        msg = "--recipe needs the URL of an instrument to be compared with"
        raise Wrong(msg)
    if as_json:
        say_json(found)
    else:
        for line in _lines(found):
            say(line)
    for problem in problems:
        complain(problem)
    return WRONG if problems else DONE


def rehearse(
    recipe_file: Annotated[Path, typer.Argument(metavar="RECIPE", help="Whose poses are driven to.")],
    instrument: Annotated[str | None, typer.Option(metavar="URL", help="Instead of the recipe's instrument.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nobody before each pose: on a virtual one only.")] = False,
    as_json: AsJson = False,
) -> int:
    """Look which way pictures move, then turn to every pose, beams blanked, a person confirming. Nothing is milled."""
    from instrument import connect
    from workflows.launch import instrument_url
    from workflows.recipe import load
    from workflows.rehearse import drive, poses_of, signs

    recipe = load(recipe_file)
    microscope = connect(instrument_url(recipe, instrument))
    try:
        if yes and not microscope.describe().virtual:
            msg = "--yes is for a virtual microscope: on a real one a person watches the chamber and confirms each pose"
            raise Wrong(msg)
        microscope.make_safe()
        seen = signs(microscope)
        for one in () if as_json else seen:
            say(one.sentence())
        if _wrong(seen):
            return HELD
        cut = next((step.cut for step in recipe.steps if hasattr(step, "cut")), None)
        poses = poses_of(recipe.sample.pretilt, 0.0 if cut is None else cut.rocking)
        reached, turned = drive(microscope, poses, (lambda _question: True) if yes else typer.confirm)
    finally:
        microscope.make_safe()
        microscope.close()
    if not as_json:
        say(turned.sentence())
    if _wrong((turned,)):
        return HELD
    if as_json:
        say_json(
            {"signs": [one.model_dump() for one in (*seen, turned)], "poses": [one.model_dump() for one in reached]}
        )
    else:
        for pose in reached:
            say(f"{pose.pose}: reached")
    return DONE


def autoscript(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[--path] [--profile P] [--simulator URL] SCRIPT.py [ARGUMENTS]...")
    ] = None,
) -> int:
    """Run anybody's AutoScript script on the virtual microscope, unchanged; --path prints the folder for PYTHONPATH."""
    return subprocess.run([sys.executable, "-m", "simulator.autoscript", *(arguments or ())], check=False).returncode


COMMANDS = (doctor, rehearse)

# -- private ----------------------------------------------------------------------------------------------------------


def _wrong(seen: tuple[Sign, ...]) -> bool:
    """Tell whether pictures move otherwise than the geometry says, and complain."""
    wrong = [one.name for one in seen if not one.right]
    if wrong:
        complain(f"{', '.join(wrong)}: pictures don't move as the geometry says; turn to no pose, mill nothing")
    return bool(wrong)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _asked(url: str) -> tuple[Description, State, dict[str, Any]]:
    """Return what an instrument says of itself; AutoScript is only read from."""
    from instrument import connect

    if url.partition(":")[0] == "autoscript":
        from instrument.autoscript.microscope import examine

        return examine(url)
    microscope = connect(url)
    try:
        return microscope.describe(), microscope.state(), {}
    finally:
        microscope.close()


def _cannot(recipe_file: Path, described: Description) -> list[str]:
    from workflows.plan import plan
    from workflows.recipe import load

    return [str(problem) for problem in plan(load(recipe_file), described).problems]


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [f"Python {found['python']}"]
    lines += [
        f"  {name} {number or 'is not installed'} ({PACKAGES[name]})" for name, number in found["packages"].items()
    ]
    instrument = found.get("instrument")
    if instrument is None:
        return lines
    what = "VIRTUAL: " if instrument["virtual"] else ""
    lines += [f"{what}{instrument['model']}, serial {instrument['serial']}, {instrument['software']}"]
    for name in ("species", "detectors", "gases", "devices"):
        lines.append(f"  {name}: {', '.join(instrument[name]) or 'none'}")
    for key, currents in instrument["ion_currents_a"].items():
        lines.append(f"  {key} V: {', '.join(f'{one * 1e9:g}' for one in currents)} nA")
    travel = instrument["stage"]
    lines.append("  stage: " + ", ".join(f"{axis} {low:g} to {high:g}" for axis, (low, high) in travel.items()))
    if "application_files" in found:
        lines.append(f"  application files: {', '.join(found['application_files'])}")
    state = found["state"]
    lines.append(
        f"  now: {'safe' if state['safe'] else 'NOT SAFE'}, {state['pressure_pa']:.2g} Pa, "
        f"stage {'homed' if state['stage_homed'] else 'NOT HOMED'}, "
        f"ion source {'on' if state['ion']['source_on'] else 'off'}"
    )
    return lines
