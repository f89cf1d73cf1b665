"""Poses and projections: the one converter between the block, the stage, the beams and their pictures.

Block frame: x across the face, y down it (0 = bare top surface), z into the block (0 = bare front edge); m.
Chamber frame: X along the tilt axis, Y up in the electron picture, Z towards the electron column; the coincidence
point is its origin. Field frame of a beam: u along X, v *down* its picture. Angles in radians, none of them small.
"""

from __future__ import annotations

from enum import StrEnum
from math import acos, asin, atan, atan2, cos, hypot, pi, radians, sin, sqrt, tan

import numpy as np
from numpy.typing import NDArray

from instrument.errors import Refused
from instrument.settings import Beam, Model, StagePosition

Vector = NDArray[np.float64]

#: Angle between the electron and the ion column of a Helios Hydra (physics.md 1.1).
COLUMN_ANGLE = radians(52.0)
#: Below this pre-tilt the stage cannot turn the ion beam about the face normal by a useful angle.
LEAST_PRETILT_TO_ROCK = radians(10.0)


class PoseName(StrEnum):
    """What the stage is turned for."""

    MILL = "mill"
    FACE_ON = "face-on"
    DEPOSIT = "deposit"
    CUT = "cut"
    ROCK_PLUS = "rock-plus"
    ROCK_MINUS = "rock-minus"


class Pose(Model):
    """Stage rotation and tilt, and the scan rotation that turns the ion field's x into the face; radians."""

    name: PoseName
    r: float
    t: float
    ion_scan_rotation: float = 0.0
    electron_scan_rotation: float = 0.0


class Site(Model):
    """Where the block is on the holder: stage position that brings its origin to coincidence at R = T = 0.

    `sx, sy, sz` are holder coordinates (m) of the block's origin; `pretilt` is the stub's (rad), `turned` the stage's
    rotation at which the block's edge lies along X (rad), `column` the angle between the columns (rad). `ax, ay` is
    where the stage's rotation axis stands (m, chamber's X and Y at T = 0) when its raw X and Y read 0.
    """

    sx: float
    sy: float
    sz: float
    pretilt: float
    turned: float = 0.0
    column: float = COLUMN_ANGLE
    ax: float = 0.0
    ay: float = 0.0

    def about(self, ax: float, ay: float) -> Site:
        """Return the same place at R = `turned`, the stage turning about another axis (m)."""
        there, axis = turned_about_axis(self, self.turned, holder_point(self, np.zeros(3))), np.array([ax, ay, 0.0])
        sx, sy, sz = map(float, axis + rot_z(-self.turned) @ (there - axis))
        return self.replace(sx=sx, sy=sy, sz=sz, ax=ax, ay=ay)


def rot_x(angle: float) -> Vector:
    """Right-handed rotation about X, shape (3, 3)."""
    c, s = cos(angle), sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def rot_z(angle: float) -> Vector:
    """Right-handed rotation about Z, shape (3, 3)."""
    c, s = cos(angle), sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


#: Block axes (x, y, z) -> flat stage axes: x -> X, y -> -Z, z -> Y.
BLOCK_TO_FLAT: Vector = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])


def towards_column(beam: Beam, column: float = COLUMN_ANGLE) -> Vector:
    """Return the unit vector from the sample to the column, chamber frame."""
    return np.array([0.0, 0.0, 1.0]) if beam is Beam.ELECTRON else np.array([0.0, sin(column), cos(column)])


def pose(
    name: PoseName | str, pretilt: float, *, rocking: float = 0.0, over_tilt: float = 0.0, column: float = COLUMN_ANGLE
) -> Pose:
    """Return the stage angles of a pose for a stub of this pre-tilt (rad).

    mill: ion beam along the surface normal, T = column - pretilt. face-on: electron beam square on the face,
    T = 90 deg - pretilt. deposit: ion beam square on the face, R = 180 deg, T = pretilt + column - 90 deg. cut, and the
    two rocking poses: as mill and `rocking_pose`, with `over_tilt` (rad) that drives the beam into the face's foot,
    which a beam along the face would leave standing (taper, physics.md 2.2). `rocking` (rad) for the two rocking poses.
    """
    name = PoseName(name)
    if name is PoseName.CUT:
        return Pose(name=name, r=0.0, t=column - pretilt + over_tilt)
    if name is PoseName.MILL:
        return Pose(name=name, r=0.0, t=column - pretilt)
    if name is PoseName.FACE_ON:
        return Pose(name=name, r=0.0, t=pi / 2 - pretilt)
    if name is PoseName.DEPOSIT:
        return Pose(name=name, r=pi, t=pretilt + column - pi / 2, electron_scan_rotation=pi, ion_scan_rotation=pi)
    at = rocking_pose(pretilt, rocking if name is PoseName.ROCK_PLUS else -rocking, column=column)
    return _over_tilted(at, over_tilt, pretilt, column)


