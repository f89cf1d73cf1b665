"""How the ion beam takes material away: dose-limited advance of a face, curtains, true rates. Pure functions on arrays.

Faces are height maps: z of the outermost surface at each place (y, x), metres. A cut's beam runs down y along the face;
what of its profile lies beyond the surface is used up there, what lies before it passes by (night.md 2): so a cut
removes what its dose is worth, wherever its line stands, and a repeated cut removes nearly as much again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from instrument.process import MILL_RATES, VOLTAGE_EXPONENT, species_factor, spot
from simulator import materials as m
from simulator.randomness import rng
from simulator.sidebyside import parts, side_by_side

Float32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]

#: Material -> name of its rate in `instrument.process` (physics.md 2.1).
RATE_OF = {
    m.NMC: "active", m.CBD: "cbd", m.AL: "collector", m.PT: "film", m.CAP: "cap", m.RESIDUE: "electrode",
    m.SLIVER: "active", m.GRAPHITE: "carbon", m.COPPER: "copper", m.CRACK_RESIDUE: "binder",
}  # fmt: skip
#: A pore is milled this many times as fast as the electrode: the beam passes, less what it sheds (physics.md 8.2).
PORE_FACTOR = 4.0
#: Ridges that stand out into the beam are met less glancingly and go faster (physics.md 2.1, angle): share per spot.
LEVELLING = 0.6
#: Curtain relief: decay length down the beam, metres, and growth per metre of path and unit of relative rate
#: (physics.md 8.2: L = 15 um; its a = 3e-3 doubled, by which rendered streaks have the published 2 %: 2.3), the
#: height towards which it levels off, metres (2.3: 5-100 nm), and how fast a pore counts as milled.
CURTAIN_DECAY_M, CURTAIN_GROWTH, CURTAIN_LIMIT_M, CURTAIN_PORE = 15e-6, 6e-3, 60e-9, 5.0
#: What rocking leaves of one direction's relief: the mix of both then has 0.3 of the streaks (physics.md 2.3).
ROCKED_SHARE = 0.7
#: Deviation of a cut's dose, of where its line lies and of where it ends, metres (physics.md 4.6, 8.2: 8-15 nm per cut
#: with placement). Ends don't add up: what one cut takes too much the next finds gone (8.8: 30-60 % of 25 nm per cut,
#: less than 20 % of 100 nm).
DOSE_SPREAD, LINE_SPREAD_M, END_SPREAD_M = 0.04, 8e-9, 7.5e-9
#: The ion beam's half-angle at 1 nA, and how it grows with the current: apertures are larger (our own choice).
HALF_ANGLE_RAD, HALF_ANGLE_GROWS = 5e-3, 0.25
#: A cut that advances no further is one of a series of slices, m.
SLICE_M = 0.12e-6
#: A cut's dose is never less than this share of what was asked for.
_LEAST_DOSE = 0.1
#: A face cut along the beam leans by this at these currents, A: its foot stays behind (physics.md 2.2, 8.2), degrees.
_TAPER_AT_A, _TAPER_DEG = (1e-9, 60e-9, 2.5e-6), (1.0, 1.5, 3.0)
#: Share of the beam that lies in tails four times as wide, at these currents, A (physics.md 2.2).
_TAIL_AT_A, _TAIL_SHARE, TAIL_WIDTH = (1e-9, 60e-9), (0.05, 0.10), 4.0
#: Of what is sputtered this much lands again: in a cut open to the front, in a blind box with its depth over its width
#: (physics.md 2.2, 8.2: 2-10 % and 20-50 %).
REDEPOSITED_OPEN, REDEPOSITED_BLIND, REDEPOSITED_DEEP = 0.10, 0.20, 0.50


@dataclass(frozen=True)
class TrueRates:
    """What this machine really mills, m3/C at 30 kV Xe, by name as in `process.MILL_RATES`, and its films' factor."""

    by_name: dict[str, float]
    film_factor: float

    def rate(self, name: str, voltage_v: float, species: str = "Xenon") -> float:
        """Return the sputtered volume per charge, m3/C."""
        return float(self.by_name[name] * species_factor(species, name) * (voltage_v / 30e3) ** VOLTAGE_EXPONENT)

    def table(self, voltage_v: float, species: str = "Xenon") -> Float32:
        """Return the rate by material, float32 (256,), m3/C; outside as pores."""
        pore = PORE_FACTOR * self.rate("electrode", voltage_v, species)
        table = np.full(256, pore, np.float32)
        for material, name in RATE_OF.items():
            table[material] = self.rate(name, voltage_v, species)
        return table


def true_rates(seed: int, spread: float = 0.2) -> TrueRates:
    """Draw a machine's rates: all within `spread` of the nominal ones, its films within 1.25 times that."""
    draw = rng(seed, "true rates")
    common, film = draw.uniform(-0.7, 0.7), draw.uniform(-1.25, 1.25)
    each = {name: 1 + spread * (common + draw.uniform(-0.3, 0.3)) for name in sorted(MILL_RATES)}
    return TrueRates({name: MILL_RATES[name] * factor for name, factor in each.items()}, 1 + spread * film)


