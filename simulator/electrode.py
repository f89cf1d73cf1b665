"""What a virtual electrode is asked to be: sizes, shares and grid, from which `simulator.specimen` makes voxels."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field


class Electrode(BaseModel):
    """What to build. Lengths in metres.

    width_m (x, margin included), height_m (below the surface y = 0), depth_m (z), above_m (rows above y = 0, for cap
    and margin), coating_m and foil_m; below the foil stands a second coating if height_m reaches it. voxel_m in plane,
    layer_m along z. Particle diameters None: scaled to the coating. active, cbd: shares of the coating, the rest is
    pore. x_m: block x of the left edge (None: centred on 0). z_m: of the first layer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 1
    width_m: float = Field(default=36e-6, gt=0, le=1e-3)
    height_m: float = Field(default=28e-6, gt=0, le=1e-3)
    depth_m: float = Field(default=8e-6, gt=0, le=1e-3)
    above_m: float = Field(default=4e-6, ge=0, le=1e-4)
    coating_m: float = Field(default=19e-6, gt=1e-6, le=2e-4)
    foil_m: float = Field(default=17e-6, gt=0, le=1e-4)
    voxel_m: float = Field(default=40e-9, ge=5e-9, le=1e-6)
    layer_m: float = Field(default=50e-9, ge=5e-9, le=1e-6)
    x_m: float | None = None
    z_m: float = 0.0
    large_m: float | None = Field(default=None, gt=0)
    small_m: float | None = Field(default=None, gt=0)
    spread: float = Field(default=1.3, gt=1, lt=2)
    small_share: float = Field(default=0.34, gt=0, lt=1)
    active: float = Field(default=0.72, gt=0.3, lt=0.9)
    cbd: float = Field(default=0.10, gt=0, lt=0.4)
    cracks: float = Field(default=1.0, ge=0, le=3)
    roughness_m: float = Field(default=0.25e-6, ge=0, le=5e-6)

    @property
    def large_diameter_m(self) -> float:
        """Median diameter of the large particles: 5 um in a 19 um coating, 11 um from 70 um on."""
        return self.large_m or float(np.interp(self.coating_m, (4e-6, 19e-6, 70e-6), (2.2e-6, 5e-6, 11e-6)))

    @property
    def small_diameter_m(self) -> float:
        """Median diameter of the small, shattered particles."""
        return self.small_m or float(np.interp(self.coating_m, (4e-6, 19e-6, 70e-6), (1.0e-6, 1.9e-6, 3.6e-6)))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels (z, y, x)."""
        return (
            max(1, round(self.depth_m / self.layer_m)),
            max(1, round((self.height_m + self.above_m) / self.voxel_m)),
            max(1, round(self.width_m / self.voxel_m)),
        )

    @property
    def origin_m(self) -> tuple[float, float, float]:
        """Block coordinates (x, y, z) of the centre of voxel [0, 0, 0], metres."""
        left = -self.width_m / 2 if self.x_m is None else self.x_m
        return (left + self.voxel_m / 2, -self.above_m + self.voxel_m / 2, self.z_m + self.layer_m / 2)
