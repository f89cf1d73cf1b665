"""`beams`: both columns, their scanning, and what only one of them has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from instrument.settings import Beam, Lens, Recovery
from simulator.autoscript import profiles
from simulator.autoscript.console import Column, Console
from simulator.autoscript.patterns import SpotBurn
from simulator.autoscript.scans import size_of
from simulator.autoscript.stage import position_of, shift_kept, shift_shown
from simulator.autoscript.structures import Limits, Limits2d, Point
from simulator.autoscript.tree import Absent, ApplicationServerException, Node, Setting, Switch, serving

#: What the electron column's currents may be, A (recorded: continuous, doubling from step to step).
_ELECTRON_CURRENT = Limits(1.5625e-12, 1.024e-07)
_LENSES = ("FieldFree", "EDX", "Immersion", "Intermediate", "FIBImmersion")


class Beams(Node):
    def __init__(self, console: Console) -> None:
        super().__init__("microscope.beams")
        self.with_members(_console=console, electron_beam=_ElectronBeam(console), ion_beam=_IonBeam(console))


class Column_(Node):  # noqa: N801 - `Column` is what is set of it
    """What both columns have."""

    def __init__(self, console: Console, index: int, name: str) -> None:
        path = f"microscope.beams.{name}"
        super().__init__(path)
        column = console.columns[index]

        def read(field: str) -> Callable[[], Any]:
            return lambda: getattr(console.beam(index).settings, field)

        def put(field: str) -> Callable[[Any], None]:
            return lambda value: console.set_beam(index, **{field: float(value)})

        described = console.described
        widest = described.electron_field_max_m if index == 1 else described.ion_field_max_m
        most = described.beam_shift_max_m
        shifts = Limits2d(Limits(-most, most), Limits(-most, most))
        spot = SpotBurn(console, column)
        self.with_members(
            _console=console, _column=column, is_installed=True, _spot=spot,
            horizontal_field_width=Setting(
                f"{path}.horizontal_field_width", read("hfw_m"), put("hfw_m"),
                limits=Limits(profiles.HFW_MIN[index], widest),
            ),
            working_distance=_WorkingDistance(
                f"{path}.working_distance", read("working_distance_m"), put("working_distance_m"),
                limits=profiles.WORKING_DISTANCE[index],
            ),
            beam_shift=Setting(
                f"{path}.beam_shift", self._shift, lambda value: console.set_beam(index, **shift_kept(value)),
                limits=shifts,
            ),
            stigmator=Setting(
                f"{path}.stigmator", self._stigmation,
                lambda value: console.set_beam(index, stigmator_x=float(value.x), stigmator_y=float(value.y)),
                limits=profiles.STIGMATOR[index],
            ),
            lens_alignment=Setting(
                f"{path}.lens_alignment", lambda: Point(*column.lens_alignment),
                lambda value: setattr(column, "lens_alignment", (float(value.x), float(value.y))),
                limits=profiles.LENS_ALIGNMENT,
            ),
            scanning=Scanning(console, column, path, spot),
        )  # fmt: skip

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Column_) and other._column is self._column

    def __hash__(self) -> int:
        return hash(self._path)

    @property
    def is_on(self) -> bool:
        return bool(self._console.beam(self._column.index).source_on)

    @property
    def is_blanked(self) -> bool:
        return bool(self._column.blanked)

    def turn_on(self) -> None:
        index = self._column.index
        if self._console.vented:
            msg = "the chamber is not pumped; pump it first"
            raise ApplicationServerException(msg)
        if self.is_on:
            return
        with serving():
            if index == 2 and self._console.state().ion.source_on is False:
                self._console.scope.recover(Recovery.RELIGHT_SOURCE)
            else:
                self._console.set_beam(index, source_on=True)

    def turn_off(self) -> None:
        self._console.set_beam(self._column.index, source_on=False)

    def blank(self) -> None:
        self._column.blanked = True
        self._spot.end()
        self._console.noted(self._column.index)

    def unblank(self) -> None:
        self._column.blanked = False
        self._spot.begin()
        self._console.noted(self._column.index)

    def _read(self, name: str) -> Any:
        """Return voltage_v or current_a: as it is, or as it was asked for in an office installation."""
        return self._column.asked.get(name, getattr(self._console.beam(self._column.index).settings, name))

    def _shift(self) -> Point:
        settings = self._console.beam(self._column.index).settings
        return shift_shown(settings.shift_x_m, settings.shift_y_m)

    def _stigmation(self) -> Point:
        settings = self._console.beam(self._column.index).settings
        return Point(settings.stigmator_x or 0.0, settings.stigmator_y or 0.0)


class _WorkingDistance(Setting):
    def set_value_no_degauss(self, value: float) -> None:
        """Set it without cycling the lens: the same here, as this lens has no memory."""
        self.value = value


class Scanning(Node):
    """`scanning` of a column."""

    def __init__(self, console: Console, column: Column, path: str, spot: SpotBurn) -> None:
        path = f"{path}.scanning"
        super().__init__(path)
        scan = column.scan
        index = column.index

        def dwell(value: float) -> None:
            scan.dwell_s[scan.kept] = float(value)
            console.noted(index)

        def resolution(value: str) -> None:
            size_of(str(value))
            scan.resolution[scan.kept] = str(value)
            console.noted(index)

        self.with_members(
            _console=console, _column=column,
            dwell_time=Setting(
                f"{path}.dwell_time", lambda: scan.dwell_s[scan.kept], dwell, limits=profiles.DWELL
            ),
            resolution=_Resolution(
                f"{path}.resolution", lambda: scan.resolution[scan.kept], resolution,
                available=lambda: profiles.RESOLUTIONS,
            ),
            rotation=Setting(
                f"{path}.rotation", lambda: console.beam(index).settings.scan_rotation_rad,
                lambda value: console.set_beam(index, scan_rotation_rad=float(value)), limits=profiles.ROTATION[index],
            ),
            spot=Setting(f"{path}.spot", lambda: -1.0, limits=Limits(-9.0, 7.0)),
            mode=_Mode(console, column, path, spot),
        )  # fmt: skip

    @property
    def bit_depth(self) -> int:
        return int(self._column.bit_depth)

    @bit_depth.setter
    def bit_depth(self, value: int) -> None:
        if int(value) not in (8, 16):
            msg = f"{self._path}.bit_depth: {value} is not possible; use 8 or 16"
            raise ApplicationServerException(msg)
        self._column.bit_depth = int(value)


class _Resolution(Setting):
    @property
    def width(self) -> int:
        return size_of(self.value)[0]

    @property
    def height(self) -> int:
        return size_of(self.value)[1]


class _Mode(Node):
    """`scanning.mode`: the whole field, a part of it, or one spot."""

    def __init__(self, console: Console, column: Column, path: str, spot: SpotBurn) -> None:
        super().__init__(f"{path}.mode")
        self.with_members(_console=console, _column=column, _spot=spot)

    @property
    def value(self) -> int:
        return int(self._column.scan.mode)

    def set_full_frame(self) -> None:
        self._set(1)

    def set_reduced_area(
        self, left: float | None = None, top: float | None = None, width: float | None = None,
        height: float | None = None,
    ) -> None:  # fmt: skip
        old = self._column.scan.area
        area = tuple(
            float(was if new is None else new) for was, new in zip(old, (left, top, width, height), strict=True)
        )
        x, y, wide, high = area
        if min(x, y) < 0 or wide <= 0 or high <= 0 or x + wide > 1 + 1e-9 or y + high > 1 + 1e-9:
            msg = f"reduced area {x:g}, {y:g}, {wide:g} x {high:g} lies outside of the frame, 0 to 1"
            raise ApplicationServerException(msg)
        self._column.scan.area = (x, y, wide, high)
        self._set(4)

    def set_spot(self, x: float = 0.5, y: float = 0.5) -> None:
        if not (0 <= x <= 1 and 0 <= y <= 1):
            msg = f"spot {x:g}, {y:g} lies outside of the frame, 0 to 1"
            raise ApplicationServerException(msg)
        self._column.scan.spot = (float(x), float(y))
        self._set(3)

    def set_line(self, y: float = 0.5) -> None:
        self._column.scan.spot = (0.5, float(y))
        self._set(2)

    def set_crossover(self) -> None:
        self._set(6)

    def set_external(self) -> None:
        self._set(5)

    def _set(self, mode: int) -> None:
        self._spot.end()
        self._column.scan.mode = mode
        self._spot.begin()
        self._console.noted(self._column.index)


class _ElectronBeam(Column_):
    def __init__(self, console: Console) -> None:
        super().__init__(console, 1, "electron_beam")
        path, column = self._path, self._column
        tilt = Limits2d(Limits(-1.0, 1.0), Limits(-1.0, 1.0))
        bias = Setting(f"{path}.beam_deceleration.stage_bias", lambda: 4000.0, limits=Limits(50.0, 4000.0))
        deceleration = Switch(f"{path}.beam_deceleration")
        deceleration.with_members(stage_bias=bias)
        self.with_members(
            high_voltage=Setting(
                f"{path}.high_voltage", lambda: self._read("voltage_v"),
                lambda value: _voltage(console, 1, value), limits=console.profile.electron_voltage,
                is_controllable=True,
            ),
            beam_current=Setting(
                f"{path}.beam_current", lambda: self._read("current_a"),
                lambda value: _nearest_current(console, 1, value), limits=_ELECTRON_CURRENT,
            ),
            emission_current=Setting(f"{path}.emission_current", lambda: 1.59e-4 if self.is_on else 0.0),
            source_tilt=Setting(
                f"{path}.source_tilt", lambda: Point(*column.source_tilt),
                lambda v: setattr(column, "source_tilt", (float(v.x), float(v.y))), limits=tilt,
            ),
            optical_mode=Setting(
                f"{path}.optical_mode", lambda: _lens(console, column), lambda v: _set_lens(console, column, v),
                available=lambda: _LENSES,
            ),
            beam_mode=Setting(f"{path}.beam_mode", lambda: "Normal", lambda _v: None, available=lambda: ("Normal",)),
            crossover_zoom=Setting(f"{path}.crossover_zoom", lambda: 0.5, limits=Limits(0.0, 1.0)),
            angular_correction=_AngularCorrection(console, column, path),
            protective_shutter=Absent(f"{path}.protective_shutter", state="Retracted"),
            beam_deceleration=deceleration,
        )  # fmt: skip


class _IonBeam(Column_):
    def __init__(self, console: Console) -> None:
        super().__init__(console, 2, "ion_beam")
        path = self._path
        source = Node(f"{path}.source")
        source.with_members(
            plasma_gas=Setting(
                f"{path}.source.plasma_gas", lambda: console.beam(2).settings.species,
                lambda value: _species(console, str(value)), available=lambda: console.described.species,
            ),
            time_to_heat=14400.0,
        )  # fmt: skip

        def listed() -> tuple[float, ...]:
            now = console.beam(2).settings
            return console.described.currents(Beam.ION, now.voltage_v or 0.0, now.species or "Xenon")

        self.with_members(
            high_voltage=Setting(
                f"{path}.high_voltage", lambda: self._read("voltage_v"),
                lambda value: _voltage(console, 2, value), limits=console.profile.ion_voltage, is_controllable=True,
            ),
            beam_current=_IonCurrent(
                f"{path}.beam_current", lambda: self._read("current_a"),
                lambda value: _nearest_current(console, 2, value), available=listed, _console=console,
            ),
            source=source,
        )  # fmt: skip


class _IonCurrent(Setting):
    @property
    def measured_value(self) -> float:
        return float(self._console.beam(2).measured_current_a)


class _AngularCorrection(Node):
    def __init__(self, console: Console, column: Column, path: str) -> None:
        path = f"{path}.angular_correction"
        super().__init__(path)

        def angle() -> float:
            if column.angular_mode == "Automatic":
                return float(position_of(console).t) + column.pretilt
            return column.angle

        self.with_members(
            _console=console, _column=column, tilt_correction=column.tilt_correction,
            dynamic_focus=column.dynamic_focus,
            angle=Setting(
                f"{path}.angle", angle, lambda v: setattr(column, "angle", float(v)), limits=profiles.CORRECTION_ANGLE
            ),
            specimen_pretilt=Setting(
                f"{path}.specimen_pretilt", lambda: column.pretilt, lambda v: setattr(column, "pretilt", float(v)),
                limits=profiles.PRETILT,
            ),
        )  # fmt: skip

    @property
    def mode(self) -> str:
        return str(self._column.angular_mode)

    @mode.setter
    def mode(self, value: str) -> None:
        if value not in ("Automatic", "Manual"):
            msg = f"{self._path}.mode: {value!r} is not possible; use Automatic or Manual"
            raise ApplicationServerException(msg)
        self._column.angular_mode = str(value)


def _voltage(console: Console, index: int, value: Any) -> None:
    """Set a voltage; the column's apertures give the listed one nearest to what is asked."""
    described = console.described
    listed = described.electron_voltages_v if index == 1 else described.ion_voltages_v
    _set_as_near(console, index, "voltage_v", listed, float(value))


