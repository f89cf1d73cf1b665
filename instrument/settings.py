"""What is said to an instrument and what it answers: frozen models in SI units and radians."""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise
from math import hypot
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
#: A bitmap pattern has at most so many pixels across and down: it goes over the network and into the ledger.
BITMAP_PX = 128


class Model(BaseModel):
    """A frozen value. Unknown fields are refused; `replace` is the only way to a changed copy."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, validated again."""
        return type(self).model_validate({**self.model_dump(), **changes})


class Beam(StrEnum):
    """The two columns."""

    ELECTRON = "electron"
    ION = "ion"


class Device(StrEnum):
    """What can be moved in and out of the chamber."""

    CBS = "CBS"
    EDS = "EDS"
    NEEDLE = "needle"


class Lens(StrEnum):
    """Objective lens mode of the electron column."""

    FIELD_FREE = "field-free"
    IMMERSION = "immersion"


class StagePosition(Model):
    """Raw stage coordinates; a field left None stays where it is. Metres and radians."""

    x: Finite | None = None
    y: Finite | None = None
    z: Finite | None = None
    r: Finite | None = None
    t: Finite | None = None


class BeamSettings(Model):
    """Settings of one column; a field left None is not touched. SI units, radians; shifts in the field frame."""

    voltage_v: Positive | None = None
    current_a: Positive | None = None
    species: str | None = None
    hfw_m: Positive | None = None
    working_distance_m: Positive | None = None
    shift_x_m: Finite | None = None
    shift_y_m: Finite | None = None
    scan_rotation_rad: Finite | None = None
    stigmator_x: Finite | None = None
    stigmator_y: Finite | None = None
    lens: Lens | None = None
    source_on: bool | None = None


class DetectorSettings(Model):
    """One detector in a scan: its name (CBS, TLD, ETD, ICE), contrast and brightness, each 0 to 1, and its mode.

    What is None is left as it stands, but TLD then gives backscattered electrons where it can; a frame says what stood.
    """

    name: str
    contrast: Share | None = None
    brightness: Share | None = None
    mode: str | None = None


class Scan(Model):
    """One picture: all detectors in one pass.

    `centre_*` is the middle of the scanned area in the field frame (metres, v down the picture). `pixel_m` is the
    pixel on a surface square to the beam; with `tilt_correction_rad` the lines lie closer by cos of that angle, so that
    the pixel is square on a surface tilted by it. Dynamic focus follows the same angle. `dwell_s` is per pixel.
    """

    beam: Beam = Beam.ELECTRON
    detectors: tuple[DetectorSettings, ...] = Field(min_length=1, max_length=4)
    width_px: int = Field(ge=12, le=65535)
    height_px: int = Field(ge=12, le=65535)
    pixel_m: Positive
    centre_x_m: Finite = 0.0
    centre_y_m: Finite = 0.0
    dwell_s: Positive
    line_integrations: int = Field(default=1, ge=1, le=128)
    frame_integrations: int = Field(default=1, ge=1, le=255)
    bits: Literal[8, 16] = 8
    tilt_correction_rad: Finite = 0.0
    dynamic_focus: bool = False


class EdsScan(Model):
    """An element map by the electron beam: `dwell_s` per pixel and frame; the frames are summed and kept apart."""

    elements: tuple[str, ...] = Field(min_length=1)
    width_px: int = Field(ge=12, le=8192)
    height_px: int = Field(ge=12, le=8192)
    pixel_m: Positive
    centre_x_m: Finite = 0.0
    centre_y_m: Finite = 0.0
    dwell_s: Positive = 100e-6
    frames: int = Field(default=1, ge=1, le=64)
    tilt_correction_rad: Finite = 0.0


class GasSetting(Model):
    """One chemistry of the injector: heater, share of duty, valve. A field left None is not touched."""

    heater_on: bool | None = None
    duty: Share | None = None
    valve_open: bool | None = None


class Rectangle(Model):
    """A box: milled to `depth_m`, or deposited to that height; sizes in the field frame, metres."""

    kind: Literal["rectangle"] = "rectangle"
    x_m: Finite
    y_m: Finite
    width_m: Positive
    height_m: Positive
    depth_m: Positive


class CleaningCrossSection(Model):
    """A line of length `width_m` at `x_m` that advances along the field's y from `start_y_m` to its end, `end_y_m`.

    `depth_m` is how deep along the beam it is meant to reach.
    """

    kind: Literal["cleaning-cross-section"] = "cleaning-cross-section"
    x_m: Finite
    width_m: Positive
    start_y_m: Finite
    end_y_m: Finite
    depth_m: Positive


