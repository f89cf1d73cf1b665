"""The look at an instrument before a night: what it is, how it stands, what of a recipe it can't do, what to see to.

It reads only. What would end the night is said by evening, while somebody is there to mend it; what the run mends by
itself, or a person still may, is a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any

from instrument.errors import BadData, Refused
from instrument.guard_rules import current_is_right
from instrument.hydra import hydra
from instrument.process import HEAT_S, LIT_BELOW_PA
from instrument.settings import Beam, BeamState, Description, State
from instrument.units import show
from workflows.applications import application_problems
from workflows.launch import is_simulator
from workflows.live import duration
from workflows.plan import Plan
from workflows.recipe import Recipe
from workflows.recipe_errors import Problem
from workflows.recipe_rules import unattended_problems
from workflows.schedule import Fit, fits
from workflows.sites import site_for

#: A virtual block that nobody looks at: opened in a moment.
_SMALL = {"width": "4um", "height": "4um", "depth": "4um", "above": "4um"}


@dataclass(frozen=True)
class Look:
    """An instrument that was looked at; or was not, and `unseen` says why: then it is described as a usual Hydra.

    state : how it stood, None where it was not looked at
    files : its application files, None where it has none or was not looked at
    """

    description: Description
    state: State | None = None
    files: tuple[str, ...] | None = None
    unseen: str = ""


def unseen(why: str, known: Description | None = None) -> Look:
    """Return what is reckoned with where an instrument can't be looked at: as it is `known`, or as it usually is."""
    if known is not None:
        return Look(known, unseen=f"{why}: checked without it, as it was described when the night was added")
    return Look(hydra(), unseen=f"{why}: checked without it, for a usual {hydra().model.partition(' (')[0]}")


def look(url: str, what: str, known: Description | None = None) -> Look:
    """Look at an instrument; one that is in use is left alone, and `Look.unseen` says who has it.

    Parameters
    ----------
    url, what : the instrument, and who looks, for others to be told
    known : how it described itself before

    Raises
    ------
    Refused : the URL is wrong, or its backend is not installed
    InstrumentError : it can't be reached
    """
    try:
        description, state, more = examined(url, what)
    except Refused as refused:
        if refused.rule != "one-controller":
            raise
        return unseen(f"{url} is in use by {refused.evidence['limit']}", known)
    files = more.get("application_files")
    return Look(description, state, None if files is None else tuple(files))


def examined(url: str, what: str) -> tuple[Description, State, dict[str, Any]]:
    """Return what an instrument says of itself, and what more is told of it; AutoScript is only read from.

    Even that selects views: Refused where it is in use.
    """
    from instrument import connect
    from instrument.holding import held

    with held(url, what):
        if url.partition(":")[0].lower() == "autoscript":
            from instrument.autoscript.opening import examine

            return examine(url)
        microscope = connect(_small(url) if is_simulator(url) else url)
        try:
            return microscope.describe(), microscope.state(), {}
        finally:
            microscope.close()


def fits_on(
    recipe: Recipe,
    seen: Look,
    begins: datetime,
    ends: datetime | None,
    *,
    shorten: bool,
    free_bytes: int | None = None,
) -> Fit:
    """Return whether a recipe fits a window, as `fits` does, on an instrument as it is and stands, without people."""
    found = fits(recipe, seen.description, begins, ends, shorten=shorten, free_bytes=free_bytes)
    alone = map(str, unattended_problems(recipe, seen.description))
    return Fit((*found.problems, *problems(recipe, seen), *alone), found.images, found.plan)


def problems(recipe: Recipe, seen: Look) -> tuple[str, ...]:
    """Return what of an instrument that was looked at would end a night; nothing is said of one that was not."""
    if seen.state is None:
        return ()
    found = [str(one) for one in _standing(seen.state)]
    found += [str(one) for one in application_problems(recipe, seen.files)] if seen.files is not None else []
    try:
        site_for(recipe, seen.description)
    except (Refused, BadData) as error:
        found.append(error.message)
    return tuple(found)


def warnings(planned: Plan, seen: Look) -> tuple[str, ...]:
    """Return what a person may want to see to before a night of this plan, which the run can do without."""
    if seen.state is None:
        return (seen.unseen,)
    return (*_busy(seen), *_beams(seen.state), *_gases(planned, seen.state))


# -- private ----------------------------------------------------------------------------------------------------------


def _small(url: str) -> str:
    """Return a simulator's URL with a small block, unless it says how large."""
    given = {part.partition("=")[0] for part in url.partition("?")[2].split("&")}
    more = "&".join(f"{name}={size}" for name, size in _SMALL.items() if name not in given)
    return url + ("&" if "?" in url else "?") * bool(more) + more


def _standing(state: State) -> Iterator[Problem]:
    """Yield what of an instrument's state holds a run at once."""
    gas_in = any(gas.valve_open for gas in state.gases.values())
    if not gas_in and not state.pressure_pa <= LIT_BELOW_PA:  # NaN is no vacuum
        yield Problem(
            "instrument.pressure", f"the chamber has {state.pressure_pa:.2g} Pa", f"{state.pressure_pa:.2g} Pa",
            f"at most {LIT_BELOW_PA:g} Pa", "pump it, and add the night when the vacuum is there",
        )  # fmt: skip
    if not state.stage_homed:
        yield Problem(
            "instrument.stage", "the stage is not homed", "not homed", "homed",
            "home it, watching the chamber, and see that the site is still where it was taught",
        )  # fmt: skip


def _busy(seen: Look) -> Iterator[str]:
    state = seen.state
    if state is None:
        return
    if state.patterning:
        yield "instrument: a pattern is being written; somebody works there now"
    for device, is_in in state.devices.items():
        if is_in:
            yield f"{device}: it is in; the run takes it out before the stage turns"


def _beams(state: State) -> Iterator[str]:
    for beam in Beam:
        column = state.beam(beam)
        if not column.source_on:
            yield f"{beam} beam: its source is off; switch it on now, so that its current has settled when it begins"
        elif (told := _current_off(column)) is not None:
            yield f"{beam} beam: {told}"


def _current_off(column: BeamState) -> str | None:
    """Return what is odd about a measured current, None where it is as it should be or was not read."""
    nominal, measured = column.settings.current_a, column.measured_current_a
    if nominal is None or not isfinite(measured) or current_is_right(measured, nominal):
        return None
    return f"{show(measured, 'current', 3)} is measured where {show(nominal, 'current', 3)} is set; look at its source"


def _gases(planned: Plan, state: State) -> Iterator[str]:
    for name, gas in state.gases.items():
        if gas.valve_open:
            yield f"gas {name}: its valve is open; the run shuts it"
        if name in planned.gas_s and not gas.ready:
            stands = "is heating" if gas.heater_on else "is cold"
            yield f"gas {name}: it {stands}; heating takes about {duration(HEAT_S)}, which the plan has"
