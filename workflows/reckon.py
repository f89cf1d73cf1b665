"""Goes through a recipe's activities on a rehearsal: the verbs of the steps, in their order, without decisions.

Each method does one activity once; `plan` multiplies those that repeat. Volumes come from the recipe's geometry,
charges from `instrument.process`.
"""

from __future__ import annotations

from instrument.geometry import PoseName, pose, rocking_pose
from instrument.process import TUNE_S, film_dose, mill_dose
from instrument.settings import (
    Beam,
    BeamSettings,
    DetectorSettings,
    Device,
    EdsScan,
    GasSetting,
    PatternJob,
    Rectangle,
    Scan,
    StagePosition,
)
from workflows.layout import front_cuts
from workflows.limits import current_of_film, current_of_mark, film_area, ion_currents
from workflows.planes import DOSE_FACTOR
from workflows.recipe import Block, ElementMap, Infiltrate, Protect, Recipe, Slice
from workflows.recipe_fields import DoseFactor, dose_times
from workflows.recipe_rules import LOOK_PX, MARK_PX
from workflows.rehearsal import Rehearsal

#: Time for the stage to come to rest before the mark is looked for (night.md 8: 15 s with move and look), s.
REST_S = 8.0
#: Usual time until drift after a tilt is small enough for a picture (night.md 14: at most 3 min), s.
SETTLE_S = {"classic": 10.0, "face-on": 120.0}
#: Dwell of the quick pictures that find the mark or measure drift (physics.md 1.4), s.
_LOOK_DWELL_S = 100e-9


