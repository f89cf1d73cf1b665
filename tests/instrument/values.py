"""One of everything that is said to an instrument or answered by it, with odd values where they are allowed."""

from __future__ import annotations

from math import inf, nan

from instrument.frame import FrameMeta, FrameRef
from instrument.hydra import hydra
from instrument.settings import (
    Beam,
    BeamLimit,
    BeamSettings,
    BeamState,
    Bitmap,
    CleaningCrossSection,
    DetectorSettings,
    Device,
    Done,
    DoseLimit,
    EdsScan,
    Envelope,
    GasSetting,
    GasState,
    Lens,
    Line,
    PatternJob,
    PoseLimit,
    Progress,
    Recovery,
    Rectangle,
    RegularCrossSection,
    Scan,
    Setup,
    StageLimits,
    StagePosition,
    State,
    Tune,
    Tuning,
)
from instrument.wire import (
    Acquire,
    AcquireEds,
    Command,
    Insert,
    MoveStage,
    Recover,
    Result,
    Retract,
    SetBeam,
    SetGas,
    TuneBeam,
    Wait,
    WritePattern,
)

BEAM = BeamSettings(
    voltage_v=30e3, current_a=60e-9, species="Xenon", hfw_m=1e-4, shift_x_m=-1.5e-6, lens=Lens.IMMERSION
)
STAGE = StagePosition(x=1e-3, y=-0.0, z=5e-324, r=3.141592653589793, t=0.1207)
SCAN = Scan(
    detectors=(DetectorSettings(name="CBS", contrast=0.3), DetectorSettings(name="TLD", brightness=1.0)),
    width_px=24, height_px=16, pixel_m=20e-9, dwell_s=3e-6, bits=8, dynamic_focus=True,
)  # fmt: skip
EDS = EdsScan(elements=("Al", "Ni", "Pt"), width_px=20, height_px=12, pixel_m=54e-9, frames=10)
JOB = PatternJob(
    patterns=(
        Rectangle(x_m=0.0, y_m=1e-6, width_m=2e-5, height_m=1e-6, depth_m=1e-6),
        CleaningCrossSection(x_m=0.0, width_m=2e-5, start_y_m=1e-6, end_y_m=0.0, depth_m=2e-5),
        Line(x0_m=0.0, y0_m=0.0, x1_m=1e-6, y1_m=1e-6, line_width_m=4e-7, depth_m=6e-7),
        RegularCrossSection(x_m=0.0, y_m=0.0, width_m=2e-6, height_m=3e-6, depth_m=1e-6, deep="top"),
        Bitmap(x_m=0.0, y_m=0.0, width_m=2e-6, height_m=3e-6, depth_m=1e-6, shares=((0.0, 1.0), (0.3, 0.5))),
    ),
    purpose="mill", area="face", current_a=60e-9, voltage_v=30e3, dose_c=1e-6, gases={"Pt": 1.0, "C": 0.02},
    application="Si-ccs", from_fraction=0.25, to_fraction=0.75,
)  # fmt: skip
REF = FrameRef(
    name="a-b.ome.tif", sha256="0" * 64, size_bytes=12345, channels=("CBS", "TLD"), shape=(2, 16, 24), uid="sim-3-17",
    started_s=12.5, seconds=1.5,
)  # fmt: skip
TUNING = Tuning(routine=Tune.CONTRAST, score=nan, detectors=(DetectorSettings(name="CBS"),), working_distance_m=inf)
DONE = Done(fraction=0.5, elapsed_s=17.2, charge_c=1e-6, stopped=True)


def state(**changes: object) -> State:
    """A quiet instrument, changed as asked."""
    beam = BeamState(settings=BEAM, source_on=True, blanked=True, measured_current_a=60.2e-9)
    plain = State(
        time_s=1e5, stage=STAGE, stage_homed=True, electron=beam, ion=beam,
        devices={Device.CBS: True, Device.EDS: False, Device.NEEDLE: False},
        gases={"Pt": GasState(heater_on=True, ready=True, duty=1.0, valve_open=False, open_s=3600.0)},
        pressure_pa=3e-4, patterning=False, safe=True,
    )  # fmt: skip
    return plain.model_copy(update=changes)


ENVELOPE = Envelope(
    run="run-1", poses=(PoseLimit(name="mill", r=0.0, t=0.122),),
    stage_box=StageLimits(x=(-1e-3, 1e-3), y=(-1e-3, 1e-3), z=(-1e-3, 1e-3), t=(0.0, 1.0)),
    beams=(BeamLimit(beam=Beam.ION, voltage_v=30e3, currents_a=(1e-9, 60e-9)),), gases=("Pt",),
    doses=(DoseLimit(area="face", charge_c=1e-3, box=(-1e-4, -1e-4, 1e-4, 1e-4)),),
)  # fmt: skip
SETUP = Setup(pose="mill", stage=STAGE, ion=BEAM, inserted=(Device.CBS,), gases_open={"Pt": 0.5}, focus_z_m=1e-6)
META = FrameMeta(
    uid="sim-3-17", channels=("CBS", "TLD"), pixel_x_m=20e-9, pixel_y_m=20e-9, started_s=0.1, seconds=1.7, scan=SCAN,
    state=state(pressure_pa=nan), virtual=True, notes={"drift": "3 nm/min"},
)  # fmt: skip

COMMANDS: tuple[Command, ...] = (
    SetBeam(beam=Beam.ELECTRON, settings=BEAM),
    MoveStage(to=STAGE),
    MoveStage(to=StagePosition()),
    Insert(device=Device.NEEDLE, position="deposit"),
    Insert(device=Device.CBS),
    Retract(device=Device.EDS),
    SetGas(gas="Pt", setting=GasSetting(heater_on=True, duty=0.5, valve_open=False)),
    Acquire(scan=SCAN),
    Acquire(scan=SCAN.replace(beam=Beam.ION, bits=16)),
    AcquireEds(scan=EDS),
    *(TuneBeam(routine=routine, scan=SCAN) for routine in Tune),
    WritePattern(job=JOB),
    *(Recover(what=what) for what in Recovery),
    Wait(seconds=0.0),
    Wait(seconds=1e9),
)
RESULTS = (
    Result(),
    Result(beam=BEAM),
    Result(stage=STAGE),
    Result(gas=GasSetting(valve_open=True)),
    Result(frame=REF),
    Result(tuning=TUNING),
    Result(tuning=Tuning(routine=Tune.FOCUS, score=-inf)),
    Result(done=DONE),
    Result(state=state(pressure_pa=inf)),
)
VALUES = (
    hydra(), state(), state(pressure_pa=nan, time_s=-inf), ENVELOPE, SETUP, META,
    META.replace(scan=EDS, channels=("Al",)), REF,
    Progress(fraction=1.0, elapsed_s=0.0, remaining_s=3.0), DONE, TUNING, JOB, *JOB.patterns,
)  # fmt: skip
