"""The steps of a recipe and their settings, as people write them; SI floats and radians inside.

Lengths on the block are in the block frame: x across the face (0 in its middle), y down it (0 at the bare top
surface, the cap lies at y < 0), z into the block (0 at the bare front edge).
"""

from __future__ import annotations

from math import floor
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from instrument.settings import Beam, DetectorSettings, MapStarter, Model
from instrument.units import ArealMass, Current, CurrentDensity, Extent2, Extent3, MassFraction, Of, Rate, Voltage
from workflows.recipe_fields import (
    Application,
    Box,
    Cuts,
    Distance,
    DoseFactor,
    Dwell,
    Gases,
    Images,
    Name,
    Place,
    Share,
    Thickness,
    Time,
    Times,
    nothing,
    one_density,
    with_density,
)  # fmt: skip

#: Image sizes that a Helios saves with 16 bit; any other size has 8 (physics.md 1.4).
SIXTEEN_BIT_SIZES = (
    (512, 442), (768, 512), (1024, 884), (1536, 1024), (2048, 1768), (3072, 2048), (4096, 3536), (6144, 4096),
)  # fmt: skip
#: A preset size is taken when it is as near as this to what the area asks for.
_PRESET_WITHIN = 0.01
#: How much of the cap's front the trim takes away with the ragged edge (night.md, note below its recipe).
CAP_TRIMMED_M = 5e-6

#: A cut's usual dose times this is hardly more than its volume needs.
LEAST_CUT = 0.75
#: Pores narrower than this could be filled, unless a recipe says otherwise (m).
FILLABLE_M = 1.2e-6


class Settings(Model):
    """A frozen part of a recipe; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)


class Composition(Settings):
    """What the electrode was made of: weight shares, areal mass (kg/m2) and thickness (m) of one coating."""

    active: MassFraction | None = None
    carbon: MassFraction | None = None
    binder: MassFraction | None = None
    loading: ArealMass | None = None
    coating: Thickness | None = None


class Sample(Settings):
    """The sample and its stub; `pretilt` (rad) is 45 deg on the usual wedge (protocol.md, Sample)."""

    pretilt: Annotated[float, Of("angle", low=0.0, high=1.2)]
    material: Name = "NMC"
    composition: Composition | None = None


class Ion(Settings):
    """How the ion beam writes a film: voltage (V), and either density (A/m2 of true surface) or current (A)."""

    voltage: Voltage = 8e3
    density: CurrentDensity | None = None
    current: Current | None = None

    @model_validator(mode="before")
    @classmethod
    def _default_density(cls, data: Any) -> Any:
        return with_density(data)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        one_density(self.density, self.current)
        return self


class Protect(Settings):
    """The Pt-C cap on the top surface: `area` (m; across the face by into the block), thickness (m), gases with duty.

    `start` is the z (m) of its front edge; None: so that the trim takes the first 5 um of it. `ruler`: two lines at
    +-45 deg buried in its middle, whose spacing grows by 2t per t removed (night.md 1). `dose_factor`: its dose over
    the model's, as an earlier run on this instrument found it; auto: 1, as nothing is measured yet. `application`: the
    microscope's application file for its film, and for the film under a mark.
    """

    area: Extent2
    thickness: Thickness = 5e-6
    dose_factor: DoseFactor = "auto"
    gas: Gases = Field(default={"Pt": 1.0, "C": 0.02})
    application: Application = None
    ion: Ion = Ion()
    ruler: Literal["chevron", "none"] = "chevron"
    start: Distance | None = None

    def front(self, trim: float) -> float:
        """Return z (m) of the cap's front edge before the face is trimmed by `trim` (m)."""
        return max(0.0, trim - CAP_TRIMMED_M) if self.start is None else self.start


class Trench(Settings):
    """The two side trenches (m): `width` across, `length` into the block from the bare edge, `depth` along the beam.

    `depth` None: as deep as the face. `currents` (A) fall from rough to fine. `application`: the microscope's
    application file for their boxes.
    """

    width: Thickness
    length: Thickness
    depth: Thickness | None = None
    currents: tuple[Current, ...] = Field(default=(2500e-9, 500e-9), min_length=1)
    application: Application = None


class Polish(Settings):
    """The last cuts of the front: current (A); over-tilt (rad) of the stage in every cut of the face, against taper.

    A beam along the face leaves its foot standing by 1 to 2 deg: 6 um at a depth of 230 um (night.md 13).
    """

    current: Current = 60e-9
    over_tilt: Annotated[float, Of("angle", low=0.0, high=0.1)] = 0.0


