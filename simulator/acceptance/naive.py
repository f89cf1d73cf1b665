"""Naive runs: the same short job twice, once with one of its loops switched off (night.md 25).

Each must be right with its loop and visibly wrong without: in a figure that a person or a guard would see, such as a
mark displaced, a film left, a picture blurred.
"""

from __future__ import annotations

from math import atan, degrees

import numpy as np
from scipy import ndimage

from instrument.errors import Refused
from instrument.settings import Beam, BeamSettings, DetectorSettings, Device, Tune
from simulator import materials as m
from simulator.acceptance import looks
from simulator.acceptance.finding import Check, Finding, fails_visibly
from simulator.acceptance.operator import ERRING, HEIGHT_M, STILL, WIDTH_M, Operator, Point
from simulator.beams import ION_DISTANCE_M

_UM, _NM = 1e6, 1e9


def _marked(url: str = ERRING) -> tuple[Operator, Point]:
    operator = Operator(url)
    mark = operator.cap_with_mark()
    operator.ion(1e-9)
    operator.register(mark)
    return operator, mark


def _clean(operator: Operator, current: float = 15e-9) -> None:
    """Cut the front away until a face stands."""
    operator.go("cut")
    operator.ion(current)
    operator.cut(-0.2e-6, 0.5e-6)


def registration() -> list[Finding]:
    """Check how far off work is when the mark is not looked for after a tilt."""
    operator, mark = _marked()
    off, left = [], []
    for name in ("face-on", "deposit", "face-on"):
        operator.go(name)
        operator.go("mill")
        off.append(float(np.hypot(*operator.mark_off(mark))))
        operator.register(mark)
        left.append(float(np.hypot(*operator.mark_off(mark, 5e-6))))
    return [
        fails_visibly("finding the mark after a tilt", _UM * max(left), _UM * max(off), at_most=0.15, at_least=0.5,
                      unit="um off")
    ]  # fmt: skip


def apertures() -> list[Finding]:
    """Check how far off work is when the mark is not looked for after a change of current."""
    operator, mark = _marked()
    off, left = [], []
    for current in (4e-9, 15e-9, 1e-9, 15e-9):
        operator.ion(current)
        off.append(float(np.hypot(*operator.mark_off(mark))))
        operator.register(mark)
        left.append(float(np.hypot(*operator.mark_off(mark, 5e-6))))
    return [
        fails_visibly("finding the mark after a change of current", _UM * max(left), _UM * max(off), at_most=0.2,
                      at_least=0.5, unit="um off")
    ]  # fmt: skip


def lead() -> list[Finding]:
    """Check where cuts end when the plane is not measured and the line not led by it."""
    behind = {}
    for corrected in (True, False):
        operator = Operator(f"{STILL.removesuffix('&rates=0%')}&rates=20%")
        _clean(operator)
        plane, line, most = operator.plane, operator.plane, 0.0
        for image in range(12):
            line = operator.slices(line, 4, factor=1.0 if not corrected else 1.5)
            plane += 100e-9
            if corrected:  # the ruler's reading, good to 15 nm
                seen = operator.plane + 15e-9 * float(np.sin(7.0 * image))
                line += 0.7 * (plane - seen)
            if image >= 4:
                most = max(most, abs(operator.plane - plane))
        behind[corrected] = most
    return [
        fails_visibly("measuring the plane and leading the line", _NM * behind[True], _NM * behind[False], at_most=100,
                      at_least=200, unit="nm off")
    ]  # fmt: skip


def suspicion() -> list[Finding]:
    """Check how thick a slice is when a cut is repeated on suspicion (night.md 2)."""
    steps = {}
    for again in (False, True):
        operator = Operator(STILL)
        operator.go("cut")
        operator.ion(60e-9)
        plane, at = operator.slices(0.4e-6, 12), []
        for _ in range(6):
            before = operator.plane
            operator.cut(plane, plane + 25e-9)
            if again:
                operator.cut(plane, plane + 25e-9)
            plane += 25e-9
            at.append(operator.plane - before)
        steps[again] = float(np.mean(at)) / 25e-9
    return [
        fails_visibly("measuring before a cut is repeated", steps[False], steps[True], at_most=1.35, at_least=1.6,
                      unit="times as thick")
    ]  # fmt: skip


