"""What a run says it is going to do at most: the envelope that the guard in the server holds it to."""

from __future__ import annotations

from collections import defaultdict
from math import radians

from instrument.geometry import PoseName
from instrument.guard_rules import areal_dose
from instrument.settings import Beam, BeamLimit, Description, DoseLimit, Envelope, PoseLimit, StageLimits
from workflows.alignment import CAP_DWELL_S, CAP_PIXEL_M, ELECTRON_DWELL_S, FACE_LOOK, SETTLE_PX
from workflows.layout import BEFORE_EDGE_M, Layout
from workflows.limits import fills, idle_current
from workflows.plan import Plan
from workflows.recipe import ElementMap, Recipe
from workflows.steps.infiltrate import FILM_UNCERTAINTY
from workflows.steps.site import OVERVIEW_ELECTRON_A, OVERVIEW_ELECTRON_V, site_voltage, usual_points

#: How far the stage may be from where the layout has it: the site's error and alignment (m, rad).
STAGE_ROOM_M, POSE_ROOM_RAD = 100e-6, radians(0.5)
#: Areas may get this times what is planned: measured dose factors, repeated rounds.
DOSE_ROOM = 2.0
#: No electron picture or map gives more than this times the dose of those that are planned.
ELECTRON_ROOM = 1.5
#: Longest piece of a pattern (DESIGN 2), s.
MAX_PATTERN_S = 120.0
_CURRENT_ROOM = 1.05


def envelope(run: str, recipe: Recipe, layout: Layout, plan: Plan, description: Description) -> Envelope:
    """Return the envelope of a recipe on an instrument, from its plan."""
    poses = [
        PoseLimit(name=str(name), r=at.r, t=at.t, tolerance_rad=POSE_ROOM_RAD)
        for name in PoseName
        for at in [layout.pose(name, recipe.slicing.cut.rocking if recipe.slicing is not None else 0.0)]
    ]
    stands = [layout.stage(layout.pose(name)) for name in (PoseName.MILL, PoseName.FACE_ON, PoseName.DEPOSIT)]
    return Envelope(
        run=run,
        poses=tuple(poses),
        stage_box=StageLimits(
            x=_span([at.x or 0.0 for at in stands]),
            y=_span([at.y or 0.0 for at in stands]),
            z=_span([at.z or 0.0 for at in stands]),
            t=description.stage.t,
        ),
        beams=_beams(recipe, plan, description),
        gases=tuple(sorted(_gases(recipe))),
        doses=_doses(recipe, layout, plan),
        max_pattern_s=MAX_PATTERN_S,
        electron_dose_c_per_m2=ELECTRON_ROOM * _electron_dose(recipe, layout),
    )


def _span(values: list[float]) -> tuple[float, float]:
    return min(values) - STAGE_ROOM_M, max(values) + STAGE_ROOM_M


def _gases(recipe: Recipe) -> set[str]:
    found = {gas for _, fill in fills(recipe) for gas in fill.gas}
    return found | (set(recipe.protect.gas) if recipe.protect is not None else set())


def _beams(recipe: Recipe, plan: Plan, description: Description) -> tuple[BeamLimit, ...]:
    used: dict[tuple[Beam, float], set[float]] = defaultdict(set)
    block, slicing, protect = recipe.block, recipe.slicing, recipe.protect
    volts = site_voltage(recipe)
    for voltage, current in usual_points(recipe, description):
        used[Beam.ION, voltage].add(current)
    if block is not None:
        used[Beam.ION, volts] |= {*block.trench.currents, block.polish.current, block.fiducial.current}
    if protect is not None:
        listed = set(description.currents(Beam.ION, protect.ion.voltage))
        used[Beam.ION, protect.ion.voltage] |= listed
    for name, fill in fills(recipe):
        used[fill.beam, fill.voltage].add(fill.current or plan.currents_a.get(name, 0.0))
        if slicing is not None and fill.clean.coarse is not None:
            used[Beam.ION, slicing.cut.voltage].add(fill.clean.coarse)
    if slicing is not None:
        used[Beam.ION, slicing.cut.voltage].add(slicing.cut.current)
        used[Beam.ELECTRON, slicing.image.voltage].add(slicing.image.current)
        for wanted in _maps(recipe):
            used[Beam.ELECTRON, wanted.voltage].add(wanted.current or slicing.image.current)
    else:
        used[Beam.ELECTRON, OVERVIEW_ELECTRON_V].add(OVERVIEW_ELECTRON_A)
    for (beam, voltage), currents in used.items():
        idle = idle_current(description, voltage) if beam is Beam.ION else None
        currents |= set() if idle is None else {idle}
    return tuple(
        BeamLimit(beam=beam, voltage_v=voltage, currents_a=tuple(sorted(currents)))
        for (beam, voltage), currents in used.items()
    )


def _maps(recipe: Recipe) -> list[ElementMap]:
    """Return the recipe's element maps, between slices and as steps of their own."""
    slicing = recipe.slicing
    between = [] if slicing is None or slicing.eds is None else [slicing.eds]
    return [*between, *(step.eds for step in recipe.steps if step.eds is not None)]


def _electron_dose(recipe: Recipe, layout: Layout) -> float:
    """Return the highest dose (C/m2) of one electron picture or map: the recipe's own, or a quick look's beside it."""
    image = None if recipe.slicing is None else recipe.slicing.image
    usual = OVERVIEW_ELECTRON_A if image is None else image.current
    maps = [(one.current or usual, one.dwell * one.frames, one.pixel) for one in _maps(recipe)]
    most = max(usual, *(current for current, _, _ in maps)) if maps else usual
    x0, y0, x1, y1 = layout.image
    finest = FACE_LOOK * min(x1 - x0, y1 - y0) / SETTLE_PX[0]
    scans = [*maps, (most, CAP_DWELL_S, CAP_PIXEL_M), (most, ELECTRON_DWELL_S, finest)]
    if image is not None:
        scans.append((image.current, image.dwell, image.pixel))
    return max(areal_dose(*scan) for scan in scans)


def _doses(recipe: Recipe, layout: Layout, plan: Plan) -> tuple[DoseLimit, ...]:
    """Return each area's charge and the field box that its patterns lie in: the whole work area, seen from any pose."""
    block = recipe.block
    trench = block.trench if block is not None else None
    half = layout.face[0] / 2 + (trench.width if trench is not None else 0.0)
    half = max(half, layout.cap[2], *(abs(mark.centre[0]) + mark.size for mark in layout.marks), 0.0)
    deep = max(layout.cap[3], trench.length if trench is not None else 0.0, layout.face[1])
    deep = max(deep, *(mark.centre[2] + mark.size for mark in layout.marks), 0.0)
    reach = max(half, deep + BEFORE_EDGE_M) + STAGE_ROOM_M / 4
    box = (-reach, -reach, reach, reach)
    room = DOSE_ROOM * FILM_UNCERTAINTY
    planned = dict(plan.charge_c)
    planned.setdefault("ruler", planned.get("mark", 1e-6) + planned.get("cap", 0.0))
    return tuple(DoseLimit(area=area, charge_c=charge * room, box=box) for area, charge in planned.items())
