"""Teaching a site: where a person clicks in two overviews becomes the place of the block on the stage.

In the milling pose the ion beam looks straight down on the top surface, so its picture shows how the edge lies; the
same point seen by both beams is a point in space. The stage is turned until the edge lies along X and moved until the
place is where both beams cross, and looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import atan2, cos, degrees, hypot, pi, sin
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from instrument.errors import NotReached, Refused
from instrument.frame import Frame
from instrument.geometry import (
    PoseName,
    Site,
    Vector,
    View,
    field_axes,
    pose,
    rot_x,
    rot_z,
    stage_for,
)
from instrument.microscope import Microscope
from instrument.settings import (
    Beam,
    BeamLimit,
    BeamSettings,
    Description,
    Envelope,
    Model,
    PoseLimit,
    StageLimits,
    StagePosition,
)
from workflows import tracking
from workflows.alignment import look_scan
from workflows.envelope import POSE_ROOM_RAD
from workflows.limits import nearest
from workflows.moving import LOWERED_M, field_free, move_low
from workflows.steps.site import OVERVIEW_ELECTRON_A, OVERVIEW_ELECTRON_V, OVERVIEW_ION_A, OVERVIEW_ION_V

#: What may be left of the edge's turn (rad) and between the beams (m) for a site to be kept (night.md 3).
EDGE_OFF_RAD, APART_M = 0.5 * pi / 180, 5e-6
#: Teaching moves the stage about its axis, by so much farther out (m), and up from where it began by so much (m).
AROUND_M, UP_M = 2e-3, 1e-3
#: Pictures are taken and clicked in at most so often; their pixels.
ROUNDS, SIZE_PX = 4, (1536, 1024)
Pixel = tuple[float, float]


class Clicks(Model):
    """Where somebody clicked, pixels (right, down) from the first.

    In the ion picture two points of the sample's front edge, the middle of the work on that edge, and the marks of an
    existing block; in the electron picture the same middle.
    """

    edge: tuple[Pixel, Pixel]
    middle: Pixel
    electron: Pixel
    marks: tuple[Pixel, ...] = ()

    @classmethod
    def parse(cls, text: str, marks: int = 0) -> Self:
        """Read the line that the page shows: `edge 120,300 900,310 middle 500,305 electron 498,260 marks 700,100`.

        `marks` is how many of an existing block are to be clicked.

        ValueError says what is missing.
        """
        found: dict[str, list[Pixel]] = {}
        name = ""
        for word in text.split():
            if re.fullmatch(r"[a-z]+", word):
                name = word
                found[name] = []
            elif (point := re.fullmatch(r"(-?[\d.]+),(-?[\d.]+)", word)) and name:
                found[name].append((float(point[1]), float(point[2])))
            else:
                msg = f"{word!r} is no click; copy the whole line that the page shows"
                raise ValueError(msg)
        wanted = {"edge": 2, "middle": 1, "electron": 1, "marks": marks}
        for key, count in wanted.items():
            if len(found.get(key, [])) != count:
                msg = f"{key} has {len(found.get(key, []))} clicks and needs {count}; copy the whole line of the page"
                raise ValueError(msg)
        if unknown := set(found) - set(wanted):
            msg = f"{', '.join(sorted(unknown))}: not a line of the page"
            raise ValueError(msg)
        first, second = found["edge"]
        if first == second:
            msg = "both clicks on the edge are in one place; click far apart"
            raise ValueError(msg)
        return cls(
            edge=(first, second), middle=found["middle"][0], electron=found["electron"][0],
            marks=tuple(found.get("marks", [])),
        )  # fmt: skip


@dataclass(frozen=True)
class Pictures:
    """Overviews by both beams of the same place, and where the stage stood."""

    ion: Frame
    electron: Frame
    stage: StagePosition


@dataclass(frozen=True)
class Located:
    """Where the block is, as clicked.

    Its site, how far the edge is from lying along X (rad), how far the place is from where the beams cross (m), and the
    marks' (x, z) in the block frame (m).
    """

    site: Site
    edge_off_rad: float
    apart_m: float
    marks: tuple[tuple[float, float], ...]

    @property
    def good(self) -> bool:
        """Whether the site can be kept."""
        return abs(self.edge_off_rad) <= EDGE_OFF_RAD and self.apart_m <= APART_M

    def sentence(self) -> str:
        """Say it to a person."""
        return (
            f"the edge lies {degrees(self.edge_off_rad):+.2f} deg off X (0.5 allowed), the beams meet "
            f"{self.apart_m * 1e6:.1f} um off the place (5 allowed)"
        )


def located(pictures: Pictures, clicks: Clicks, pretilt: float, column: float) -> Located:
    """Return where the block is, from clicks in pictures that were taken in the milling pose, scans not turned."""
    stage = pictures.stage
    r, t = stage.r or 0.0, stage.t or 0.0
    back = rot_z(-r) @ rot_x(t)  # from chamber to holder
    turned = _turned(back, r, column, *(_field(pictures.ion, at) for at in clicks.edge))
    at_ion, at_electron = _field(pictures.ion, clicks.middle), _field(pictures.electron, clicks.electron)
    # the electron beam tells X and Y, the ion beam, which comes from the column's angle, the height
    down = at_electron[1]
    point = np.array([(at_ion[0] + at_electron[0]) / 2, -down, (at_ion[1] - down * cos(column)) / sin(column)])
    apart = hypot(float(np.linalg.norm(point)), at_ion[0] - at_electron[0])
    holder = back @ point - rot_z(-r) @ np.array([stage.x or 0.0, stage.y or 0.0, stage.z or 0.0])
    sx, sy, sz = map(float, holder)
    site = Site(sx=sx, sy=sy, sz=sz, pretilt=pretilt, turned=turned, column=column)
    seen = View(site, Beam.ION, stage)
    marks = tuple(_on_top(seen, _field(pictures.ion, mark)) for mark in clicks.marks)
    return Located(site, (turned - r + pi) % (2 * pi) - pi, apart, marks)


def _turned(back: Vector, r: float, column: float, one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return the stage's rotation (rad) at which an edge lies along X, from two of its points in the ion field (m).

    The edge is level on the holder, so that the one direction there is looked for that the ion beam sees so. It lies
    along X at two rotations: the one nearer to `r` is taken, where the person put the pre-tilt towards the ion beam.
    """
    du, dv = (b - a for a, b in zip(one, other, strict=True))
    u, v = (back @ axis for axis in field_axes(Beam.ION, 0.0, column))
    level = atan2(float(u[0] * dv - v[0] * du), float(v[1] * du - u[1] * dv))
    return r + pi / 2 - (level + r + pi / 2) % pi  # within a quarter turn of where the stage stands