def settling() -> list[Finding]:
    """Check how far a picture taken right after a tilt drifts."""
    moved: dict[float, float] = {}
    operator = Operator(ERRING)
    _clean(operator)
    for wait in (1800.0, 0.0, 0.0, 0.0):
        operator.go("mill")
        operator.go("face-on")
        operator.machine.clock.wait(wait)
        first = operator.picture("TLD", contrast=0.6)[0]
        operator.machine.clock.wait(44.0)  # a picture of the usual size
        second = operator.picture("TLD", contrast=0.6)[0]
        moved[wait] = max(moved.get(wait, 0.0), float(np.hypot(*looks.shift(first, second, 40e-9))))
    return [
        fails_visibly("waiting after a tilt", _NM * moved[1800.0], _NM * moved[0.0], at_most=12, at_least=15,
                      unit="nm in a picture")
    ]  # fmt: skip


def focus() -> list[Finding]:
    """Check how blurred pictures are when the focus of another working point is taken over."""
    operator = Operator(ERRING.replace("simulator:3", "simulator:6"))
    _clean(operator)
    operator.go("face-on")
    operator.machine.insert(Device.CBS)
    scan = operator.scan("CBS", pixel=15e-9)

    def detail() -> float:
        return looks.detail(np.asarray(operator.machine.acquire(scan).pixels[0], float))

    usual, lost, kept = BeamSettings(voltage_v=5e3, current_a=1.6e-9), [], []
    for other in ((10e3, 1.6e-9), (10e3, 13e-9)):  # for element maps
        operator.machine.set_beam(Beam.ELECTRON, BeamSettings(voltage_v=other[0], current_a=other[1]))
        operator.machine.tune(Tune.FOCUS, scan)
        operator.machine.set_beam(Beam.ELECTRON, usual)
        blurred = detail()
        operator.machine.tune(Tune.FOCUS, scan)
        sharp, again = detail(), detail()  # each picture darkens the next a little
        lost.append(100 * (1 - blurred / sharp))
        kept.append(100 * abs(1 - again / sharp))
    return [
        fails_visibly("focusing after another working point", max(kept), max(lost), at_most=8, at_least=12,
                      unit="% less detail")
    ]  # fmt: skip


def ion_focus() -> list[Finding]:
    """Check how blurred marks are, and so what is milled, at currents that were not focused each (night.md 13)."""
    operator, mark = _marked()
    lost, kept = [], []
    for current in (0.3e-9, 1e-9, 4e-9):
        operator.ion(current)
        operator.register(mark)
        sharp = looks.detail(operator.ion_look(mark, 5e-6))
        kept.append(100 * abs(1 - looks.detail(operator.ion_look(mark, 5e-6)) / sharp))
        operator.machine.set_beam(Beam.ION, BeamSettings(working_distance_m=ION_DISTANCE_M))
        lost.append(100 * (1 - looks.detail(operator.ion_look(mark, 5e-6)) / sharp))
    return [
        fails_visibly("focusing every ion current", max(kept), max(lost), at_most=8, at_least=12, unit="% less detail")
    ]


def contrast() -> list[Finding]:
    """Check how one phase's grey changes when contrast is set anew for every picture."""
    operator = Operator(STILL)
    _clean(operator, 60e-9)
    operator.go("face-on")
    scan = operator.scan("TLD")
    locked = operator.machine.tune(Tune.CONTRAST, scan).detectors[0]

    def grey(detector: DetectorSettings) -> float:
        """Return the active material's peak: the commonest grey of the coating."""
        frame = operator.machine.acquire(scan.replace(detectors=(detector,), frame_integrations=4))
        return looks.mode(ndimage.gaussian_filter(np.asarray(frame.pixels[0, 30:140], float), 1.5).ravel())

    before = grey(locked)
    operator.go("deposit")
    operator.infiltrate(0.6e-6)
    operator.go("cut")
    operator.ion(60e-9)
    plane = operator.plane
    while _covered(operator) > 0.01:
        operator.cut(plane - 0.8e-6, plane + 0.15e-6, 1.6)
    operator.go("face-on")
    kept = grey(locked)
    anew = grey(operator.machine.tune(Tune.CONTRAST, scan).detectors[0])
    return [
        fails_visibly("locking contrast", abs(kept - before), abs(anew - before), at_most=8, at_least=15, unit="grey")
    ]


