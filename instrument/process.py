"""Rates and times as functions: milling, films, scans, moves. What plans, guards and time-left reckon with.

These are a Helios PFIB's usual numbers (`physics.md`; good to a factor of 1.5 where they come from models). A real
instrument, and the simulator, differ from them; what was measured on the sample replaces them during a run.
SI units throughout: rates in m3/C (1 um3/nC = 1e-9 m3/C), currents in A, densities in A/m2 (= pA/um2).
"""

from __future__ import annotations

from math import pi, sqrt

from instrument.settings import Beam, BeamSettings, Device, EdsScan, Scan, StagePosition, Tune

#: Sputtered volume per charge at 30 kV Xe, normal incidence, m3/C (physics.md 2.1).
MILL_RATES: dict[str, float] = {
    "active": 0.25e-9, "collector": 0.38e-9, "carbon": 0.23e-9, "binder": 0.50e-9, "cbd": 0.70e-9, "film": 0.32e-9,
    "cap": 0.30e-9, "paste": 0.60e-9, "electrode": 0.30e-9, "copper": 0.32e-9,
}  # fmt: skip
#: Rates of the other species, relative to Xe; oxygen takes carbon and polymers faster (physics.md 2.1).
SPECIES_FACTOR = {"Xenon": 1.0, "Argon": 0.65, "Oxygen": 0.27, "Nitrogen": 0.22}
OXYGEN_ON_CARBON, CARBONACEOUS = 0.8, ("carbon", "binder", "cbd")
#: Exponent with which the milling rate falls with voltage down to 5 kV (physics.md 2.1).
VOLTAGE_EXPONENT = 0.35

#: Film volume per ion charge at low density, m3/C, and the density (A/m2) that halves it (physics.md 3.1).
FILM_YIELD, FILM_HALF_DENSITY = 0.8e-9, 10.0
#: Exponent with which the film's own sputtering falls from 30 kV to 0.65 of it at 8 kV (physics.md 3.1: fsp).
FILM_SPUTTER_EXPONENT = 0.326
#: Film volume per electron charge at 3 kV, m3/C (physics.md 3.1).
ELECTRON_FILM_YIELD = 0.056e-9

#: Time to go back to a line's start, and to start a frame (physics.md 1.4: 20-50 us, 1-2 s), s.
FLYBACK_S, FRAME_START_S = 35e-6, 1.5
#: Time that a pattern takes to be loaded and started, and to change current or voltage (physics.md 2.1), s.
PATTERN_START_S, APERTURE_S, VOLTAGE_S = 5.0, 10.0, 30.0
#: Time for another gas in the plasma source until its current stands (about 10 min: our assumption), s.
SPECIES_S = 600.0
#: Stage: speeds (m/s, rad/s) and the time that each move takes beside (physics.md 1.2: tilt 2-4 deg/s, 180 deg in
#: 15-30 s).
STAGE_M_PER_S, TILT_RAD_PER_S, ROTATION_RAD_PER_S, MOVE_START_S = 1e-3, 3.0 * pi / 180, 8.0 * pi / 180, 2.0
#: Devices in or out (physics.md 1.3, 1.5: 5-15 s), s.
DEVICE_S = {Device.CBS: 10.0, Device.EDS: 15.0, Device.NEEDLE: 10.0}
#: Gas: heating from cold, purging before the beam and pumping after it (physics.md 1.5: 5-15 min, 120 s, 30 s), s.
HEAT_S, PURGE_S, RECOVERY_S = 600.0, 120.0, 30.0
#: No source is lit in a vacuum worse than this (physics.md 7), Pa.
LIT_BELOW_PA = 1e-2
#: An automatic focus or contrast (physics.md 1.6: 20-40 steps), s.
TUNE_S = 30.0


def spot(current_a: float, voltage_v: float = 30e3) -> float:
    """Return the ion spot's full width at half maximum (m): Xe, physics.md 1.1, good to a factor of 1.5."""
    small, middle, large = 20e-9, 25e-9 * (current_a / 10e-12) ** 0.39, 8.5e-6 * (current_a / 2.5e-6) ** 0.9
    return float(sqrt(small**2 + middle**2 + large**2) * (30e3 / voltage_v) ** 0.9)


def mill_rate(material: str = "electrode", voltage_v: float = 30e3, species: str = "Xenon") -> float:
    """Return the sputtered volume per charge (m3/C); KeyError names an unknown material or species."""
    return float(MILL_RATES[material] * species_factor(species, material) * (voltage_v / 30e3) ** VOLTAGE_EXPONENT)


