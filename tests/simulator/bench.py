"""A small virtual machine and the few moves that tests need on it; positions come from `instrument.geometry`."""

from __future__ import annotations

from math import radians
from pathlib import Path

import numpy as np

import simulator
from instrument.frame import Frame
from instrument.geometry import Pose, PoseName, Site, View, pose, stage_for
from instrument.process import mill_dose
from instrument.settings import (
    Beam,
    BeamSettings,
    CleaningCrossSection,
    DetectorSettings,
    Done,
    PatternJob,
    Scan,
    StagePosition,
)
from simulator.acceptance.operator import Operator, Point

PRETILT = radians(45.0)
FACE = (12e-6, 8e-6)
#: A block that builds fast, on a machine that errs nowhere.
SMALL = (
    "simulator:3?width=12um&height=9um&depth=3um&coating=7um&above=3um&voxel=50nm&layer=60nm&ragged=0.3um"
    "&site=0um&aim=0um&jump=0um&drift=0"
)


class Bench(Operator):
    """A virtual microscope around one block, its poses and places by `instrument.geometry` instead of the simulator's.

    What an operator does with a place in the field is the same: patterns, films, gas.
    """

    def __init__(self, url: str = SMALL, state: Path | None = None) -> None:
        self.machine = self.microscope = simulator.open(url, state)
        self.width, self.height = FACE
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

    sight = view

    def cut_job(self, start: float, end: float, dose_factor: float = 1.0) -> PatternJob:
        view = self.view()
        u, first = view.field((0.0, FACE[1] / 2, start))
        last = view.field((0.0, FACE[1] / 2, end))[1]
        cut = CleaningCrossSection(x_m=u, width_m=FACE[0], start_y_m=first, end_y_m=last, depth_m=FACE[1])
        return self.job([cut], dose_factor * mill_dose(FACE[0] * FACE[1] * (end - start)))

    def cut(self, start: float, end: float, dose_factor: float = 1.0) -> Done:
        return self.microscope.pattern(self.cut_job(start, end, dose_factor))

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
