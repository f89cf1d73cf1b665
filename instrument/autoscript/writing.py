"""Our jobs in the client's words: patterns with centres and Y upwards, each with its share of the time."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot
from typing import Any

from instrument.autoscript.applications import candidates, names_gas, words
from instrument.autoscript.connection import structure
from instrument.errors import DeviceFault, NotReached, Refused
from instrument.settings import (
    Bitmap,
    CleaningCrossSection,
    Line,
    Pattern,
    PatternJob,
    RegularCrossSection,
    volume,
)

#: A pattern's time may be read back otherwise by this share: points and passes are whole numbers.
TIME_ROOM = 0.02


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
    files = {one.kind: _file(patterning, job, one, listed) for one in _one_of_each_kind(part.patterns)}
    patterning.clear_patterns()  # what was drawn to find them
    for pattern in part.patterns:
        patterning.set_default_application_file(files[pattern.kind])
        made = _create(patterning, pattern)
        seconds = part.seconds * volume(pattern) / whole
        made.time = seconds
        if not abs(float(made.time) - seconds) <= max(TIME_ROOM * seconds, 1e-3):
            msg = f"a {pattern.kind} would take {float(made.time):.4g} s instead of {seconds:.4g} s"
            raise NotReached(msg, wanted_s=seconds, reached_s=float(made.time))
        if job.gases:
            _set_gas(made, job)
        drawn.append(made)
    return drawn


def _one_of_each_kind(patterns: Sequence[Pattern]) -> list[Pattern]:
    return list({one.kind: one for one in patterns}.values())


def _file(patterning: Any, job: PatternJob, pattern: Pattern, listed: Sequence[str]) -> str:
    """Return the first application file that takes a pattern and has the job's gases, by drawing it."""
    errors: list[Exception] = []
    tried = candidates(job, pattern.kind, listed)
    for name in tried:
        try:
            patterning.set_default_application_file(name)
            made = _create(patterning, pattern)
            if job.gases:
                _in_its_order(made, job)
        except Exception as error:  # noqa: BLE001 - a file that doesn't take this: the next may; told below
            errors.append(error)
        else:
            return name
    if all(isinstance(one, Refused) for one in errors):
        raise _wrong_gas("; ".join(str(one.evidence["value"]) for one in errors if isinstance(one, Refused)), job)
    told = "; ".join(f"{name}: {error}" for name, error in zip(tried, errors, strict=True))
    msg = f"no application file takes a {pattern.kind}: {told}"
    raise DeviceFault(msg, tried=tried)


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
    box = {
        "center_x": pattern.x_m, "center_y": -pattern.y_m, "width": pattern.width_m, "height": pattern.height_m,
        "depth": pattern.depth_m,
    }  # fmt: skip
    if isinstance(pattern, RegularCrossSection):  # deepest where its scan ends
        made = patterning.create_regular_cross_section(**box)
        made.scan_direction = "TopToBottom" if pattern.deep == "bottom" else "BottomToTop"
        return made
    if isinstance(pattern, Bitmap):
        return patterning.create_bitmap(**box, bitmap_pattern_definition=definition(pattern))
    return patterning.create_rectangle(**box)


def definition(bitmap: Bitmap) -> Any:
    """Return the client's definition of a bitmap: by pixel its share of the dwell, and 1 where the beam is blanked."""
    import numpy as np

    shares = np.array(bitmap.shares, float)
    made = structure("BitmapPatternDefinition")()
    made.points = np.empty((*shares.shape, 2), dtype=object)
    made.points[..., 0] = shares
    made.points[..., 1] = (shares == 0).astype(int)
    return made


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
    """Set the flow of each gas of the file's own list."""
    order = _in_its_order(made, job)
    made.gas_flow = [100.0 * job.gases[gas] for gas in order]
    reached = [float(one) for one in made.gas_flow]
    if any(abs(one - 100.0 * job.gases[gas]) > 1.0 for one, gas in zip(reached, order, strict=True)):
        msg = f"gas flows of {made.gas_type} read {reached} %, not as asked"
        raise NotReached(msg, reached=reached, wanted=[100.0 * job.gases[gas] for gas in order])


def _in_its_order(made: Any, job: PatternJob) -> list[str]:
    """Return the job's gases as the pattern's file lists them; Refused where it lacks one or has another."""
    kind = str(made.gas_type)
    if len(list(made.gas_flow)) != len(job.gases) or not all(names_gas(kind, gas) for gas in job.gases):
        raise _wrong_gas(f"application file {made.application_file!r} works with {kind!r}", job)
    return sorted(job.gases, key=lambda gas: words(kind).index(words(gas)[0]))


def _wrong_gas(what: str, job: PatternJob) -> Refused:
    gases = ", ".join(job.gases)
    remedy = "write another file as `application:` in the recipe, or make one on the microscope"
    msg = f"{what}; the job works with {gases}; {remedy}"
    return Refused(msg, rule="application-gas", field="application", value=what, limit=gases, remedy=remedy)
