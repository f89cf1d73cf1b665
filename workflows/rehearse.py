"""Before the first beam writes on a real instrument: which way axes, shifts and poses go, against the geometry.

Pictures before and after a small change tell in which direction things move. Nothing is milled but by two quick looks
of the ion beam. Where the stage turns far, it turns with the sample lowered, each part of the move confirmed.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, degrees, hypot, sin

import numpy as np
from numpy.typing import NDArray

from instrument.errors import NotReached, Refused
from instrument.geometry import Pose, PoseName
from instrument.microscope import Microscope
from instrument.settings import (
    Beam,
    BeamLimit,
    BeamSettings,
    Description,
    DetectorSettings,
    Envelope,
    Model,
    PoseLimit,
    Scan,
    StageLimits,
    StagePosition,
    State,
)
from workflows.envelope import POSE_ROOM_RAD, STAGE_ROOM_M
from workflows.layout import Layout
from workflows.moving import LOWERED_M, field_free, move_low
from workflows.tracking import moved

#: The pictures: a small preset with pixels of this size (m); changes move them by so many pixels; the scan is turned
#: by so much (rad); the ion beam looks with about this current (A).
PIXEL_M, SIZE, MOVED_PX, TURN_RAD, ION_A = 100e-9, (768, 512), 40, 0.05, 0.3e-9
#: A movement counts as seen when it is within this share, and so many pixels, of what is expected.
ROOM, ROOM_PX = 0.35, 6.0
#: A part at the picture's right, in which a turn of the scan is seen: columns from here, so many; rows likewise.
_RIGHT = (slice(128, 384), slice(512, 768))


class Sign(Model):
    """One thing that was changed: how the picture should have moved, and did, in pixels right and down."""

    name: str
    expected_px: tuple[float, float]
    seen_px: tuple[float, float]

    @property
    def right(self) -> bool:
        """Whether it moved as expected."""
        off = hypot(self.seen_px[0] - self.expected_px[0], self.seen_px[1] - self.expected_px[1])
        return off <= max(ROOM_PX, ROOM * hypot(*self.expected_px))

    def sentence(self) -> str:
        """Say it to a person."""
        (a, b), (c, d) = self.expected_px, self.seen_px
        said = "as it should" if self.right else "NOT AS IT SHOULD"
        return f"{self.name}: moved by {c:+.0f}, {d:+.0f} pixels (right, down); expected {a:+.0f}, {b:+.0f}: {said}"


class Reached(Model):
    """One pose that was driven to, and where the stage then stood."""

    pose: str
    asked: StagePosition
    reached: StagePosition


def signs(microscope: Microscope) -> tuple[Sign, ...]:
    """Look at which way pictures move with stage and beam shift; everything but an immersion lens is put back.

    To be done where there is something to see, the stage at rest, nothing inserted.
    """
    field_free(microscope)
    step, found = MOVED_PX * PIXEL_M, []
    start = microscope.state()
    beam = start.electron.settings
    x, y, turned = beam.shift_x_m or 0.0, beam.shift_y_m or 0.0, beam.scan_rotation_rad or 0.0
    stage = start.stage
    # a step of the chamber's X or Y in the picture's axes, by the scan's rotation; a beam shift is in the picture's own
    along, across = (cos(turned), -sin(turned)), (-sin(turned), -cos(turned))
    lean = cos(stage.t or 0.0)
    tries: tuple[tuple[str, Callable[[], object], Callable[[], object], tuple[float, float]], ...] = (
        (
            "beam shift to the right", lambda: _beam(microscope, shift_x_m=x + step),
            lambda: _beam(microscope, shift_x_m=x), (-MOVED_PX, 0.0),
        ),
        (
            "beam shift downwards", lambda: _beam(microscope, shift_y_m=y + step),
            lambda: _beam(microscope, shift_y_m=y), (0.0, -MOVED_PX),
        ),
        (
            "stage X", lambda: microscope.move_stage(StagePosition(x=(stage.x or 0.0) + step)),
            lambda: microscope.move_stage(StagePosition(x=stage.x)), (MOVED_PX * along[0], MOVED_PX * along[1]),
        ),
        (
            "stage Y", lambda: microscope.move_stage(StagePosition(y=(stage.y or 0.0) + step)),
            lambda: microscope.move_stage(StagePosition(y=stage.y)),
            (MOVED_PX * lean * across[0], MOVED_PX * lean * across[1]),
        ),
    )  # fmt: skip
    for name, change, back, expected in tries:
        before = look(microscope)
        try:
            change()
            after = look(microscope)
        finally:
            back()
        found.append(Sign(name=name, expected_px=expected, seen_px=_moved(before, after)))
    return tuple(found)


def turn(microscope: Microscope) -> Sign:
    """Look which way the ion beam's picture turns with its scan; to be done in the milling pose, valves shut."""
    ion = microscope.state().ion.settings
    was = ion.scan_rotation_rad or 0.0
    microscope.set_beam(Beam.ION, BeamSettings(current_a=_small(microscope.describe(), ion)))
    try:
        before = look(microscope, Beam.ION)[_RIGHT]
        microscope.set_beam(Beam.ION, BeamSettings(scan_rotation_rad=was + TURN_RAD))
        after = look(microscope, Beam.ION)[_RIGHT]
    finally:
        microscope.set_beam(Beam.ION, BeamSettings(scan_rotation_rad=was, current_a=ion.current_a))
    middle = (_RIGHT[1].start + _RIGHT[1].stop - SIZE[0]) / 2
    down = (_RIGHT[0].start + _RIGHT[0].stop - SIZE[1]) / 2
    expected = (middle * (cos(TURN_RAD) - 1) + down * sin(TURN_RAD), -middle * sin(TURN_RAD))
    return Sign(name="scan rotation of the ion beam", expected_px=expected, seen_px=_moved(before, after))