class Line(Model):
    """A straight groove from one point to the other, `line_width_m` wide and `depth_m` deep."""

    kind: Literal["line"] = "line"
    x0_m: Finite
    y0_m: Finite
    x1_m: Finite
    y1_m: Finite
    line_width_m: Positive
    depth_m: Positive


class RegularCrossSection(Model):
    """A stair down to a face: its depth grows from 0 at one long edge to `depth_m` at the other, `deep`.

    `deep` is the edge as the field shows it, y down: `top` has the smaller y. It is milled only, as is a bitmap.
    """

    kind: Literal["regular-cross-section"] = "regular-cross-section"
    x_m: Finite
    y_m: Finite
    width_m: Positive
    height_m: Positive
    depth_m: Positive
    deep: Literal["top", "bottom"]


class Bitmap(Model):
    """A box that is milled to a depth of its own at each pixel: `shares` of `depth_m`, rows down the field."""

    kind: Literal["bitmap"] = "bitmap"
    x_m: Finite
    y_m: Finite
    width_m: Positive
    height_m: Positive
    depth_m: Positive
    shares: tuple[Annotated[tuple[Share, ...], Field(min_length=1, max_length=BITMAP_PX)], ...] = Field(
        min_length=1, max_length=BITMAP_PX
    )

    @model_validator(mode="after")
    def _of_rows_alike(self) -> Self:
        lengths = {len(row) for row in self.shares}
        if len(lengths) > 1:
            msg = f"a bitmap's rows are of one length, not of {min(lengths)} to {max(lengths)} pixels"
            raise ValueError(msg)
        if not self.mean_share > 0:
            msg = "a bitmap has a share above 0 somewhere: this one would mill nothing"
            raise ValueError(msg)
        return self

    @property
    def mean_share(self) -> float:
        """The volume over that of the whole box."""
        return sum(map(sum, self.shares)) / (len(self.shares) * len(self.shares[0]))


Pattern = Annotated[Rectangle | CleaningCrossSection | Line | RegularCrossSection | Bitmap, Field(discriminator="kind")]


def volume(pattern: Pattern) -> float:
    """Return what a pattern takes away or lays (m3), in proportion to which a job's patterns share its dose."""
    if isinstance(pattern, Line):
        length = hypot(pattern.x1_m - pattern.x0_m, pattern.y1_m - pattern.y0_m) + pattern.line_width_m
        return length * pattern.line_width_m * pattern.depth_m
    if isinstance(pattern, CleaningCrossSection):
        return pattern.width_m * max(abs(pattern.end_y_m - pattern.start_y_m), 1e-9) * pattern.depth_m
    box = pattern.width_m * pattern.height_m * pattern.depth_m
    if isinstance(pattern, RegularCrossSection):
        return box / 2
    return box * pattern.mean_share if isinstance(pattern, Bitmap) else box