def spot_sigma(current_a: float, voltage_v: float, defocus_m: float = 0.0) -> float:
    """Return the standard deviation of the ion spot, metres (physics.md 1.1, 2.2); a disc is half its radius wide."""
    half_angle = HALF_ANGLE_RAD * (current_a / 1e-9) ** HALF_ANGLE_GROWS
    return float(np.hypot(spot(current_a, voltage_v) / 2.355, half_angle * defocus_m / 2))


def taper(current_a: float) -> float:
    """Return the angle (rad) by which a face leans that a beam along it has cut: its foot stays behind."""
    return float(np.radians(np.interp(np.log10(current_a), np.log10(_TAPER_AT_A), _TAPER_DEG)))


def tail(current_a: float) -> float:
    """Return the share of the beam that lies in its wide tails (physics.md 2.2)."""
    return float(np.interp(np.log10(current_a), np.log10(_TAIL_AT_A), _TAIL_SHARE))


def redeposited(depth_m: float, width_m: float) -> float:
    """Return the share of what is sputtered in a blind box of this depth and width that lands in it again."""
    deep = min(1.0, depth_m / max(width_m, 1e-9))
    return REDEPOSITED_BLIND + (REDEPOSITED_DEEP - REDEPOSITED_BLIND) * deep


def dose_factor(seed: int, number: int, fills: int, cuts: int, sweep_m: float) -> float:
    """Return the dose that reaches the face over that asked for, for a line that goes `sweep_m` far.

    `number` is that of the pattern, `fills` and `cuts` those made before: the latter tell where the last cut has ended.
    Where one ends matters for a slice, not for what goes further.
    """
    spread = float(np.exp(DOSE_SPREAD * rng(seed, "cut dose", number).standard_normal()))
    if sweep_m > SLICE_M:
        return max(_LEAST_DOSE, spread)
    end, start = (END_SPREAD_M * float(rng(seed, "cut end", fills, n).standard_normal()) for n in (cuts, cuts - 1))
    return max(_LEAST_DOSE, spread * (1 + (end - start) / max(sweep_m, 1e-9)))


def share_beyond(surface: Float32, line: Float32 | float, sigma: float, tails: float = 0.0) -> Float32:
    """Return the share of the beam's profile that lies beyond the surface, 0..1; `tails` of it are four times wide."""
    off = (line - surface) * np.float32(1 / sigma)
    core = _normal(off)
    if tails > 0:
        core += np.float32(tails) * (_normal(off * np.float32(1 / TAIL_WIDTH)) - core)
    return core


def _normal(off: Float32) -> Float32:
    """Return the normal distribution's integral, good to 2e-4 and several times as fast as the error function."""
    argument = off * off
    argument *= np.float32(0.044715 * 0.7978846)
    argument += np.float32(0.7978846)
    argument *= off
    np.tanh(argument, out=argument)
    argument += np.float32(1)
    argument *= np.float32(0.5)
    return argument


def inside(x: NDArray[np.floating], middle: float, width: float, sigma: float, tails: float = 0.0) -> Float32:
    """Return how much of a pattern of this width a beam of this spot gives at each x, 0..1."""
    low = np.asarray(x - middle + width / 2, np.float32)
    high = low - np.float32(width)
    given = _between(low, high, sigma)
    if tails > 0:
        given += np.float32(tails) * (_between(low, high, TAIL_WIDTH * sigma) - given)
    return given


def _between(low: Float32, high: Float32, sigma: float) -> Float32:
    return _normal(low / np.float32(sigma)) - _normal(high / np.float32(sigma))


def swept(
    surface: Float32,
    rate: Float32,
    lateral: Float32,
    lines: tuple[Float32, Float32],
    *,
    charge_per_area: float,
    sigma: float,
    tails: float = 0.0,
    wanted: Float32 | float = 1.0,
) -> Float32:
    """Return the surface after a line has gone evenly from one place to another, giving its charge on the way.

    dF = rate dq / (width depth) Q, Q = 1/2 erfc((F - z_line) / (sqrt 2 sigma)).

    Parameters
    ----------
    surface : z of the outermost surface, metres, (y, x)
    rate : m3/C at each place
    lateral : share of the pattern's dose that a column gets, 0..1
    lines : z of the line at the beginning and at the end, metres, (y, x) or what broadcasts to it
    charge_per_area : C/m2 over width times depth of the pattern
    sigma : of the spot, metres; tails : share of the beam in its wide tails
    wanted : further factor on the advance, such as the lag of the foot
    """
    start, end = lines
    per_charge = np.asarray(rate * lateral * wanted, np.float32)
    most = max(
        float(per_charge.max(initial=0.0)) * charge_per_area,
        float(np.max(np.abs(end - start))),
    )
    steps = int(np.clip(np.ceil(most / (0.3 * sigma)), 1, 256))
    out = surface.astype(np.float32, copy=True)
    step = per_charge * np.float32(charge_per_area / steps)
    way = end - start

    def part(first: int, last: int) -> None:  # columns don't know of each other
        mine, its_step = out[:, first:last], step[:, first:last]
        begin, its_way = (np.broadcast_to(one, out.shape)[:, first:last] for one in (start, way))
        for index in range(steps):
            line = begin + its_way * np.float32((index + 0.5) / steps)
            used = share_beyond(mine, line, sigma, tails)
            met = used + np.float32(1e-6)
            behind = mine - line  # what stands out of a face along the line is met by more of the beam
            middle = (met * behind).sum(axis=0) / met.sum(axis=0)
            ridge = np.clip((middle - behind) / np.float32(sigma), -0.5, 0.5)
            mine += its_step * used * (1 + np.float32(LEVELLING) * ridge)

    side_by_side(part, *zip(*parts(out.shape[1]), strict=True))
    return out