def refill() -> list[Finding]:
    """Check how many pores are open when they are not filled again."""
    shares = {}
    for again in (True, False):
        operator = Operator(STILL.replace("depth=3um", "depth=4um"))
        _clean(operator, 60e-9)
        for number in range(2 if again else 1):
            if number:
                plane = operator.plane
                operator.go("cut")
                operator.ion(60e-9)
                operator.slices(plane, 12, 100e-9, 1.5)
            operator.go("deposit")
            operator.infiltrate(1e-6)
        operator.machine.block.settle_film()
        plane = operator.plane
        if not again:
            plane += 1.2e-6
        layer = operator.machine.block.volume.labels[
            round((plane + 0.1e-6 - operator.machine.block.volume.origin[2]) / operator.machine.block.volume.layer)
        ]
        pores = np.isin(layer, (m.PORE, m.PT))[20:-20]
        shares[again] = float((layer[20:-20] == m.PORE).sum() / pores.sum())
    return [
        fails_visibly("filling again after 1.2 um", 100 * shares[True], 100 * shares[False], at_most=45, at_least=70,
                      unit="% of pores open")
    ]  # fmt: skip


def lip() -> list[Finding]:
    """Check what stands beside the face when a film ends where the cut ends, or beyond."""
    left = {}
    for beyond in (-1e-6, 0.6e-6):
        operator = Operator(STILL)
        _clean(operator, 15e-9)
        for _ in range(2):
            operator.go("deposit")
            plane = operator.plane
            operator.infiltrate(0.6e-6, operator.width - 2e-6 + 2 * beyond)
            operator.machine.block.settle_film()
            operator.go("cut")
            operator.ion(15e-9)
            operator.cut(plane - 0.8e-6, plane + 0.15e-6, 1.6, operator.width - 2e-6)
        block = operator.machine.block
        rows = (block.y > 1e-6) & (block.y < 6e-6)
        beside = np.abs(np.abs(block.x) - (operator.width / 2 - 0.7e-6)) < 0.3e-6
        left[beyond] = float(np.median(operator.plane - block.maps.surface[rows][:, beside]))
    return [
        fails_visibly("a film narrower than the cut", _UM * left[-1e-6], _UM * left[0.6e-6], at_most=0.2, at_least=0.5,
                      unit="um of lip")
    ]  # fmt: skip


def film_left() -> list[Finding]:
    """Check how much film is left when a clean ends at the nominal thickness."""
    left = {}
    for looking in (True, False):
        operator = Operator(STILL.replace("rates=0%", "rates=50%").replace("simulator:3", "simulator:9"))
        _clean(operator, 60e-9)
        plane = operator.plane
        operator.go("deposit")
        operator.infiltrate(1e-6)
        operator.machine.block.settle_film()
        operator.go("cut")
        operator.ion(15e-9)
        start = plane - 1.1e-6
        for _ in range(40 if looking else 1):
            operator.cut(start, plane + 0.05e-6, 1.0 if not looking else 0.4)
            if looking and _covered(operator) < 0.01:
                break
        left[looking] = 100 * _covered(operator)
    return [
        fails_visibly("looking for film before a clean ends", left[True], left[False], at_most=2, at_least=5,
                      unit="% covered")
    ]  # fmt: skip


def _covered(operator: Operator) -> float:
    block = operator.machine.block
    rows, columns = (block.y > 0.5e-6) & (block.y < HEIGHT_M - 1.5e-6), np.abs(block.x) < WIDTH_M / 2 - 1.5e-6
    return float((block.film[np.ix_(rows, columns)] > 20e-9).mean())


