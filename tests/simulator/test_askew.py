"""Pictures of a block that the stage has turned show it turned."""

from __future__ import annotations

from math import pi, radians

import numpy as np
import pytest

from instrument.settings import Beam, DetectorSettings, Scan
from simulator.askew import along_edge, askew, turned_back
from simulator.beams import Sight, Standing

SCAN = Scan(
    detectors=(DetectorSettings(name="ETD"),), width_px=96, height_px=64, pixel_m=1e-6, centre_x_m=4e-6,
    centre_y_m=-3e-6, dwell_s=1e-6,
)  # fmt: skip


def seen(r: float, scan_rotation: float = 0.0) -> Sight:
    at = Standing(0, 0, 0, r, 0, radians(45), holder=(2e-6, 1e-6, 0), axis=(3e-6, -2e-6))
    return Sight(Beam.ELECTRON, at, scan_rotation=scan_rotation, shift=(1e-6, -2e-6))


def pixel(sight: Sight, scan: Scan, point: tuple[float, float, float]) -> tuple[float, float]:
    """Where a scan shows a block point, pixels down and right."""
    u, v = sight.field(point)
    return (
        (v - scan.centre_y_m) / scan.pixel_m + (scan.height_px - 1) / 2,
        (u - scan.centre_x_m) / scan.pixel_m + (scan.width_px - 1) / 2,
    )


@pytest.mark.parametrize("r", [30.0, 90.0, 140.0, -90.0, -100.0])
def test_what_is_turned_back_lies_where_the_beam_sees_it(r: float) -> None:
    sight, point = seen(radians(r), 0.2), (6e-6, 3e-6, 0.0)
    by = askew(sight)
    along, wide = along_edge(sight, SCAN, by)
    assert askew(along) == 0.0
    left, right = (along.field((x, 0.0, 0.0)) for x in (-1e-5, 1e-5))
    assert left[1] == pytest.approx(right[1], abs=1e-12)
    down, across = pixel(along, wide, point)
    rows, columns = np.mgrid[: wide.height_px, : wide.width_px]
    spot = np.exp(-((rows - down) ** 2 + (columns - across) ** 2) / 8.0)
    back = turned_back(spot[None], SCAN, by)[0]
    assert back.shape == (SCAN.height_px, SCAN.width_px)
    rows, columns = np.mgrid[: SCAN.height_px, : SCAN.width_px]
    found = (float((rows * back).sum() / back.sum()), float((columns * back).sum() / back.sum()))
    assert found == pytest.approx(pixel(sight, SCAN, point), abs=0.05)


@pytest.mark.parametrize("r", [0.0, 4.24, -4.24, 180.0])
def test_in_the_poses_of_a_night_pictures_are_as_they_are_taken(r: float) -> None:
    assert askew(seen(radians(r))) == 0.0
    assert askew(seen(radians(r), pi)) == 0.0
