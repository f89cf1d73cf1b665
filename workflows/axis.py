"""Where the stage's rotation axis stands, from pictures of the sample turned about it.

It is not where raw X = Y = 0 stands under the beams, and a site that was taught at one rotation doesn't show by how
much: half a turn shows twice that. Untilted, the electron beam looks along the axis, so that a turn of the stage
turns its picture and shifts it by what is not yet known of the axis, wherever the sample's place is in it.
"""

from __future__ import annotations

from cmath import exp
from collections.abc import Callable
from math import degrees, hypot, radians

import numpy as np
from numpy.typing import NDArray

from instrument.errors import NotReached, Refused
from instrument.geometry import Pose, PoseName, Site, stage_for
from instrument.microscope import Microscope
from instrument.settings import Beam, BeamSettings, Description, Envelope, StagePosition, State
from workflows import rehearse
from workflows.envelope import STAGE_ROOM_M
from workflows.moving import field_free, move_low
from workflows.rehearse import SIZE, look, ready
from workflows.tracking import alike_when_moved, moved

#: The stage is turned by so much (rad) from how the site was taught, each turn foreseen by the ones before; the last
#: one checks only.
TURNS_RAD, CHECK_RAD = (radians(5), radians(30), radians(180)), radians(-90)
#: Pixels of the pictures (m), and the side of their middle that stays in them however they are turned, pixels.
PIXEL_M, MIDDLE_PX = 300e-9, int(min(SIZE) / 2**0.5)
#: The axis lies no farther off than this; by this a place may at last be elsewhere than foreseen (m).
MOST_M, LEFT_M = 0.5e-3, 5e-6
#: Two pictures that are less alike (-1..1) than this don't show the same.
LEAST_ALIKE = 0.5

Grey = NDArray[np.float32]


def measure(
    microscope: Microscope,
    site: Site,
    place: tuple[float, float, float],
    confirm: Callable[[str], bool],
    told: Callable[[str], None],
    *,
    known: bool = False,
) -> tuple[Site, float]:
    """Return a site with the axis that its stage turns about, and how far the last turn's place was from foreseen (m).

    Untilted, the stage is turned about the axis as it is known so far, low where it turns far, and looked at; it ends
    where it began, and where something is wrong it stays where that was seen. Where the axis is `known` already the
    turns that measure it are left out, and it is only checked.

    Parameters
    ----------
    place : block point (m) that is looked at
    confirm : asked before each part of a move
    told : given what each turn showed

    Raises
    ------
    Refused : something is inserted, a beam is not blanked, or a person says no
    NotReached : pictures don't show the same place, or it is not where it was foreseen at last
    """
    start = ready(microscope).stage
    field_free(microscope)
    beam = microscope.state().electron.settings
    microscope.set_beam(Beam.ELECTRON, BeamSettings(shift_x_m=0.0, shift_y_m=0.0))
    try:

        def seen(turn: float) -> Grey:
            _move(microscope, stage_for(site, _pose(site, turn), place), turn, confirm)
            return look(microscope, pixel_m=PIXEL_M)

        straight = seen(0.0)
        for turn in () if known else TURNS_RAD:
            x, y = _axis_off(_shift(straight, seen(turn), turn, beam.scan_rotation_rad or 0.0), turn)
            site = site.about(site.ax + x, site.ay + y)
            told(f"turned by {degrees(turn):.0f} deg: {sentence(site)}")
            if hypot(site.ax, site.ay) > MOST_M:
                msg = (
                    f"{sentence(site)}, and {MOST_M * 1e6:.0f} um are allowed: have the stage homed or its axis "
                    "looked after, and teach the site again"
                )
                raise NotReached(msg, ax_m=site.ax, ay_m=site.ay)
        left = abs(_shift(straight, seen(CHECK_RAD), CHECK_RAD, beam.scan_rotation_rad or 0.0))
    finally:
        microscope.set_beam(Beam.ELECTRON, BeamSettings(shift_x_m=beam.shift_x_m, shift_y_m=beam.shift_y_m))
    if move_low(microscope, start, "turn back to where it began?", confirm) is None:
        raise _not_confirmed("turning back")
    told(f"turned by {degrees(CHECK_RAD):.0f} deg: the place is {left * 1e6:.1f} um from where it was foreseen")
    if left > LEFT_M:
        msg = (
            f"the place stands {left * 1e6:.1f} um from where {sentence(site)} makes it stand, and "
            f"{LEFT_M * 1e6:.0f} um are allowed: teach the site again, then rehearse again"
        )
        raise NotReached(msg, left_m=left, ax_m=site.ax, ay_m=site.ay)
    return site, left


def sentence(site: Site) -> str:
    """Say it to a person."""
    return f"the stage's axis at X {site.ax * 1e6:+.1f} um, Y {site.ay * 1e6:+.1f} um"


def envelope(state: State, described: Description, site: Site, place: tuple[float, float, float]) -> Envelope:
    """Return what measuring needs: its turns, with room for an axis that is not known; no pattern, no gas."""
    poses = tuple(_pose(site, turn) for turn in (0.0, *TURNS_RAD, CHECK_RAD))
    return rehearse.envelope(
        state, described, poses, lambda at: stage_for(site, at, place), across_m=2 * MOST_M + STAGE_ROOM_M
    )


# -- private ----------------------------------------------------------------------------------------------------------


def _pose(site: Site, turn: float) -> Pose:
    """Return how the stage stands untilted, turned (rad) from how the site was taught."""
    return Pose(name=PoseName.MILL, r=site.turned + turn, t=0.0)


def _move(microscope: Microscope, to: StagePosition, turn: float, confirm: Callable[[str], bool]) -> None:
    question = f"turn to T 0 and R {degrees(to.r or 0.0):.1f} deg, {degrees(turn):.0f} deg from how it was taught?"
    if move_low(microscope, to, question, confirm) is None:
        raise _not_confirmed(question)


def _not_confirmed(question: str) -> Refused:
    msg = "the move was not confirmed; the stage stays where it now is"
    return Refused(msg, rule="move-confirmed", field="stage", value=question, remedy="rehearse again")


def _shift(straight: Grey, turned: Grey, turn: float, scan_rotation: float) -> complex:
    """Return by how much (m, chamber's X + iY) a turned picture is shifted once it is turned back about its middle.

    Raises
    ------
    NotReached : the two don't show the same
    """
    from scipy import ndimage

    # a positive turn is anticlockwise, in the picture as in the chamber
    back = ndimage.rotate(turned, -degrees(turn), reshape=False, order=1, mode="nearest")
    one, other = _middle(straight), _middle(back)
    down, right = moved(one, other)
    alike = alike_when_moved(one, other, (down, right))
    if alike < LEAST_ALIKE:
        msg = (
            f"turned by {degrees(turn):.0f} deg the picture doesn't show the same place (alike {alike:.2f}, at least "
            f"{LEAST_ALIKE:g}): focus the electron beam on the site, set its contrast, and rehearse again"
        )
        raise NotReached(msg, turn_rad=turn, alike=alike)
    return complex(right, -down) * PIXEL_M * exp(-1j * scan_rotation)


def _axis_off(shift: complex, turn: float) -> tuple[float, float]:
    """Return what an axis is off (m, X and Y) that makes a turn (rad), turned back, shift the picture by that."""
    off = shift / (exp(-1j * turn) - 1)
    return off.real, off.imag


def _middle(picture: Grey) -> Grey:
    rows, columns = (slice((size - MIDDLE_PX) // 2, (size + MIDDLE_PX) // 2) for size in picture.shape)
    return picture[rows, columns]
