"""The client's axes and signs against ours; the only place that knows them.

Stage: its Raw X and Y grow the other way than the chamber's, so that a larger X brings into the middle what is right of
it; Z, R and T are the same, R read back between -180 and 180 deg. Beam shift: in X the picture moves along with it, in
Y upwards. Patterns: Y upwards. Scan rotation: taken to be clockwise on the screen, as ours is; `kintsugi rehearse`
looks at all of them before a beam writes.
"""

from __future__ import annotations

from math import pi
from typing import Any

from instrument.autoscript.connection import structure
from instrument.settings import StagePosition


def stage_from_client(position: Any, near: float) -> StagePosition:
    """Return a Raw position of the client's as ours; R is the equal angle nearest to `near` (rad)."""
    turn = float(position.r) - near
    turn -= 2 * pi * round(turn / (2 * pi))
    turn = 0.0 if abs(turn) < 1e-9 else turn  # the way there and back leaves the last digits
    return StagePosition(
        x=-float(position.x) + 0.0, y=-float(position.y) + 0.0, z=float(position.z), r=near + turn, t=float(position.t)
    )


def stage_to_client(to: StagePosition) -> Any:
    """Return a position as a Raw target of the client's; axes that stay are None."""
    r = None if to.r is None else (to.r + pi) % (2 * pi) - pi
    if r is not None and to.r is not None and to.r > 0 and abs(r + pi) < 1e-9:
        r = pi
    return structure("StagePosition")(
        x=None if to.x is None else -to.x, y=None if to.y is None else -to.y, z=to.z, r=r, t=to.t,
        coordinate_system="Raw",
    )  # fmt: skip


def shift_from_client(point: Any) -> tuple[float, float]:
    """Return a beam shift of the client's as ours, (x, y) in the field, m."""
    return -float(point.x) + 0.0, float(point.y) + 0.0


def shift_to_client(x: float, y: float) -> Any:
    """Return a beam shift (field, m) as the client's."""
    return structure("Point")(-x + 0.0, y + 0.0)