class Fiducial(Settings):
    """The X that places the ion pattern: on a `cap` of its own (x, z, height; m) behind the area, or on the cap's rear.

    `gap` (m) lies between the protective cap and this one; `spare` makes a second mark beside it; `budget` (m) is how
    much of the mark all looks together may take (night.md 9); `depth` (m) of the mark. `application`: the microscope's
    application file for its grooves, and for the ruler's.
    """

    cap: Extent3 | None = (20e-6, 20e-6, 2e-6)
    size: Thickness = 10e-6
    depth: Thickness = 1.5e-6
    current: Current = 15e-9
    place: Literal["behind", "on-cap"] = "behind"
    gap: Distance = 5e-6
    spare: bool = True
    budget: Thickness = 0.3e-6
    application: Application = None


class Block(Settings):
    """Front trim, trenches, fiducial, milled and polished face; `face` is width by depth along the ion beam (m).

    `trim` (m) is what is taken off the ragged front. `keep_off` (m) is how far the first trench current stays from
    the block; every finer current halves it. `application`: the microscope's application file for trim and polish.
    """

    face: Extent2
    trim: Distance = 30e-6
    trench: Trench
    keep_off: Distance = 20e-6
    polish: Polish = Polish()
    fiducial: Fiducial = Fiducial()
    voltage: Voltage = 30e3
    application: Application = None

    def trench_depth(self) -> float:
        """Return the trenches' depth (m) along the ion beam."""
        return self.face[1] if self.trench.depth is None else self.trench.depth

    def kept_off(self, index: int) -> float:
        """Return how far (m) the trench current of this index stays from the block; the last one stays at 0."""
        return 0.0 if index >= len(self.trench.currents) - 1 and index > 0 else self.keep_off / 2**index


class Made(Settings):
    """What the run says that made an adopted block; found by `run`, not written by people.

    Its steps; the plane (z, m) its face was left on; what its ruler reads on the trimmed plane minus that plane, and
    how much looks have taken off its mark (m); detectors as they were locked; how fast films grew over the model; what
    its cuts were found to need of the charge that their volume needs, None where the usual share was enough.
    """

    protect: Protect
    block: Block
    plane: Distance
    ruler_zero: Annotated[float, Of("length")] = 0.0
    worn: Distance = 0.0
    detectors: tuple[DetectorSettings, ...] = ()
    growth: float = 1.0
    dose: float | None = None


class Adopt(Settings):
    """An existing block instead of protect and block.

    One of an earlier run of ours: the folder of that `run` says all. Any other: `face` and `cap` say how big its face
    and how high its cap are (m), `fiducial` what its mark is like; the `site` was taught with its marks clicked. Of a
    run's mark `fiducial` says only what looks may take from now on (its budget).
    """

    site: Name
    run: Name | None = None
    face: Extent2 | None = None
    cap: Thickness | None = None
    fiducial: Fiducial | None = None
    made: Made | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.run is None and (self.face is None or self.cap is None):
            msg = "adopt says neither which run made the block nor its face and cap; write `run: DIR`, or both of these"
            raise ValueError(msg)
        return self


class Clean(Settings):
    """The green clean after a film: coarse cuts down to `fine_from` (m) above the old plane, then rocking cuts.

    It ends when no film is left in the image area (an image every `image_every`, m) or when the plane has passed the
    old one by `over` (m). `coarse` None: fine cuts throughout. Its last cuts are the warm-up of the cuts that follow.
    `application`: the microscope's application file for the coarse cuts; fine ones take that of the cuts.
    """

    coarse: Current | None = 200e-9
    fine_from: Distance = 0.4e-6
    until: Literal["no film"] = "no film"
    image_every: Thickness = 100e-9
    over: Thickness = 50e-9
    application: Application = None


