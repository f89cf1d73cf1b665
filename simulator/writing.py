"""What a pattern does to the block, by how the beam meets it: along the face, square to the face, onto the top."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instrument.settings import (
    Beam,
    Bitmap,
    CleaningCrossSection,
    Line,
    Pattern,
    PatternJob,
    Rectangle,
    RegularCrossSection,
    volume,
)
from simulator.beams import Affine, Sight
from simulator.block import Block
from simulator.cutting import FaceCut
from simulator.deposition import electron_film_rate, film_rate
from simulator.milling import (
    LINE_SPREAD_M,
    REDEPOSITED_OPEN,
    TrueRates,
    dose_factor,
    inside,
    redeposited,
    spot_sigma,
)
from simulator.randomness import rng
from simulator.topside import Feature, relief, stepped

Float32 = NDArray[np.float32]

#: A beam within this of the face's plane (sine; 5 deg) cuts it; one more than this towards it lands on it.
ALONG_FACE, ONTO_FACE = 0.087, 0.5
#: A box that begins no further than this behind the front edge is open to the front, metres.
OPEN_FRONT_M = 0.8e-6
#: Edge of a film, metres, and its thin halo: share of its thickness and reach (physics.md 3.1: 1-3 %, 10-30 um).
FILM_EDGE_M, HALO_SHARE, HALO_M = 0.4e-6, 0.02, 10e-6
#: A slanted beam that lights the top as well lays so many times the halo there (our own choice).
LIT_TOP = 3.0
#: A regular cross-section goes down to its face in so many steps.
STEPS = 16
#: The needle stands at +x: at the film's far side the gas is thinner by this (our own choice; physics.md 1.5).
NEEDLE_SHADOW = 0.07


@dataclass
class Writer:
    """Writes one job, piece by piece. Electron beams only lay films.

    Parameters
    ----------
    block, sight, job : what is written where
    current_a : true current; rates : of this machine; species : of the ion beam; gas : precursor at the surface, 0..1
    key : seed and number of the pattern; cuts : made since the last break
    defocus_m : how far from the sample the beam is focused
    """

    block: Block
    sight: Sight
    job: PatternJob
    current_a: float
    rates: TrueRates
    species: str
    gas: float
    key: tuple[int, int]
    cuts: int
    defocus_m: float = 0.0

    def __post_init__(self) -> None:
        weights = np.array([volume(p) for p in self.job.patterns])
        self._edges = np.concatenate([[0.0], np.cumsum(weights) / weights.sum()])
        self._edges[-1] = 1.0
        draw = rng(self.key[0], "cut", self.key[1])
        self._off = float(LINE_SPREAD_M * draw.standard_normal())
        self._cuts: dict[int, FaceCut] = {}

    @property
    def cuts_face(self) -> bool:
        """Whether the beam of this job runs along the face."""
        return self.sight.beam is Beam.ION and abs(float(self.sight.flight[2])) < ALONG_FACE

    @property
    def advance_m(self) -> float:
        """How far the first of the job's patterns goes across the field, m."""
        first = self.job.patterns[0]
        return abs(first.end_y_m - first.start_y_m) if isinstance(first, CleaningCrossSection) else float("inf")

    def give(self, start: float, end: float) -> None:
        """Give the dose from one fraction of the job to another: patterns one after the other."""
        for pattern, low, high in zip(self.job.patterns, self._edges, self._edges[1:], strict=False):
            a, b = max(start, float(low)), min(end, float(high))
            if b <= a:
                continue
            charge = self.job.dose_c * (b - a) * self.current_a / self.job.current_a
            part = ((a - low) / (high - low), (b - low) / (high - low))
            if self.job.purpose == "deposit":
                self._lay(pattern, charge)
            elif self.cuts_face:
                self._mill_along(pattern, charge, part)
            elif self.sight.beam is Beam.ION and float(self.sight.flight[2]) > ONTO_FACE:
                self._mill_onto(pattern, charge)

    # -- films --------------------------------------------------------------------------------------------------------

    def _lay(self, pattern: Pattern, charge: float) -> None:
        if float(self.sight.flight[2]) > ONTO_FACE:
            x0, y0, x1, y1 = self._box(pattern, self.sight.on_plane(2, self.block.middle_z()))
            height = self._height(charge, (x1 - x0) * (y1 - y0))
            flight = tuple(float(c) for c in self.sight.flight)
            self.block.lay_film(height * self._film_mask(x0, y0, x1, y1), (flight[0], flight[1], flight[2]))
            if height > 0:
                self.block.bury_marks(lambda x, z: height * self._overspray(x, z, x0, x1))
            return
        x0, z0, x1, z1 = self._box(pattern, self._top_plane(pattern))
        height = self._height(charge, (x1 - x0) * (z1 - z0))
        if height > 0:
            soft = 0.15e-6
            self.block.add(Feature(kind="cap", x0=x0, z0=z0, x1=x1, z1=z1, amount=height, soft=soft))
        elif height < 0:
            self.block.add(Feature(kind="pit", x0=x0, z0=z0, x1=x1, z1=z1, amount=-height))

    def _height(self, charge: float, area: float) -> float:
        """Return the film (m) that a charge makes on a true area, negative where it mills."""
        density = self.current_a / area
        if self.sight.beam is Beam.ELECTRON:
            rate = electron_film_rate(density, yield_factor=self.rates.film_factor, gas=self.gas)
        else:
            rate = film_rate(density, self.job.voltage_v, yield_factor=self.rates.film_factor, gas=self.gas)
        return rate * charge / self.current_a

    def _film_mask(self, x0: float, y0: float, x1: float, y1: float) -> Float32:
        x, y = self.block.x[None, :], self.block.y[:, None]
        across = inside(x, (x0 + x1) / 2, x1 - x0, FILM_EDGE_M) * inside(y, (y0 + y1) / 2, y1 - y0, FILM_EDGE_M)
        beside = np.hypot(np.maximum(np.maximum(x0 - x, x - x1), 0), np.maximum(np.maximum(y0 - y, y - y1), 0))
        halo = HALO_SHARE * np.exp(-beside / HALO_M)
        shadow = 1 - NEEDLE_SHADOW * np.clip((x1 - x) / max(x1 - x0, 1e-9), 0, 1)
        return np.asarray(np.where(across > halo, across, halo) * shadow, np.float32)

    def _overspray(self, x: float, z: float, x0: float, x1: float) -> float:
        """Return the share of a face film that lands on the top at (x, z): more where the beam lights the top."""
        beside = float(np.hypot(max(x0 - x, 0.0, x - x1), max(0.0, z - self.block.middle_z())))
        lit = LIT_TOP if float(self.sight.flight[1]) > ONTO_FACE else 1.0
        return lit * HALO_SHARE * float(np.exp(-beside / HALO_M))

    # -- milling ------------------------------------------------------------------------------------------------------

    def _mill_along(self, pattern: Pattern, charge: float, part: tuple[float, float]) -> None:
        """Cut with a beam that runs down the face: the face itself, or what stands on the top behind it."""
        if isinstance(pattern, Line):
            self._groove(pattern, charge)
            return
        if isinstance(pattern, RegularCrossSection | Bitmap):
            self._carve(pattern, charge)
            return
        plane = self._plane(0.0)
        if isinstance(pattern, CleaningCrossSection):
            first, last = pattern.start_y_m, pattern.end_y_m
        else:
            ends = sorted(
                (pattern.y_m + s * pattern.height_m / 2 for s in (-1, 1)), key=lambda v: plane(pattern.x_m, v)[1]
            )
            first, last = ends[0], ends[1]
            x0, z0, x1, z1 = self._box(pattern, plane)
            if z0 > self._front_of(x0, x1) + OPEN_FRONT_M:
                depth = self._rate("cap" if self._on_cap(x0, z0, x1, z1) else "electrode") * charge
                depth /= pattern.width_m * pattern.height_m
                depth *= 1 - redeposited(pattern.depth_m, min(pattern.width_m, pattern.height_m))
                self.block.add(Feature(kind="pit", x0=x0, z0=z0, x1=x1, z1=z1, amount=depth, soft=self._sigma))
                return
        step = last - first
        span = (first + step * part[0], first + step * part[1])
        self._beside(pattern, plane, first, span[1], charge)
        sweep = abs(plane(pattern.x_m, last)[1] - plane(pattern.x_m, first)[1])
        cut = self._cuts.get(id(pattern))
        if cut is None:
            cut = self._cuts[id(pattern)] = FaceCut(
                block=self.block, flight=self.sight.flight, plane=plane, pattern=pattern,
                current_a=self.job.current_a, sweep=sweep, sigma=self._sigma,
                rates=self.rates.table(self.job.voltage_v, self.species), off=self._off, cuts=self.cuts,
            )  # fmt: skip
        cut.give(span, dose_factor(*self.key, self.block.fills, self.cuts, sweep) * charge)

    def _carve(self, pattern: RegularCrossSection | Bitmap, charge: float) -> None:
        """Mill a pit that is not as deep everywhere: each part of it by its own share of the dose."""
        plane = self._plane(0.0)
        x0, z0, x1, z1 = self._box(pattern, plane)
        closed = z0 > self._front_of(x0, x1) + OPEN_FRONT_M
        depth = self._rate("cap" if self._on_cap(x0, z0, x1, z1) else "electrode") * charge
        depth *= pattern.depth_m / volume(pattern)
        narrow = min(pattern.width_m, pattern.height_m)
        depth *= 1 - (redeposited(pattern.depth_m, narrow) if closed else REDEPOSITED_OPEN)
        shares = tuple(map(tuple, _shares(pattern, plane).tolist()))
        pit = Feature(kind="pit", x0=x0, z0=z0, x1=x1, z1=z1, amount=depth, soft=self._sigma, shares=shares)
        self.block.open_pit(pit)

    def _beside(
        self, pattern: CleaningCrossSection | Rectangle, plane: Affine, first: float, now: float, charge: float
    ) -> None:
        """Record what is cut beside the volume, where no map shows it."""
        low, high = float(self.block.x[0]), float(self.block.x[-1])
        half = pattern.width_m / 2
        (xa, za), (xb, zb) = plane(pattern.x_m - half, first), plane(pattern.x_m + half, now)
        x0, x1, z0, z1 = min(xa, xb), max(xa, xb), min(za, zb), max(za, zb)
        if isinstance(pattern, Rectangle):
            _, z0, _, z1 = self._box(pattern, plane)
            depth = self._rate("electrode") * charge / (pattern.width_m * pattern.height_m) * (1 - REDEPOSITED_OPEN)
        else:
            depth = pattern.depth_m
        for a, b in ((x0, min(x1, low)), (max(x0, high), x1)):
            if b - a > 0.3e-6:
                self._widen(Feature(kind="trench", x0=a, z0=z0, x1=b, z1=z1, amount=depth, soft=self._sigma))

    def _widen(self, trench: Feature) -> None:
        """Add a trench, or what a further piece deepens or lengthens."""
        for place, old in enumerate(self.block.features):
            beside = abs(old.x0 - trench.x0) < 0.3e-6 and abs(old.x1 - trench.x1) < 0.3e-6
            if old.kind == "trench" and beside and abs(old.z0 - trench.z0) < 0.3e-6:
                deeper = old.amount + trench.amount if abs(old.z1 - trench.z1) < 0.3e-6 else trench.amount
                wider = old.replace(z1=max(old.z1, trench.z1), amount=deeper)
                features = self.block.features
                self.block.features = (*features[:place], wider, *features[place + 1 :])
                return
        self.block.add(trench)

    def _groove(self, line: Line, charge: float) -> None:
        plane = self._top_plane(line)
        (x0, z0), (x1, z1) = plane(line.x0_m, line.y0_m), plane(line.x1_m, line.y1_m)
        length = float(np.hypot(x1 - x0, z1 - z0)) + line.line_width_m
        cap = self._on_cap(min(x0, x1), min(z0, z1), max(x0, x1), max(z0, z1))
        depth = self._rate("cap" if cap else "electrode") * charge / (length * line.line_width_m)
        width = float(np.hypot(line.line_width_m, self._sigma))
        self.block.add(
            Feature(
                kind="groove", x0=x0, z0=z0, x1=x1, z1=z1, width=width, amount=depth * line.line_width_m / width,
                soft=self._sigma,
            )
        )  # fmt: skip

    def _mill_onto(self, pattern: Pattern, charge: float) -> None:
        """Mill with a beam that lands on the face: a shallow box in it."""
        if isinstance(pattern, Line):
            return
        plane = self.sight.on_plane(2, self.block.middle_z())
        x0, y0, x1, y1 = self._box(pattern, plane)
        depth = self._rate("electrode") * charge / ((x1 - x0) * (y1 - y0))
        x, y = self.block.x[None, :], self.block.y[:, None]
        mask = inside(x, (x0 + x1) / 2, x1 - x0, self._sigma) * inside(y, (y0 + y1) / 2, y1 - y0, self._sigma)
        if isinstance(pattern, RegularCrossSection | Bitmap):
            shares = _shares(pattern, plane)
            mask = mask * np.float32(1 / shares.mean()) * stepped(shares, (x0, y0, x1, y1), x, y).astype(np.float32)
        self.block.cut_to(self.block.maps.surface + np.float32(depth) * mask)

    # -- where --------------------------------------------------------------------------------------------------------

    @property
    def _sigma(self) -> float:
        return spot_sigma(self.job.current_a, self.job.voltage_v, self.defocus_m)

    def _rate(self, name: str) -> float:
        return self.rates.rate(name, self.job.voltage_v, self.species)

    def _plane(self, y: float) -> Affine:
        return self.sight.on_plane(1, y)

    def _top_plane(self, pattern: Pattern) -> Affine:
        """Return the plane of what stands in the middle of a pattern on the top."""
        plane = self._plane(0.0)
        u, v = _middle(pattern)
        x, z = plane(u, v)
        cap, _, _ = relief(self.block.features, np.array([x]), np.array([z]))
        return self._plane(-float(cap[0])) if cap[0] > 0 else plane

    def _box(self, pattern: Pattern, plane: Affine) -> tuple[float, float, float, float]:
        """Return the low and high corners of a pattern's box on a plane."""
        u, v, width, height = _frame(pattern)
        corners = [plane(u + a * width / 2, v + b * height / 2) for a, b in ((-1, -1), (1, -1), (-1, 1), (1, 1))]
        p = [c[0] for c in corners]
        q = [c[1] for c in corners]
        # sides, not extremes: a frame turned by a fraction of a degree is no larger for it
        across = sorted(((p[0] + p[2]) / 2, (p[1] + p[3]) / 2))
        down = sorted(((q[0] + q[1]) / 2, (q[2] + q[3]) / 2))
        return across[0], down[0], across[1], down[1]

    def _front_of(self, x0: float, x1: float) -> float:
        """Return z of the front edge between two x, metres."""
        there = (self.block.x >= x0) & (self.block.x <= x1)
        return float(np.median(self.block.front()[there])) if there.sum() > 3 else 0.7e-6

    def _on_cap(self, x0: float, z0: float, x1: float, z1: float) -> bool:
        _, _, share = relief(self.block.features, np.array([(x0 + x1) / 2]), np.array([(z0 + z1) / 2]))
        return bool(share[0] > 0.5)


