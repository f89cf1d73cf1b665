"""Traces both beams through the chamber onto the block, with matrices of its own.

Independent of `instrument.geometry` on purpose: a contract test compares the two in every pose, so that a wrong sign
can't cancel. Axes of the chamber: X along the tilt axis, Y up in the electron picture, Z to the electron column, origin
where both beams cross. Block: x across the face, y down it, z into it. On a flat stub at no tilt and no rotation
the block's x lies along X, its z (into the block) along Y, and its y points down, along -Z.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians, sin
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instrument.settings import Beam

Vector = NDArray[np.float64]

#: The ion column leans by this from the electron column towards +Y (physics.md 1.1), radians.
COLUMN_RAD = radians(52.0)
#: Working distance at which the beams cross (physics.md 1.1), metres.
COINCIDENCE_M = 4e-3
#: The ion column's working distance there, metres.
ION_DISTANCE_M = 16.5e-3

_X, _Y, _Z = np.eye(3)


def turned(axis: Vector, angle: float, vector: Vector) -> Vector:
    """Return a vector turned right-handed about an axis of unit length (Rodrigues' formula)."""
    c, s = cos(angle), sin(angle)
    out: Vector = vector * c + np.cross(axis, vector) * s + axis * (axis @ vector) * (1 - c)
    return out


@dataclass(frozen=True)
class Standing:
    """Where the stage truly stands, errors included, and how the block is mounted on it.

    x, y, z, r, t : raw stage, metres and radians; pretilt : of the stub, radians
    holder : where the block's origin is on it, metres
    axis : where the axis that it rotates about stands (x, y) when raw x and y are 0, metres
    displaced : what drift and errors add in the chamber's axes, metres
    """

    x: float
    y: float
    z: float
    r: float
    t: float
    pretilt: float
    holder: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axis: tuple[float, float] = (0.0, 0.0)
    displaced: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Affine:
    """Two coordinates as an affine function of two others: (p, q) = matrix @ (u, v) + offset."""

    matrix: NDArray[np.floating[Any]]
    offset: NDArray[np.floating[Any]]

    def __call__(self, u: float, v: float) -> tuple[float, float]:
        """Return the image of one point."""
        p, q = self.matrix @ (u, v) + self.offset
        return float(p), float(q)

    def inverse(self) -> Affine:
        """Return the function that undoes this one."""
        back = np.linalg.inv(self.matrix)
        return Affine(back, -back @ self.offset)


class Sight:
    """What one beam meets: the path of every point of its field through the block.

    Parameters
    ----------
    beam : which column
    standing : where the sample truly is
    scan_rotation : radians
    shift : where the beam truly points, beam shift and the aperture's own offset together, metres in the field
    """

    def __init__(
        self, beam: Beam, standing: Standing, *, scan_rotation: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        self.beam = beam
        self._standing = standing
        self._scan_rotation = scan_rotation
        self.shift = shift
        column = _Z if beam is Beam.ELECTRON else cos(COLUMN_RAD) * _Z + sin(COLUMN_RAD) * _Y
        # a picture's right is X; its down is what is left to be square to both
        right, down = _X, -np.cross(column, _X)
        c, s = cos(scan_rotation), sin(scan_rotation)
        self.right, self.down = c * right + s * down, c * down - s * right
        self.up = column
        at = standing
        #: The block's axes in the chamber, one per column.
        self.axes = np.column_stack([_mounted(at, axis) for axis in (_X, -_Z, _Y)])
        axis = np.array((*at.axis, 0.0))
        base = turned(_Z, at.r, np.array(at.holder, float) - axis) + axis + np.array((at.x, at.y, at.z))
        self.origin = _tilted(at.t, base) + np.array(at.displaced, float)
        #: Direction of flight in block axes.
        self.flight: Vector = self.axes.T @ -self.up

    def scanned(self, by: float) -> Sight:
        """Return the same view with its scan turned further (radians), about the same middle."""
        c, s = cos(by), sin(by)
        shift = (c * self.shift[0] + s * self.shift[1], c * self.shift[1] - s * self.shift[0])
        return Sight(self.beam, self._standing, scan_rotation=self._scan_rotation + by, shift=shift)

    def field(self, point: tuple[float, float, float]) -> tuple[float, float]:
        """Return where a block point is seen, metres from the picture's centre."""
        place = self.origin + self.axes @ np.array(point, float)
        return float(place @ self.right) - self.shift[0], float(place @ self.down) - self.shift[1]

    def working_distance(self, point: tuple[float, float, float]) -> float:
        """Return how far a block point lies from the column's pole piece along the beam, metres."""
        return COINCIDENCE_M - float((self.origin + self.axes @ np.array(point, float)) @ self.up)

    def path(self, uv: tuple[float, float]) -> tuple[Vector, Vector]:
        """Return a block point on the beam through a field position, and the direction of flight."""
        place = (uv[0] + self.shift[0]) * self.right + (uv[1] + self.shift[1]) * self.down
        return self.axes.T @ (place - self.origin), self.flight

    def on_plane(self, axis: int, at: float) -> Affine:
        """Return where the beam meets the plane on which the block's `axis` (0 x, 1 y, 2 z) is `at` metres.

        The result gives the other two block coordinates, in the order x, y, z, from field positions. ValueError where
        the beam runs along the plane.
        """
        along = float(self.flight[axis])
        if abs(along) < 1e-6:
            msg = f"the {self.beam} beam runs along the plane and meets none of its points"
            raise ValueError(msg)
        start, _ = self.path((0.0, 0.0))
        others = [i for i in range(3) if i != axis]
        columns = []
        for direction in (self.right, self.down):
            step = self.axes.T @ direction
            columns.append(step - self.flight * step[axis] / along)
        hit = start + self.flight * (at - start[axis]) / along
        return Affine(np.column_stack(columns)[others], hit[others])


def _tilted(tilt: float, vector: Vector) -> Vector:
    """Tilt the stage: what pointed to the electron column leans towards the ion column."""
    return turned(-_X, tilt, vector)


def _mounted(at: Standing, flat: Vector) -> Vector:
    """Carry a direction on a flat stub at rest to the chamber: pre-tilt, then rotation, then tilt."""
    return _tilted(at.t, turned(_Z, at.r, turned(-_X, at.pretilt, flat)))
