"""Our jobs in the client's words: patterns with centres and Y upwards, each with its share of the time."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot
from typing import Any

from instrument.errors import DeviceFault, NotReached, Refused
from instrument.settings import CleaningCrossSection, Line, Pattern, PatternJob, volume

#: A pattern's time may be read back otherwise by this share: points and passes are whole numbers.
TIME_ROOM = 0.02
#: Application files that are tried first, by what is written; others follow in the order of the microscope's list.
FIRST_CHOICE = {"mill": ("Si", "Si new"), "cleaning-cross-section": ("Si-ccs", "Si new-ccs")}


def candidates(job: PatternJob, pattern: Pattern, listed: Sequence[str]) -> list[str]:
    """Return application files that may do for a pattern, likely ones first; none is assumed to be there."""
    if job.application is not None:
        if job.application not in listed:
            raise _no_file(f"application file {job.application!r}", listed)
        return [job.application]
    if job.purpose == "deposit":
        named = [one for one in listed if all(gas.lower() in one.lower() for gas in job.gases) and "dep" in one.lower()]
        found = sorted(named, key=len)
    else:
        kind = "cleaning-cross-section" if isinstance(pattern, CleaningCrossSection) else "mill"
        likely = FIRST_CHOICE[kind]
        found = [one for one in likely if one in listed]
        if kind == "cleaning-cross-section":
            found += [one for one in listed if one.lower().endswith("ccs") and one not in found]
    if not found:
        what = f"a deposit of {', '.join(job.gases)}" if job.purpose == "deposit" else f"a {pattern.kind}"
        raise _no_file(f"an application file for {what}", listed)
    return found


def draw(patterning: Any, job: PatternJob) -> list[Any]:
    """Draw what of a job is to be written now, each pattern with its time; to be called in the connection's thread.

    Raises
    ------
    Refused : no application file does
    NotReached : a pattern's time, or its gas, was not taken
    """
    patterning.clear_patterns()
    patterning.set_default_beam_type(1 if job.beam == "electron" else 2)
    patterning.mode = "Serial"
    listed = [str(one) for one in patterning.list_all_application_files()]
    part, drawn = job.part(), []
    whole = sum(volume(one) for one in part.patterns)
    for pattern in part.patterns:
        made = _created(patterning, job, pattern, listed)
        seconds = part.seconds * volume(pattern) / whole
        made.time = seconds
        if not abs(float(made.time) - seconds) <= max(TIME_ROOM * seconds, 1e-3):
            msg = f"a {pattern.kind} would take {float(made.time):.4g} s instead of {seconds:.4g} s"
            raise NotReached(msg, wanted_s=seconds, reached_s=float(made.time))
        if job.gases:
            _set_gas(made, job)
        drawn.append(made)
    return drawn


def _created(patterning: Any, job: PatternJob, pattern: Pattern, listed: Sequence[str]) -> Any:
    errors = []
    for name in candidates(job, pattern, listed):
        try:
            patterning.set_default_application_file(name)
            return _create(patterning, pattern)
        except Exception as error:  # noqa: BLE001 - a file that doesn't take this shape: the next may; told below
            errors.append(f"{name}: {error}")
    msg = f"no application file takes a {pattern.kind}: {'; '.join(errors)}"
    raise DeviceFault(msg, tried=errors)


def _create(patterning: Any, pattern: Pattern) -> Any:
    if isinstance(pattern, CleaningCrossSection):
        start, end = pattern.start_y_m, pattern.end_y_m
        made = patterning.create_cleaning_cross_section(
            center_x=pattern.x_m, center_y=-(start + end) / 2, width=pattern.width_m,
            height=max(abs(end - start), 1e-9), depth=pattern.depth_m,
        )  # fmt: skip
        made.scan_direction = "TopToBottom" if end >= start else "BottomToTop"
        return made
    if isinstance(pattern, Line):  # as the outline of its groove: a line has no width, and a turned box no known sign
        return patterning.create_polygon(outline(pattern), depth=pattern.depth_m)
    return patterning.create_rectangle(
        center_x=pattern.x_m, center_y=-pattern.y_m, width=pattern.width_m, height=pattern.height_m,
        depth=pattern.depth_m,
    )  # fmt: skip


def outline(line: Line) -> Any:
    """Return the corners (4, 2) of a line's groove, m, Y upwards: half its width longer at either end."""
    import numpy as np

    x0, y0, x1, y1, half = line.x0_m, -line.y0_m, line.x1_m, -line.y1_m, line.line_width_m / 2
    length = hypot(x1 - x0, y1 - y0)
    along = ((x1 - x0) / length, (y1 - y0) / length) if length > 0 else (1.0, 0.0)
    a, b = along[0] * half, along[1] * half
    return np.array(
        [(x0 - a - b, y0 - b + a), (x1 + a - b, y1 + b + a), (x1 + a + b, y1 + b - a), (x0 - a + b, y0 - b - a)]
    )


def _set_gas(made: Any, job: PatternJob) -> None:
    """Set the flow of each gas of the file's own list; one that the file lacks, or has beside ours, is refused."""
    kind = str(made.gas_type)
    lacking = [gas for gas in job.gases if gas.lower() not in kind.lower()]
    flows = list(made.gas_flow)
    if lacking or len(flows) != len(job.gases):
        msg = f"application file {made.application_file!r} works with {kind!r}, the job with {', '.join(job.gases)}"
        raise Refused(
            msg, rule="application-gas", field="application", value=kind, limit=", ".join(job.gases),
            remedy="name another file in the recipe, or make one on the microscope",
        )  # fmt: skip
    order = sorted(job.gases, key=lambda gas: kind.lower().index(gas.lower()))
    made.gas_flow = [100.0 * job.gases[gas] for gas in order]
    reached = [float(one) for one in made.gas_flow]
    if any(abs(one - 100.0 * job.gases[gas]) > 1.0 for one, gas in zip(reached, order, strict=True)):
        msg = f"gas flows of {kind} read {reached} %, not as asked"
        raise NotReached(msg, reached=reached, wanted=[100.0 * job.gases[gas] for gas in order])


def _no_file(what: str, listed: Sequence[str]) -> Refused:
    shown = ", ".join(listed)
    msg = f"{what} is not on this microscope; it has {shown}; name one of these in the recipe, or make it there"
    return Refused(
        msg, rule="application-file", field="application", value=what, limit=shown, remedy="name another or make it"
    )
