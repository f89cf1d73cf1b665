"""Electron pictures of a block that stands turned in them: taken along its edge, a little wider, and turned back.

Pictures of the face are reckoned row by row along its edge; what the poses of a night turn it against the picture
hardly shows and is left out. A stage that is turned on purpose shows it.
"""

from __future__ import annotations

from math import atan2, ceil, cos, hypot, pi, radians, sin
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from instrument.settings import Scan
from simulator.beams import Sight

#: Less than this is left out, radians: rocking turns the stage by 4.24 deg.
LEAST_RAD = radians(4.5)


def askew(sight: Sight) -> float:
    """Return how far (rad) the block's edge stands turned in the picture; 0 where it hardly shows, or is flipped."""
    edge = sight.axes[:, 0]
    turned = (atan2(float(edge @ sight.down), float(edge @ sight.right)) + pi / 2) % pi - pi / 2
    return turned if abs(turned) > LEAST_RAD else 0.0


def along_edge(sight: Sight, scan: Scan, by: float) -> tuple[Sight, Scan]:
    """Return how the beam sees the block, and what it scans, in a picture turned along with the edge by `by` (rad).

    It holds the whole of the scan.
    """
    side = ceil(hypot(scan.width_px, scan.height_px))
    centre_x, centre_y = _turned(by, scan.centre_x_m, scan.centre_y_m)
    wide = scan.replace(width_px=side, height_px=side, centre_x_m=centre_x, centre_y_m=centre_y)
    return sight.scanned(by), wide


def turned_back(pixels: NDArray[Any], scan: Scan, by: float) -> NDArray[Any]:
    """Return a scan's pictures (channel, y, x) from those taken along an edge that is turned by `by` (rad) in it."""
    c, s = cos(by), sin(by)
    matrix = np.array([[c, -s], [s, c]])  # rows and columns of the scan to those along the edge
    middle = np.array([(scan.height_px - 1) / 2, (scan.width_px - 1) / 2])
    offset = (np.array(pixels.shape[1:]) - 1) / 2 - matrix @ middle
    size = (scan.height_px, scan.width_px)
    return np.stack([ndimage.affine_transform(one, matrix, offset, size, order=1, mode="nearest") for one in pixels])


def _turned(by: float, u: float, v: float) -> tuple[float, float]:
    """Return a field position (m) in a field that is turned by `by` (rad)."""
    return cos(by) * u + sin(by) * v, cos(by) * v - sin(by) * u
