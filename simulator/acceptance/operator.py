"""A small careful operator at a virtual microscope: poses, cuts, films, looks by nominal geometry and rates alone.

It knows what a client knows. What it lacks on purpose are loops: a check switches one off by not calling it.
"""

from __future__ import annotations

from math import log, radians

import numpy as np
from numpy.typing import NDArray

from instrument.frame import Frame
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
from simulator.acceptance import looks
from simulator.beams import Sight, Standing, turned
from simulator.chamber import ion_focus
from simulator.microscope import SimulatedMicroscope
from simulator.options import parse

#: Stage tilt, rotation and the ion field's scan rotation of each pose at 45 deg of pre-tilt, degrees: the beam along
#: the face, with 1.3 deg of over-tilt for cuts, turned by 3 deg about the face's normal for rocking.
POSES = {
    "mill": (7.0, 0.0, 0.0), "cut": (8.3, 0.0, 0.0), "face-on": (45.0, 0.0, 0.0), "deposit": (7.0, 180.0, 180.0),
    "rock-plus": (8.2233, 4.2388, -2.9967), "rock-minus": (8.2233, -4.2388, 2.9967),
}  # fmt: skip
#: A face of 12 um x 9 um that is made at once: cut 12 um wide and 8 um high.
TINY = "simulator:3?width=12um&height=9um&depth=3um&coating=7um&above=3um&voxel=50nm&layer=60nm&ragged=0.3um&site=0um"
STILL, ERRING = f"{TINY}&aim=0um&jump=0um&drift=0&rates=0%", f"{TINY}&aim=1um&jump=1.5um&drift=1&rates=20%"
WIDTH_M, HEIGHT_M = 12e-6, 8e-6
#: Dose over the nominal one that cuts the whole advance: a tenth lands again (physics.md 8.2).
ENOUGH = 1.2
Point = tuple[float, float, float]


