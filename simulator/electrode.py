"""What a virtual electrode is asked to be: sizes, shares and grid, from which `simulator.specimen` makes voxels."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from simulator import materials as m

Preset = Literal["nmc-cathode", "graphite-anode", "porous-carbon", "from-volume"]

#: What a preset is unless it is asked otherwise. Graphite: flakes that lie along the copper foil (our own choice within
#: what is usual for 18650 anodes); porous carbon: 72 % pores of 90 nm (physics.md 3.2, Eswara-Moorthy 2014).
PRESETS: dict[str, dict[str, Any]] = {
    "nmc-cathode": {},
    "graphite-anode": {
        "active": 0.66, "cbd": 0.05, "foil_m": 9e-6, "small_share": 0.15, "flatten": 3.5, "cracks": 0.5,
        "roughness_m": 0.4e-6,
    },
    "porous-carbon": {"active": 0.28, "cbd": 0.0, "voxel_m": 20e-9, "layer_m": 20e-9, "foil_m": 9e-6},
    "from-volume": {},
}  # fmt: skip
#: Porous carbon is not resolved by coarser voxels, metres.
COARSEST_POROUS_M = 30e-9


class Electrode(BaseModel):
    """What to build. Lengths in metres.

    width_m (x, margin included), height_m (below the surface y = 0), depth_m (z), above_m (rows above y = 0, for cap
    and margin), coating_m and foil_m; below the foil stands a second coating if height_m reaches it. voxel_m in plane,
    layer_m along z. Particle diameters None: scaled to the coating. active, cbd: shares of the coating, the rest is
    pore. x_m: block x of the left edge (None: centred on 0). z_m: of the first layer. flatten: how many times wider
    than thick the particles are, lying along the foil. file: a label volume, for the preset from-volume, file_voxel_m
    its voxels' edge. A preset sets what is not given.

    Raises
    ------
    ValueError : a value that is not possible, or that the preset can't do; the message names limit and remedy
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 1
    preset: Preset = "nmc-cathode"
    file: Path | None = None
    file_voxel_m: float | None = Field(default=None, gt=0, le=1e-5)
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
    spread: float = Field(default=1.35, gt=1, lt=2)
    small_share: float = Field(default=0.34, gt=0, lt=1)
    active: float = Field(default=0.72, gt=0.1, lt=0.9)
    cbd: float = Field(default=0.10, ge=0, lt=0.4)
    flatten: float = Field(default=1.0, ge=1, le=5)
    cracks: float = Field(default=1.0, ge=0, le=3)
    roughness_m: float = Field(default=0.25e-6, ge=0, le=5e-6)

    @model_validator(mode="before")
    @classmethod
    def _preset_fills_in(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {**PRESETS.get(str(values.get("preset", "nmc-cathode")), {}), **values}

    @model_validator(mode="after")
    def _preset_can_be_made(self) -> Self:
        if self.preset == "porous-carbon" and max(self.voxel_m, self.layer_m) > COARSEST_POROUS_M:
            coarse, finest = (one * 1e9 for one in (max(self.voxel_m, self.layer_m), COARSEST_POROUS_M))
            msg = (
                f"voxels of {coarse:.0f} nm don't resolve porous carbon's pores of 90 nm; at most {finest:.0f} nm: "
                "ask for a smaller block, or for smaller voxels"
            )
            raise ValueError(msg)
        if (self.preset == "from-volume") != (self.file is not None):
            msg = "the preset from-volume needs a file, and a file needs the preset from-volume: give both or neither"
            raise ValueError(msg)
        if self.file is not None and self.file_voxel_m is None:
            msg = f"the voxels of {self.file} have no size: give it"
            raise ValueError(msg)
        return self

    @property
    def material(self) -> int:
        """What the particles are made of, a code of `simulator.materials`."""
        return m.GRAPHITE if self.preset in ("graphite-anode", "porous-carbon") else m.NMC

    @property
    def collector(self) -> int:
        """What the foil is made of, a code of `simulator.materials`."""
        return m.COPPER if self.preset in ("graphite-anode", "porous-carbon") else m.AL

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
