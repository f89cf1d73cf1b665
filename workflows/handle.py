"""What a step gets its acts through: patterns, pictures, films, measurements, labels, a person's answer.

A step is ordinary Python; it has no clock, state, disk or labels but what this handle gives, and branches only on the
recipe and on what acts returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from instrument.frame import Frame, FrameRef
from instrument.geometry import Pose, PoseName, View
from instrument.process import film_dose, film_yield, mill_dose
from instrument.settings import (
    Beam,
    BeamSettings,
    Description,
    DetectorSettings,
    Device,
    Done,
    EdsScan,
    Lens,
    Pattern,
    PatternJob,
    Rectangle,
    Scan,
    Setup,
)
from instrument.units import show
from workflows.acts import Acts, Held
from workflows.alignment import Aligner, look_scan
from workflows.amendments import Asked
from workflows.layout import RULER_WIDTH_M, Layout
from workflows.planes import DOSE_FACTOR, Planes
from workflows.recipe import ElementMap, Image, Recipe
from workflows.recipe_fields import DoseFactor, dose_times
from workflows.ruler import Reading, read_ruler
from workflows.settling import Settle, Settled, given_again, likeliest

#: How far the ruler's grooves are looked for from where they should be (m).
RULER_SEARCH_M = 0.8e-6
#: Uncertainty of a plane that was not measured: the fiducial's, per cut (physics.md 4.6), m.
UNMEASURED_M = 25e-9
#: The strip across the cap: from this many cap heights above the electrode to this many below; pixel (m), dwell (s).
STRIP, STRIP_BELOW, STRIP_PIXEL_M, STRIP_DWELL_S = 1.4, 0.4, 40e-9, 1e-6
_STAGE_ERROR_M = 1.5e-6


class Evidence(Protocol):
    """Labels as they come."""

    def submit(self, name: str, ref: FrameRef, before: FrameRef | None = None) -> None:
        """Hand a frame over to be labelled, with the slice before it where that may help; returns at once."""

    def numbers(self, name: str, *, wait: bool = True) -> dict[str, Any] | None:
        """Return the numbers of a frame that was handed over, None when they don't come in time."""


@dataclass
class Telling:
    """Where the run stands, for whoever looks: step, what is done, slice k of n."""

    step: str = ""
    doing: str = ""
    slice_k: int = 0
    slice_n: int = 0


@dataclass(frozen=True)
class Plane:
    """A measured plane: z (m), its uncertainty (m), and by what: ruler or line."""

    z_m: float
    sigma_m: float
    by: str