def warm_up() -> list[Finding]:
    """Check by how much the foot lags in the first slice after a break."""
    lag = {}
    for cuts in (12, 0):
        operator = Operator(STILL)
        operator.go("cut")
        operator.ion(15e-9)
        plane = operator.slices(0.3e-6, 12)
        operator.machine.clock.wait(7200.0)
        plane = operator.slices(plane, cuts)
        before = operator.ahead(5e-6, 7e-6) - operator.ahead(1e-6, 3e-6)
        operator.slices(plane, 4)
        lag[cuts] = before - (operator.ahead(5e-6, 7e-6) - operator.ahead(1e-6, 3e-6))
    return [
        fails_visibly("warm-up cuts after a break", _NM * abs(lag[12]), _NM * abs(lag[0]), at_most=10, at_least=15,
                      unit="nm of 100 at the foot")
    ]  # fmt: skip


def film_rate() -> list[Finding]:
    """Check how thick a film is when the nominal rate is trusted."""
    operator = Operator(STILL.replace("rates=0%", "rates=40%"))
    _clean(operator, 60e-9)
    operator.go("deposit")
    grown: list[float] = []
    for _ in range(2):
        before = float(np.median(operator.machine.block.film))
        operator.infiltrate(0.3e-6, factor=0.3e-6 / grown[0] if grown else 1.0)
        grown.append(float(np.median(operator.machine.block.film)) - before)
    errors = [100 * abs(one / 0.3e-6 - 1) for one in grown]
    return [fails_visibly("measuring how fast films grow", errors[1], errors[0], at_most=8, at_least=15, unit="% off")]


def budget() -> list[Finding]:
    """Check what many looks at the milling current leave of the mark."""
    left = {}
    for current in (1e-9, 15e-9):
        operator = Operator(STILL)
        mark = operator.cap_with_mark()
        operator.ion(1e-9)
        new = looks.cross_depth(operator.ion_look(mark, 6e-6), 6e-6 / 256)
        operator.ion(current)
        for _ in range(60):
            operator.ion_look(mark, 6e-6)
        operator.ion(1e-9)
        left[current] = 100 * (1 - looks.cross_depth(operator.ion_look(mark, 6e-6), 6e-6 / 256) / new)
    return [
        fails_visibly("a budget of looks at the mark", left[1e-9], left[15e-9], at_most=20, at_least=40,
                      unit="% of the mark gone")
    ]  # fmt: skip


def detector_left_in() -> list[Finding]:
    """Check what CBS left in does to ion work."""
    operator = Operator(STILL)
    mark = operator.cap_with_mark()
    operator.ion(1e-9)
    operator.go("face-on")
    operator.machine.insert(Device.CBS)
    refused = 0
    try:
        operator.go("mill")
    except Refused:
        refused = 1
    operator.machine.retract(Device.CBS)
    operator.go("mill")
    bright = operator.ion_look(mark).mean()
    operator.machine.insert(Device.CBS)
    dark = operator.ion_look(mark).mean()
    operator.machine.retract(Device.CBS)
    again = operator.ion_look(mark).mean()
    return [
        Finding("with CBS left in, tilts refused", "night.md 25", "all", float(refused), 1, 1),
        fails_visibly("taking CBS out before ion work", 100 * abs(1 - again / bright), 100 * (1 - dark / bright),
                      at_most=2, at_least=15, unit="% darker ion picture")
    ]  # fmt: skip


