"""Everything about the virtual machine that is neither voxel nor map: one frozen model, saved whole."""

from __future__ import annotations

from pydantic import Field

from instrument.hydra import hydra
from instrument.settings import (
    Beam,
    BeamSettings,
    Description,
    Device,
    GasState,
    Lens,
    Model,
    PatternJob,
    StageLimits,
    StagePosition,
)
from simulator.beams import ION_DISTANCE_M
from simulator.faults import Struck
from simulator.topside import Feature


class Drift(Model):
    """How the sample moves after a disturbance: where it had come to (m), since when (s), which disturbance."""

    number: int = 0
    since_s: float = 0.0
    x_m: float = 0.0
    y_m: float = 0.0


class Running(Model):
    """A pattern that is being written: the job, the fraction given when this was saved, when it started (s)."""

    job: PatternJob
    fraction: float
    started_s: float


class Condition(Model):
    """The machine's condition.

    time_s, wall_s : the instrument's clock, and seconds of the wall's since 1970, when this was saved
    running : the pattern in hand
    counter : actions so far, the key of what pictures draw; patterns : of them, the key of what patterns draw, so that
    a picture more changes nothing that follows; tilts, moves : stage moves with and without rotation or tilt
    knobs : contrast and brightness of the detectors that were set (`simulator.levels`)
    heating : gases whose heaters were switched on without waiting, and when (s)
    shut_at_s : when the last valve was shut, None: none was open; cuts : of the face since the last break
    changes : files of changed voxels that belong to this condition
    came : on which side X, Y, R, T were approached last, +1 or -1; lit_s : when the ion source was lit, None: long ago
    lights : how often it was
    coated_c : ion charge that hit CBS while it was in, coulombs
    struck : faults so far; looked_s : until when they have been looked for
    """

    counter: int = 0
    patterns: int = 0
    time_s: float = 0.0
    wall_s: float = 0.0
    running: Running | None = None
    stage: StagePosition = StagePosition(x=0.0, y=0.0, z=0.0, r=0.0, t=0.0)
    homed: bool = True
    tilts: int = 0
    moves: int = 0
    electron: BeamSettings
    ion: BeamSettings
    blanked: bool = True
    patterning: bool = False
    inserted: tuple[Device, ...] = ()
    knobs: dict[str, tuple[float, float]] = Field(default_factory=dict)
    gases: dict[str, GasState]
    heating: dict[str, float] = Field(default_factory=dict)
    shut_at_s: float | None = None
    drift: Drift = Drift()
    cuts: int = 0
    last_cut_s: float = 0.0
    features: tuple[Feature, ...] = ()
    film_beam: tuple[float, float, float] = (0.0, 0.0, 1.0)
    changes: int = Field(default=0, ge=0)
    came: tuple[int, int, int, int] = (1, 1, 1, 1)
    lit_s: float | None = None
    lights: int = 0
    coated_c: float = 0.0
    struck: tuple[Struck, ...] = ()
    looked_s: float = 0.0

    def beam(self, beam: Beam) -> BeamSettings:
        """Return a column's settings."""
        return self.electron if beam is Beam.ELECTRON else self.ion

    def with_beam(self, beam: Beam, settings: BeamSettings) -> Condition:
        """Return the condition with a column set otherwise."""
        return self.replace_fast(electron=settings) if beam is Beam.ELECTRON else self.replace_fast(ion=settings)

    def replace_fast(self, **changes: object) -> Condition:
        """Return a copy with fields changed that are valid already: `replace` would check every feature again."""
        return self.model_copy(update=changes)


def description(seed: int) -> Description:
    """Return what the virtual instrument is: a usual Hydra, its stage's zero at the coincidence height."""
    usual = hydra()
    travel = usual.stage
    return usual.replace(
        model="Virtual Helios Hydra",
        serial=f"simulator-{seed}",
        virtual=True,
        software="kintsugi simulator",
        stage=StageLimits(x=travel.x, y=travel.y, z=(-5e-3, 5e-3), t=travel.t),
    )


def fresh(described: Description) -> Condition:
    """Return the condition of a machine that has just been switched on with a sample in it."""
    return Condition(
        electron=BeamSettings(
            voltage_v=5e3, current_a=1.6e-9, hfw_m=100e-6, working_distance_m=described.working_distance_m,
            shift_x_m=0.0, shift_y_m=0.0, scan_rotation_rad=0.0, stigmator_x=0.0, stigmator_y=0.0,
            lens=Lens.FIELD_FREE, source_on=True,
        ),
        ion=BeamSettings(
            voltage_v=30e3, current_a=1e-9, species="Xenon", hfw_m=100e-6, working_distance_m=ION_DISTANCE_M,
            shift_x_m=0.0, shift_y_m=0.0, scan_rotation_rad=0.0, stigmator_x=0.0, stigmator_y=0.0, source_on=True,
        ),
        gases={name: GasState(heater_on=False, ready=False, duty=1.0, valve_open=False) for name in described.gases},
    )  # fmt: skip