def teach(
    microscope: Microscope,
    pretilt: float,
    field_m: float,
    click: Callable[[Pictures, int], Clicks],
    confirm: Callable[[str], bool],
    told: Callable[[str], None],
) -> tuple[Located, Pictures]:
    """Teach a site: look, be told by clicks, turn and move, look again, until the edge and the beams agree.

    The lens is switched to field-free first, and stays so; far turns are made with Z lowered (`moving.move_low`).

    Parameters
    ----------
    pretilt, field_m : of the stub (rad); how wide the overviews are (m)
    click : given the pictures and which time it is (from 1), returns the clicks
    confirm : asked before the stage moves
    told : given what was found each time

    Raises
    ------
    Refused : something is inserted, or a person says no to a move
    NotReached : the edge or the beams are still off after four times: mount the sample straighter, make it eucentric
    """
    state = microscope.state()
    inside = ", ".join(device for device, there in state.devices.items() if there)
    if inside:
        msg = f"{inside} inserted; a site is taught with all devices out"
        raise Refused(msg, rule="devices-out", field="devices", value=inside, remedy="retract them first")
    field_free(microscope)
    description = microscope.describe()
    column = description.column_angle_rad
    mill = pose(PoseName.MILL, pretilt, column=column)
    _move(microscope, StagePosition(t=mill.t), f"tilt to T {degrees(mill.t):.2f} deg, the milling pose?", confirm)
    for turn in range(1, ROUNDS + 1):
        pictures = look(microscope, description, field_m)
        found = located(pictures, click(pictures, turn), pretilt, column)
        told(found.sentence())
        if found.good:
            return found, pictures
        to = stage_for(found.site, mill.replace(r=found.site.turned), (0.0, 0.0, 0.0))
        if turn < ROUNDS:
            _move(microscope, to, _question(pictures.stage, to), confirm)
    msg = f"after {ROUNDS} times {found.sentence()}: mount the sample straighter, or make it eucentric, and try again"
    raise NotReached(msg, edge_off_rad=found.edge_off_rad, apart_m=found.apart_m)