class PatternJob(Model):
    """What the ion (or electron) beam is to write: patterns in series, one dose, with or without a gas.

    `dose_c` is the whole charge of the job in coulomb; `from_fraction`..`to_fraction` is the part of it to be
    given now, so that a job can be cut into pieces and the rest given after an interruption. `current_a` and
    `voltage_v` are what the beam must have when the job starts. `area` says what is written, for the guard's account of
    doses.
    """

    beam: Beam = Beam.ION
    patterns: tuple[Pattern, ...] = Field(min_length=1)
    purpose: Literal["mill", "deposit"]
    area: str
    current_a: Positive
    voltage_v: Positive
    dose_c: Positive
    gases: dict[str, Share] = Field(default_factory=dict)
    application: str | None = None
    from_fraction: Share = 0.0
    to_fraction: Share = 1.0

    @model_validator(mode="after")
    def _forwards(self) -> Self:
        if self.to_fraction < self.from_fraction:
            msg = f"a job goes on from {self.from_fraction:g} and cannot end before, at {self.to_fraction:g}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _films_are_even(self) -> Self:
        uneven = [one.kind for one in self.patterns if isinstance(one, RegularCrossSection | Bitmap)]
        if uneven and self.purpose == "deposit":
            msg = f"a film is laid by rectangles and lines; a {uneven[0]} is milled only"
            raise ValueError(msg)
        return self

    @property
    def seconds(self) -> float:
        """Beam time of this part of the job."""
        return self.dose_c / self.current_a * (self.to_fraction - self.from_fraction)

    def part(self) -> Self:
        """Return a job of its own, from 0 to 1, that writes the part of this one that is to be given now.

        A cleaning cross-section goes part of its way; any other pattern is gone over for part of the time, which counts
        as part of its depth where several share a dose.
        """
        if (self.from_fraction, self.to_fraction) == (0.0, 1.0):
            return self
        shares = [volume(pattern) for pattern in self.patterns]
        low, kept = 0.0, []
        for pattern, share in zip(self.patterns, shares, strict=True):
            width = share / sum(shares)
            first, last = ((edge - low) / width for edge in (self.from_fraction, self.to_fraction))
            first, last = max(0.0, first), min(1.0, last)
            if last > first + 1e-12:
                kept.append(_cut(pattern, first, last, alone=len(self.patterns) == 1))
            low += width
        dose = self.dose_c * (self.to_fraction - self.from_fraction)
        return self.replace(patterns=tuple(kept), dose_c=dose, from_fraction=0.0, to_fraction=1.0)

    def pieces(self, longest_s: float) -> tuple[PatternJob, ...]:
        """Cut the job into equal pieces of at most `longest_s` seconds, in order."""
        count = max(1, -int(-self.seconds // longest_s))
        span = self.to_fraction - self.from_fraction
        edges = [self.from_fraction + span * i / count for i in range(count)] + [self.to_fraction]
        return tuple(self.replace(from_fraction=a, to_fraction=b) for a, b in pairwise(edges))


def _cut(pattern: Pattern, first: float, last: float, *, alone: bool) -> Pattern:
    """Return a pattern from one fraction of it to another."""
    if isinstance(pattern, CleaningCrossSection):
        span = pattern.end_y_m - pattern.start_y_m
        return pattern.replace(start_y_m=pattern.start_y_m + span * first, end_y_m=pattern.start_y_m + span * last)
    return pattern if alone else pattern.replace(depth_m=pattern.depth_m * (last - first))


class Progress(Model):
    """Where a pattern stands: fraction of the job (0 to 1), seconds gone, seconds left."""

    fraction: Share
    elapsed_s: NotNegative
    remaining_s: NotNegative


class Done(Model):
    """How a pattern ended: up to which fraction of the job, how long the beam was on, the charge given."""

    fraction: Share
    elapsed_s: NotNegative
    charge_c: NotNegative
    stopped: bool = False


class Tune(StrEnum):
    """Automatic routines."""

    FOCUS = "focus"
    STIGMATOR = "stigmator"
    CONTRAST = "contrast"


class Tuning(Model):
    """What a routine found: working distance, stigmator, or contrast and brightness per detector; score 0 to 1."""

    routine: Tune
    score: float
    working_distance_m: float | None = None
    stigmator_x: float | None = None
    stigmator_y: float | None = None
    detectors: tuple[DetectorSettings, ...] = ()


class Recovery(StrEnum):
    """What is done only when asked for."""

    RELIGHT_SOURCE = "relight-source"
    HOME_STAGE = "home-stage"
    PUMP = "pump"


class BeamState(Model):
    """A column as read: its settings, whether the source is on and the beam blanked, and the measured current (A)."""

    settings: BeamSettings
    source_on: bool
    blanked: bool
    measured_current_a: float


class GasState(Model):
    """A chemistry as read: heater, `ready` (at temperature), duty, valve, and hours open so far."""

    heater_on: bool
    ready: bool
    duty: float
    valve_open: bool
    open_s: float = 0.0


class State(Model):
    """All that can be read, in one snapshot. `time_s` is the instrument's clock."""

    time_s: float
    stage: StagePosition
    stage_homed: bool
    electron: BeamState
    ion: BeamState
    devices: dict[Device, bool]
    gases: dict[str, GasState]
    pressure_pa: float
    patterning: bool
    safe: bool

    def beam(self, beam: Beam) -> BeamState:
        """Return the column's state."""
        return self.electron if beam is Beam.ELECTRON else self.ion


class StageLimits(Model):
    """Ends of travel, metres and radians, as (low, high)."""

    x: tuple[Finite, Finite]
    y: tuple[Finite, Finite]
    z: tuple[Finite, Finite]
    t: tuple[Finite, Finite]


#: The ion species that rates, spots and working points are known of (protocol.md).
USUAL_SPECIES = "Xenon"
#: Who starts an element map beside the instrument, as recipes name it.
MapStarter = Literal["laser-api", "command", "person"]


class Description(Model):
    """What this instrument is and can do; constant during a session, but for lists that were assumed before.

    `ion_currents_a` lists the nominal currents (A) by "SPECIES@VOLTS" (volts as integer), `electron_currents_a` those
    of the electron column. `assumed_currents` names the lists that were not read from the instrument: it tells a list
    only where it stands. `maps_by` is who starts element maps beside the instrument, None where it does so itself.
    """

    model: str
    serial: str
    virtual: bool
    species: tuple[str, ...]
    detectors: tuple[str, ...]
    gases: tuple[str, ...]
    devices: tuple[Device, ...]
    elements: bool
    maps_by: MapStarter | None = None
    ion_voltages_v: tuple[float, ...]
    electron_voltages_v: tuple[float, ...]
    ion_currents_a: dict[str, tuple[float, ...]]
    assumed_currents: tuple[str, ...] = ()
    electron_currents_a: tuple[float, ...]
    ion_field_max_m: float
    electron_field_max_m: float
    beam_shift_max_m: float
    stage: StageLimits
    column_angle_rad: float
    working_distance_m: float
    sixteen_bit_sizes: tuple[tuple[int, int], ...]
    software: str

    @property
    def usual_species(self) -> str:
        """The ion species that is worked with: xenon, or the only one of a source without it."""
        return USUAL_SPECIES if USUAL_SPECIES in self.species or not self.species else self.species[0]

    def list_name(self, voltage_v: float, species: str | None = None) -> str:
        """Return by which name `ion_currents_a` lists the currents at a voltage, of the usual species by default."""
        return f"{species or self.usual_species}@{voltage_v:.0f}"

    def currents(self, beam: Beam, voltage_v: float, species: str | None = None) -> tuple[float, ...]:
        """Return the nominal currents (A) of a column at a voltage, empty where there are none."""
        if beam is Beam.ELECTRON:
            return self.electron_currents_a
        return self.ion_currents_a.get(self.list_name(voltage_v, species), ())

    def may_have(self, beam: Beam, voltage_v: float, current_a: float, room: float, species: str | None = None) -> bool:
        """Tell whether a column lists a current (A) within a share `room` of it.

        Where its list is only assumed, any current between the list's ends may be there.
        """
        listed = self.currents(beam, voltage_v, species)
        if beam is Beam.ION and listed and self.list_name(voltage_v, species) in self.assumed_currents:
            return min(listed) * (1 - room) <= current_a <= max(listed) * (1 + room)
        return any(abs(current_a - one) <= room * one for one in listed)


class PoseLimit(Model):
    """A pose that the controller may drive to: rotation and tilt (rad) and how far off it may be."""

    name: str
    r: Finite
    t: Finite
    tolerance_rad: NotNegative = 0.02


class BeamLimit(Model):
    """A working point that the controller may use: column, voltage (V), currents (A), and what for."""

    beam: Beam
    voltage_v: Positive
    currents_a: tuple[Positive, ...]


class DoseLimit(Model):
    """How much charge (C) an area may get in all, and the box of the field (m) that its patterns must lie in.

    `box` is (x_min, y_min, x_max, y_max) in the ion field frame.
    """

    area: str
    charge_c: NotNegative
    box: tuple[Finite, Finite, Finite, Finite]


class Envelope(Model):
    """What a controller says it is going to do, at most; the guard refuses all else.

    Every limit is a number: nothing compares with NaN, so that it would let everything pass. `electron_dose_c_per_m2`
    is the dose of one electron picture or map; None: any.
    """

    run: str
    poses: tuple[PoseLimit, ...]
    stage_box: StageLimits
    beams: tuple[BeamLimit, ...]
    gases: tuple[str, ...]
    doses: tuple[DoseLimit, ...]
    density_max_a_per_m2: Positive = 15.0
    electron_dose_c_per_m2: Positive | None = None
    max_pattern_s: Positive = 120.0


class Setup(Model):
    """How the instrument must stand before an act: compared with `state()`, brought about, verified.

    None means that it does not matter. `inserted` and `retracted` list devices, `gases_ready` gases at temperature.
    `register_on_mark`: the ion beam's shift is corrected on the fiducial first; `register_on_cap`: the electron beam's
    on the ruler or the cap. `focus_z_m`: the plane of the block (m) that the electron beam is to be focused on.
    `settle_m_per_s`: the drift below which the act may begin. `gases_open`: valves to be open, with their duty; all
    others are shut.
    """

    pose: str
    stage: StagePosition | None = None
    electron: BeamSettings | None = None
    ion: BeamSettings | None = None
    inserted: tuple[Device, ...] = ()
    retracted: tuple[Device, ...] = ()
    gases_ready: tuple[str, ...] = ()
    register_on_mark: bool = False
    register_on_cap: bool = False
    focus_z_m: Finite | None = None
    settle_m_per_s: Positive | None = None
    gases_open: dict[str, Share] = Field(default_factory=dict)