class Reckoner:
    """One recipe on one rehearsal."""

    def __init__(self, recipe: Recipe, rehearsal: Rehearsal) -> None:
        self.recipe = recipe
        self.microscope = rehearsal
        self.face = recipe.face or (100e-6, 100e-6)

    # -- once ---------------------------------------------------------------------------------------------------------

    def site(self) -> None:
        """Pictures by both beams at the site."""
        with self.microscope.activity("block"):
            self.turn(PoseName.MILL)
            self.look(Beam.ION)
            self.look(Beam.ELECTRON)
            self.microscope.spend(TUNE_S)
            for _ in ion_currents(self.recipe, self.microscope.description):
                self.microscope.spend(TUNE_S)
                self.look(Beam.ION)

    def adopt(self, slicing: Slice | None) -> None:
        """Look at a block that is there already."""
        with self.microscope.activity("block"):
            self.turn(PoseName.MILL)
            self.look(Beam.ION)
            self.look(Beam.ION)
        if slicing is not None:
            self.picture(slicing)

    def protect(self, protect: Protect) -> None:
        """Reckon the cap."""
        current = current_of_film(protect.ion, film_area(self.recipe, protect), self.microscope.description)
        with self.microscope.activity("block"):
            self.turn(PoseName.MILL)
            self.look(Beam.ION)
            self.film(
                Beam.ION, protect.gas, protect.ion.voltage, current, protect.area, protect.thickness, "cap",
                protect.dose_factor,
            )  # fmt: skip

    def block(self, block: Block) -> None:
        """Trim, trenches at every current, mark on its cap, polish."""
        trench, depth = block.trench, block.trench_depth()
        with self.microscope.activity("block"):
            self.turn(PoseName.MILL)
            *trims, polish = front_cuts(block)
            for cut in trims:
                self.mill(block.voltage, cut.current, block.face[0], cut.removed, block.face[1], "trim")
            for index, current in enumerate(trench.currents):
                inner = block.kept_off(index)
                width = trench.width - inner if index == 0 else block.kept_off(index - 1) - inner
                if width > 0:
                    for _ in ("left", "right"):
                        self.look(Beam.ION)
                        self.mill(block.voltage, current, width, trench.length, depth, "trench")
            self._marks(block)
            self.look(Beam.ION)
            self.mill(block.voltage, polish.current, block.face[0], polish.removed, block.face[1], "polish")

    def _marks(self, block: Block) -> None:
        mark, protect = block.fiducial, self.recipe.protect
        for _ in range(2 if mark.spare else 1):
            if mark.place == "behind" and mark.cap is not None and protect is not None:
                current = current_of_mark(protect.ion, mark.cap, self.microscope.description)
                self.film(
                    Beam.ION, protect.gas, protect.ion.voltage, current, mark.cap[:2], mark.cap[2], "cap",
                    protect.dose_factor,
                )  # fmt: skip
            for _ in ("one", "other"):
                self.mill(block.voltage, mark.current, mark.size * 1.4, mark.size / 8, mark.depth, "mark", "cap")

    # -- films --------------------------------------------------------------------------------------------------------

    def round(self, fill: Infiltrate, slicing: Slice) -> None:
        """One round: a picture, the film, the coarse and the fine clean with their pictures, a picture."""
        x0, y0, x1, y1 = fill.film_box(slicing.image.box)
        current = current_of_film(fill, film_area(self.recipe, fill), self.microscope.description)
        if fill.pair:
            self.picture(slicing)
        with self.microscope.activity("films"):
            self.turn(PoseName.DEPOSIT if fill.pose == "ion-normal" else PoseName.FACE_ON)
            self.look(Beam.ELECTRON)
            self.film(
                fill.beam, fill.gas, fill.voltage, current, (x1 - x0, y1 - y0), fill.thickness, "face",
                fill.dose_factor,
            )  # fmt: skip
        clean, cut = fill.clean, slicing.cut
        with self.microscope.activity("cleaning"):
            fine = clean.fine_from if clean.coarse is not None else fill.thickness
            if clean.coarse is not None:
                self.turn(PoseName.MILL)
                self.look(Beam.ION)
                rough = fill.thickness - fine
                self.mill(cut.voltage, clean.coarse, self.face[0], rough, self.face[1], "face", "film")
            cuts = max(1, round((fine + clean.over) / cut.thickness))
            per_picture = max(1, round(clean.image_every / cut.thickness))
            for index in range(cuts):
                self.cut(slicing, index, "film")
                if (index + 1) % per_picture == 0:
                    self.picture(slicing)
        if fill.pair:
            self.picture(slicing)

    # -- slicing ------------------------------------------------------------------------------------------------------

    def image(self, slicing: Slice) -> None:
        """One imaged slice: its cuts and its picture."""
        with self.microscope.activity("slicing"):
            for index in range(slicing.image.every):
                self.cut(slicing, index, "electrode")
        self.picture(slicing)

    def cut(self, slicing: Slice, index: int, material: str) -> None:
        """One cut over the whole face from one side, with the look for the mark before it."""
        cut = slicing.cut
        self.turn(PoseName.ROCK_PLUS if index % 2 else PoseName.ROCK_MINUS, cut.rocking)
        self.look(Beam.ION)
        self.mill(
            cut.voltage, cut.current, self.face[0], cut.thickness, self.face[1], "face", material,
            dose_times(cut.dose_factor) if material == "electrode" else 1.0,
        )  # fmt: skip

    def picture(self, slicing: Slice) -> None:
        """Take a picture of the face as slicing does: pose, detector in, settle, scan, detector out."""
        image = slicing.image
        self.turn(PoseName.FACE_ON if image.pose == "face-on" else PoseName.MILL)
        self._electron(image.voltage, image.current)
        if "CBS" in image.detectors:
            self.microscope.insert(Device.CBS)
        self.microscope.spend(SETTLE_S[image.pose], "imaging")
        width, height = image.size_px
        detectors = tuple(DetectorSettings(name=name) for name in image.detectors)
        self.microscope.acquire(
            Scan(
                detectors=detectors, width_px=width, height_px=height, pixel_m=image.pixel, dwell_s=image.dwell,
                bits=image.bits_used,
            )
        )  # fmt: skip
        if "CBS" in image.detectors:
            self.microscope.retract(Device.CBS)

    def element_map(self, wanted: ElementMap, slicing: Slice | None) -> None:
        """One element map and the check image after it."""
        area = wanted.area or (slicing.image.area if slicing is not None else self.face)
        current = wanted.current or (slicing.image.current if slicing is not None else 1.6e-9)
        with self.microscope.activity("EDS"):
            self.turn(PoseName.FACE_ON if wanted.pose == "face-on" else PoseName.MILL)
            self._electron(wanted.voltage, current)
            self.microscope.insert(Device.EDS)
            self.microscope.spend(SETTLE_S["face-on"])
            self.microscope.acquire_eds(
                EdsScan(
                    elements=wanted.elements, width_px=round(area[0] / wanted.pixel),
                    height_px=round(area[1] / wanted.pixel), pixel_m=wanted.pixel, dwell_s=wanted.dwell,
                    frames=wanted.frames,
                )
            )  # fmt: skip
            self.microscope.retract(Device.EDS)
        if slicing is not None:
            self.picture(slicing)

    def finish(self) -> None:
        """Last pictures by both beams."""
        self.turn(PoseName.MILL)
        self.look(Beam.ION)
        self.look(Beam.ELECTRON)
        self.microscope.make_safe()

    # -- verbs --------------------------------------------------------------------------------------------------------

    def turn(self, name: PoseName, rocking: float = 0.0) -> None:
        """Turn the stage to a pose and let it come to rest."""
        pretilt, column = self.recipe.sample.pretilt, self.microscope.description.column_angle_rad
        if name in (PoseName.ROCK_PLUS, PoseName.ROCK_MINUS):
            sign = 1.0 if name is PoseName.ROCK_PLUS else -1.0
            at = rocking_pose(pretilt, sign * rocking, column=column) if rocking > 0 else pose(PoseName.MILL, pretilt)
        else:
            at = pose(name, pretilt, column=column)
        before = self.microscope.state().stage
        after = self.microscope.move_stage(StagePosition(r=at.r, t=at.t))
        if after != before:
            self.microscope.spend(REST_S, "moves")

    def look(self, beam: Beam) -> None:
        """Take a quick picture to place what follows, at the current that mills, so that no aperture moves."""
        width, height = MARK_PX if beam is Beam.ION else LOOK_PX
        name = "ICE" if beam is Beam.ION and "ICE" in self.microscope.description.detectors else "ETD"
        self.microscope.acquire(
            Scan(
                beam=beam, detectors=(DetectorSettings(name=name),), width_px=width, height_px=height,
                pixel_m=20e-6 / width, dwell_s=_LOOK_DWELL_S,
            )
        )  # fmt: skip

    def mill(
        self, voltage: float, current: float, width: float, height: float, depth: float, area: str,
        material: str = "electrode", times: float = 1.0,
    ) -> None:  # fmt: skip
        """Mill a box of width by height in the field, `depth` along the beam (m); cuts get their factor of dose."""
        factor = times * (DOSE_FACTOR if area in ("trim", "polish", "face") else 1.0)
        if min(width, height, depth) <= 0:
            return
        self.microscope.set_beam(Beam.ION, BeamSettings(voltage_v=voltage, current_a=current))
        box = Rectangle(x_m=0.0, y_m=0.0, width_m=width, height_m=height, depth_m=depth)
        self.microscope.pattern(
            PatternJob(
                patterns=(box,), purpose="mill", area=area, current_a=current, voltage_v=voltage,
                dose_c=factor * mill_dose(width * height * depth, material, voltage),
            )
        )  # fmt: skip

    def film(
        self, beam: Beam, gases: dict[str, float], voltage: float, current: float, size: tuple[float, float],
        thickness: float, area: str, dose_factor: DoseFactor,
    ) -> None:  # fmt: skip
        """Needle in, gas open, film, gas shut, needle out; auto: by the growth that an adopted run found."""
        self.microscope.set_beam(beam, BeamSettings(voltage_v=voltage, current_a=current))
        self.microscope.insert(Device.NEEDLE)
        main = next(iter(gases))
        for gas in gases:
            self.microscope.set_gas(gas, GasSetting(heater_on=True, duty=gases[gas]))
        self.microscope.set_gas(main, GasSetting(valve_open=True))
        surface, made = size[0] * size[1], self.recipe.made
        growth = made.growth if made is not None and beam is Beam.ION and dose_factor == "auto" else 1.0
        dose = film_dose(surface, thickness, beam, current / surface, voltage, growth)
        box = Rectangle(x_m=0.0, y_m=0.0, width_m=size[0], height_m=size[1], depth_m=thickness)
        self.microscope.pattern(
            PatternJob(
                beam=beam, patterns=(box,), purpose="deposit", area=area, current_a=current, voltage_v=voltage,
                dose_c=dose_times(dose_factor) * dose, gases=gases,
            )
        )  # fmt: skip
        self.microscope.set_gas(main, GasSetting(valve_open=False))
        self.microscope.retract(Device.NEEDLE)

    def _electron(self, voltage: float, current: float) -> None:
        self.microscope.set_beam(Beam.ELECTRON, BeamSettings(voltage_v=voltage, current_a=current))