def envelope(stage: StagePosition, described: Description, pretilt: float) -> Envelope:
    """Return what teaching needs from where the stage stands: the milling tilt, turned by a quarter turn at the most.

    The stage may go round its axis, down, and up by `UP_M`; each beam may look at its overview's working point. No
    pattern, no gas. `pretilt` is the stub's (rad).
    """
    x, y, z, r, t = ((getattr(stage, axis) or 0.0) for axis in "xyzrt")
    tilt = pose(PoseName.MILL, pretilt, column=described.column_angle_rad).t
    reach = hypot(x, y) + AROUND_M
    return Envelope(
        run="site",
        # the box below holds the tilt, so that the pose's room is the rotation's
        poses=(PoseLimit(name=str(PoseName.MILL), r=r, t=tilt, tolerance_rad=pi / 2 + POSE_ROOM_RAD),),
        stage_box=StageLimits(
            x=(-reach, reach), y=(-reach, reach), z=(z - UP_M - LOWERED_M, z + UP_M),
            t=(min(t, tilt) - POSE_ROOM_RAD, max(t, tilt) + POSE_ROOM_RAD),
        ),
        beams=(
            BeamLimit(beam=Beam.ION, voltage_v=OVERVIEW_ION_V, currents_a=(_ion_current(described),)),
            BeamLimit(beam=Beam.ELECTRON, voltage_v=OVERVIEW_ELECTRON_V, currents_a=(OVERVIEW_ELECTRON_A,)),
        ),
        gases=(),
        doses=(),
    )  # fmt: skip


def look(microscope: Microscope, description: Description, field_m: float) -> Pictures:
    """Take the overviews by both beams where the stage stands."""
    straight: dict[str, Any] = {"shift_x_m": 0.0, "shift_y_m": 0.0, "scan_rotation_rad": 0.0}
    microscope.set_beam(
        Beam.ION,
        BeamSettings(
            voltage_v=OVERVIEW_ION_V, current_a=_ion_current(description), species=description.usual_species,
            **straight,
        ),
    )  # fmt: skip
    microscope.set_beam(
        Beam.ELECTRON, BeamSettings(voltage_v=OVERVIEW_ELECTRON_V, current_a=OVERVIEW_ELECTRON_A, **straight)
    )
    ion, electron = (
        microscope.acquire(look_scan(description, beam, (0.0, 0.0), field_m, SIZE_PX))
        for beam in (Beam.ION, Beam.ELECTRON)
    )
    return Pictures(ion, electron, microscope.state().stage)


def found_by_itself(pictures: Pictures) -> Clicks:
    """Return the clicks that a straight front edge asks for, in the middle of the picture: for a virtual microscope.

    In the electron picture a virtual block's edge stands out on either side of it, where nothing lies below.
    """

    def row(frame: Frame, columns: NDArray[np.intp]) -> float:
        part: NDArray[np.generic] = frame.pixels[0][:, columns]
        down, _ = tracking.find_edge(part, frame.meta.pixel_x_m, material_below=False)
        return float(down / frame.meta.pixel_x_m + (part.shape[0] - 1) / 2)

    every = np.arange(pictures.ion.pixels.shape[2])
    left, middle, right = np.array_split(every, 3)
    beside = np.concatenate([left[: left.size // 4], right[-right.size // 4 :]])
    half = float(every.mean())
    return Clicks(
        edge=(
            (float(left.mean()), row(pictures.ion, left)),
            (float(right.mean()), row(pictures.ion, right)),
        ),
        middle=(half, row(pictures.ion, middle)),
        electron=(half, row(pictures.electron, beside)),
    )


def _ion_current(described: Description) -> float:
    """Return the listed current (A) of the ion beam's overviews."""
    return nearest(described.currents(Beam.ION, OVERVIEW_ION_V), OVERVIEW_ION_A)


def _question(now: StagePosition, to: StagePosition) -> str:
    """Ask for a move, as the stage will really make it."""
    apart = {axis: (getattr(to, axis) or 0.0) - (getattr(now, axis) or 0.0) for axis in "xyzr"}
    along = ", ".join(f"{axis.upper()} {apart[axis] * 1e6:+.0f} um" for axis in "xyz")
    return f"move by {along} and turn by {degrees(apart['r']):+.2f} deg?"


def _move(microscope: Microscope, to: StagePosition, question: str, confirm: Callable[[str], bool]) -> None:
    if move_low(microscope, to, question, confirm) is None:
        msg = "the move was not confirmed; the stage stays where it now is"
        raise Refused(msg, rule="move-confirmed", field="stage", value=question, remedy="teach the site again")


def _field(frame: Frame, at: Pixel) -> tuple[float, float]:
    """Return the field position (u, v) (m) of a pixel of a picture around the field's middle."""
    height, width = frame.pixels.shape[1:]
    return (at[0] - (width - 1) / 2) * frame.meta.pixel_x_m, (at[1] - (height - 1) / 2) * frame.meta.pixel_y_m


def _on_top(view: View, uv: tuple[float, float]) -> tuple[float, float]:
    """Return where (x, z; m) a beam through a field position meets the top surface."""
    start, along = view.ray(uv)
    hit = start - along * start[1] / along[1]
    return float(hit[0]), float(hit[2])