def _over_tilted(at: Pose, angle: float, pretilt: float, column: float) -> Pose:
    """Return a rocking pose in which the ion beam leans by `angle` (rad) out of the face, into the block."""
    if angle == 0:
        return at
    site = Site(sx=0.0, sy=0.0, sz=0.0, pretilt=pretilt, column=column)
    sideways = float((block_to_chamber(site, at) @ np.array([0.0, 0.0, 1.0]))[0])
    # the normal turns about X with the tilt; what of it lies along X does not
    leaning = at.replace(t=at.t + asin(sin(angle) / sqrt(1 - sideways**2)))
    return leaning.replace(ion_scan_rotation=_rotation_that_levels_the_face(leaning, pretilt, column))


def rocking_pose(pretilt: float, angle: float, *, column: float = COLUMN_ANGLE) -> Pose:
    """Return the pose that turns the ion beam by `angle` (rad) about the face normal and leaves it in the face.

    Both signs share one tilt, so T does not move between the two sides (it repeats to 0.01-0.02 deg only, which would
    be 40-80 nm at the foot of 230 um). Derivation: the face normal stays square to the ion beam when
    tan(column - T) = tan(pretilt) / cos R, and then sin(angle) = sin R sin(column - T).

    Raises
    ------
    Refused
        On a stub flatter than 10 deg: there R turns about the beam and rocks nothing.
    """
    if pretilt < LEAST_PRETILT_TO_ROCK:
        msg = (
            f"rocking is not possible on a stub of {np.degrees(pretilt):.1f} deg pre-tilt: "
            "stage rotation would turn about the ion beam; use a pre-tilted stub (45 deg) or set rocking to 0 deg"
        )
        raise Refused(
            msg,
            rule="rocking-needs-pretilt",
            field="cut.rocking",
            value=float(np.degrees(angle)),
            limit=10.0,
            remedy="use a pre-tilted stub or rocking: 0 deg",
        )
    t = tan(pretilt)
    c = t * cos(angle) / sqrt(sin(angle) ** 2 + t**2)
    r = acos(min(1.0, c)) * (1.0 if angle >= 0 else -1.0)
    tilt = column - atan2(t, cos(r))
    name = PoseName.ROCK_PLUS if angle >= 0 else PoseName.ROCK_MINUS
    flat = Pose(name=name, r=r, t=tilt)
    return flat.replace(ion_scan_rotation=_rotation_that_levels_the_face(flat, pretilt, column))


def _rotation_that_levels_the_face(at: Pose, pretilt: float, column: float) -> float:
    """Scan rotation (rad) with which the ion field's u lies in the plane of the face."""
    site = Site(sx=0.0, sy=0.0, sz=0.0, pretilt=pretilt, column=column)
    u, v = field_axes(Beam.ION, 0.0, column)
    normal = block_to_chamber(site, at) @ np.array([0.0, 0.0, -1.0])
    # u cos a + v sin a must be square to the face normal
    return atan(-float(normal @ u) / float(normal @ v))


def block_to_chamber(site: Site, at: Pose | StagePosition) -> Vector:
    """Rotation (3, 3) that takes block axes to chamber axes at a pose."""
    r, t = (at.r or 0.0), (at.t or 0.0)
    return rot_x(-t) @ rot_z(r) @ block_to_holder(site)


def block_to_holder(site: Site) -> Vector:
    """Rotation (3, 3) that takes block axes to the holder's, which turn with the stage."""
    return rot_z(-site.turned) @ rot_x(-site.pretilt) @ BLOCK_TO_FLAT


def holder_point(site: Site, block: Vector) -> Vector:
    """Holder coordinates (3,) of a block point."""
    return np.array([site.sx, site.sy, site.sz]) + block_to_holder(site) @ block


def turned_about_axis(site: Site, r: float, holder: Vector) -> Vector:
    """Where a holder point (3,) stands over an untilted stage at raw 0 once it is turned by `r` (rad)."""
    axis = np.array([site.ax, site.ay, 0.0])
    turned: Vector = axis + rot_z(r) @ (holder - axis)
    return turned


