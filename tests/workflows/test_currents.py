"""Where each ion current points is measured before anything is written, and made up for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from math import cos, pi, sin
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from instrument.geometry import Pose, PoseName
from instrument.hydra import hydra
from instrument.settings import Beam
from simulator.beams import ION_DISTANCE_M
from simulator.chamber import aim, ion_focus
from simulator.milling import spot_sigma
from simulator.options import parse
from workflows import tracking
from workflows.acts import Held
from workflows.alignment import Aligner
from workflows.handle import Handle
from workflows.journal import Journal
from workflows.layout import Layout
from workflows.limits import ion_currents, unmarked_currents
from workflows.pointing import Pointing
from workflows.recipe import load
from workflows.steps.currents import _see_that_all_are_known

SMALL = Path(__file__).parents[1] / "end_to_end" / "small.yaml"
URL = "simulator:11?coating=10um&voxel=50nm&aim=6um"
#: The plasma goes out while the protective layer is laid, and while the film of the first fill is cleaned off, s.
EARLY_S, LATE_S = 1500, 9000
#: Whether there was a mark when a source was lit again.
MARKED = ("relit-1/marked", "measure")


def run(out: Path, url: str, *until: str, timeout_s: float, code: int) -> Path:
    """Run on a microscope until then; returns the journal."""
    command = [sys.executable, "-m", "workflows.cli", "run", str(SMALL), "--instrument", url, *until, "--out", str(out)]
    done = subprocess.run([*command, "--model", "none"], capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == code, done.stderr
    return out / "journal.sqlite"


@pytest.mark.slow
def test_pictures_tell_what_every_current_is_off_by(tmp_path: Path) -> None:
    with Journal(run(tmp_path / "RUN", URL, "--until", "site", timeout_s=200, code=3)) as journal:
        act = journal.find("site/currents")
        focused = [one.result["working_distance_m"] for one in journal.acts() if one.key.startswith("site/focus-")]
        used = [one.setup["ion"]["working_distance_m"] for one in journal.acts() if one.key.startswith("site/points-")]
    assert act is not None
    assert used == focused
    options = parse(URL)
    points = [(one["voltage_v"], one["current_a"]) for one in act.result]
    first = np.array(aim(options, Beam.ION, *points[0]))
    assert set(points[1:]) == set(ion_currents(load(SMALL), hydra()))
    for (volts, current), one in zip(points, act.result, strict=True):
        off = first - np.array(aim(options, Beam.ION, volts, current))
        assert one["off_m"] == pytest.approx(off, abs=0.3e-6), f"{current * 1e9:g} nA"
    for (volts, current), found in zip(points, focused, strict=True):
        spot, sharp = spot_sigma(current, volts), ion_focus(options, volts, current)
        assert spot_sigma(current, volts, found - sharp) < 1.06 * spot, f"{current * 1e9:g} nA"
    blurs = [spot_sigma(i, v, ion_focus(options, v, i) - ION_DISTANCE_M) / spot_sigma(i, v) for v, i in points]
    assert max(blurs) > 1.1  # as they were found
    assert max(abs(one["off_m"][0]) for one in act.result) > 3e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost_s", "until", "code", "following"),
    [(EARLY_S, ("--until", "block"), 3, "protect/ruler"), (LATE_S, ("--images", "1"), 0, "slice/0001/cut-1")],
)
def test_once_the_source_was_lit_again_every_current_is_placed_anew(
    lost_s: int, until: tuple[str, ...], code: int, following: str, tmp_path: Path
) -> None:
    url = f"{URL}&fault=plasma-loss@{lost_s}s"
    with Journal(run(tmp_path / "RUN", url, *until, timeout_s=400, code=code)) as journal:
        found = [journal.find(f"{key}/currents") for key in ("site", "relit-1")]
        keys = [act.key for act in journal.acts()]
    assert keys.index("relit-1/currents") < keys.index(following)
    options, moved = parse(url), 0.0
    for lights, act in enumerate(found):
        assert act is not None
        points = [(one["voltage_v"], one["current_a"]) for one in act.result]
        first = np.array(aim(options, Beam.ION, *points[0], None, lights))
        for (volts, current), one in zip(points, act.result, strict=True):
            off = first - np.array(aim(options, Beam.ION, volts, current, None, lights))
            assert one["off_m"] == pytest.approx(off, abs=0.3e-6), f"{current * 1e9:g} nA, lit {lights} times"
    for one, other in zip(found[0].result, found[1].result, strict=True):  # type: ignore[union-attr]
        moved = max(moved, abs(one["off_m"][0] - other["off_m"][0]))
    assert moved > 1e-6  # or nothing was shown


def test_a_shift_turns_with_the_scan_and_what_is_not_known_is_none() -> None:
    aligner = Aligner(cast(Any, None), hydra(), lambda _kind, _data: None)
    aligner.pointing.add(30e3, 1e-9, (3e-6, 1e-6))
    handle = cast(Any, SimpleNamespace(aligner=aligner, description=hydra()))

    def shift(beam: Beam, current: float, turned: float) -> tuple[float, float]:
        at = Pose(name=PoseName.MILL, r=0.0, t=0.0, ion_scan_rotation=turned)
        found = Handle._beam(handle, beam, 30e3, current, at, on_mark=False)
        return found.shift_x_m or 0.0, found.shift_y_m or 0.0

    assert shift(Beam.ION, 1e-9, 0.0) == (3e-6, 1e-6)
    assert shift(Beam.ION, 1e-9, pi) == pytest.approx((-3e-6, -1e-6))
    c, s = cos(0.05), sin(0.05)
    assert shift(Beam.ION, 1e-9, 0.05) == pytest.approx((3e-6 * c + 1e-6 * s, 1e-6 * c - 3e-6 * s))
    assert shift(Beam.ION, 1.02e-9, 0.0) == (3e-6, 1e-6)  # as an instrument set it that was asked for 1 nA
    assert shift(Beam.ION, 2e-9, 0.0) == shift(Beam.ELECTRON, 1e-9, 0.0) == (0.0, 0.0)


def handle_that_knows(
    points: list[tuple[float, float]], *, virtual: bool, answer: str | None = None, marked: bool = False
) -> Handle:
    recipe, asked = load(SMALL), []

    def value(key: str, kind: str, _args: object, compute: Callable[[], Any]) -> Any:
        asked.append((key, kind))
        return compute()

    aligner = Aligner(cast(Any, None), hydra(), lambda _kind, _data: None)
    for volts, current in points:
        aligner.pointing.add(volts, current, (0.0, 0.0))
    if marked:
        aligner.marks = (cast(Any, None),)
    acts: Any = SimpleNamespace(value=value, asked=asked)
    unused: Any = None
    return Handle(
        recipe, Layout.at(recipe, None), hydra().replace(virtual=virtual), acts, aligner, unused, load=unused,
        boundary=unused, told=unused, answer=lambda _what: answer, free_bytes=unused, asked=unused,
    )  # fmt: skip


def test_a_current_that_points_nobody_knows_where_is_held_before_it_mills_unless_a_mark_places_it() -> None:
    recipe = load(SMALL)
    every = [(30e3, 1e-9), *ion_currents(recipe, hydra())]  # the first one mills the ruler
    pictures = {point: f"looks/points-{number}.ome.tif" for number, point in enumerate(every)}
    coarse, cut = (30e3, 60e-9), (30e3, 4e-9)
    before_the_mark = unmarked_currents(recipe, hydra(), has_mark=False)
    assert coarse in before_the_mark
    assert cut not in before_the_mark

    def check(unknown: tuple[float, float], key: str = "site", **how: Any) -> Any:
        handle = handle_that_knows([point for point in every if point != unknown], **how)
        _see_that_all_are_known(handle, key, pictures)
        return handle.acts

    picture = pictures[coarse].replace(".", r"\.")
    with pytest.raises(Held, match=rf"where 60 nA at 30 kV points .* look at {picture}.* `kintsugi answer DIR yes`"):
        check(coarse, virtual=False)
    with pytest.raises(Held, match="the answer was no"):
        check(coarse, virtual=False, answer="no")
    asked = [("confirm/site/pointing", "answer")]
    assert check(coarse, virtual=False, answer="yes").asked == asked
    assert check(coarse, virtual=True).asked == asked  # nobody stands at a virtual one
    assert check(cut, virtual=False).asked == []
    with pytest.raises(Held, match="where 1 nA at 30 kV points"):
        check((30e3, 1e-9), virtual=False)
    film = unmarked_currents(recipe, hydra(), has_mark=True)[0]
    with pytest.raises(Held, match="at 8 kV points"):
        check(film, "relit-1", virtual=False, marked=True)
    assert check(coarse, "relit-1", virtual=False, marked=True).asked == [MARKED]  # the trenches are cut by then
    with pytest.raises(Held, match="60 nA at 30 kV points"):
        check(coarse, "relit-1", virtual=False)


def test_what_was_known_of_a_current_is_dropped_with_all_its_names() -> None:
    pointing = Pointing()
    pointing.add(30e3, 1e-9, (3e-6, 1e-6))
    pointing.add(29.99e3, 1.01e-9, (4e-6, 1e-6))
    pointing.add(30e3, 4e-9, (1e-6, 1e-6))
    pointing.drop(30e3, 1e-9)
    assert pointing.of(30e3, 1e-9) is None
    assert pointing.of(30e3, 4e-9) == (1e-6, 1e-6)


def test_a_persons_focus_goes_before_what_was_found_and_the_newest_before_older_ones() -> None:
    pointing = Pointing()
    assert pointing.focus(30e3, 1e-9) is None
    pointing.add_focus(30e3, 1e-9, 16.50e-3, by_hand=True)
    pointing.add_focus(29.99e3, 1.01e-9, 16.51e-3, by_hand=True)
    pointing.add_focus(30e3, 1e-9, 16.52e-3)
    assert pointing.focus(30e3, 1e-9) == 16.51e-3
    assert pointing.focus(30e3, 4e-9) is None


def test_pictures_of_different_things_are_not_alike_when_laid_over_each_other() -> None:
    rng = np.random.default_rng(0)
    whole = np.kron(rng.integers(0, 255, (60, 60)), np.ones((6, 6))).astype(np.uint8)
    one, other = whole[40:300, 40:300], whole[30:290, 55:315]
    down, right = tracking.moved(one, other)
    assert (down, right) == pytest.approx((10, -15), abs=1)
    assert tracking.alike_when_moved(one, other, (down, right)) > 0.9
    noise = rng.integers(0, 255, one.shape).astype(np.uint8)
    assert tracking.alike_when_moved(one, noise, tracking.moved(one, noise)) < 0.2
    assert tracking.alike_when_moved(one, other, (250.0, 0.0)) == 0.0