class Infiltrate(Settings):
    """Rounds of a Pt film on the face and its green clean (night.md 6, 7).

    `thickness` (m) is that of the film on a flat surface; its dose is the model's times `dose_factor`, or (auto) what
    the cap's height on this sample says that it needs (night.md 15). Voltage (V), and density (A/m2 of true surface)
    or current (A). `pose` ion-normal: ion beam square on the face; imaging: the electron beam is, the ion beam comes
    over the cap. `film` is its size (m); None: the image area and `beyond` (m) on every side. It ends at least `keep`
    (m) inside the face. `pair` keeps an image of the same plane before and after. `application`: the microscope's
    application file for the film.
    """

    gas: Gases = Field(default={"Pt": 1.0})
    application: Application = None
    beam: Beam = Beam.ION
    voltage: Voltage = 8e3
    density: CurrentDensity | None = None
    current: Current | None = None
    pose: Literal["ion-normal", "imaging"] = "ion-normal"
    thickness: Thickness = 2e-6
    dose_factor: DoseFactor = "auto"
    rounds: int = Field(default=3, ge=1, le=20)
    film: Extent2 | None = None
    beyond: Distance = 5e-6
    keep: Distance = 9e-6
    clean: Clean = Clean()
    pair: bool = True

    @model_validator(mode="before")
    @classmethod
    def _default_density(cls, data: Any) -> Any:
        return with_density(data)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        one_density(self.density, self.current)
        return self

    def film_box(self, image: Box) -> Box:
        """Return the film's (x0, y0, x1, y1) on the face (m, block frame) for an image area."""
        x0, y0, x1, y1 = image
        if self.film is None:
            return x0 - self.beyond, y0 - self.beyond, x1 + self.beyond, y1 + self.beyond
        middle = (x0 + x1) / 2
        return middle - self.film[0] / 2, y0, middle + self.film[0] / 2, y0 + self.film[1]


class Refill(Infiltrate):
    """Films during slicing; what isn't given is as in the recipe's `infiltrate`, but for thickness and rounds.

    `when`: the share of fillable pore area (throat under `fillable`, m) that stands empty, over this in `for` images
    running and above what the last fill left; not within, at least every, at most so many images or times. The
    decision after image k uses labels up to k - `decide_on`. `no_evidence`: what is done when labels don't come.
    `expected_every`: what a plan reckons.
    """

    thickness: Thickness = 0.6e-6
    rounds: int = Field(default=1, ge=1, le=20)
    when: Share = 0.2
    fillable: Thickness = FILLABLE_M
    for_images: Images = Field(default=2, alias="for")
    not_within: Images = 6
    at_least_every: Images | None = None
    at_most: Times = 15
    decide_on: Images = 1
    no_evidence: Literal["every", "go-on", "hold"] = "go-on"
    expected_every: Images = 10

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.at_least_every is not None and self.at_least_every <= self.not_within:
            msg = (
                f"at_least_every ({self.at_least_every} images) is not more than "
                f"not_within ({self.not_within} images); a refill could never come in time: raise at_least_every"
            )
            raise ValueError(msg)
        if self.no_evidence == "every" and self.at_least_every is None:
            msg = "no_evidence: every has no number of images; write at_least_every as well"
            raise ValueError(msg)
        return self


class Cut(Settings):
    """One cut: its thickness (m), current (A) and voltage (V); cuts alternate between +rocking and -rocking (rad).

    `warm_up` cuts after the block and after a pause are not counted as slices; a clean's last cuts serve as its
    warm-up. `dose_factor`: its dose over the usual one, which is half more than its volume needs; auto: more where the
    face is seen to stay behind. `application`: the microscope's application file for cuts.
    """

    thickness: Thickness
    dose_factor: DoseFactor = "auto"
    current: Current = 60e-9
    voltage: Voltage = 30e3
    rocking: Annotated[float, Of("angle", low=0.0, high=0.18)] = 0.0
    warm_up: int = Field(default=0, ge=0, le=100)
    application: Application = None

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.dose_factor != "auto" and self.dose_factor < LEAST_CUT:
            msg = (
                f"dose_factor ({self.dose_factor:g}) gives cuts hardly what their volume needs, so that the face would "
                f"stay behind: write {LEAST_CUT:g} or more, or auto"
            )
            raise ValueError(msg)
        return self


class Image(Settings):
    """The picture of every slice: after `every` cuts, `area` (x by y, m) on the face.

    Its top edge lies `above` (m) over the electrode's, on the cap's front, unless `centre` (x, y; m) is given.
    `settle` is the drift (m/s) below which it is taken. `bits` None: 16 where the size allows, else 8. Dwell (s) per
    pixel.
    """

    every: Cuts = 1
    pose: Literal["classic", "face-on"] = "classic"
    area: Extent2
    above: Distance = 0.0
    centre: Place = None
    pixel: Thickness
    detectors: tuple[Name, ...] = Field(default=("CBS", "TLD"), min_length=1, max_length=4)
    voltage: Voltage = 5e3
    current: Current = 1.6e-9
    working_distance: Thickness | None = None
    dwell: Dwell = 3e-6
    contrast: Literal["locked"] = "locked"
    settle: Rate = 10e-9 / 60
    bits: Literal[8, 16] | None = None

    @property
    def box(self) -> Box:
        """The area's (x0, y0, x1, y1) on the face (m, block frame)."""
        x, y = (0.0, self.area[1] / 2 - self.above) if self.centre is None else self.centre
        return x - self.area[0] / 2, y - self.area[1] / 2, x + self.area[0] / 2, y + self.area[1] / 2

    @property
    def size_px(self) -> tuple[int, int]:
        """Pixels across and down; a 16 bit size is taken when it is within 1 % of the area on both sides."""
        width, height = (max(1, round(side / self.pixel)) for side in self.area)
        for preset in SIXTEEN_BIT_SIZES:
            if abs(preset[0] - width) <= _PRESET_WITHIN * width and abs(preset[1] - height) <= _PRESET_WITHIN * height:
                return preset
        return width, height

    @property
    def bits_used(self) -> Literal[8, 16]:
        """Bits per pixel that a frame of this size has."""
        return self.bits or (16 if self.size_px in SIXTEEN_BIT_SIZES else 8)


