"""Cuts follow their dose, not their plane (night.md 2)."""

from __future__ import annotations

from collections.abc import Iterator
from math import radians
from typing import Any

import numpy as np
import pytest

from instrument.errors import Stopped
from instrument.process import mill_dose
from instrument.settings import Beam, Bitmap, Progress, RegularCrossSection, volume
from simulator.acceptance.operator import Point
from simulator.milling import curtain, share_beyond, swept
from tests.simulator.bench import FACE, SMALL, Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    made.go("mill")
    made.ion(60e-9)
    yield made
    made.microscope.close()


#: A tenth of what is sputtered lands again (physics.md 8.2): a cut's dose must be larger by that.
ENOUGH = 1.2


def settled(bench: Bench) -> float:
    """Bring the face to a steady state at 25 nm per cut and return the next plane."""
    plane = 0.4e-6
    for _ in range(8):
        bench.cut(plane, plane + 25e-9, ENOUGH)
        plane += 25e-9
    return plane


def test_a_repeated_cut_removes_nearly_as_much_again_and_one_without_dose_nothing() -> None:
    bench = Bench(SMALL + "&rates=0%")
    bench.go("mill")
    bench.ion(60e-9)
    plane = settled(bench)
    taken = []
    for _ in range(12):
        at = [bench.face_z()]
        for _ in range(2):
            bench.cut(plane, plane + 25e-9, ENOUGH)
            at.append(bench.face_z())
        plane += 25e-9
        taken.append(np.diff(at))
    first, second = np.mean(taken, axis=0)
    assert 20e-9 <= second <= 25e-9
    assert second <= first * 1.1
    before = bench.face_z()
    bench.cut(plane, plane + 25e-9, dose_factor=1e-9)
    assert bench.face_z() - before < 0.01e-9
    bench.microscope.close()


def test_single_cuts_err_by_a_third_to_a_half_and_images_by_less_than_a_fifth() -> None:
    bench = Bench(SMALL + "&rates=0%")
    bench.go("mill")
    bench.ion(15e-9)
    plane, at = settled(bench), []
    for _ in range(56):
        bench.cut(plane, plane + 25e-9, ENOUGH)
        plane += 25e-9
        at.append(bench.face_z())
    bench.microscope.close()
    cuts, images = np.diff(at), np.diff(at[::4])
    assert 0.3 <= cuts.std() / 25e-9 <= 0.6  # physics.md 8.8
    assert images.std() / 100e-9 < 0.2
    assert images.mean() == pytest.approx(100e-9, rel=0.12)


def test_a_weak_beam_leaves_the_face_behind_and_a_strong_one_does_not_run_away(bench: Bench) -> None:
    plane = settled(bench)
    begun = plane - bench.face_z()
    for _ in range(10):
        bench.cut(plane, plane + 25e-9, dose_factor=0.6)
        plane += 25e-9
    lag = plane - bench.face_z() - begun
    assert 60e-9 < lag < 150e-9
    ahead = []
    for _ in range(40):
        bench.cut(plane, plane + 25e-9, dose_factor=1.5)
        plane += 25e-9
        ahead.append(bench.face_z() - plane)
    assert abs(ahead[-1]) < 0.45e-6
    assert abs(ahead[-1] - ahead[-8]) < 40e-9  # it comes to a steady state: the beam's edge passes before the face


@pytest.mark.parametrize(("current", "degrees"), [(1e-9, 1.0), (60e-9, 1.5)])
def test_a_face_cut_along_the_beam_leans_and_over_tilt_puts_it_right(
    bench: Bench, current: float, degrees: float
) -> None:
    leaning = {}
    for over in (0.0, degrees):
        bench.go("cut", over_tilt=radians(over))
        bench.ion(current)
        for _ in range(4 if current > 10e-9 else 12):
            plane = bench.face_z()
            bench.cut(plane - 0.2e-6, plane + 0.1e-6, 3.0)
        maps, y = bench.microscope.block.maps.face, bench.microscope.block.y
        rows = (y > 0.5e-6) & (y < FACE[1] - 2.5e-6)
        middle = np.median(maps[:, 20:-20], axis=1)
        leaning[over] = np.degrees(np.arctan(np.polyfit(y[rows], middle[rows], 1)[0]))
    assert leaning[0.0] == pytest.approx(-degrees, abs=0.45)  # the foot stays behind
    assert leaning[degrees] == pytest.approx(0.0, abs=0.35)


def test_what_lands_again_takes_more_of_a_deep_narrow_box() -> None:
    from simulator.milling import redeposited

    assert redeposited(0.1e-6, 10e-6) == pytest.approx(0.2, abs=0.01)
    assert redeposited(5e-6, 5e-6) == redeposited(50e-6, 5e-6) == 0.5