def stage_for(site: Site, at: Pose, point: tuple[float, float, float]) -> StagePosition:
    """Stage position that brings a block point (m) to the coincidence point in a pose."""
    x, y, z = -turned_about_axis(site, at.r, holder_point(site, np.array(point)))
    return StagePosition(x=float(x), y=float(y), z=float(z), r=at.r, t=at.t)


def field_axes(beam: Beam, scan_rotation: float, column: float = COLUMN_ANGLE) -> tuple[Vector, Vector]:
    """Return the unit vectors (chamber frame) of a field's u (right) and v (down), turned by `scan_rotation` (rad)."""
    u = np.array([1.0, 0.0, 0.0])
    v = np.array([0.0, -1.0, 0.0]) if beam is Beam.ELECTRON else np.array([0.0, -cos(column), sin(column)])
    c, s = cos(scan_rotation), sin(scan_rotation)
    return c * u + s * v, -s * u + c * v


class View:
    """How one beam sees the block from one stage position: projections between block and field, exact.

    Parameters
    ----------
    site, beam : whose picture of which block
    stage : where the stage stands (x, y, z, r, t all given)
    scan_rotation : rad
    shift : beam shift (m) in the field frame; a point at field (u, v) = shift is seen at the centre
    """

    def __init__(
        self,
        site: Site,
        beam: Beam,
        stage: StagePosition,
        *,
        scan_rotation: float = 0.0,
        shift: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.beam = beam
        self.rotation = block_to_chamber(site, stage)
        offset = np.array([stage.x or 0.0, stage.y or 0.0, stage.z or 0.0])
        base = np.array([site.sx, site.sy, site.sz])
        self.origin = rot_x(-(stage.t or 0.0)) @ (turned_about_axis(site, stage.r or 0.0, base) + offset)
        self.u, self.v = field_axes(beam, scan_rotation, site.column)
        self.up = towards_column(beam, site.column)
        self.shift = shift

    def field(self, point: tuple[float, float, float]) -> tuple[float, float]:
        """Field position (u, v) (m) of a block point."""
        chamber = self.origin + self.rotation @ np.array(point)
        return float(chamber @ self.u) - self.shift[0], float(chamber @ self.v) - self.shift[1]

    def ray(self, uv: tuple[float, float]) -> tuple[Vector, Vector]:
        """Block frame: a point of the beam's path through field position (u, v), and its unit direction of flight."""
        chamber = (uv[0] + self.shift[0]) * self.u + (uv[1] + self.shift[1]) * self.v
        back = self.rotation.T
        return back @ (chamber - self.origin), back @ (-self.up)

    def on_plane_z(self, uv: tuple[float, float], z: float) -> tuple[float, float]:
        """Block (x, y) (m) where the beam through (u, v) meets the plane at depth z; Refused where it runs along it."""
        start, along = self.ray(uv)
        if abs(along[2]) < 1e-9:
            msg = f"the {self.beam} beam runs along the face in this pose and meets no point of it"
            raise Refused(
                msg, rule="beam-along-face", field="pose", value=None, limit=None, remedy="turn the stage first"
            )
        hit = start + along * (z - start[2]) / along[2]
        return float(hit[0]), float(hit[1])

    def incidence(self) -> float:
        """Angle (rad) between the beam and the face normal: 0 when it looks squarely at the face."""
        facing = float(self.up @ (self.rotation @ np.array([0.0, 0.0, -1.0])))
        return acos(max(-1.0, min(1.0, facing)))

    def face_tilt(self) -> float:
        """Tilt correction (rad): how far the face leans about X away from facing the beam, 0 when square."""
        return self.incidence()

    def slice_shift(self, thickness: float) -> tuple[tuple[float, float], float]:
        """Return how removing `thickness` (m) moves the face: field shift (du, dv), change of working distance (m)."""
        step = self.rotation @ np.array([0.0, 0.0, thickness])
        return (float(step @ self.u), float(step @ self.v)), -float(step @ self.up)


def rocking_angle(site: Site, at: Pose) -> float:
    """Angle (rad) of the ion beam about the face normal, in the face, positive towards +x."""
    beam = block_to_chamber(site, at).T @ towards_column(Beam.ION, site.column)
    return asin(float(beam[0]) / hypot(float(beam[0]), float(beam[1])))
