"""Commands about the instrument itself: what it is, which way it goes, and AutoScript scripts on a virtual one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workflows.terminal import DONE, HELD, WRONG, Wrong, complain, in_one_sentence, length, say, say_json

if TYPE_CHECKING:
    from instrument.microscope import Microscope
    from instrument.settings import Description
    from workflows.layout import Layout
    from workflows.recipe import Recipe
    from workflows.rehearse import Sign
    from workflows.sites import TaughtSite
    from workflows.siting import Clicks, Pictures

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
#: What is told of what is installed, and what each is for.
PACKAGES = {
    "kintsugi": "this", "numpy": "all", "Pyro5": "the server", "pydantic": "all", "tifffile": "pictures",
    "scipy": "the virtual microscope", "torch": "labels", "ruamel.yaml": "recipes", "apprise": "messages",
    "cryptography": "certificates", "h5py": "element maps as .h5oina",
    "autoscript-sdb-microscope-client": "the microscope itself",
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
        from workflows.preflight import examined

        described, state, more = examined(url, "kintsugi doctor")
        found |= {"instrument": described.model_dump(mode="json"), "state": state.model_dump(mode="json"), **more}
        if recipe is not None:
            problems = _cannot(recipe, described, more.get("application_files"))
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
    from instrument.guard import Guarded
    from workflows import sites
    from workflows.launch import instrument_url
    from workflows.recipe import load
    from workflows.rehearse import drive, envelope, poses_of, signs

    recipe = load(recipe_file)
    name = recipe.place
    with _alone(instrument_url(recipe, instrument), "kintsugi rehearse") as microscope:
        described = microscope.describe()
        if yes and not described.virtual:
            msg = "--yes is for a virtual microscope: on a real one a person watches the chamber and confirms each pose"
            raise Wrong(msg)
        taught = sites.taught_for(recipe, described)
        if taught is None and not as_json:
            say(
                f"site {name} is not taught here: the stage only turns, and nothing of it is kept; "
                f"`kintsugi site {'NAME' if name == 'auto' else name} --recipe {recipe_file}` comes next, "
                "then this again"
            )
        start = microscope.make_safe()
        seen = signs(Guarded(microscope, envelope(start, described, ())))
        for one in () if as_json else seen:
            say(one.sentence())
        if _wrong(seen):
            return HELD
        confirm = (lambda _question: True) if yes else typer.confirm
        if taught is not None:
            taught = _with_axis(microscope, recipe, taught, confirm, complain if as_json else say)
        layout = sites.layout_for(recipe, taught)
        poses, stands = poses_of(layout), None if taught is None else layout.stage
        guarded = Guarded(microscope, envelope(start, described, poses, stands))
        reached, turned = drive(guarded, poses, confirm, stands=stands)
    if not as_json:
        say(turned.sentence())
    if _wrong((turned,)):
        return HELD
    if as_json:
        say_json(
            {
                "signs": [one.model_dump() for one in (*seen, turned)],
                "poses": [one.model_dump() for one in reached],
                "axis_m": None if taught is None else [taught.site.ax, taught.site.ay],
            }
        )
    else:
        for pose in reached:
            say(f"{pose.pose}: reached")
    if taught is not None:
        sites.save(taught.with_poses(poses))
    if taught is not None and not as_json:
        say(f"site {name}: these poses may be driven to")
    return DONE


def site(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What recipes call it, as edge-A.")],
    recipe_file: Annotated[Path, typer.Option("--recipe", metavar="RECIPE", help="For whose block a place is taught.")],
    instrument: Annotated[str | None, typer.Option(metavar="URL", help="Instead of the recipe's instrument.")] = None,
    clicks: Annotated[
        list[str] | None, typer.Option(metavar="LINE", help="A line of the page; may be repeated, one for each look.")
    ] = None,
    marks: Annotated[int, typer.Option(min=0, max=2, help="Fiducials of an existing block that are clicked.")] = 0,
    field: Annotated[str | None, typer.Option(metavar="LENGTH", help="Width of the overviews.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nobody, find the edge: on a virtual one only.")] = False,
) -> int:
    """Teach a place on the sample: pictures by both beams, clicks on a page, the stage turned until the edge is X."""
    from instrument.guard import Guarded
    from workflows import sites
    from workflows.journal import wall_now
    from workflows.launch import instrument_url
    from workflows.layout import Layout
    from workflows.recipe import load
    from workflows.siting import Clicks, envelope, found_by_itself, teach
    from workflows.steps.site import WIDER

    path = sites.path_of(name)
    recipe = load(recipe_file)
    layout = Layout.at(recipe, None)
    given = [_clicks(line, marks) for line in clicks or []]
    wide = length("--field", field) if field is not None else WIDER * max(layout.face[0], layout.cap[2] - layout.cap[0])
    with _alone(instrument_url(recipe, instrument), "kintsugi site") as microscope:
        described = microscope.describe()
        if yes and not described.virtual:
            msg = "--yes is for a virtual microscope: on a real one a person watches the chamber and clicks"
            raise Wrong(msg)

        def clicked(pictures: Pictures, number: int) -> Clicks:
            shown = _shown(path.parent, number, f"Site {name}, look {number}", pictures, layout, marks)
            if number <= len(given):
                return given[number - 1]
            if yes:
                return found_by_itself(pictures)
            say(f"open {shown} in a browser, click, and paste the line that it shows")
            while True:
                try:
                    return Clicks.parse(typer.prompt("line"), marks)
                except ValueError as error:
                    complain(f"{error}; once more")

        confirm = (lambda _question: True) if yes else typer.confirm
        pretilt = recipe.sample.pretilt
        guarded = Guarded(microscope, envelope(microscope.make_safe().stage, described, pretilt))
        found, pictures = teach(guarded, pretilt, wide, clicked, confirm, say)
    for beam, frame in (("ion", pictures.ion), ("electron", pictures.electron)):
        frame.save(path.parent / f"{beam}.ome.tif")
    sites.save(
        sites.TaughtSite(
            name=name, serial=described.serial, taught=wall_now(), site=found.site, marks=found.marks,
            edge_off_rad=found.edge_off_rad, apart_m=found.apart_m,
        )
    )  # fmt: skip
    say(f"site {name} is kept in {path}; next: `kintsugi rehearse {recipe_file}`, the recipe naming `site: {name}`")
    return DONE


def autoscript(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[OPTIONS] SCRIPT.py [ARGUMENTS]...")] = None,
) -> int:
    """Run anybody's AutoScript script on the virtual microscope, unchanged; --path prints the folder for PYTHONPATH."""
    return subprocess.run([sys.executable, "-m", "simulator.autoscript", *(arguments or ())], check=False).returncode