def slanted_film() -> list[Finding]:
    """Check how one-sided a film is that is laid as the face stands for pictures, 52 deg off."""
    sides = {}
    for name in ("deposit", "face-on"):
        operator = Operator(STILL)
        _clean(operator, 60e-9)
        block = operator.machine.block
        z, y = np.arange(block.volume.labels.shape[0]), np.arange(block.volume.labels.shape[1])
        depth = block.volume.origin[2] + z * block.volume.layer
        rows = np.abs(block.volume.origin[1] + y * block.volume.voxel - 3.5e-6) < 0.8e-6
        block.volume.labels[np.ix_(depth > operator.plane - 0.3e-6, rows, y[20:-20])] = m.PORE  # a wide slit
        operator.go(name)
        operator.infiltrate(0.9e-6)
        block.settle_film()
        near = (depth > operator.plane + 0.2e-6) & (depth < operator.plane + 1.0e-6)
        filled = (block.volume.labels[near][:, rows, 20:-20] == m.PT).sum(axis=(0, 2)).astype(float)
        halves = filled[: filled.size // 2].sum(), filled[filled.size // 2 :].sum()
        sides[name] = float(max(halves) / max(1.0, min(halves)))
    return [
        fails_visibly("films laid square to the face", sides["deposit"], sides["face-on"], at_most=1.1, at_least=1.3,
                      unit="times as much on one wall")
    ]  # fmt: skip


def over_tilt() -> list[Finding]:
    """Check how a face leans that is cut with a beam along it."""
    lean = {}
    for name in ("cut", "mill"):
        operator = Operator(STILL)
        operator.go(name)
        operator.ion(15e-9)
        operator.cut(-0.2e-6, 0.6e-6, 3.0)
        for _ in range(4):
            plane = operator.plane
            operator.cut(plane - 0.2e-6, plane + 0.1e-6, 3.0)
        lean[name] = degrees(atan((operator.ahead(1e-6, 2e-6) - operator.ahead(4.5e-6, 5.5e-6)) / 3.5e-6))
    return [
        fails_visibly("over-tilt", abs(lean["cut"]), abs(lean["mill"]), at_most=0.5, at_least=0.8, unit="deg of lean")
    ]


def _strikes(operator: Operator, name: str, in_s: float) -> None:
    """Let a fault happen at the first action after so many seconds from now."""
    machine = operator.machine
    machine.options = machine.options.model_copy(update={"fault": ((name, machine.clock.now() + in_s),)})


def another_hand() -> list[Finding]:
    """Check how blurred pictures are when settings are not read back after somebody turned a knob."""
    detail = {}
    for fault, reading in (("", False), ("knob-turned", True), ("knob-turned", False)):
        operator = Operator(STILL)
        _clean(operator)
        if fault:
            _strikes(operator, fault, 1e-3)
            operator.machine.clock.wait(1.0)
        held = operator.machine.state().electron.settings
        operator.go("face-on")
        if reading and operator.machine.state().electron.settings.working_distance_m != held.working_distance_m:
            names = ("working_distance_m", "stigmator_x", "stigmator_y", "shift_x_m", "shift_y_m")
            operator.machine.set_beam(Beam.ELECTRON, BeamSettings(**{one: getattr(held, one) for one in names}))
        detail[fault, reading] = looks.detail(operator.picture("TLD", pixel=15e-9, contrast=0.6)[0])
    sharp = detail["", False]
    return [
        fails_visibly("reading settings back", 100 * (1 - detail["knob-turned", True] / sharp),
                      100 * (1 - detail["knob-turned", False] / sharp), at_most=5, at_least=12, unit="% less detail")
    ]  # fmt: skip


def lost_plasma() -> list[Finding]:
    """Check that a pattern ends as done without plasma, and that the current read tells."""
    operator = Operator(STILL)
    _clean(operator)
    _strikes(operator, "plasma-loss", 60.0)
    plane, believed, read, job_seconds = operator.plane, 0, 0, 0.0
    while job_seconds < 200.0 and read == 0:
        done = operator.cut(plane, plane + 0.1e-6)
        job_seconds += done.elapsed_s
        plane += 0.1e-6
        believed += done.fraction == 1.0
        read += (operator.machine.state().ion.measured_current_a or 0.0) == 0.0
    return [
        Finding("plasma lost in a pattern: it still ends as done", "night.md 25", "yes", float(believed > 0), 1, 1),
        Finding("plasma lost in a pattern: the current read tells", "night.md 25", "yes", float(read), 1, 1),
        Finding("plasma lost in a pattern: what is missing", "night.md 25", ">50", _NM * (plane - operator.plane), 50,
                float("inf"), "nm")
    ]  # fmt: skip


CHECKS: tuple[Check, ...] = (
    registration, apertures, lead, suspicion, settling, focus, ion_focus, contrast, refill, lip, film_left, warm_up,
    film_rate, budget, detector_left_in, slanted_film, over_tilt, another_hand, lost_plasma,
)  # fmt: skip