def ready(microscope: Microscope) -> State:
    """Return the state. Refused where something is inserted or a beam is not blanked: so no pose is rehearsed."""
    state = microscope.state()
    inside = ", ".join(device for device, there in state.devices.items() if there)
    if inside or not (state.electron.blanked and state.ion.blanked):
        what = f"{inside} inserted" if inside else "a beam is not blanked"
        msg = f"poses are rehearsed with all devices out and both beams blanked; now {what}"
        raise Refused(msg, rule="rehearsed-blanked", field="state", value=what, remedy="make safe first")
    return state


def drive(
    microscope: Microscope,
    poses: tuple[Pose, ...],
    confirm: Callable[[str], bool],
    *,
    stands: Callable[[Pose], StagePosition] | None = None,
) -> tuple[tuple[Reached, ...], Sign]:
    """Turn the stage to each pose in turn, beams blanked, Z lowered, a person confirming each; ends where it began.

    `stands` tells where the stage stands in a pose; without it the stage is turned only, its place kept.
    In the milling pose the ion beam looks which way its picture turns; where that is wrong no further pose follows.

    Raises
    ------
    Refused : something is inserted, a beam is not blanked, or a person says no
    NotReached : the stage stands elsewhere than asked
    """
    start = ready(microscope).stage
    field_free(microscope)
    found, seen = list[Reached](), Sign(name="nothing", expected_px=(0.0, 0.0), seen_px=(0.0, 0.0))
    for at in poses:
        to = StagePosition(r=at.r, t=at.t) if stands is None else stands(at)
        question = f"turn to {at.name}: R {degrees(at.r):.2f} deg, T {degrees(at.t):.2f} deg?"
        stood = move_low(microscope, to, question, confirm)
        if stood is None:
            msg = f"{at.name} was not confirmed; the stage stays where it now is"
            raise Refused(msg, rule="pose-confirmed", field="pose", value=str(at.name), remedy="rehearse again")
        found.append(Reached(pose=at.name, asked=to, reached=stood))
        if at.name is PoseName.MILL:
            seen = turn(microscope)
            if not seen.right:
                break
    move_low(microscope, start, "turn back to where it began?", confirm)
    for one in found:
        off = max(
            abs((one.reached.r or 0.0) - (one.asked.r or 0.0)), abs((one.reached.t or 0.0) - (one.asked.t or 0.0))
        )
        if off > 0.01:
            msg = f"in {one.pose} the stage stands {degrees(off):.2f} deg off"
            raise NotReached(msg, pose=one.pose, off_rad=off)
    return tuple(found), seen