class Operator:
    """Works at one virtual microscope; `machine` is for measuring what truly happened."""

    def __init__(self, url: str = STILL, width: float = WIDTH_M, height: float = HEIGHT_M) -> None:
        self.machine = SimulatedMicroscope(parse(url))
        self.width, self.height = width, height
        self.stage = StagePosition()

    # -- the machine as a client sees it ------------------------------------------------------------------------------

    def go(self, name: str) -> None:
        """Turn the stage for something, and bring what it is for under the beam."""
        tilt, rotation, turn = (radians(angle) for angle in POSES[name])
        point = np.array((0.0, self.height / 2 if name in ("face-on", "deposit") else 0.0, 0.0))
        flat = Sight(Beam.ION, Standing(0, 0, 0, rotation, tilt, self.machine.options.pretilt))
        x, y, z = turned(np.array([1.0, 0.0, 0.0]), tilt, -(flat.origin + flat.axes @ point))
        self.stage = StagePosition(x=float(x), y=float(y), z=float(z), r=rotation, t=tilt)
        self.machine.move_stage(self.stage)
        self.machine.set_beam(Beam.ION, BeamSettings(scan_rotation_rad=turn))
        electron = turn if name == "deposit" else 0.0
        self.machine.set_beam(Beam.ELECTRON, BeamSettings(scan_rotation_rad=electron))

    def sight(self, beam: Beam = Beam.ION) -> Sight:
        """Return what a beam should meet, if nothing erred."""
        at = self.stage
        settings = self.machine.state().beam(beam).settings
        standing = Standing(at.x or 0, at.y or 0, at.z or 0, at.r or 0, at.t or 0, self.machine.options.pretilt)
        return Sight(beam, standing, scan_rotation=settings.scan_rotation_rad or 0.0)

    def ion(self, current: float, voltage: float = 30e3) -> None:
        """Set the ion beam, in the focus that was found for it beforehand."""
        sharp = ion_focus(self.machine.options, voltage, current)
        self.machine.set_beam(Beam.ION, BeamSettings(voltage_v=voltage, current_a=current, working_distance_m=sharp))

    def job(self, patterns: list[Pattern], dose: float, purpose: str = "mill", area: str = "face") -> PatternJob:
        """Return a job with the beam as it is."""
        now = self.machine.state().ion.settings
        gases = {"Pt": 1.0} if purpose == "deposit" else {}
        return PatternJob.model_validate(
            {"patterns": patterns, "purpose": purpose, "area": area, "current_a": now.current_a,
             "voltage_v": now.voltage_v, "dose_c": dose, "gases": gases}
        )  # fmt: skip

    def cut(self, start: float, end: float, factor: float = ENOUGH, width: float | None = None) -> Done:
        """Cut the face from one plane to another with a factor on the nominal dose."""
        wide, middle = width or self.width, self.height / 2
        u, first = self.sight().field((0.0, middle, start))
        last = self.sight().field((0.0, middle, end))[1]
        line = CleaningCrossSection(x_m=u, width_m=wide, start_y_m=first, end_y_m=last, depth_m=self.height)
        dose = factor * mill_dose(wide * self.height * (end - start))
        return self.machine.pattern(self.job([line], dose))

    def slices(self, plane: float, count: int, thickness: float = 25e-9, factor: float = ENOUGH) -> float:
        """Cut so many times from a plane on; return the plane after them."""
        for _ in range(count):
            self.cut(plane, plane + thickness, factor)
            plane += thickness
        return plane

    def box(self, one: Point, other: Point, depth: float) -> Rectangle:
        """Return the rectangle between two points of a plane."""
        (u0, v0), (u1, v1) = self.sight().field(one), self.sight().field(other)
        return Rectangle(
            x_m=(u0 + u1) / 2, y_m=(v0 + v1) / 2, width_m=abs(u1 - u0), height_m=abs(v1 - v0), depth_m=depth
        )

    def line(self, one: Point, other: Point, width: float, depth: float) -> Line:
        """Return the line between two points of a plane."""
        (u0, v0), (u1, v1) = self.sight().field(one), self.sight().field(other)
        return Line(x0_m=u0, y0_m=v0, x1_m=u1, y1_m=v1, line_width_m=width, depth_m=depth)

    def gas(self, on: bool) -> None:
        """Bring the needle in and open the valve, or the other way round."""
        if on:
            self.machine.insert(Device.NEEDLE)
            self.machine.set_gas("Pt", GasSetting(heater_on=True, valve_open=True))
        else:
            self.machine.set_gas("Pt", GasSetting(valve_open=False))
            self.machine.retract(Device.NEEDLE)

    def film(self, pattern: Rectangle, thickness: float, area: str, factor: float = 1.0) -> Done:
        """Lay a film of a nominal thickness at about 4 pA/um2 and 8 kV; the gas flows already."""
        surface = pattern.width_m * pattern.height_m
        listed = self.machine.describe().currents(Beam.ION, 8e3)
        current = min(listed, key=lambda one: abs(log(one / (4 * surface))))
        self.ion(current, 8e3)
        dose = factor * film_dose(surface, thickness, Beam.ION, current / surface, 8e3)
        return self.machine.pattern(self.job([pattern], dose, "deposit", area))

    def infiltrate(self, thickness: float, width: float | None = None, factor: float = 1.0) -> None:
        """Lay a film on the face and let it into the pores."""
        half, plane = (width or self.width) / 2, self.plane
        pattern = self.box((-half, -1.2e-6, plane), (half, self.height, plane), thickness)
        self.gas(True)
        self.film(pattern, thickness, "face", factor)
        self.gas(False)

    def cap_with_mark(self, current: float = 1e-9) -> Point:
        """Lay a cap on the top and mill a cross into it; return where the cross is."""
        self.go("mill")
        self.gas(True)
        self.film(self.box((-7e-6, 0.0, 0.0), (7e-6, 0.0, 4e-6), 1e-6), 1e-6, "cap")
        self.gas(False)
        self.ion(current)
        top, at, arm = -1e-6, 2.2e-6, 0.6e-6
        lines: list[Pattern] = [
            self.line((-arm, top, at - side * arm), (arm, top, at + side * arm), 0.2e-6, 0.5e-6) for side in (1, -1)
        ]
        self.machine.pattern(self.job(lines, mill_dose(2 * 1.9e-6 * 0.2e-6 * 0.5e-6, "cap"), area="mark"))
        return 0.0, top, at

    # -- looking ------------------------------------------------------------------------------------------------------

    def ion_look(self, point: Point, field: float = 6e-6) -> NDArray[np.float64]:
        """Take a small ion picture around a point."""
        u, v = self.sight().field(point)
        scan = Scan(
            beam=Beam.ION, detectors=(DetectorSettings(name="ICE"),), width_px=256, height_px=220, pixel_m=field / 256,
            centre_x_m=u, centre_y_m=v, dwell_s=400e-9,
        )  # fmt: skip
        return np.asarray(self.machine.acquire(scan).pixels[0], float)

    def mark_off(self, mark: Point, field: float = 12e-6) -> tuple[float, float]:
        """Return how far the mark lies from where it should be, in the ion field, metres."""
        return looks.cross_at(self.ion_look(mark, field), field / 256)

    def register(self, mark: Point) -> None:
        """Shift the ion beam until the mark is where it should be."""
        for field in (12e-6, 5e-6):
            off = self.mark_off(mark, field)
            now = self.machine.state().ion.settings
            self.machine.set_beam(
                Beam.ION,
                BeamSettings(shift_x_m=(now.shift_x_m or 0.0) + off[0], shift_y_m=(now.shift_y_m or 0.0) + off[1]),
            )

    def scan(self, *names: str, pixel: float = 40e-9, contrast: float = 0.45) -> Scan:
        """Return a scan of the face."""
        u, v = self.sight(Beam.ELECTRON).field((0.0, self.height / 2 - 0.9e-6, self.plane))
        detectors = tuple(DetectorSettings(name=name, contrast=contrast) for name in names)
        return Scan(
            detectors=detectors, width_px=round((self.width - 2e-6) / pixel), height_px=round(self.height / pixel),
            pixel_m=pixel, centre_x_m=u, centre_y_m=v, dwell_s=3e-6,
        )  # fmt: skip

    def picture(self, *names: str, pixel: float = 40e-9, contrast: float = 0.45) -> NDArray[np.float64]:
        """Take a picture of the face; channels (detector, y, x). CBS comes in for it and goes out."""
        if "CBS" in names:
            self.machine.insert(Device.CBS)
        frame: Frame = self.machine.acquire(self.scan(*names, pixel=pixel, contrast=contrast))
        if "CBS" in names:
            self.machine.retract(Device.CBS)
        return np.asarray(frame.pixels, float)

    # -- what is true, for measuring alone ----------------------------------------------------------------------------

    @property
    def plane(self) -> float:
        """Where the face truly is, metres."""
        return float(np.median(self.machine.block.maps.face))

    def ahead(self, low: float, high: float) -> float:
        """Where the face truly is between two heights below the top, metres."""
        block = self.machine.block
        rows = (block.y > low) & (block.y < high)
        return float(np.median(block.maps.face[rows][:, 20:-20]))