def test_the_beam_has_tails_that_mill_beside_a_pattern() -> None:
    from simulator.milling import inside, share_beyond

    x = np.linspace(-6e-6, 6e-6, 241)
    sharp, wide = (inside(x, 0.0, 4e-6, 0.3e-6, tails) for tails in (0.0, 0.1))
    outside = np.abs(x) > 2e-6 + 4 * 0.3e-6
    assert sharp[outside].max() < 1e-3
    assert wide[outside].max() > 5e-3
    assert wide[120] == pytest.approx(1.0, abs=0.02)
    off = np.linspace(-2e-6, 2e-6, 101, dtype=np.float32)
    for tails in (0.0, 0.1):
        share = share_beyond(off, 0.0, 0.3e-6, tails)
        assert share[50] == pytest.approx(0.5, abs=1e-3)
        assert np.all(np.diff(share) <= 1e-6)


def test_oxygen_takes_carbon_faster_than_metals_and_oxides() -> None:
    from simulator.milling import true_rates

    rates = true_rates(3)
    for name, factor in (("cbd", 0.8), ("carbon", 0.8), ("active", 0.27), ("film", 0.27)):
        assert rates.rate(name, 30e3, "Oxygen") == pytest.approx(factor * rates.rate(name, 30e3))


def test_pieces_of_a_cut_add_up_to_the_whole(bench: Bench) -> None:
    plane = settled(bench)
    before = bench.face_z()
    job = bench.cut_job(plane, plane + 0.4e-6, ENOUGH)
    done = bench.microscope.pattern(job.replace(to_fraction=0.5))
    half = bench.face_z() - before
    assert done.fraction == pytest.approx(0.5)
    assert done.charge_c == pytest.approx(0.5 * job.dose_c, rel=0.04)
    assert half == pytest.approx(0.2e-6, rel=0.25)  # a part ends where it ends, too
    bench.microscope.pattern(job.replace(from_fraction=0.5))
    assert bench.face_z() - before == pytest.approx(2 * half, rel=0.15)


def test_a_stop_ends_a_pattern_early_and_blanked(bench: Bench) -> None:
    job = bench.cut_job(0.4e-6, 0.8e-6)
    seen: list[float] = []

    def watch(progress: Progress) -> None:
        seen.append(progress.fraction)
        bench.microscope.stop()

    done = bench.microscope.pattern(job, watch)
    assert done.stopped
    assert len(seen) == 1
    assert done.fraction == pytest.approx(seen[0])
    assert 0.0 < done.fraction < 1.0
    state = bench.microscope.state()
    assert not state.patterning
    assert state.ion.blanked


def test_a_watch_that_raises_ends_the_pattern_blanked(bench: Bench) -> None:
    def watch(progress: Progress) -> None:
        raise Stopped("enough")

    with pytest.raises(Stopped, match="enough"):
        bench.microscope.pattern(bench.cut_job(0.4e-6, 0.8e-6), watch)
    assert not bench.microscope.state().patterning


def test_a_box_behind_the_face_leaves_it_alone(bench: Bench) -> None:
    before = bench.microscope.block.maps.face.copy()
    box = bench.box((-1e-6, 0.0, 2.0e-6), (1e-6, 0.0, 2.5e-6), 1e-6)
    bench.microscope.pattern(bench.job([box], 1e-9, area="mark"))
    assert np.array_equal(before, bench.microscope.block.maps.face)
    assert [one.kind for one in bench.microscope.block.features] == ["pit"]


def uneven(bench: Bench, kind: type[Bitmap] | type[RegularCrossSection], first: Point, last: Point, **more: Any) -> Any:
    """A pattern that is not as deep everywhere, where a box from one corner to the other is."""
    box = bench.box(first, last, 2e-6)
    return kind.model_validate({**box.model_dump(exclude={"kind"}), **more})


def test_a_bitmap_that_reaches_the_face_takes_it_back_where_it_mills(bench: Bench) -> None:
    bench.cut(0.2e-6, 0.7e-6, 2.0)
    x, y = bench.microscope.block.x, bench.microscope.block.y
    before = bench.microscope.block.maps.face.copy()
    bench.ion(1e-9)
    dots = uneven(bench, Bitmap, (-3e-6, 0.0, 0.2e-6), (3e-6, 0.0, 2.2e-6), shares=((0.5, 0.0, 1.0),))
    bench.microscope.pattern(bench.job([dots], mill_dose(volume(dots)), area="trench"))
    went = bench.microscope.block.maps.face - before
    columns = (np.abs(x - at) < 0.5e-6 for at in (0.0, -2e-6, 2e-6))
    middle, *sides = ((went[y > 0][:, near].mean(axis=1) > 1e-6).sum() * (y[1] - y[0]) for near in columns)
    half, whole = sorted(sides)  # the field may be turned
    assert middle == 0.0
    assert half / whole == pytest.approx(0.5, abs=0.2)
    assert whole > 1e-6
    assert (went[y > 4e-6] == 0).all()