def species_factor(species: str, material: str) -> float:
    """Return the rate of a species on a material over that of xenon; KeyError names an unknown species."""
    if species == "Oxygen" and material in CARBONACEOUS:
        return OXYGEN_ON_CARBON
    return SPECIES_FACTOR[species]


def mill_dose(volume_m3: float, material: str = "electrode", voltage_v: float = 30e3, species: str = "Xenon") -> float:
    """Return the charge (C) that takes a volume (m3) away."""
    return volume_m3 / mill_rate(material, voltage_v, species)


def film_yield(beam: Beam, density: float, voltage_v: float, growth: float = 1.0) -> float:
    """Return the film volume per charge (m3/C) net of its own sputtering; 0 or less where it is milled instead.

    `growth` is how fast films grow on an instrument, before that sputtering, over the model.
    """
    if beam is Beam.ELECTRON:
        return growth * ELECTRON_FILM_YIELD
    return growth * FILM_YIELD / (1.0 + density / FILM_HALF_DENSITY) - _film_sputtering(voltage_v)


def film_growth(share: float, beam: Beam, density: float, voltage_v: float) -> float:
    """Return the `growth` at which a film comes out this share as thick as the model has it."""
    sputtered = 0.0 if beam is Beam.ELECTRON else _film_sputtering(voltage_v)
    grown = film_yield(beam, density, voltage_v)
    return (share * grown + sputtered) / (grown + sputtered)


def densest_film(voltage_v: float) -> float:
    """Return the density (A/m2 of true surface) at which an ion beam takes as much film away as it grows."""
    return FILM_HALF_DENSITY * (FILM_YIELD / _film_sputtering(voltage_v) - 1.0)


def film_dose(
    area_m2: float, thickness_m: float, beam: Beam, density: float, voltage_v: float, growth: float = 1.0
) -> float:
    """Return the charge (C) for a film; ValueError where it would not grow."""
    grown = film_yield(beam, density, voltage_v, growth)
    if grown <= 0:
        msg = f"a film does not grow at {density:g} pA/um2 and {voltage_v / 1e3:g} kV; lower the density"
        raise ValueError(msg)
    return area_m2 * thickness_m / grown


def frame_seconds(scan: Scan) -> float:
    """Return how long a picture takes (s): all lines and integrations with flyback, and the start (physics.md 1.4)."""
    line = scan.width_px * scan.dwell_s * scan.line_integrations + FLYBACK_S * scan.line_integrations
    return scan.height_px * line * scan.frame_integrations + FRAME_START_S


def eds_seconds(scan: EdsScan) -> float:
    """Return how long an element map takes (s)."""
    return scan.frames * scan.height_px * (scan.width_px * scan.dwell_s + FLYBACK_S) + FRAME_START_S


def tune_seconds(routine: Tune, scan: Scan) -> float:
    """Return how long an automatic routine takes (s): contrast is found for one detector after the other."""
    return TUNE_S * (len(scan.detectors) if routine is Tune.CONTRAST else 1)


def frame_bytes(scan: Scan | EdsScan) -> int:
    """Return what a frame takes on disk (bytes), uncompressed; element maps have 16 bit."""
    if isinstance(scan, EdsScan):
        return scan.width_px * scan.height_px * len(scan.elements) * 2
    return scan.width_px * scan.height_px * len(scan.detectors) * (scan.bits // 8)


def move_seconds(now: StagePosition, to: StagePosition) -> float:
    """Return how long a stage move takes (s); 0 where nothing moves. Axes move together, the slowest counts."""
    longest = 0.0
    for axis, speed in (
        ("x", STAGE_M_PER_S), ("y", STAGE_M_PER_S), ("z", STAGE_M_PER_S), ("t", TILT_RAD_PER_S),
        ("r", ROTATION_RAD_PER_S),
    ):  # fmt: skip
        start, end = getattr(now, axis), getattr(to, axis)
        if end is not None and end != start:
            longest = max(longest, abs(end - (start or 0.0)) / speed)
    return longest + MOVE_START_S if longest > 0 else 0.0


def beam_seconds(now: BeamSettings, to: BeamSettings) -> float:
    """Return how long a change of a column takes (s): species, voltage, or aperture for another current."""
    if to.species is not None and now.species is not None and to.species != now.species:
        return SPECIES_S
    if to.voltage_v is not None and to.voltage_v != now.voltage_v:
        return VOLTAGE_S
    return APERTURE_S if to.current_a is not None and to.current_a != now.current_a else 0.0


def _film_sputtering(voltage_v: float) -> float:
    return float(MILL_RATES["film"] * (voltage_v / 30e3) ** FILM_SPUTTER_EXPONENT)
