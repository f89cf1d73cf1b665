"""A microscope of a few lines: keeps a state, counts what was fired, waits and fails when a test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from instrument.errors import Stopped
from instrument.frame import Frame, FrameMeta
from instrument.hydra import hydra
from instrument.microscope import Microscope, Watch, unwatched
from instrument.process import frame_seconds
from instrument.settings import (
    Beam,
    BeamSettings,
    BeamState,
    Description,
    DetectorSettings,
    Device,
    Done,
    EdsScan,
    GasSetting,
    GasState,
    Lens,
    PatternJob,
    Progress,
    Recovery,
    Scan,
    StagePosition,
    State,
    Tune,
    Tuning,
)

BASE_PA = 1e-4


class FakeClock:
    """Time that jumps; `live` is what a server sets."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.live: Callable[[], bool] = lambda: True

    def now(self) -> float:
        return self.seconds

    def wait(self, seconds: float) -> None:
        self.seconds += seconds


class FakeMicroscope(Microscope):
    """See the module. `chunks` calls of watch per pattern; a gate keeps a verb waiting until it is set."""

    def __init__(self) -> None:
        self.clock: FakeClock = FakeClock()
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.chunks = 4
        self.fail_next: BaseException | None = None
        self.fail_at: tuple[float, BaseException] | None = None
        self.fired: list[tuple[str, float, float]] = []
        self.frames = 0
        self.safe_calls = 0
        self.safe_fails: list[BaseException] = []  # what making safe fails with, one after another
        self.closed = False
        self.gone = False
        self.homed = True
        self.measured = 1.0
        self.pressure = BASE_PA
        self._stopped = threading.Event()
        self._patterning = False
        self._stage = StagePosition(x=0.0, y=0.0, z=10e-3, r=0.0, t=0.0)
        self._in: set[Device] = set()
        self._gases = {
            name: GasState(heater_on=False, ready=False, duty=1.0, valve_open=False) for name in hydra().gases
        }
        self._beams = {
            Beam.ELECTRON: BeamSettings(voltage_v=5e3, current_a=1.6e-9, lens=Lens.FIELD_FREE, source_on=True),
            Beam.ION: BeamSettings(voltage_v=30e3, current_a=60e-9, species="Xenon", source_on=True),
        }

    @property
    def lost(self) -> bool:
        return self.gone

    def describe(self) -> Description:
        return hydra().replace(model="Fake", virtual=True)

    def state(self) -> State:
        return State(
            time_s=self.clock.now(),
            stage=self._stage,
            stage_homed=self.homed,
            electron=self._beam(Beam.ELECTRON),
            ion=self._beam(Beam.ION),
            devices={device: device in self._in for device in Device},
            gases=dict(self._gases),
            pressure_pa=self.pressure,
            patterning=self._patterning,
            safe=not self._patterning and Device.NEEDLE not in self._in,
        )

    def set_beam(self, beam: Beam, settings: BeamSettings) -> BeamSettings:
        self._raise()
        self._beams[beam] = self._beams[beam].replace(**settings.model_dump(exclude_none=True))
        return self._beams[beam]

    def move_stage(self, to: StagePosition) -> StagePosition:
        self._raise()
        self._stage = self._stage.replace(**to.model_dump(exclude_none=True))
        return self._stage

    def insert(self, device: Device, position: str | None = None) -> None:
        del position
        self._raise()
        self._in.add(device)

    def retract(self, device: Device) -> None:
        self._raise()
        self._in.discard(device)

    def set_gas(self, gas: str, setting: GasSetting) -> GasSetting:
        self._raise()
        now = self._gases[gas].replace(**setting.model_dump(exclude_none=True, include={"heater_on", "valve_open"}))
        self._gases[gas] = now.replace(ready=now.heater_on)
        return GasSetting(heater_on=now.heater_on, duty=now.duty, valve_open=now.valve_open)

    def acquire(self, scan: Scan) -> Frame:
        names = tuple(detector.name for detector in scan.detectors)
        return self._frame(scan, names, frame_seconds(scan))

    def acquire_eds(self, scan: EdsScan) -> Frame:
        return self._frame(scan, scan.elements, 1.0)

    def tune(self, routine: Tune, scan: Scan) -> Tuning:
        self._raise()
        return Tuning(routine=routine, score=0.5, working_distance_m=4e-3, detectors=scan.detectors)

    def pattern(self, job: PatternJob, watch: Watch = unwatched) -> Done:
        self._raise()
        self._stopped.clear()
        self._patterning = True
        fraction = job.from_fraction
        edges = np.linspace(job.from_fraction, job.to_fraction, self.chunks + 1)[1:]
        try:
            for edge in edges:
                self._wait()
                if self._stopped.is_set():
                    break
                if self.fail_at is not None and edge >= self.fail_at[0]:
                    raise self.fail_at[1]
                fraction = float(edge)
                self.clock.wait(job.seconds / self.chunks)
                watch(Progress(fraction=fraction, elapsed_s=0.0, remaining_s=0.0))
        finally:
            self._patterning = False
            self.fired.append((job.area, job.from_fraction, fraction))
        charge = job.dose_c * (fraction - job.from_fraction)
        stopped = fraction < job.to_fraction
        return Done(fraction=fraction, elapsed_s=charge / job.current_a, charge_c=charge, stopped=stopped)

    def recover(self, what: Recovery) -> State:
        del what
        self._raise()
        return self.state()

    def stop(self) -> None:
        self._stopped.set()
        self.gate.set()

    def make_safe(self) -> State:
        self.safe_calls += 1
        if self.safe_fails:
            raise self.safe_fails.pop(0)
        FakeMicroscope.stop(self)  # also where a test has it that `stop` fails
        self._gases = {name: gas.replace(valve_open=False) for name, gas in self._gases.items()}
        self._in.discard(Device.NEEDLE)
        return self.state()

    def close(self) -> None:
        self.closed = True

    def charge(self, area: str, job: PatternJob) -> float:
        """What an area truly got of a job's dose (C)."""
        return sum(job.dose_c * (end - begin) for name, begin, end in self.fired if name == area)

    def hold(self) -> None:
        """Keep the next chunk of a pattern, or the next frame, waiting until `gate` is set."""
        self.begun.clear()
        self.gate.clear()

    def _wait(self) -> None:
        self.begun.set()
        if not self.gate.wait(20.0):
            msg = "the test never opened the gate"
            raise TimeoutError(msg)

    def _raise(self) -> None:
        error, self.fail_next = self.fail_next, None
        if error is not None:
            raise error

    def _beam(self, beam: Beam) -> BeamState:
        settings = self._beams[beam]
        return BeamState(
            settings=settings, source_on=True, blanked=not self._patterning,
            measured_current_a=(settings.current_a or 0.0) * self.measured,
        )  # fmt: skip

    def _frame(self, scan: Scan | EdsScan, names: tuple[str, ...], seconds: float) -> Frame:
        self._raise()
        self._stopped.clear()
        started = self.clock.now()
        self._wait()
        if self._stopped.is_set():
            msg = "the scan was stopped"
            raise Stopped(msg)
        self.clock.wait(seconds)
        self.frames += 1
        shape = (len(names), scan.height_px, scan.width_px)
        pixels = np.random.default_rng(self.frames).integers(0, 255, shape).astype(np.uint8)
        meta = FrameMeta(
            uid=f"fake-{self.frames}", channels=names, pixel_x_m=scan.pixel_m, pixel_y_m=scan.pixel_m,
            started_s=started, seconds=seconds, scan=scan, state=self.state(), virtual=True,
        )  # fmt: skip
        return Frame(pixels, meta)


def scan(beam: Beam = Beam.ELECTRON, size: int = 16, **changes: object) -> Scan:
    """A small picture."""
    name = "ETD" if beam is Beam.ELECTRON else "ICE"
    plain = {
        "beam": beam, "detectors": (DetectorSettings(name=name),), "width_px": size, "height_px": size,
        "pixel_m": 20e-9, "dwell_s": 1e-6,
    }  # fmt: skip
    return Scan.model_validate({**plain, **changes})


def job(seconds: float = 10.0, **changes: object) -> PatternJob:
    """A box for the ion beam at 30 kV and 60 nA, so many seconds long."""
    plain = {
        "patterns": [
            {"kind": "rectangle", "x_m": 0, "y_m": 0, "width_m": 10e-6, "height_m": 10e-6, "depth_m": 1e-6}
        ],
        "purpose": "mill", "area": "trench", "current_a": 60e-9, "voltage_v": 30e3, "dose_c": 60e-9 * seconds,
    }  # fmt: skip
    return PatternJob.model_validate({**plain, **changes})
