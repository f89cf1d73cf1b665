"""How fast the virtual microscope is, against the real one: simulated seconds per second on the wall.

`python -m tests.benchmarks.simulator` times a frame, a slice, a fill and a long block (about two minutes);
`--night` the rehearsal of 200 images with a fill every ten, without labels; `--json` prints one object. The rival is
the real instrument: what the same work takes there, by the virtual machine's own clock.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import radians
from pathlib import Path

import numpy as np

import simulator
from instrument.geometry import PoseName, Site, View, pose, stage_for
from instrument.process import mill_dose
from instrument.settings import (
    Beam,
    BeamSettings,
    CleaningCrossSection,
    DetectorSettings,
    Device,
    PatternJob,
    Scan,
)
from simulator.deposition import infiltrate
from simulator.electrode import Electrode
from simulator.volume import build

NIGHT = Path(__file__).parent / "night.yaml"
PRETILT = radians(45.0)
#: The block of the benchmarks: a face of 60 um x 45 um to look at, somewhat wider to cut.
URL = "simulator:5?coating=32um&width=68um&height=52um&depth=30um"


@dataclass(frozen=True)
class Timing:
    """One piece of work: seconds on the wall and on the instrument's clock, the most it should take on the wall."""

    what: str
    wall_s: float
    simulated_s: float | None
    aim_s: float | None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Simulated seconds per second on the wall."""
        return None if self.simulated_s is None else self.simulated_s / self.wall_s


class Clocked:
    """Collects timings of a machine."""

    def __init__(self) -> None:
        self.timings: list[Timing] = []

    @contextmanager
    def time(self, what: str, now: Callable[[], float] | None = None, *, times: int = 1, aim: float | None = None,
             note: str = "") -> Iterator[None]:  # fmt: skip
        """Time a piece of work that is done `times` times."""
        clock = now() if now is not None else 0.0
        wall = time.perf_counter()
        yield
        wall = time.perf_counter() - wall
        simulated = (now() - clock) / times if now is not None else None
        self.timings.append(Timing(what, wall / times, simulated, aim, note))


def bench() -> list[Timing]:
    """Time the pieces that a night is made of."""
    clocked = Clocked()
    with clocked.time("build the layers around the face"):
        machine = simulator.open(URL)
    site = Site(sx=0.0, sy=0.0, sz=0.0, pretilt=PRETILT)

    def go(name: PoseName) -> View:
        at = pose(name, PRETILT, rocking=radians(3.0))
        stage = stage_for(site, at, (0.0, 22e-6 if name is PoseName.FACE_ON else 0.0, 0.0))
        machine.move_stage(stage)
        machine.set_beam(Beam.ION, BeamSettings(scan_rotation_rad=at.ion_scan_rotation))
        machine.set_beam(Beam.ELECTRON, BeamSettings(scan_rotation_rad=at.electron_scan_rotation))
        beam = Beam.ELECTRON if name is PoseName.FACE_ON else Beam.ION
        turned = at.electron_scan_rotation if beam is Beam.ELECTRON else at.ion_scan_rotation
        return View(site, beam, stage, scan_rotation=turned)

    def cut(start: float, end: float, name: PoseName) -> None:
        view = go(name)
        u, first = view.field((0.0, 26e-6, start))
        line = CleaningCrossSection(
            x_m=u, width_m=68e-6, start_y_m=first, end_y_m=view.field((0.0, 26e-6, end))[1], depth_m=52e-6
        )
        dose = 1.5 * mill_dose(68e-6 * 52e-6 * (end - start))
        machine.pattern(
            PatternJob(patterns=(line,), purpose="mill", area="face", current_a=15e-9, voltage_v=30e3, dose_c=dose)
        )

    def frame(width: int, height: int, pixel: float) -> np.ndarray:
        view = go(PoseName.FACE_ON)
        machine.insert(Device.CBS)
        z = float(np.median(machine.block.maps.face))
        u, v = view.field((0.0, 20e-6, z))
        detectors = (DetectorSettings(name="CBS"), DetectorSettings(name="TLD"))
        taken = machine.acquire(
            Scan(detectors=detectors, width_px=width, height_px=height, pixel_m=pixel, centre_x_m=u, centre_y_m=v,
                 dwell_s=3e-6)
        )  # fmt: skip
        machine.retract(Device.CBS)
        return taken.pixels

    machine.set_beam(Beam.ION, BeamSettings(voltage_v=30e3, current_a=15e-9))
    cut(-0.5e-6, 2e-6, PoseName.MILL)
    frame(200, 150, 300e-9)  # what is made once is made before the clock starts
    with clocked.time("frame of 1200 x 900, CBS and TLD", machine.clock.now, times=3, aim=0.5):
        for _ in range(3):
            frame(1200, 900, 50e-9)
    with clocked.time("frame of 4096 x 3536, CBS and TLD", machine.clock.now):
        frame(4096, 3536, 14.6e-9)
    with clocked.time("slice: 4 rocking cuts and a frame", machine.clock.now, times=5, aim=1.0):
        for k in range(5):
            for number in range(4):
                z = 2e-6 + (4 * k + number) * 25e-9
                cut(z, z + 25e-9, PoseName.ROCK_MINUS if number % 2 else PoseName.ROCK_PLUS)
            frame(1200, 900, 50e-9)
    machine.close()
    clocked.timings.append(_fill())
    return clocked.timings


def _fill() -> Timing:
    """Time one film let into the pores of a slab of 60 um x 45 um x 8 um."""
    volume = build(
        Electrode(seed=5, width_m=60e-6, height_m=45e-6, depth_m=8e-6, above_m=2e-6, coating_m=32e-6, voxel_m=100e-9,
                  layer_m=100e-9)
    )  # fmt: skip
    x = volume.origin[0] + 100e-9 * np.arange(volume.labels.shape[2])
    y = volume.origin[1] + 100e-9 * np.arange(volume.labels.shape[1])
    shape = (y.size, x.size)
    wall = time.perf_counter()
    filled = infiltrate(volume, x, y, np.full(shape, 0.2e-6), np.full(shape, 2e-6))
    wall = time.perf_counter() - wall
    return Timing("a 2 um film into 60 x 45 x 8 um at 100 nm", wall, 43 * 60.0, 20.0, f"{filled.index.size} voxels")


def night() -> list[Timing]:
    """Time the rehearsal of 200 images, and what its server takes of memory at most."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "RUN"
        command = [sys.executable, "-m", "workflows.cli", "dry-run", str(NIGHT), "--model", "none", "--out", str(out)]
        before = time.perf_counter()
        code = subprocess.run(command, check=False).returncode
        wall = time.perf_counter() - before
        if code:
            msg = f"the rehearsal ended with code {code}"
            raise SystemExit(msg)
        summary = json.loads((out / "summary.json").read_text())
        most = _peak(int(json.loads((out / "instrument" / "server.json").read_text())["pid"]))
    note = (
        f"{summary['slices_acquired']} images, {summary['infiltrations']} fills, server's memory {most:.2f} GB at most"
    )
    return [Timing("rehearsal of 200 images, a fill every 10", wall, float(summary["instrument_time_s"]), 360.0, note)]


def _peak(pid: int) -> float:
    """Return the most memory that a process has had, GB (Linux; 0 elsewhere)."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0.0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1e6


def main() -> None:
    """Print the timings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--night", action="store_true", help="rehearse 200 images instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    timings = night() if asked.night else bench()
    if asked.json:
        print(json.dumps([{**asdict(one), "ratio": one.ratio} for one in timings]))
        return
    print(f"{'':46}{'wall':>9}{'aim':>8}{'real':>10}{'real/wall':>11}")
    for one in timings:
        aim = "" if one.aim_s is None else f"{one.aim_s:.1f} s"
        real = "" if one.simulated_s is None else f"{one.simulated_s:.0f} s"
        ratio = "" if one.ratio is None else f"{one.ratio:.0f}"
        print(f"{one.what:46}{one.wall_s:7.2f} s{aim:>8}{real:>10}{ratio:>11}  {one.note}")
    if not asked.night:
        print(f"memory at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
