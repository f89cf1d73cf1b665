"""What a night takes: an imaged slice, a film, a clean, by the virtual machine's own clock at the published sizes."""

from __future__ import annotations

from instrument.process import film_yield, mill_dose
from instrument.settings import Beam, CleaningCrossSection, DetectorSettings, Scan
from simulator.acceptance.finding import Check, Finding, near
from simulator.acceptance.operator import STILL, Operator

#: The published face (protocol.md), metres; the area of its films, m2.
_FACE_M, _FILM_M2 = (200e-6, 190e-6), 38_000e-12


def slice_and_clean() -> list[Finding]:
    """Check four rocking cuts of 25 nm at 60 nA, the looks at the mark, and one picture; and 1.5 um of clean."""
    operator = Operator(STILL)
    now = operator.machine.clock.now
    operator.go("mill")
    operator.ion(60e-9)

    def cut(thickness: float) -> None:
        line = CleaningCrossSection(x_m=0, width_m=_FACE_M[0], start_y_m=0, end_y_m=thickness, depth_m=_FACE_M[1])
        operator.machine.pattern(operator.job([line], mill_dose(_FACE_M[0] * _FACE_M[1] * thickness)))

    began = now()
    for number in range(4):
        operator.go("rock-minus" if number % 2 else "rock-plus")
        operator.ion_look((0.0, 0.0, 2e-6))
        cut(25e-9)
    operator.go("face-on")
    operator.machine.acquire(
        Scan(detectors=(DetectorSettings(name="TLD"),), width_px=409, height_px=381, pixel_m=20e-9, dwell_s=300e-6)
    )  # a hundredth of the published pixels at a hundred times their dwell
    slice_s = now() - began
    operator.go("mill")
    began = now()
    cut(1.5e-6)
    clean_s = now() - began
    return [
        near("an imaged slice of 100 nm", "physics.md 2.1", 5.0, slice_s / 60, 1.0, "min"),
        near("a clean of 1.5 um at 60 nA", "physics.md 2.1", 53.0, clean_s / 60, 5.0, "min"),
    ]


def films() -> list[Finding]:
    """Check the time of 2 um of film on the published face, at the densities of 60 nA and 152 nA."""
    found = []
    for current, published in ((60e-9, 43.0), (152e-9, 23.0)):
        operator = Operator(STILL)
        operator.go("cut")
        operator.ion(60e-9)
        operator.cut(-0.2e-6, 0.5e-6)
        operator.go("deposit")
        plane, listed = operator.plane, operator.machine.describe().currents(Beam.ION, 8e3)
        small = min(listed)
        density = current / _FILM_M2
        half = (small / density) ** 0.5 / 2  # a small film as dense as the large one
        rectangle = operator.box((-half, 4e-6 - half, plane), (half, 4e-6 + half, plane), 0.4e-6)
        operator.ion(small, 8e3)
        operator.gas(True)
        dose = 4 * half**2 * 0.4e-6 / film_yield(Beam.ION, density, 8e3)
        done = operator.machine.pattern(operator.job([rectangle], dose, "deposit"))
        block = operator.machine.block
        grown = float(block.film[(block.y > 2e-6) & (block.y < 6e-6)][:, 40:-40].mean())
        name = f"2 um of film at {density:.1f} pA/um2 ({1e9 * current:.0f} nA on 38 000 um2)"
        found.append(
            near(name, "physics.md 3.1", published, done.elapsed_s / grown * 2e-6 / 60, 0.1 * published, "min")
        )
    return found


CHECKS: tuple[Check, ...] = (slice_and_clean, films)