class ElementMap(Settings):
    """An element map: elements, voltage (V), current (A; None: as the image), pixel (m), dwell (s) per pixel and frame.

    `area` (m) None: the image's. `start` says who presses start on a real instrument (night.md 17).
    """

    pose: Literal["classic", "face-on"] = "face-on"
    elements: tuple[Name, ...] = Field(default=("Al", "Ni", "Pt", "C", "F"), min_length=1)
    area: Extent2 | None = None
    voltage: Voltage = 10e3
    current: Current | None = None
    working_distance: Thickness | None = None
    pixel: Thickness = 54e-9
    dwell: Dwell = 100e-6
    frames: int = Field(default=10, ge=1, le=64)
    start: MapStarter | None = None


class Eds(ElementMap):
    """Element maps during slicing: `every` so many images, or `at` these images (counted from 1)."""

    every: Images | None = None
    at: tuple[Annotated[int, Field(ge=1)], ...] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.every is None) == (self.at is None):
            msg = "every and at are both given or both missing; write one: `every: 60 images` or `at: [10, 20]`"
            raise ValueError(msg)
        return self

    def due(self, image: int) -> bool:
        """Tell whether a map comes after this image (counted from 1)."""
        return image in self.at if self.at is not None else self.every is not None and image % self.every == 0


class Until(Settings):
    """When slicing ends: at a depth (m) or a number of images, and no later than a time of day or a duration (`or`)."""

    depth: Thickness | None = None
    images: Images | None = None
    latest: Time | None = Field(default=None, alias="or")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.depth is None) == (self.images is None):
            msg = "depth and images are both given or both missing; write one: `depth: 15 um` or `images: 20`"
            raise ValueError(msg)
        return self


class Slice(Settings):
    """Cuts, images, element maps and refills until the end."""

    cut: Cut
    image: Image
    eds: Annotated[Eds | None, BeforeValidator(nothing)] = None
    until: Until
    refill: Annotated[Refill | None, BeforeValidator(nothing)] = None

    @property
    def spacing(self) -> float:
        """Thickness (m) between two images."""
        return self.cut.thickness * self.image.every

    @property
    def images(self) -> int:
        """How many images the recipe asks for, whatever the time."""
        if self.until.images is not None:
            return self.until.images
        return floor((self.until.depth or 0.0) / self.spacing + 1e-6)

    @property
    def depth(self) -> float:
        """How far (m) the counted slices reach."""
        return self.images * self.spacing


class Finish(Settings):
    """The end: last pictures, devices out, gas cold, beams off; what becomes of the ion source.

    standby is leave-on, blanked: the vendor's interface has no standby of the plasma.
    """

    source: Literal["leave-on", "standby", "off"] = "standby"


StepSettings = Protect | Block | Adopt | Infiltrate | Slice | ElementMap | Finish


class Step(Settings):
    """One step: exactly one of its fields is given."""

    protect: Protect | None = None
    block: Block | None = None
    adopt: Adopt | None = None
    infiltrate: Infiltrate | None = None
    slice: Slice | None = None
    eds: ElementMap | None = None
    finish: Finish | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, data: Any) -> Any:
        if isinstance(data, str):
            return {data: {}}
        if isinstance(data, dict) and len(data) == 1 and None in data.values():
            return {name: {} for name in data}
        return data

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            kinds = ", ".join(type(self).model_fields)
            msg = f"a step has one key and this one has {len(given)}; begin a new `- ` for each of {kinds}"
            raise ValueError(msg)
        return self

    @property
    def kind(self) -> str:
        """The step's key."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def settings(self) -> StepSettings:
        """What stands under the key."""
        found: StepSettings = getattr(self, self.kind)
        return found