def column_rate(material: Bytes, table: Float32, pixel_m: float, slant: float) -> Float32:
    """Return the rate at which each column of a face goes back, m3/C, (x,), smoothed by the spot.

    Times add along the beam's path, so the mean is harmonic; what is outside (cap's surroundings) takes no part.

    Parameters
    ----------
    material : on the face, (y, x)
    table : rate by material, m3/C
    pixel_m : of the map; slant : tangent of the beam's angle in the face, x per y
    """
    slow = sheared(np.asarray(1 / table[material], np.float32), slant)
    there = sheared((material != m.VACUUM).astype(np.float32), slant)
    weight = there.sum(axis=0)
    overall = float((slow * there).sum() / max(1.0, float(weight.sum())))
    path = np.where(weight > 0, (slow * there).sum(axis=0) / np.maximum(weight, 1), overall)
    # what one column sheds mills its neighbours: differences are damped (physics.md 2.2, redeposition)
    damped = overall * (path / overall) ** 0.4
    return np.asarray(1 / ndimage.gaussian_filter1d(damped, 0.5e-6 / pixel_m, mode="nearest"), np.float32)


def curtain(material: Bytes, table: Float32, pixel_m: float, slant: float) -> Float32:
    """Return the relief that one cut draws behind soft and hard places, metres, positive into the block, (y, x).

    dC/dy = -C / L + a (R - mean R), R the rate relative to NMC, then some blur across (physics.md 8.2: 0.2 um).
    """
    relative = np.where(material == m.PORE, np.float32(CURTAIN_PORE), table[material] / table[m.NMC])
    relative = np.minimum(relative, CURTAIN_PORE)
    there = material != m.VACUUM
    mean = float(relative[there].mean()) if there.any() else 1.0
    drive = np.where(there, relative - mean, 0) * np.float32(CURTAIN_GROWTH * pixel_m)
    along = sheared(drive.astype(np.float32), slant)
    keep = float(np.exp(-pixel_m / CURTAIN_DECAY_M))
    relief = signal.lfilter([1.0], [1.0, -keep], along, axis=0)
    relief = sheared(np.asarray(relief, np.float32), -slant)
    relief = ndimage.gaussian_filter1d(relief, 0.12e-6 / pixel_m, axis=1)
    relief -= np.median(relief)
    return np.asarray(CURTAIN_LIMIT_M * np.tanh(relief / CURTAIN_LIMIT_M), np.float32)


def sheared(field: Float32, slant: float) -> Float32:
    """Shift each row by its distance from the first times `slant`, so that slanted paths become columns."""
    return field if abs(slant) < 1e-6 else field.take(_shear(field.shape, slant))


@lru_cache(maxsize=2)
def _shear(shape: tuple[int, ...], slant: float) -> NDArray[np.intp]:
    """Return from where (flat) each place is taken: what one cut asks for several times."""
    rows, columns = shape
    row, shift = np.arange(rows)[:, None], np.rint(np.arange(rows) * slant).astype(np.intp)[:, None]
    flat: NDArray[np.intp] = row * columns + np.clip(np.arange(columns)[None, :] + shift, 0, columns - 1)
    flat.setflags(write=False)
    return flat


#: The cut that loses its foot after a break, metres: the published one.
FOOT_CUT_M = 25e-9


def foot_lag(y_m: NDArray[np.floating], height_m: float, cuts_since_break: int, advance_m: float) -> Float32:
    """Return the factor on a cut's advance by depth: after a break the foot comes up to three cuts later, (y, 1).

    Published as an abstract (night.md 7); how it dies away is our assumption. `advance_m` is the cut's own: a large
    one loses no more than a small one.
    """
    lag = 0.9 * np.exp(-cuts_since_break / 3.0) * min(1.0, FOOT_CUT_M / max(advance_m, 1e-12))
    # beyond the pattern's depth nothing is cut
    depth = np.clip(np.asarray(y_m) / max(height_m, 1e-9), 0, 1)
    reach = 1 / (1 + np.exp((np.asarray(y_m) - height_m - 1.5e-6) / 0.5e-6))
    return np.asarray((1 - lag * depth) * reach, np.float32)[:, None]