COMMANDS = (doctor, site, rehearse)

# -- private ----------------------------------------------------------------------------------------------------------


@contextmanager
def _alone(url: str, what: str) -> Iterator[Microscope]:
    """Open an instrument that nobody else drives; made safe and let go of at the end. Refused where it is in use."""
    from instrument import connect
    from instrument.holding import held

    with held(url, what):
        microscope = connect(url)
        try:
            yield microscope
        finally:
            try:
                microscope.make_safe()
            finally:
                microscope.close()


def _with_axis(
    microscope: Microscope,
    recipe: Recipe,
    taught: TaughtSite,
    confirm: Callable[[str], bool],
    told: Callable[[str], None],
) -> TaughtSite:
    """Return a site with the axis that its stage turns about, measured or, where it was before, checked; it is kept."""
    from instrument.guard import Guarded
    from workflows import axis, sites

    place = (0.0, 0.0, sites.layout_for(recipe, taught).trim)
    allowed = axis.envelope(microscope.state(), microscope.describe(), taught.site, place)
    site, left = axis.measure(
        Guarded(microscope, allowed), taught.site, place, confirm, told, known=taught.axis_left_m is not None
    )
    taught = taught.replace(site=site, axis_left_m=left)
    sites.save(taught)
    return taught


def _wrong(seen: tuple[Sign, ...]) -> bool:
    """Tell whether pictures move otherwise than the geometry says, and complain."""
    wrong = [one.name for one in seen if not one.right]
    if wrong:
        complain(f"{', '.join(wrong)}: pictures don't move as the geometry says; turn to no pose, mill nothing")
    return bool(wrong)