def test_a_stair_on_the_face_is_deeper_towards_its_face(bench: Bench) -> None:
    bench.go("deposit")
    bench.ion(1e-9)
    before = bench.microscope.block.maps.surface.copy()
    stair = uneven(bench, RegularCrossSection, (-2e-6, 2e-6, 0.0), (2e-6, 6e-6, 0.0), deep="bottom")
    bench.microscope.pattern(bench.job([stair], mill_dose(volume(stair)), area="trench"))
    went = bench.microscope.block.maps.surface - before
    x, y = bench.microscope.block.x, bench.microscope.block.y
    rows = (np.abs(y - at) < 0.3e-6 for at in (2.5e-6, 4e-6, 5.5e-6))
    shallow, middle, deep = sorted(went[np.ix_(near, np.abs(x) < 1e-6)].mean() for near in rows)
    assert middle / deep == pytest.approx(0.5 / 0.875, abs=0.05)
    assert shallow / deep == pytest.approx(0.125 / 0.875, abs=0.05)


def test_a_stair_written_in_pieces_is_the_one_written_at_once() -> None:
    heights = []
    for pieces in (1, 4):
        bench = Bench()
        bench.go("mill")
        bench.ion(1e-9)
        stair = uneven(bench, RegularCrossSection, (-1e-6, 0.0, 1.5e-6), (1e-6, 0.0, 2.5e-6), deep="top")
        job = bench.job([stair], mill_dose(volume(stair)), area="trench")
        for part in job.pieces(job.seconds / pieces * 1.01):
            bench.microscope.pattern(part)
        heights.append(bench.microscope.block.top.height)
        bench.microscope.close()
    assert np.abs(heights[0] - heights[1]).max() < 0.05 * 2e-6


def test_true_rates_lie_within_20_percent_and_differ_by_seed() -> None:
    from instrument.process import MILL_RATES
    from simulator.milling import true_rates

    drawn = [true_rates(seed) for seed in range(1, 41, 2)]
    shares = np.array([[one.by_name[name] / MILL_RATES[name] for name in MILL_RATES] for one in drawn])
    assert 0.8 <= shares.min() < 0.9
    assert 1.1 < shares.max() <= 1.2
    films = [one.film_factor for one in drawn]
    assert 0.75 <= min(films) < 0.9
    assert 1.1 < max(films) <= 1.25


def test_what_lies_before_the_surface_passes_by() -> None:
    surface = np.full((1, 1), 1e-6, np.float32)
    assert share_beyond(surface, 0.0, 0.1e-6)[0, 0] < 1e-6
    assert share_beyond(surface, 1e-6, 0.1e-6)[0, 0] == pytest.approx(0.5)
    rate, lateral = np.full((1, 1), 0.3e-9, np.float32), np.ones((1, 1), np.float32)
    lines = (np.float32(0.0), np.float32(0.1e-6))
    after = swept(surface, rate, lateral, lines, charge_per_area=100.0, sigma=0.1e-6)
    assert float(after[0, 0]) == pytest.approx(1e-6)


def test_curtains_begin_below_a_pore_and_run_down_the_beam() -> None:
    from simulator import materials as m
    from simulator.milling import true_rates

    face = np.full((200, 100), m.NMC, np.uint8)
    face[20:45, 45:55] = m.PORE
    relief = curtain(face, true_rates(1).table(30e3), 90e-9, 0.0)
    assert 5e-9 < relief[60, 50] < 100e-9
    assert relief[60, 50] > 1.8 * relief[190, 50]
    assert abs(float(relief[60, 10])) < 0.2 * relief[60, 50]
    slanted = curtain(face, true_rates(1).table(30e3), 90e-9, 0.2)
    assert int(np.argmax(slanted[120])) == pytest.approx(50 + 0.2 * 85, abs=6)


def test_rocking_averages_curtains() -> None:
    spread = {}
    for name in ("mill", "rock"):
        bench = Bench(SMALL + "&rates=0%")
        plane = 0.4e-6
        for index in range(8):
            bench.go("mill" if name == "mill" else ("rock-plus" if index % 2 else "rock-minus"))
            bench.ion(4e-9)
            bench.cut(plane, plane + 50e-9)
            plane += 50e-9
        spread[name] = float(np.gradient(bench.microscope.block.maps.relief, axis=1).mean(axis=0).std())
    assert spread["mill"] > 1.8 * spread["rock"]


def test_the_foot_lags_after_a_break(bench: Bench) -> None:
    bench.cut(0.4e-6, 0.425e-6)
    face, y = bench.microscope.block.maps.face, bench.microscope.block.y
    before = face.copy()
    bench.cut(0.425e-6, 0.45e-6)
    went = np.median(bench.microscope.block.maps.face - before, axis=1)
    top, foot = went[(y > 0.5e-6) & (y < 1.5e-6)].mean(), went[(y > 6.5e-6) & (y < 7.5e-6)].mean()
    assert foot < 0.95 * top


def test_the_beam_must_be_as_the_job_says(bench: Bench) -> None:
    from instrument.errors import Refused

    job = bench.cut_job(0.4e-6, 0.45e-6)
    bench.ion(4e-9)
    with pytest.raises(Refused) as refused:
        bench.microscope.pattern(job)
    assert refused.value.rule == "beam-as-planned"
    assert bench.microscope.state().beam(Beam.ION).settings.current_a == 4e-9
    assert FACE[0] * 1e6 == pytest.approx(12)
