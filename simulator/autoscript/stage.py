"""The stage as clients see it: Raw and Specimen coordinates, limits, moves."""

from __future__ import annotations

from math import cos, pi, sin
from typing import Any, ClassVar

from instrument.settings import Recovery
from instrument.settings import StagePosition as Standing
from simulator.autoscript.console import Console
from simulator.autoscript.structures import Limits, MoveSettings, Point, StagePosition
from simulator.autoscript.tree import Absent, ApplicationServerException, Node, serving
from simulator.randomness import rng

#: Specimen X and Y are Raw plus this, m.
SPECIMEN_OFFSET = (0.31e-3, -0.17e-3)
#: A move of a linked stage leaves the electron beam's working distance off by this (deviation), m.
_WD_OFF_M = 3e-6
_AXES = ("x", "y", "z", "r", "t")


def wrapped(angle: float) -> float:
    """Return an angle in -pi <= angle < pi, as the stage reads it back."""
    return (angle + pi) % (2 * pi) - pi


def position_of(console: Console, coordinates: str = "Raw") -> StagePosition:
    """Return where the stage stands, in Raw or Specimen coordinates."""
    at = console.state().stage
    x, y = -(at.x or 0.0), -(at.y or 0.0)
    z, t = (console.asked.get(axis, getattr(at, axis) or 0.0) for axis in ("z", "t"))
    if coordinates == "Specimen":
        x, y = x + SPECIMEN_OFFSET[0], y + SPECIMEN_OFFSET[1]
        if console.linked:
            z = console.described.working_distance_m - z
    return StagePosition(x=x + 0.0, y=y + 0.0, z=z, r=wrapped(at.r or 0.0), t=t, coordinate_system=coordinates)


class Stage(Node):
    """`specimen.stage`."""

    def __init__(self, console: Console) -> None:
        super().__init__("microscope.specimen.stage")
        region = Node("microscope.specimen.stage.holder.region").with_members(is_available=False)
        holder = Node("microscope.specimen.stage.holder").with_members(region=region)
        safety = Node("microscope.specimen.stage.safety_settings").with_members(locked_axes=[])
        self.with_members(_console=console, is_installed=True, holder=holder, safety_settings=safety, _moves=0)

    @property
    def is_homed(self) -> bool:
        return bool(self._console.state().stage_homed)

    @property
    def is_linked(self) -> bool:
        return bool(self._console.linked)

    @property
    def current_position(self) -> StagePosition:
        return position_of(self._console, self._console.coordinates)

    def set_default_coordinate_system(self, coordinate_system: str) -> None:
        if coordinate_system not in ("Raw", "Specimen"):
            msg = f"there is no coordinate system {coordinate_system!r}; use Raw or Specimen"
            raise ApplicationServerException(msg)
        self._console.coordinates = str(coordinate_system)

    def get_axis_limits(self, axis: Any) -> Limits:
        name = str(axis).lower()
        if self._console.profile.axes is not None and name in self._console.profile.axes:
            limits: Limits = self._console.profile.axes[name]
            return limits
        travel = self._console.described.stage
        if name == "r":
            return Limits(-pi, pi)
        if name not in ("x", "y", "z", "t"):
            msg = f"there is no stage axis {axis!r}; it has X, Y, Z, R, T"
            raise ApplicationServerException(msg)
        low, high = getattr(travel, name)
        return Limits(-high, -low) if name in ("x", "y") else Limits(low, high)

    def absolute_move(self, target_position: StagePosition, settings: MoveSettings | None = None) -> None:
        system = getattr(target_position, "coordinate_system", None) or self._console.coordinates
        wanted = {axis: getattr(target_position, axis, None) for axis in _AXES}
        if settings is not None and settings.rotate_compucentric and wanted["r"] is not None:
            self._turned(wanted, str(system))
        self._go(wanted, system)
        if self._console.linked:
            self.__dict__["_moves"] += 1
            off = float(rng(self._console.scope.options.seed, "linked move", self._moves).normal(0, _WD_OFF_M))
            held = self._console.beam(1).settings.working_distance_m or 0.0
            self._console.set_beam(1, working_distance_m=held + off)

    def relative_move(self, delta: StagePosition, settings: MoveSettings | None = None) -> None:
        del settings
        system = getattr(delta, "coordinate_system", None) or self._console.coordinates
        at = position_of(self._console, system)
        wanted: dict[str, Any] = {}
        for axis in _AXES:
            by = getattr(delta, axis, None)
            wanted[axis] = None if by is None or by == 0 else getattr(at, axis) + by
        self._go(wanted, system)

    def move_to_device(self, device: int) -> None:
        """Stay: both columns look at one place, and no camera has a place of its own on this stage."""
        if int(device) not in (1, 2):
            msg = f"the stage has no place for imaging device {int(device)}; it has one for 1 (electron) and 2 (ion)"
            raise ApplicationServerException(msg)

    def home(self) -> None:
        with serving():
            self._console.scope.recover(Recovery.HOME_STAGE)
        self._console.asked.clear()

    def link(self) -> None:
        self._console.linked = True

    def unlink(self) -> None:
        self._console.linked = False

    def stop(self) -> None:
        """Do nothing: moves are waited for, none is under way when this is asked."""

    def _turned(self, wanted: dict[str, Any], system: str) -> None:
        """Where X and Y are not said, what is in the middle stays there while the stage rotates about its axis."""
        if wanted["x"] is not None or wanted["y"] is not None:
            return
        at, to = position_of(self._console), position_of(self._console, system)
        by = float(wanted["r"]) - at.r
        # a client's X and Y grow the other way than the simulator's: the axis is in the middle where they are its own
        axis_x, axis_y = self._console.scope.options.axis
        x, y = at.x - axis_x, at.y - axis_y
        wanted["x"] = to.x + cos(by) * x - sin(by) * y - x
        wanted["y"] = to.y + sin(by) * x + cos(by) * y - y

    def _go(self, wanted: dict[str, Any], system: str) -> None:
        values: dict[str, Any] = {axis: None if value is None else float(value) for axis, value in wanted.items()}
        if str(system) == "Specimen":
            for axis, off in zip(("x", "y"), SPECIMEN_OFFSET, strict=True):
                if values[axis] is not None:
                    values[axis] -= off
            if values["z"] is not None and self._console.linked:
                values["z"] = self._console.described.working_distance_m - values["z"]
        for axis in ("x", "y", "z", "t"):
            limits, value = self.get_axis_limits(axis), values[axis]
            if value is not None and not limits.min - 1e-12 <= value <= limits.max + 1e-12:
                msg = f"stage {axis} {value:g} is out of range; allowed: {limits.min:g} to {limits.max:g}"
                raise ApplicationServerException(msg)
        for axis in ("x", "y"):
            if values[axis] is not None:
                values[axis] = -values[axis]
        if values["r"] is not None:  # the shorter way round
            at = self._console.state().stage.r or 0.0
            turn = wrapped(values["r"] - at)
            values["r"] = at + (pi if abs(turn + pi) < 1e-9 and values["r"] > 0 else turn)
        # an office installation reads heights and tilts as they were asked for; the stage below goes as near as it can
        inert = self._console.profile.inert
        asked = {axis: values[axis] for axis in ("z", "t") if inert and values[axis] is not None}
        for axis, value in asked.items():
            low, high = getattr(self._console.described.stage, axis)
            values[axis] = min(max(value, low), high)
        with serving():
            self._console.scope.move_stage(Standing(**values))
        self._console.asked.update(asked)


