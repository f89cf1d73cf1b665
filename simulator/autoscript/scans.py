"""From what is set on the screen to what the virtual microscope scans, and back to pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from instrument.settings import DetectorSettings, Scan
from simulator.autoscript.console import Column, Console, View
from simulator.autoscript.images import AdornedImage, metadata_of
from simulator.autoscript.profiles import DISK_PIXELS, DWELL, RESOLUTIONS
from simulator.autoscript.stage import position_of
from simulator.autoscript.structures import GrabFrameSettings, Rectangle
from simulator.autoscript.tree import ApplicationServerException, serving

#: Grey of a frame that no beam has written, of 255; how far its noise reaches.
_DARK, _DARK_NOISE = 4.0, 1.5


def size_of(resolution: str, *, free: bool = False) -> tuple[int, int]:
    """Return columns and rows of a resolution such as 1536x1024; raises for one that is not offered."""
    wide, _, high = str(resolution).partition("x")
    if str(resolution) not in RESOLUTIONS:
        low, most = DISK_PIXELS
        fits = wide.isdecimal() and high.isdecimal() and all(low <= int(one) <= most for one in (wide, high))
        if not (free and fits):
            shown = f"{low}x{low} to {most}x{most}" if free else ", ".join(RESOLUTIONS)
            msg = f"resolution {resolution!r} is not offered; use one of {shown}"
            raise ApplicationServerException(msg)
    return int(wide), int(high)


def scan_of(
    console: Console, column: Column, detectors: tuple[str, ...], settings: GrabFrameSettings | None = None, *,
    free: bool = False,
) -> Scan:  # fmt: skip
    """Return the scan of a column as its screen is set, changed by a frame's own settings."""
    mode, given = column.scan, settings or GrabFrameSettings()
    width, height = size_of(given.resolution or mode.resolution[mode.kept], free=free)
    dwell = float(given.dwell_time or mode.dwell_s[mode.kept])
    if not DWELL.min <= dwell <= DWELL.max:
        msg = f"dwell time {dwell:g} s is out of range; allowed: {DWELL.min:g} to {DWELL.max:g} s"
        raise ApplicationServerException(msg)
    area = given.reduced_area
    if area is None and mode.mode == 4 and settings is None:
        area = Rectangle(*mode.area)
    hfw = console.beam(column.index).settings.hfw_m or 0.0
    pixel = hfw / width
    left, top, wide, high = (0.0, 0.0, 1.0, 1.0) if area is None else (area.left, area.top, area.width, area.height)
    columns, rows = max(12, round(wide * width)), max(12, round(high * height))
    if left < -1e-9 or top < -1e-9 or left + wide > 1 + 1e-9 or top + high > 1 + 1e-9 or wide <= 0 or high <= 0:
        msg = f"reduced area {left:g}, {top:g}, {wide:g} x {high:g} lies outside of the frame, 0 to 1"
        raise ApplicationServerException(msg)
    angle = console.correction(column)
    bits = int(given.bit_depth or 8) if not free else 8
    return Scan(
        beam=column.beam,
        detectors=tuple(
            DetectorSettings(name=one, contrast=column.signals[one].contrast, brightness=column.signals[one].brightness)
            for one in detectors
        ),
        width_px=columns, height_px=rows, pixel_m=pixel,
        centre_x_m=(left + wide / 2 - 0.5) * width * pixel, centre_y_m=(top + high / 2 - 0.5) * height * pixel,
        dwell_s=dwell, line_integrations=max(1, int(given.line_integration or 1)),
        frame_integrations=max(1, int(given.frame_integration or 1)), bits=16 if bits == 16 else 8,
        tilt_correction_rad=angle if column.tilt_correction.is_on else 0.0,
        dynamic_focus=bool(column.dynamic_focus.is_on),
    )  # fmt: skip


def grab(
    console: Console, views: list[View], settings: GrabFrameSettings | None, *, free: bool = False
) -> list[AdornedImage]:
    """Scan views: those of one column with one detector each are scanned at once."""
    pictures: dict[int, AdornedImage] = {}
    for index in dict.fromkeys(console.column_of(view).index for view in views):
        column = console.columns[index]
        of_column = [view for view in views if view.device == index]
        scan = scan_of(console, column, tuple(view.detector for view in of_column), settings, free=free)
        pixels, uid = _taken(console, column, scan)
        state = console.state()
        for view, picture in zip(of_column, pixels, strict=True):
            metadata = metadata_of(scan, column, view.detector, state, console.profile.model, position_of(console))
            metadata.acquisition.uid = uid
            view.image = pictures[id(view)] = AdornedImage(picture, metadata)
    return [pictures[id(view)] for view in views]


def _taken(console: Console, column: Column, scan: Scan) -> tuple[NDArray[Any], str | None]:
    """Return pixels (detector, row, column), and the name under which the truth about them is kept, if any."""
    state = console.beam(column.index)
    if not state.source_on:
        msg = f"the {column.beam} beam is off; turn it on first"
        raise ApplicationServerException(msg)
    if column.blanked:
        return dark(scan), None
    console.grabbing = True
    try:
        with serving():
            frame = console.scope.acquire(scan)
    finally:
        console.grabbing = False
    return np.asarray(frame.pixels), frame.meta.uid


def dark(scan: Scan) -> NDArray[Any]:
    """Return what detectors give without a beam, shape (detector, row, column)."""
    draw = np.random.default_rng(scan.width_px * scan.height_px)
    shape = (len(scan.detectors), scan.height_px, scan.width_px)
    grey = np.clip(_DARK + _DARK_NOISE * draw.standard_normal(shape), 0, 255)
    return (grey * 257).astype(np.uint16) if scan.bits == 16 else grey.astype(np.uint8)
