"""A small virtual machine and the few moves that tests need on it; positions come from `instrument.geometry`."""

from __future__ import annotations

from math import log, radians
from pathlib import Path

import numpy as np

import simulator
from instrument.frame import Frame
from instrument.geometry import Pose, PoseName, Site, View, pose, stage_for
from instrument.process import film_dose, mill_dose
from instrument.settings import (
    Beam,
    BeamSettings,
    CleaningCrossSection,
    DetectorSettings,
    Device,
    Done,
    GasSetting,
    Line,
    Pattern,
    PatternJob,
    Rectangle,
    Scan,
    StagePosition,
)

PRETILT = radians(45.0)
FACE = (12e-6, 8e-6)
#: A block that builds fast, on a machine that errs nowhere.
SMALL = (
    "simulator:3?width=12um&height=9um&depth=3um&coating=7um&above=3um&voxel=50nm&layer=60nm&ragged=0.3um"
    "&site=0um&aim=0um&jump=0um&drift=0"
)
Point = tuple[float, float, float]


class Bench:
    """A virtual microscope with its poses, patterns and pictures around one block."""

    def __init__(self, url: str = SMALL, state: Path | None = None) -> None:
        self.microscope = simulator.open(url, state)
        self.site = Site(sx=0.0, sy=0.0, sz=0.0, pretilt=PRETILT)
        self.at: Pose = pose(PoseName.MILL, PRETILT)
        self.stage = StagePosition()

    def go(self, name: str, rocking: float = radians(3.0), over_tilt: float = 0.0) -> None:
        self.at = pose(name, PRETILT, rocking=rocking, over_tilt=over_tilt)
        middle = (0.0, 4e-6, 0.0) if name in ("face-on", "deposit") else (0.0, 0.0, 0.0)
        self.stage = stage_for(self.site, self.at, middle)
        self.microscope.move_stage(self.stage)
        self.microscope.set_beam(Beam.ION, BeamSettings(scan_rotation_rad=self.at.ion_scan_rotation))
        self.microscope.set_beam(Beam.ELECTRON, BeamSettings(scan_rotation_rad=self.at.electron_scan_rotation))

    def view(self, beam: Beam = Beam.ION) -> View:
        turned = self.at.ion_scan_rotation if beam is Beam.ION else self.at.electron_scan_rotation
        return View(self.site, beam, self.stage, scan_rotation=turned)

    def ion(self, current: float, voltage: float = 30e3) -> None:
        self.microscope.set_beam(Beam.ION, BeamSettings(voltage_v=voltage, current_a=current))

    def job(self, patterns: list[Pattern], dose: float, purpose: str = "mill", area: str = "face") -> PatternJob:
        now = self.microscope.state().ion.settings
        return PatternJob.model_validate(
            {
                "patterns": patterns, "purpose": purpose, "area": area, "current_a": now.current_a,
                "voltage_v": now.voltage_v, "dose_c": dose, "gases": {"Pt": 1.0} if purpose == "deposit" else {},
            }
        )  # fmt: skip

    def cut_job(self, start: float, end: float, dose_factor: float = 1.0) -> PatternJob:
        view = self.view()
        u, first = view.field((0.0, FACE[1] / 2, start))
        last = view.field((0.0, FACE[1] / 2, end))[1]
        cut = CleaningCrossSection(x_m=u, width_m=FACE[0], start_y_m=first, end_y_m=last, depth_m=FACE[1])
        return self.job([cut], dose_factor * mill_dose(FACE[0] * FACE[1] * (end - start)))

    def cut(self, start: float, end: float, dose_factor: float = 1.0) -> Done:
        return self.microscope.pattern(self.cut_job(start, end, dose_factor))

    def box(self, one: Point, other: Point, depth: float) -> Rectangle:
        (u0, v0), (u1, v1) = self.view().field(one), self.view().field(other)
        return Rectangle(
            x_m=(u0 + u1) / 2, y_m=(v0 + v1) / 2, width_m=abs(u1 - u0), height_m=abs(v1 - v0), depth_m=depth
        )

    def line(self, one: Point, other: Point, width: float, depth: float) -> Line:
        (u0, v0), (u1, v1) = self.view().field(one), self.view().field(other)
        return Line(x0_m=u0, y0_m=v0, x1_m=u1, y1_m=v1, line_width_m=width, depth_m=depth)

    def gas(self, on: bool) -> None:
        if on:
            self.microscope.insert(Device.NEEDLE)
            self.microscope.set_gas("Pt", GasSetting(heater_on=True, valve_open=True))
        else:
            self.microscope.set_gas("Pt", GasSetting(valve_open=False))
            self.microscope.retract(Device.NEEDLE)

    def film(self, pattern: Rectangle, thickness: float, area: str) -> Done:
        surface = pattern.width_m * pattern.height_m
        listed = self.microscope.describe().currents(Beam.ION, 8e3)
        current = min(listed, key=lambda one: abs(log(one / (4 * surface))))
        self.ion(current, 8e3)
        dose = film_dose(surface, thickness, Beam.ION, current / surface, 8e3)
        return self.microscope.pattern(self.job([pattern], dose, "deposit", area))

    def cap_with_ruler(self) -> None:
        """A cap of 1.6 um over the whole top, in two halves, with a chevron buried between them."""
        self.go("mill")
        self.gas(True)
        for height in (0.0, -0.8e-6):
            self.film(self.box((-7e-6, height, 0.0), (7e-6, height, 4e-6), 0.8e-6), 0.8e-6, "cap")
            if height == 0.0:
                self.ion(1e-9)
                top = -self.cap_height()
                lines = [self.line((s * 1e-6, top, 0.0), (s * 4e-6, top, 3e-6), 0.4e-6, 0.4e-6) for s in (1, -1)]
                dose = mill_dose(2 * 4.65e-6 * 0.4e-6 * 0.4e-6, "cap")
                self.microscope.pattern(self.job(lines, dose, area="cap"))
        self.gas(False)

    def cap_height(self) -> float:
        """What the caps' heights truly add up to."""
        return sum(one.amount for one in self.microscope.block.features if one.kind == "cap")

    def face_z(self) -> float:
        """Where the face truly is."""
        return float(np.median(self.microscope.block.maps.face))

    def picture(
        self, *names: str, box: tuple[float, float, float, float] = (-5e-6, -1.4e-6, 5e-6, 7.6e-6),
        pixel: float = 40e-9, contrast: float = 0.45, tilt: bool = False,
    ) -> Frame:  # fmt: skip
        view = self.view(Beam.ELECTRON)
        u, v = view.field(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, self.face_z()))
        detectors = tuple(DetectorSettings(name=name, contrast=contrast) for name in names or ("ETD",))
        return self.microscope.acquire(
            Scan(
                detectors=detectors, width_px=round((box[2] - box[0]) / pixel),
                height_px=round((box[3] - box[1]) / pixel), pixel_m=pixel, centre_x_m=u, centre_y_m=v, dwell_s=3e-6,
                tilt_correction_rad=view.incidence() if tilt else 0.0, dynamic_focus=True,
            )
        )  # fmt: skip

    def ion_look(self, point: Point, field: float = 10e-6) -> Frame:
        u, v = self.view().field(point)
        return self.microscope.acquire(
            Scan(
                beam=Beam.ION, detectors=(DetectorSettings(name="ICE"),), width_px=256, height_px=220,
                pixel_m=field / 256, centre_x_m=u, centre_y_m=v, dwell_s=400e-9,
            )
        )  # fmt: skip