def _nearest_current(console: Console, index: int, value: Any) -> None:
    """Set the current that is nearest to what is asked, as the vendor's software does without a word."""
    now = console.beam(index).settings
    beam = Beam.ELECTRON if index == 1 else Beam.ION
    listed = console.described.currents(beam, now.voltage_v or 0.0, now.species or "Xenon")
    if not listed:
        msg = f"no currents are calibrated for {now.species} at {(now.voltage_v or 0.0) / 1e3:g} kV"
        raise ApplicationServerException(msg)
    _set_as_near(console, index, "current_a", listed, float(value))


def _set_as_near(console: Console, index: int, name: str, listed: Sequence[float], value: float) -> None:
    """Set what of a list is nearest; an office installation reads what it was asked for."""
    console.set_beam(index, **{name: min(listed, key=lambda one: abs(one - value))})
    if console.profile.inert:
        console.columns[index].asked[name] = value


def _species(console: Console, value: str) -> None:
    """Change the plasma's gas; the same aperture then gives what it gives."""
    now = console.beam(2).settings
    if value == now.species:
        return
    listed = console.described.currents(Beam.ION, now.voltage_v or 0.0, value)
    if not listed:
        msg = f"no currents are calibrated for {value} at {(now.voltage_v or 0.0) / 1e3:g} kV"
        raise ApplicationServerException(msg)
    console.set_beam(2, species=value, current_a=min(listed, key=lambda one: abs(one - (now.current_a or 0.0))))
    console.columns[2].asked.pop("current_a", None)


def _lens(console: Console, column: Column) -> str:
    """Return the lens mode: immersion is the virtual microscope's own, the others are only kept."""
    if console.beam(1).settings.lens is Lens.IMMERSION:
        return "Immersion"
    return column.optical_mode if column.optical_mode != "Immersion" else "FieldFree"


def _set_lens(console: Console, column: Column, value: str) -> None:
    console.set_beam(1, lens=Lens.FIELD_FREE if value != "Immersion" else Lens.IMMERSION)
    column.optical_mode = str(value)