def _frame(pattern: Pattern) -> tuple[float, float, float, float]:
    """Return middle and size of a pattern in its field, metres."""
    if isinstance(pattern, Rectangle | RegularCrossSection | Bitmap):
        return pattern.x_m, pattern.y_m, pattern.width_m, pattern.height_m
    if isinstance(pattern, CleaningCrossSection):
        height = abs(pattern.end_y_m - pattern.start_y_m)
        return pattern.x_m, (pattern.start_y_m + pattern.end_y_m) / 2, pattern.width_m, max(height, 1e-9)
    u, v = _middle(pattern)
    width, height = abs(pattern.x1_m - pattern.x0_m), abs(pattern.y1_m - pattern.y0_m)
    return u, v, width + pattern.line_width_m, height + pattern.line_width_m


def _shares(pattern: RegularCrossSection | Bitmap, plane: Affine) -> NDArray[np.float64]:
    """Return by part of a pattern's box on a plane its share of the depth: rows and columns along the plane's axes."""
    if isinstance(pattern, Bitmap):
        shares = np.array(pattern.shares)
    else:
        shares = (np.arange(STEPS)[:, None] + 0.5) / STEPS  # y down the field
        shares = shares if pattern.deep == "bottom" else shares[::-1]
    across, down = float(plane.matrix[0][0]), float(plane.matrix[1][1])
    return shares[:: 1 if down > 0 else -1, :: 1 if across > 0 else -1]


def _middle(pattern: Pattern) -> tuple[float, float]:
    if isinstance(pattern, Line):
        return (pattern.x0_m + pattern.x1_m) / 2, (pattern.y0_m + pattern.y1_m) / 2
    return _frame(pattern)[:2]
