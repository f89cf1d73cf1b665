"""Our pictures in the client's words: which preset, which part of it, how wide a field."""

from __future__ import annotations

from dataclasses import dataclass

from instrument.errors import Refused
from instrument.settings import Scan

#: Resolutions that the client offers (columns, rows), by their number of pixels.
PRESETS = ((512, 442), (768, 512), (1024, 884), (1536, 1024), (2048, 1768), (3072, 2048), (4096, 3536), (6144, 4096))
#: Pixels along a side of a frame that goes straight to disk (8 bit, one detector).
DISK_MOST = 65536
_WHOLE = 1e-6


@dataclass(frozen=True)
class Framing:
    """How a scan is framed: the field's width (m), its resolution, and the part of it that is scanned.

    `area` is (left, top, width, height) as shares of the field, None for the whole; `to_disk` for sizes that only the
    way over a file takes.
    """

    hfw_m: float
    resolution: tuple[int, int]
    area: tuple[float, float, float, float] | None
    to_disk: bool = False

    @property
    def text(self) -> str:
        """The resolution as the client writes it."""
        return f"{self.resolution[0]}x{self.resolution[1]}"


def framing(scan: Scan, hfw_min: float, hfw_max: float) -> Framing:
    """Return the smallest preset whose field holds the scan with its pixels; Refused where none does."""
    off_x, off_y = abs(scan.centre_x_m) / scan.pixel_m, abs(scan.centre_y_m) / scan.pixel_m
    wide, high = scan.width_px + 2 * off_x, scan.height_px + 2 * off_y
    for size in PRESETS:
        field = size[0] * scan.pixel_m
        fits = wide <= size[0] + _WHOLE and high <= size[1] + _WHOLE
        if fits and hfw_min <= field <= hfw_max * (1 + 1e-9):
            whole = size == (scan.width_px, scan.height_px) and off_x < _WHOLE and off_y < _WHOLE
            return Framing(field, size, None if whole else _area(scan, size))
    centred = off_x < _WHOLE and off_y < _WHOLE
    field = scan.width_px * scan.pixel_m
    single = len(scan.detectors) == 1 and scan.bits == 8
    if centred and single and hfw_min <= field <= hfw_max and max(scan.width_px, scan.height_px) <= DISK_MOST:
        return Framing(field, (scan.width_px, scan.height_px), None, to_disk=True)
    shown = (
        f"{scan.width_px} x {scan.height_px} pixels of {scan.pixel_m * 1e9:g} nm, {scan.centre_x_m * 1e6:.1f}, "
        f"{scan.centre_y_m * 1e6:.1f} um off the middle"
    )
    limit = f"6144 x 4096 pixels around the middle, fields of {hfw_min * 1e6:.2g} to {hfw_max * 1e6:.0f} um"
    msg = f"this picture can't be framed: {shown}; possible: {limit}, larger ones for one detector and 8 bit"
    raise Refused(
        msg, rule="scan-can-be-framed", field="scan", value=shown, limit=limit, remedy="take larger pixels or a part"
    )


def _area(scan: Scan, size: tuple[int, int]) -> tuple[float, float, float, float]:
    width, height = scan.width_px / size[0], scan.height_px / size[1]
    left = 0.5 + scan.centre_x_m / scan.pixel_m / size[0] - width / 2
    top = 0.5 + scan.centre_y_m / scan.pixel_m / size[1] - height / 2
    return min(max(left, 0.0), 1 - width), min(max(top, 0.0), 1 - height), width, height