def _clicks(line: str, marks: int) -> Clicks:
    from workflows.siting import Clicks

    with in_one_sentence():
        return Clicks.parse(line, marks)


def _shown(folder: Path, number: int, title: str, pictures: Pictures, layout: Layout, marks: int) -> Path:
    """Write the page to click on; return its file."""
    from instrument import durable
    from workflows.site_page import page

    durable.make_dir(folder)
    shown = folder / f"look-{number}.html"
    durable.atomic_write_bytes(shown, page(title, pictures, layout, marks).encode("utf-8"))
    return shown


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cannot(recipe_file: Path, described: Description, files: list[str] | None) -> list[str]:
    """Return what an instrument can't do of a recipe; `files` are its application files, None where it has none."""
    from workflows.applications import application_problems
    from workflows.plan import plan
    from workflows.recipe import load

    recipe = load(recipe_file)
    problems = [*plan(recipe, described).problems, *(application_problems(recipe, files) if files is not None else ())]
    return [str(problem) for problem in problems]


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
    lines += [*_columns(instrument), *_limits(instrument)]
    if "application_files" in found:
        lines.append(f"  application files: {', '.join(found['application_files'])}")
    for name, modes in found.get("detector_modes", {}).items():
        lines.append(f"  {name} modes: {', '.join(modes)}")
    state = found["state"]
    sources = (f"{beam} source {'on' if state[beam]['source_on'] else 'off'}" for beam in ("electron", "ion"))
    lines.append(
        f"  now: {'safe' if state['safe'] else 'NOT SAFE'}, {state['pressure_pa']:.2g} Pa, "
        f"stage {'homed' if state['stage_homed'] else 'NOT HOMED'}, {', '.join(sources)}"
    )
    return lines


def _columns(instrument: dict[str, Any]) -> list[str]:
    """Return a line for each column, and one for each list of ion currents."""
    from instrument.units import show

    def listed(values: list[float], dimension: str) -> str:
        return ", ".join(show(value, dimension, 3) for value in values) or "none"

    currents = listed(instrument["electron_currents_a"], "current")
    lines = [
        f"  electron column: {listed(instrument['electron_voltages_v'], 'voltage')}; {currents}",
        f"  ion column: {listed(instrument['ion_voltages_v'], 'voltage')}",
    ]
    for key, values in instrument["ion_currents_a"].items():
        assumed = " (assumed)" if key in instrument["assumed_currents"] else ""
        lines.append(f"  {key} V: {listed(values, 'current')}{assumed}")
    return lines


def _limits(instrument: dict[str, Any]) -> list[str]:
    """Return how far columns and stage go, and which frames may have 16 bits."""
    from instrument.units import show

    fields = (f"{beam} field {show(instrument[f'{beam}_field_max_m'], 'length', 3)}" for beam in ("electron", "ion"))
    ends = (
        f"{axis} {' to '.join(show(end, 'angle' if axis == 't' else 'length', 4) for end in travel)}"
        for axis, travel in instrument["stage"].items()
    )
    sizes = ", ".join(f"{width} x {height}" for width, height in instrument["sixteen_bit_sizes"])
    return [
        f"  limits: {', '.join(fields)}, beam shift {show(instrument['beam_shift_max_m'], 'length', 3)}",
        f"  stage: {', '.join(ends)}",
        f"  16-bit frames: {sizes or 'none'}",
    ]