def envelope(
    state: State,
    described: Description,
    poses: tuple[Pose, ...],
    stands: Callable[[Pose], StagePosition] | None = None,
    *,
    across_m: float = STAGE_ROOM_M,
) -> Envelope:
    """Return what a rehearsal from a state needs: its poses, looks with the beams as they stand; no pattern, no gas.

    `stands` tells where the stage stands in a pose; without it the stage keeps its place. `across_m` (m) is how far X
    and Y may go beyond these places.
    """
    start = state.stage
    places = [start] if stands is None else [start, *(stands(at) for at in poses)]

    def span(axis: str, room: float, below: float = 0.0) -> tuple[float, float]:
        values = [getattr(at, axis) or 0.0 for at in places]
        return min(values) - below - room, max(values) + room

    limits = [PoseLimit(name="as it stood", r=start.r or 0.0, t=start.t or 0.0, tolerance_rad=POSE_ROOM_RAD)]
    limits += [PoseLimit(name=str(at.name), r=at.r, t=at.t, tolerance_rad=POSE_ROOM_RAD) for at in poses]
    ion = state.ion.settings
    beams: tuple[BeamLimit, ...] = ()
    if ion.voltage_v is not None and ion.current_a is not None:
        currents = (_small(described, ion), ion.current_a)
        beams = (BeamLimit(beam=Beam.ION, voltage_v=ion.voltage_v, currents_a=currents),)
    return Envelope(
        run="rehearse",
        poses=tuple(limits),
        stage_box=StageLimits(
            x=span("x", across_m), y=span("y", across_m), z=span("z", STAGE_ROOM_M, LOWERED_M), t=described.stage.t
        ),
        beams=beams,
        gases=(),
        doses=(),
    )


def poses_of(layout: Layout) -> tuple[Pose, ...]:
    """Return the poses that a night takes, rocking and over-tilt included, in the order in which they are tried."""
    slicing = layout.recipe.slicing
    rocking = slicing.cut.rocking if slicing is not None else 0.0
    names: tuple[PoseName, ...] = (PoseName.MILL, PoseName.FACE_ON, PoseName.DEPOSIT)
    if layout.over_tilt > 0:
        names += (PoseName.CUT,)
    if rocking > 0:
        names += (PoseName.ROCK_PLUS, PoseName.ROCK_MINUS)
    return tuple(layout.pose(name, rocking) for name in names)


def _small(described: Description, ion: BeamSettings) -> float:
    """Return the listed current (A) that the ion beam looks with at its voltage."""
    listed = described.currents(Beam.ION, ion.voltage_v or 0.0, ion.species)
    return min(listed, key=lambda one: abs(one - ION_A))


def _beam(microscope: Microscope, **settings: float) -> None:
    microscope.set_beam(Beam.ELECTRON, BeamSettings(**settings))


def look(microscope: Microscope, beam: Beam = Beam.ELECTRON, pixel_m: float = PIXEL_M) -> NDArray[np.float32]:
    """Take a small picture (y, x) as the beam stands, its pixels `pixel_m` (m)."""
    name = "ETD" if beam is Beam.ELECTRON else "ICE"
    scan = Scan(
        beam=beam, detectors=(DetectorSettings(name=name),), width_px=SIZE[0], height_px=SIZE[1],
        pixel_m=pixel_m, dwell_s=300e-9,
    )  # fmt: skip
    return microscope.acquire(scan).grey(name)


def _moved(before: NDArray[np.float32], after: NDArray[np.float32]) -> tuple[float, float]:
    down, right = moved(before, after)
    return right, down