class Handle:
    """One run, as its steps see it.

    Parameters
    ----------
    recipe, layout, description : what is done, where, on what
    acts, aligner, evidence : how
    boundary : called where a request may be honoured: with cut, before a fill, slice, last slice, fill, or the name of
        a piece of cap or block
    told : called after each change of `telling`, and with a name after each slice
    answer : returns what a person answered to a question ("yes", "no"), None while there is no answer
    free_bytes : returns what the run folder's disk has free
    asked : returns what people have asked for after an event's number
    """

    def __init__(
        self,
        recipe: Recipe,
        layout: Layout,
        description: Description,
        acts: Acts,
        aligner: Aligner,
        evidence: Evidence,
        *,
        load: Callable[[FrameRef], Frame],
        boundary: Callable[[str], None],
        told: Callable[[Telling, str | None], None],
        answer: Callable[[str], str | None],
        free_bytes: Callable[[], int],
        asked: Callable[[int], Asked],
        relit: Callable[[], int] = lambda: 0,
    ) -> None:
        self.recipe = recipe
        self.description = description
        self.acts = acts
        self.aligner = aligner
        self.evidence = evidence
        self.load = load
        self.boundary = boundary
        self.telling = Telling()
        self._told = told
        self._answer = answer
        self.free_bytes = free_bytes
        self.asked = asked
        self.relit = relit
        #: after which lighting of the source currents were measured last
        self.aligned = 0
        self.planes: Planes | None = None
        self.detectors: tuple[DetectorSettings, ...] = ()
        #: how fast films grow here over the model, as far as it was measured
        self.growth = 1.0
        self.layout = layout
        self.stand_on(layout)

    def stand_on(self, layout: Layout) -> None:
        """Take a corrected layout: what follows is placed by it."""
        self.layout = layout
        self.aligner.layout = layout

    def tell(self, doing: str = "", *, slice_k: int | None = None, done: str | None = None) -> None:
        """Say what is done now; `done` names a slice that has just come."""
        self.telling.doing = doing
        if slice_k is not None:
            self.telling.slice_k = slice_k
        self._told(self.telling, done)

    # -- views and set-ups --------------------------------------------------------------------------------------------

    def view(self, pose: PoseName, beam: Beam) -> View:
        """Return how a beam sees the block in a pose of this recipe."""
        return self.layout.view(self.layout.pose(pose, self.rocking), beam)

    @property
    def rocking(self) -> float:
        """The rocking angle (rad) of the recipe's cuts."""
        slicing = self.recipe.slicing
        return slicing.cut.rocking if slicing is not None else 0.0

    def ion_setup(self, pose: PoseName, voltage: float, current: float, *, on_mark: bool) -> Setup:
        """Return the set-up for milling in a pose."""
        at = self.layout.pose(pose, self.rocking)
        return Setup(
            pose=str(pose),
            stage=self.layout.stage(at),
            ion=self._beam(Beam.ION, voltage, current, at, on_mark=on_mark),
            retracted=tuple(self.description.devices),
            register_on_mark=on_mark,
        )

    def electron_setup(
        self,
        pose: PoseName,
        voltage: float,
        current: float,
        plane: float,
        *,
        device: Device | None,
        settle: float | None,
    ) -> Setup:
        """Return the set-up for a picture or a map of the face at `plane` (z, m) in a pose."""
        at = self.layout.pose(pose)
        return Setup(
            pose=str(pose),
            stage=self.layout.stage(at),
            electron=BeamSettings(
                voltage_v=voltage, current_a=current, scan_rotation_rad=at.electron_scan_rotation, lens=Lens.FIELD_FREE
            ),
            inserted=() if device is None else (device,),
            retracted=tuple(one for one in self.description.devices if one is not device),
            focus_z_m=plane,
            settle_m_per_s=settle,
            register_on_cap=self.layout.cap_height > 0,
        )

    # -- patterns -----------------------------------------------------------------------------------------------------

    def mill(
        self,
        key: str,
        patterns: Sequence[Pattern],
        dose_c: float,
        *,
        area: str,
        voltage: float,
        current: float,
        pose: PoseName = PoseName.MILL,
        on_mark: bool = True,
        application: str | None = None,
        settle: Settle = given_again,
    ) -> Done:
        """Mill patterns with one charge (C); `settle` is for one that its server did not outlive."""
        job = PatternJob(
            patterns=tuple(patterns), purpose="mill", area=area, current_a=current, voltage_v=voltage, dose_c=dose_c,
            application=application,
        )  # fmt: skip
        return self.acts.pattern(key, job, self.ion_setup(pose, voltage, current, on_mark=on_mark), settle=settle)

    def cut(
        self,
        key: str,
        start: float,
        end: float,
        *,
        voltage: float,
        current: float,
        area: str = "face",
        side: int = 0,
        material: str = "electrode",
        removed: float | None = None,
        dose: float = DOSE_FACTOR,
        application: str | None = None,
        settle: Settle = given_again,
    ) -> Done:
        """Cut the face with a line from plane `start` to `end` (z, m); `side` +1, -1 rocks, 0 doesn't.

        `removed` (m) is the thickness that is milled, end - start by default; `dose` the charge over what that needs.
        """
        pose = {1: PoseName.ROCK_PLUS, -1: PoseName.ROCK_MINUS, 0: PoseName.CUT}[side if self.rocking > 0 else 0]
        pose = self.layout.pose(pose, self.rocking).name
        width, height = self.layout.face
        thickness = end - start if removed is None else removed
        charge = dose * mill_dose(width * height * thickness, material, voltage)
        pattern = self.layout.cut(self.view(pose, Beam.ION), start, end)
        return self.mill(
            key, [pattern], charge, area=area, voltage=voltage, current=current, pose=pose,
            on_mark=bool(self.aligner.marks), application=application, settle=settle,
        )  # fmt: skip

    def film(
        self,
        key: str,
        pattern: Rectangle,
        thickness: float,
        *,
        pose: PoseName,
        beam: Beam,
        gases: dict[str, float],
        voltage: float,
        current: float,
        area: str,
        dose_factor: DoseFactor,
        application: str | None = None,
        on_mark: bool = False,
    ) -> Done:
        """Lay a film (m) under a rectangle, by the model's dose times a factor, or by the growth that was measured.

        That is of the ion beam's films; of the electron beam's it tells nothing. The gas is shut when it is done.
        """
        surface = pattern.width_m * pattern.height_m
        density = current / surface
        growth = self.growth if dose_factor == "auto" and beam is Beam.ION else 1.0
        if beam is Beam.ION and film_yield(beam, density, voltage, growth) <= 0:
            msg = f"{key}: a film does not grow at {show(density, 'density', 3)}: enlarge its area or lower the current"
            raise Held(msg, key=key)
        job = PatternJob(
            beam=beam, patterns=(pattern,), purpose="deposit", area=area, current_a=current, voltage_v=voltage,
            dose_c=dose_times(dose_factor) * film_dose(surface, thickness, beam, density, voltage, growth), gases=gases,
            application=application,
        )  # fmt: skip
        at = self.layout.pose(pose)
        settings = self._beam(beam, voltage, current, at, on_mark=on_mark)
        others = tuple(one for one in self.description.devices if one is not Device.NEEDLE)
        done = self.acts.pattern(
            key,
            job,
            Setup(
                pose=str(pose), stage=self.layout.stage(at), inserted=(Device.NEEDLE,), retracted=others,
                ion=settings if beam is Beam.ION else None, electron=settings if beam is Beam.ELECTRON else None,
                gases_ready=tuple(gases), gases_open=gases, register_on_mark=on_mark,
            ),
            kind="deposit",
            settle=given_again,
        )  # fmt: skip
        self.aligner.shut_gas()
        return done

    # -- pictures -----------------------------------------------------------------------------------------------------

    def picture(self, key: str, folder: str, name: str, image: Image, plane: float) -> FrameRef:
        """Take the recipe's picture of the face at `plane` (z, m)."""
        setup, scan = self.image_scan(image, plane)
        return self.acts.frame(key, scan, setup, folder, name)

    def image_scan(self, image: Image, plane: float) -> tuple[Setup, Scan]:
        """Return set-up and scan of the recipe's picture of the face at `plane` (z, m)."""
        pose = PoseName.FACE_ON if image.pose == "face-on" else PoseName.MILL
        view = self.view(pose, Beam.ELECTRON)
        x0, y0, x1, y1 = image.box
        centre = view.field(((x0 + x1) / 2, (y0 + y1) / 2, plane))
        width, height = image.size_px
        tilt = view.face_tilt()
        scan = Scan(
            detectors=self.detectors or tuple(DetectorSettings(name=name) for name in image.detectors),
            width_px=width, height_px=height, pixel_m=image.pixel, centre_x_m=centre[0], centre_y_m=centre[1],
            dwell_s=image.dwell, bits=image.bits_used, tilt_correction_rad=tilt if tilt > 1e-6 else 0.0,
            dynamic_focus=tilt > 1e-6,
        )  # fmt: skip
        device = Device.CBS if "CBS" in image.detectors else None
        setup = self.electron_setup(pose, image.voltage, image.current, plane, device=device, settle=image.settle)
        return setup, scan

    def element_map(self, key: str, name: str, wanted: ElementMap, image: Image, plane: float) -> FrameRef:
        """Take an element map of the face at `plane` (z, m)."""
        pose = PoseName.FACE_ON if wanted.pose == "face-on" else PoseName.MILL
        view = self.view(pose, Beam.ELECTRON)
        x0, y0, x1, y1 = image.box
        area = wanted.area or image.area
        centre = view.field(((x0 + x1) / 2, (y0 + y1) / 2, plane))
        tilt = view.face_tilt()
        scan = EdsScan(
            elements=wanted.elements, width_px=round(area[0] / wanted.pixel), height_px=round(area[1] / wanted.pixel),
            pixel_m=wanted.pixel, centre_x_m=centre[0], centre_y_m=centre[1], dwell_s=wanted.dwell,
            frames=wanted.frames, tilt_correction_rad=tilt if tilt > 1e-6 else 0.0,
        )  # fmt: skip
        setup = self.electron_setup(
            pose, wanted.voltage, wanted.current or image.current, plane, device=Device.EDS, settle=image.settle
        )
        if self.description.maps_by == "person":
            setup = self._by_a_person(key, name, scan, setup)
        return self.acts.frame(key, scan, setup, "eds", name)

    def _by_a_person(self, key: str, name: str, scan: EdsScan, setup: Setup) -> Setup:
        """Bring the face under the beam and have a person map it; Held until they say that it is exported.

        Returns the set-up of collecting it: all stays where it is. The detector moves while the stage rests, and only
        the person can tell that it is out again.
        """
        field = scan.width_px * scan.pixel_m
        there = setup.replace(inserted=(), retracted=tuple(self.description.devices))
        in_hand = Setup(pose=setup.pose, electron=BeamSettings(hfw_m=field), inserted=(Device.EDS,))

        def hand_over() -> dict[str, Any]:
            self.aligner.ensure(there)
            self.aligner.ensure(in_hand)
            return {"field_m": field}

        args = {"scan": scan.model_dump(mode="json"), "setup": setup.model_dump(mode="json", exclude_none=True)}
        self.acts.value(f"{key}/framed", "measure", args, hand_over, mended=True)
        told = (
            f"element map {name} is a person's to take: the face stands under the electron beam, blanked, in a field "
            f"{show(field, 'length', 3)} wide; leave the stage where it is. Insert the X-ray detector; in its program "
            f"set {scan.width_px} x {scan.height_px} pixels of {show(scan.pixel_m, 'length', 3)}, "
            f"{show(scan.dwell_s, 'time', 3)} a pixel, {scan.frames} frames, a tilt of "
            f"{show(scan.tilt_correction_rad, 'angle', 3)}, {', '.join(scan.elements)}; take the map, and export it "
            "into the folder that the instrument's URL names, as one .h5oina file or as a TIFF per element "
            "(map_Ni.tif); retract the X-ray detector: the stage moves next. When the export is there and the detector "
            "is out, `kintsugi answer DIR yes` and resume"
        )
        self.ask(f"eds-{name}", args, told)
        return Setup(pose=setup.pose, inserted=(Device.EDS,))

    def overview(
        self, key: str, name: str, beam: Beam, pose: PoseName, field_m: float, *, voltage: float, current: float
    ) -> FrameRef:
        """Take a quick picture of the block's middle by one beam, `field_m` wide, into overviews/."""
        at = self.layout.pose(pose)
        view = self.layout.view(at, beam)
        scan = look_scan(self.description, beam, view.field((0.0, 0.0, self.layout.trim)), field_m)
        settings = self._beam(beam, voltage, current, at, on_mark=False)
        setup = Setup(
            pose=str(pose), stage=self.layout.stage(at), retracted=tuple(self.description.devices),
            ion=settings if beam is Beam.ION else None, electron=settings if beam is Beam.ELECTRON else None,
        )  # fmt: skip
        return self.acts.frame(key, scan, setup, "overviews", name)

    # -- measurements -------------------------------------------------------------------------------------------------

    def measure(self, key: str, ref: FrameRef, expected: float, search: float = RULER_SEARCH_M) -> Plane:
        """Measure the plane of a face picture on the ruler; where it can't be seen, the line's plane is taken.

        It is looked for up to `search` (m) from the plane that is expected.
        A picture that doesn't reach the cap gets a strip across it, taken at once (night.md 1).
        """
        image, ruler = self.recipe.slicing, self.layout.ruler
        top = self.layout.image[1]
        if image is not None and ruler is not None and top > ruler.top - RULER_WIDTH_M:
            ref = self.strip(f"{key}-strip", image.image, expected)
            top = -STRIP * self.layout.cap_height

        def compute() -> dict[str, Any]:
            found = self._ruler(self.load(ref), expected, top, search)
            if found is None:
                return {"z_m": expected, "sigma_m": UNMEASURED_M, "by": "line"}
            return {"z_m": found.z_m, "sigma_m": found.sigma_m, "by": "ruler"}

        value = self.acts.value(key, "measure", {"frame": ref.sha256, "expected_m": expected}, compute)
        if value["by"] == "line":
            return Plane(value["z_m"], value["sigma_m"], "line")
        return Plane(value["z_m"] - self.aligner.ruler_zero, value["sigma_m"], "ruler")

    def settle_on_ruler(self, key: str, before: float, after: float) -> Settle:
        """Return what settles a cut of the face from plane `before` to `after` (z, m): a picture, and its ruler.

        Where no ruler is seen all that may have been given counts: what is missing, the next planes make up for.
        """

        def settle(attempt: int, at_least: float, at_most: float) -> Settled:
            slicing = self.recipe.slicing
            if slicing is None:
                return Settled(at_most, "left out: there is no picture to measure it in")
            look = f"{key}/found-{attempt}"
            ref = self.picture(look, "looks", look.replace("/", "-"), slicing.image, before)
            plane = self.measure(f"{look}-plane", ref, before)
            if plane.by != "ruler":
                return Settled(at_most, "left out: no ruler was seen to measure it on")
            gone, sigma = (plane.z_m - before) / (after - before), plane.sigma_m / (after - before)
            fraction = likeliest(at_least, at_most, gone, sigma)
            return Settled(fraction, f"the ruler: {plane.z_m * 1e9:.0f} nm, {plane.sigma_m * 1e9:.0f} nm uncertain")

        return settle

    def strip(self, key: str, image: Image, plane: float, *, above: float = STRIP) -> FrameRef:
        """Take a quick strip of the cap's cross-section, as wide as the picture, from `above` cap heights on."""
        setup, scan = self.image_scan(image, plane)
        pose = PoseName.FACE_ON if image.pose == "face-on" else PoseName.MILL
        x0, _, x1, _ = image.box
        height = (above + STRIP_BELOW) * self.layout.cap_height
        middle = (STRIP_BELOW - above) / 2 * self.layout.cap_height
        pixel = max(image.pixel, STRIP_PIXEL_M)
        centre = self.view(pose, Beam.ELECTRON).field(((x0 + x1) / 2, middle, plane))
        strip = scan.replace(
            width_px=round((x1 - x0) / pixel), height_px=max(12, round(height / pixel)), pixel_m=pixel, bits=8,
            centre_x_m=centre[0], centre_y_m=centre[1], dwell_s=min(image.dwell, STRIP_DWELL_S),
            detectors=scan.detectors[:1],
        )  # fmt: skip
        return self.acts.frame(key, strip, setup, "looks", key.replace("/", "-"))

    def _ruler(self, frame: Frame, expected: float, top: float, search: float) -> Reading | None:
        """Read the ruler in a face picture whose first row lies at y = `top` (m)."""
        ruler = self.layout.ruler
        if ruler is None:
            return None
        pixel = (frame.meta.pixel_y_m, frame.meta.pixel_x_m)
        first = round((-1.3 * self.layout.cap_height - _STAGE_ERROR_M - top) / pixel[0])
        last = round((ruler.bottom + _STAGE_ERROR_M - top) / pixel[0])
        if last < 4:
            return None
        return read_ruler(
            frame.pixels[0],
            pixel,
            rows=slice(max(0, first), max(0, last)),
            expected_half_m=ruler.half_at(expected + self.aligner.ruler_zero),
            search_m=search,
            groove_m=(RULER_WIDTH_M * 2**0.5, ruler.bottom - ruler.top),
            half_at_zero_m=ruler.half_at_zero,
        )

    def value(self, key: str, kind: str, args: Any, compute: Callable[[], Any]) -> Any:
        """Return plain values that are worked out once."""
        return self.acts.value(key, kind, args, compute)

    # -- people -------------------------------------------------------------------------------------------------------

    def confirm(self, what: str, pictures: Sequence[FrameRef]) -> None:
        """Wait for a person's yes to pictures where the recipe asks for it; Held, blanked and safe, until it comes."""
        if what not in self.recipe.confirm:
            return

        args = {"pictures": [ref.sha256 for ref in pictures]}
        shown = ", ".join(ref.name for ref in pictures)
        told = f"{what} is to be confirmed: look at {shown}, then `kintsugi answer DIR yes` and resume"
        self.ask(what, args, told, of_virtual=False)

    def ask(self, what: str, args: Any, told: str, *, of_virtual: bool = True) -> None:
        """Wait for a person's yes to a question about `args`, whoever else may be there; Held until it comes.

        `of_virtual` False: what matters on a real microscope alone is nobody's question on a virtual one
        """

        def compute() -> dict[str, Any]:
            if self.description.virtual and not of_virtual:
                return {"answer": "yes", "by": "nobody: the microscope is virtual"}
            answer = self._answer(what)
            if answer == "yes":
                return {"answer": "yes", "by": "a person"}
            so_far = "the answer was no" if answer == "no" else "nobody has answered yet"
            msg = f"{told} ({so_far})"
            raise Held(msg, question=what)

        self.acts.value(f"confirm/{what}", "answer", args, compute)

    def _beam(self, beam: Beam, voltage: float, current: float, at: Pose, *, on_mark: bool) -> BeamSettings:
        """Return a beam's settings in a pose: an ion current in its focus, shifted unless a mark is to place it."""
        pointing = self.aligner.pointing
        if beam is Beam.ELECTRON:
            settings = BeamSettings(voltage_v=voltage, current_a=current, scan_rotation_rad=at.electron_scan_rotation)
            u, v = 0.0, 0.0
        else:
            settings = BeamSettings(
                voltage_v=voltage, current_a=current, species=self.description.usual_species,
                scan_rotation_rad=at.ion_scan_rotation, working_distance_m=pointing.focus(voltage, current),
            )  # fmt: skip
            u, v = pointing.shift(voltage, current, at.ion_scan_rotation)
        return settings if on_mark else settings.replace(shift_x_m=u, shift_y_m=v)
