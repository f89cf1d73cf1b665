"""Small frames for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from instrument.frame import Frame, FrameMeta
from instrument.settings import BeamSettings, BeamState, DetectorSettings, Scan, StagePosition, State


def still() -> State:
    """A state in which nothing moves."""
    beam = BeamState(settings=BeamSettings(), source_on=True, blanked=True, measured_current_a=0.0)
    return State(
        time_s=0.0,
        stage=StagePosition(x=0, y=0, z=0, r=0, t=0),
        stage_homed=True,
        electron=beam,
        ion=beam,
        devices={},
        gases={},
        pressure_pa=1e-4,
        patterning=False,
        safe=True,
    )


def frame(pixels: np.ndarray, uid: str = "u1", pixel_m: float = 20e-9) -> Frame:
    """A frame (channel, y, x) of CBS and TLD."""
    names = ("CBS", "TLD")[: pixels.shape[0]]
    scan = Scan(
        detectors=tuple(DetectorSettings(name=name) for name in names),
        width_px=pixels.shape[2],
        height_px=pixels.shape[1],
        pixel_m=pixel_m,
        dwell_s=1e-6,
    )
    meta = FrameMeta(
        uid=uid,
        channels=names,
        pixel_x_m=pixel_m,
        pixel_y_m=pixel_m,
        started_s=0.0,
        seconds=1.0,
        scan=scan,
        state=still(),
        virtual=True,
    )
    return Frame(pixels, meta)


def save_slices(folder: Path, count: int, shape: tuple[int, int] = (20, 24)) -> np.ndarray:
    """Write `count` slices of two channels; return their pixels (slice, channel, y, x)."""
    pixels = np.random.default_rng(3).integers(0, 255, (count, 2, *shape)).astype(np.uint8)
    for k in range(count):
        frame(pixels[k], uid=f"u{k}").save(folder / f"s{k + 1:04d}.ome.tif")
    return pixels
