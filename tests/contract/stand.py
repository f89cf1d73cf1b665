"""A microscope of any kind with a small block in it, and the few moves that contract tests need."""

from __future__ import annotations

from contextlib import suppress
from math import radians

from instrument.errors import Refused
from instrument.frame import Frame
from instrument.geometry import Pose, PoseName, Site, View, pose, stage_for
from instrument.microscope import Microscope
from instrument.settings import (
    Beam,
    BeamSettings,
    CleaningCrossSection,
    DetectorSettings,
    Device,
    GasSetting,
    Lens,
    PatternJob,
    Rectangle,
    Scan,
)

#: Builds in a second or two.
SMALL = "simulator:3?width=12um&height=10um&depth=4um&coating=8um&above=3um&voxel=80nm&layer=100nm"
PRETILT = radians(45.0)
MIDDLE = (0.0, 4e-6, 0.0)


class Stand:
    """Nothing here knows which microscope it is: verbs only."""

    def __init__(self, microscope: Microscope) -> None:
        self.microscope = microscope
        self.site = Site(sx=0.0, sy=0.0, sz=0.0, pretilt=PRETILT)
        self.at: Pose = pose(PoseName.MILL, PRETILT)

    def neutral(self) -> None:
        """Bring the microscope to where every test begins: all out, shut and cold, mill pose, usual beams."""
        scope = self.microscope
        state = scope.state()
        for name, gas in state.gases.items():
            if gas.valve_open:
                scope.set_gas(name, GasSetting(valve_open=False))
        for device, inserted in state.devices.items():
            if inserted:
                scope.retract(device)
        for name, gas in state.gases.items():
            if gas.heater_on:
                scope.set_gas(name, GasSetting(heater_on=False))
        scope.set_beam(
            Beam.ELECTRON,
            BeamSettings(
                voltage_v=5e3,
                current_a=1.6e-9,
                shift_x_m=0.0,
                shift_y_m=0.0,
                working_distance_m=4e-3,
                lens=Lens.FIELD_FREE,
            ),
        )
        scope.set_beam(Beam.ION, BeamSettings(voltage_v=30e3, current_a=1e-9, shift_x_m=0.0, shift_y_m=0.0))
        self.go("mill")
        scope.clock.wait(120.0)  # until the pump has taken whatever gas there was

    def go(self, name: str) -> None:
        """Drive to a pose, the face's middle under both beams."""
        self.at = pose(name, PRETILT, rocking=radians(3.0))
        self.microscope.move_stage(stage_for(self.site, self.at, MIDDLE))
        self.microscope.set_beam(Beam.ION, BeamSettings(scan_rotation_rad=self.at.ion_scan_rotation))
        self.microscope.set_beam(Beam.ELECTRON, BeamSettings(scan_rotation_rad=self.at.electron_scan_rotation))

    def view(self, beam: Beam = Beam.ION) -> View:
        turn = self.at.ion_scan_rotation if beam is Beam.ION else self.at.electron_scan_rotation
        return View(self.site, beam, stage_for(self.site, self.at, MIDDLE), scan_rotation=turn)

    def gas(self) -> None:
        """Needle in, platinum flows."""
        self.microscope.insert(Device.NEEDLE)
        self.microscope.set_gas("Pt", GasSetting(heater_on=True, valve_open=True))

    def looked(self) -> Frame:
        return self.microscope.acquire(scan(Beam.ION))

    def cut(self, start: float, end: float, seconds: float = 40.0) -> PatternJob:
        """A cut of the face from plane to plane with the ion beam as it stands."""
        ion = self.microscope.state().ion.settings
        view = self.view()
        u, first = view.field((0.0, 4e-6, start))
        last = view.field((0.0, 4e-6, end))[1]
        line = CleaningCrossSection(x_m=u, width_m=12e-6, start_y_m=first, end_y_m=last, depth_m=8e-6)
        return PatternJob(
            patterns=(line,), purpose="mill", area="face", current_a=ion.current_a or 0.0,
            voltage_v=ion.voltage_v or 0.0, dose_c=seconds * (ion.current_a or 0.0),
        )  # fmt: skip

    def calm(self) -> None:
        """Clean up after a test, whatever it left."""
        with suppress(Refused):
            self.microscope.make_safe()
        self.neutral()


def scan(beam: Beam = Beam.ELECTRON, *names: str, **changes: object) -> Scan:
    """A small picture; detectors ETD or ICE unless said."""
    usual = ("ETD",) if beam is Beam.ELECTRON else ("ICE",)
    plain = {
        "beam": beam, "detectors": [DetectorSettings(name=name) for name in names or usual], "width_px": 48,
        "height_px": 36, "pixel_m": 200e-9, "dwell_s": 1e-6,
    }  # fmt: skip
    return Scan.model_validate({**plain, **changes})


def box(seconds: float = 10.0, current_a: float = 1e-9, **changes: object) -> PatternJob:
    """A box beside the block, so many seconds long."""
    pattern = Rectangle(x_m=0.0, y_m=-6e-6, width_m=2e-6, height_m=2e-6, depth_m=0.2e-6)
    plain = {
        "patterns": (pattern,), "purpose": "mill", "area": "trench", "current_a": current_a, "voltage_v": 30e3,
        "dose_c": seconds * current_a,
    }  # fmt: skip
    return PatternJob.model_validate({**plain, **changes})
