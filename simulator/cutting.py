"""One pattern that cuts the face with a beam that runs down it, given in pieces of its dose."""

from __future__ import annotations

from dataclasses import dataclass
from math import tan

import numpy as np
from numpy.typing import NDArray

from instrument.settings import CleaningCrossSection, Rectangle
from simulator.beams import Affine
from simulator.block import Block
from simulator.materials import PT
from simulator.milling import (
    REDEPOSITED_OPEN,
    ROCKED_SHARE,
    column_rate,
    curtain,
    foot_lag,
    inside,
    swept,
    tail,
    taper,
)
from simulator.sidebyside import beside

Float32 = NDArray[np.float32]

#: After so much advance older curtains are gone; what lies on the face is looked at again after this much, metres.
RELIEF_MEMORY_M, LOOKED_AT_AGAIN_M = 60e-9, 150e-9
#: A film thicker than this is what the beam meets, metres.
_FILM_M = 5e-9


@dataclass
class FaceCut:
    """A cleaning cross-section, or a box that is open to the front: a line that goes back over the face.

    Parameters
    ----------
    block : what is cut; flight : of the beam, block axes; plane : from field positions to (x, z) at y = 0
    pattern : with its width and depth; rates : by material, m3/C; current_a : of the beam
    sweep : how far its line goes on the top, metres; sigma : of its spot, metres
    off : error of the line's place, metres; cuts : made since the last break
    """

    block: Block
    flight: NDArray[np.float64]
    plane: Affine
    pattern: CleaningCrossSection | Rectangle
    current_a: float
    sweep: float
    sigma: float
    rates: Float32
    off: float
    cuts: int

    def __post_init__(self) -> None:
        block, flight = self.block, self.flight
        self._slant = float(flight[0] / flight[1])
        self._tails = tail(self.current_a)
        x_top = block.x[None, :] - self._slant * block.y[:, None]
        (a, b), _ = self.plane.matrix
        v = self.pattern.y_m if isinstance(self.pattern, Rectangle) else self.pattern.end_y_m
        middle = float(a * self.pattern.x_m + b * v + self.plane.offset[0])
        lateral = inside(x_top, middle, self.pattern.width_m * abs(float(a)), self.sigma, self._tails)
        columns = np.flatnonzero(lateral.max(axis=0) > 1e-3)
        self._part = slice(int(columns[0]), int(columns[-1]) + 1) if columns.size else slice(0, 0)
        self._lateral = lateral[:, self._part]
        lean = float(flight[2] / flight[1]) - tan(taper(self.current_a))
        self._at_zero, self._per_row = self._lines(x_top[:, self._part], lean)
        self._lag = foot_lag(block.y, self.pattern.depth_m, self.cuts, self.sweep)
        self._relief = block.maps.relief.copy()
        self._advanced = self._looked_at = 0.0
        if columns.size:
            self._look()

    def give(self, span: tuple[float, float], charge_c: float) -> None:
        """Let the line go from one field row to another while the charge is given."""
        part, block = self._part, self.block
        if part.stop == part.start:
            return
        if self._advanced - self._looked_at > LOOKED_AT_AGAIN_M:
            self._look()
        rate = np.where(block.film[:, part] > _FILM_M, self.rates[PT], self._column[part]).astype(np.float32)
        rate *= np.float32(1 - REDEPOSITED_OPEN)
        before = block.maps.surface[:, part]
        after = swept(
            before, rate, self._lateral, (self._line(span[0]), self._line(span[1])),
            charge_per_area=charge_c / (self.pattern.width_m * self.pattern.depth_m), sigma=self.sigma,
            tails=self._tails, wanted=self._lag,
        )  # fmt: skip
        self._advanced += float(np.median(after - before))
        surface = block.maps.surface.copy()
        surface[:, part] = after
        block.cut_to(surface)
        weight = np.float32(1 - np.exp(-max(0.0, self._advanced) / RELIEF_MEMORY_M))
        block.maps.relief = (self._relief + weight * (self._fresh - self._relief)).astype(np.float32)

    def _look(self) -> None:
        """See what the beam meets: how fast each column goes back, what curtains it draws."""
        block = self.block
        met = block.material_at(block.maps.face)
        column = beside(column_rate, met, self.rates, block.pixel, self._slant)
        fresh = curtain(block.materials(met), self.rates, block.pixel, self._slant)
        self._column = column()
        self._fresh = fresh * np.float32(ROCKED_SHARE) if abs(self._slant) > 0.01 else fresh
        self._looked_at = self._advanced

    def _line(self, v: float) -> Float32:
        """Return z of the line at each place of the face when it stands at a field row."""
        return self._at_zero + np.float32(self._per_row * v)

    def _lines(self, x_top: NDArray[np.float64], lean: float) -> tuple[Float32, float]:
        """Return z of the line at each place when it stands at field row 0, and by how much it moves per row, m/m."""
        (a, b), (c, d) = self.plane.matrix
        across, along = self.plane.offset
        z = c * (x_top - across) / a + along + lean * self.block.y[:, None] + self.off
        return np.asarray(z, np.float32), float(d - c * b / a)