class Specimen(Node):
    """`specimen`: the stage, and what this microscope lacks."""

    def __init__(self, console: Console) -> None:
        path = "microscope.specimen"
        super().__init__(path)
        self.with_members(
            stage=Stage(console), manipulator=Manipulator(console),
            sample_cleaning=Node(f"{path}.sample_cleaning").with_members(is_installed=True),
            temperature_stage=Absent(f"{path}.temperature_stage", type="None"),
            **{
                name: Absent(f"{path}.{name}")
                for name in ("compustage", "sputter_coater", "autoloader", "cap_probe", "loadlock")
            },
        )  # fmt: skip


class Manipulator(Node):
    """`specimen.manipulator`: a lift-out needle with positions, that touches nothing."""

    #: Where it is parked and where it is near the sample, m: as Raw and as Stage coordinates, Z of opposite sign.
    SAVED: ClassVar = {"Park": (0.0, 0.0, 4.0e-3), "Eucentric": (0.0, 0.0, 0.0)}

    def __init__(self, console: Console) -> None:
        super().__init__("microscope.specimen.manipulator")
        self.with_members(_console=console, is_installed=True, _inserted=False, _at=self.SAVED["Park"], _system="Stage")

    @property
    def state(self) -> str:
        return "Inserted" if self._inserted else "Retracted"

    @property
    def current_position(self) -> Any:
        return self._shown(self._at, self._system)

    def get_saved_position(self, saved_position: str, coordinate_system: str = "Stage") -> Any:
        if saved_position not in self.SAVED:
            msg = f"there is no saved position {saved_position!r}; there are {', '.join(self.SAVED)}"
            raise ApplicationServerException(msg)
        return self._shown(self.SAVED[saved_position], coordinate_system)

    def set_default_coordinate_system(self, coordinate_system: str) -> None:
        self.__dict__["_system"] = str(coordinate_system)

    def insert(self, position: Any = None) -> None:
        self.__dict__.update(_inserted=True)
        self.absolute_move(position if position is not None else self._shown(self.SAVED["Park"], "Stage"))

    def retract(self) -> None:
        self.__dict__.update(_inserted=False, _at=self.SAVED["Park"])

    def absolute_move(self, position: Any) -> None:
        self._out("move")
        sign = -1.0 if position.coordinate_system == "Raw" else 1.0
        now = self._at
        given = (position.x, position.y, None if position.z is None else sign * position.z)
        self.__dict__["_at"] = tuple(old if new is None else float(new) for old, new in zip(now, given, strict=True))

    def relative_move(self, delta: Any) -> None:
        self._out("move")
        sign = -1.0 if delta.coordinate_system == "Raw" else 1.0
        by = (delta.x or 0.0, delta.y or 0.0, sign * (delta.z or 0.0))
        self.__dict__["_at"] = tuple(old + float(one) for old, one in zip(self._at, by, strict=True))

    def _out(self, what: str) -> None:
        if not self._inserted:
            msg = f"the manipulator is retracted and can't {what}; insert it first"
            raise ApplicationServerException(msg)

    @staticmethod
    def _shown(at: tuple[float, float, float], system: str) -> Any:
        from simulator.autoscript.structures import ManipulatorPosition

        sign = -1.0 if system == "Raw" else 1.0
        return ManipulatorPosition(x=at[0], y=at[1], z=sign * at[2], r=0.0, coordinate_system=str(system))


def shift_shown(x: float | None, y: float | None) -> Point:
    """Return a beam shift as clients see it, m: in X the picture's content moves along, in Y up."""
    return Point(-(x or 0.0) + 0.0, (y or 0.0) + 0.0)


def shift_kept(point: Any) -> dict[str, float]:
    """Return a client's beam shift as the virtual microscope keeps it."""
    return {"shift_x_m": -float(point.x) + 0.0, "shift_y_m": float(point.y) + 0.0}
