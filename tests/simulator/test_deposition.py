"""Films and infiltration: what fills, how deep, what stays dark, and that nothing is ever taken back."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from simulator import deposition, sidebyside
from simulator import materials as m
from simulator.deposition import Infill, electron_film_rate, film_rate, infiltrate
from simulator.electrode import Electrode
from simulator.volume import Volume

VOXEL, LAYER = 40e-9, 50e-9
AXIS = np.arange(-8e-6, 8e-6, 100e-9)


def block(depth_m: float = 5e-6, width_m: float = 12e-6) -> Volume:
    """Make a block of solid active material, front face at z = 0, centred on x = y = 0."""
    shape = (round(depth_m / LAYER), round(width_m / VOXEL), round(width_m / VOXEL))
    labels = np.full(shape, m.NMC, np.uint8)
    origin = (-width_m / 2 + VOXEL / 2, -width_m / 2 + VOXEL / 2, LAYER / 2)
    return Volume(labels, origin, VOXEL, LAYER, Electrode(), np.zeros((1, 1, 1), np.int8))


def grid(volume: Volume) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return z, y, x of the voxels, for broadcasting."""
    depth, rows, columns = volume.labels.shape
    x0, y0, z0 = volume.origin
    return (
        (z0 + LAYER * np.arange(depth))[:, None, None],
        (y0 + VOXEL * np.arange(rows))[None, :, None],
        (x0 + VOXEL * np.arange(columns))[None, None, :],
    )


def slot(volume: Volume, width_m: float, deep_m: float = 9e-6, high_m: float = 8e-6) -> NDArray[np.bool_]:
    """Open a slot of a width along x, long in y; return where."""
    z, y, x = grid(volume)
    where = (np.abs(x) < width_m / 2) & (np.abs(y) < high_m / 2) & (z < deep_m)
    volume.labels[where] = m.PORE
    return where


def lay(volume: Volume, film_m: float, face_m: float = 0.0, **more: object) -> Infill:
    shape = (AXIS.size, AXIS.size)
    infill = infiltrate(volume, AXIS, AXIS, np.full(shape, face_m), np.full(shape, film_m), **more)  # type: ignore[arg-type]
    infill.write(volume)
    return infill


def filled(volume: Volume, at_m: float) -> NDArray[np.bool_]:
    """Return the middle row of the layer at a depth: True where platinum is."""
    row: NDArray[np.bool_] = volume.labels[round(at_m / LAYER - 0.5), volume.labels.shape[1] // 2] == m.PT
    return row


def test_a_film_grows_as_the_numbers_of_the_instrument_say() -> None:
    assert film_rate(4.0, 8e3) == pytest.approx(1.44e-9, rel=0.05)  # 2 um in 23 min
    assert film_rate(1.6, 8e3) == pytest.approx(0.78e-9, rel=0.08)
    assert film_rate(40.0, 30e3) < 0  # too dense: it mills
    assert film_rate(4.0, 8e3, gas=0.0) < 0  # no gas: it mills
    assert film_rate(4.0, 8e3, yield_factor=1.2) > film_rate(4.0, 8e3)
    assert electron_film_rate(10.0) == pytest.approx(0.56e-9)


def test_half_a_micrometre_fills_to_about_its_width_and_no_deeper() -> None:
    volume = block()
    where = slot(volume, 0.5e-6)
    infill = lay(volume, 2e-6)
    inside = where[0, volume.labels.shape[1] // 2]
    assert filled(volume, 0.05e-6)[inside].all()
    assert filled(volume, 0.35e-6)[inside].all()
    middle = volume.labels.shape[2] // 2
    for deep in (0.9e-6, 1.5e-6, 3e-6):
        assert not filled(volume, deep)[middle - 2 : middle + 2].any()
    assert filled(volume, 1.5e-6)[inside].mean() < 0.1
    assert (infill.film_m > 1.9e-6).all()  # the film goes over the closed mouth


def test_a_wide_pore_keeps_a_dark_core_in_a_clean_ring() -> None:
    volume = block()
    z, y, x = grid(volume)
    volume.labels[np.broadcast_to(np.hypot(x, y) < 2.5e-6, volume.labels.shape) & (z < 9e-6)] = m.PORE
    infill = lay(volume, 2e-6)
    platinum = volume.labels[2] == m.PT
    distance = 2.5e-6 - np.hypot(x, y)[0]
    assert platinum[(distance > 0.05e-6) & (distance < 0.45e-6)].all()
    assert not platinum[distance > 0.75e-6].any()
    area = platinum.sum() * VOXEL**2
    ring = 2.5e-6 - np.sqrt(2.5e-6**2 - area / np.pi)
    assert ring == pytest.approx(0.6e-6, abs=0.08e-6)
    assert infill.film_m[AXIS.size // 2, AXIS.size // 2] == 0.0
    assert infill.film_m[AXIS.size // 2, 3] == pytest.approx(2e-6)
    deep = (volume.labels[round(2.5e-6 / LAYER)] == m.PT).sum()
    assert 0 < deep < platinum.sum()


def test_the_floor_of_a_wide_pore_is_thinly_covered() -> None:
    volume = block()
    slot(volume, 4e-6, deep_m=2e-6, high_m=4e-6)
    lay(volume, 2e-6)
    middle = volume.labels.shape[1] // 2
    column = volume.labels[:, middle, middle]
    assert (column == m.PT).any()
    assert column[0] == m.PORE
    floor = (column == m.PT).sum() * LAYER
    assert 0.1e-6 < floor < 0.7e-6


@pytest.mark.parametrize("width_m", [0.3e-6, 0.6e-6, 0.9e-6, 1.1e-6])
def test_a_thin_film_fills_what_a_thick_one_fills_up_to_1200_nm(width_m: float) -> None:
    rows = []
    for film_m in (0.6e-6, 2e-6):
        volume = block(3e-6, 9e-6)
        where = slot(volume, width_m)
        lay(volume, film_m)
        rows.append(filled(volume, 0.05e-6)[where[0, volume.labels.shape[1] // 2]])
    assert rows[0].all()
    assert rows[1].all()


def test_wider_mouths_stay_open_under_a_thin_film() -> None:
    volume = block(3e-6, 9e-6)
    slot(volume, 2e-6)
    lay(volume, 0.6e-6)
    middle = volume.labels.shape[2] // 2
    assert not filled(volume, 0.05e-6)[middle - 4 : middle + 4].any()


def test_closed_pores_stay_empty_and_narrow_ways_in_are_closed_first() -> None:
    volume = block()
    z, y, x = grid(volume)
    buried = np.broadcast_to((z - 1.5e-6) ** 2 + (y - 3e-6) ** 2 + x**2 < 1e-12, volume.labels.shape)
    cave = np.broadcast_to((z - 2.5e-6) ** 2 + (y + 3e-6) ** 2 + x**2 < (1.3e-6) ** 2, volume.labels.shape)
    neck = np.broadcast_to((np.abs(x) < 0.2e-6) & (np.abs(y + 3e-6) < 0.2e-6) & (z < 2.5e-6), volume.labels.shape)
    volume.labels[buried | cave | neck] = m.PORE
    lay(volume, 2e-6)
    assert (volume.labels[buried] == m.PORE).all()
    assert (volume.labels[neck & (z < 0.3e-6)] == m.PT).all()
    assert (volume.labels[cave & (z > 1.5e-6)] == m.PT).mean() < 0.02


def test_only_what_lies_in_the_film_is_filled() -> None:
    volume = block(3e-6)
    slot(volume, 0.5e-6)
    laid = np.zeros((AXIS.size, AXIS.size))
    laid[AXIS < 0] = 2e-6
    infill = infiltrate(volume, AXIS, AXIS, np.zeros_like(laid), laid)
    rows = infill.index // volume.labels.shape[2] % volume.labels.shape[1]
    assert rows.max() <= volume.labels.shape[1] // 2 + 3
    assert (infill.film_m[AXIS > 0.1e-6] == 0).all()
    nothing = infiltrate(volume, AXIS, AXIS, np.zeros_like(laid), 0 * laid, 0.3e-6)
    assert nothing.index.size == 0
    assert nothing.film_m == pytest.approx(0.3e-6)


def test_rounds_add_up_and_never_unfill() -> None:
    volume = block(4e-6)
    slot(volume, 3e-6)
    before = np.zeros_like(volume.labels, bool)
    film: NDArray[np.float32] = np.zeros((AXIS.size, AXIS.size), np.float32)
    shares = []
    for _ in range(3):
        infill = lay(volume, 0.3e-6, before_m=film)
        assert not before.reshape(-1)[infill.index].any()
        film = infill.film_m
        after = volume.labels == m.PT
        assert (after | ~before).all()
        before = after
        shares.append(int(after.sum()))
    assert shares[0] < shares[1]
    assert film[3, 3] == pytest.approx(0.9e-6)
    cut = lay(volume, 2e-6, face_m=0.1e-6)  # after the film was cut away: the next round narrows further
    assert cut.index.size > 0
    assert (cut.index >= 2 * volume.labels[0].size).all()  # nothing in front of the face


def test_a_fill_of_submicron_pores_is_gone_after_ten_images() -> None:
    volume = block(4e-6)
    where = slot(volume, 0.8e-6)
    lay(volume, 2e-6)
    row = where[0, volume.labels.shape[1] // 2]
    shares = [filled(volume, 0.05e-6 + k * 100e-9)[row].mean() for k in range(15)]
    assert shares[0] == 1.0
    assert min(shares[:3]) > 0.8
    assert max(shares[12:]) < 0.15


def test_a_slanted_beam_fills_one_side_more() -> None:
    volume = block(3e-6, 9e-6)
    z, y, x = grid(volume)
    volume.labels[np.broadcast_to((np.abs(y) < 1.5e-6) & (np.abs(x) < 3e-6) & (z < 9e-6), volume.labels.shape)] = m.PORE
    slant = np.radians(52.0)
    lay(volume, 2e-6, beam=(0.0, float(np.sin(slant)), float(np.cos(slant))))
    column = volume.labels[round(1.2e-6 / LAYER), :, volume.labels.shape[2] // 2] == m.PT
    half = column.size // 2
    assert column[half:].sum() > column[:half].sum() + 2  # the beam goes towards +y and meets the wall there


def test_what_does_not_fit_is_refused() -> None:
    volume = block(1e-6, 4e-6)
    flat = np.zeros((AXIS.size, AXIS.size))
    with pytest.raises(ValueError, match="don't fit axes"):
        infiltrate(volume, AXIS[:-1], AXIS, flat, flat)
    with pytest.raises(ValueError, match="doesn't point into the sample"):
        infiltrate(volume, AXIS, AXIS, flat, flat, beam=(0.0, 1.0, 0.0))


@pytest.mark.parametrize("width_m", [0.5e-6, 4e-6, 9e-6])
def test_halves_worked_out_side_by_side_give_what_the_whole_gives(
    width_m: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill() -> Infill:
        volume = block()
        slot(volume, width_m)
        z, y, x = grid(volume)
        volume.labels[np.hypot(x - 2e-6, y - 1e-6) + 0 * z < 0.4e-6] = m.PORE
        return lay(volume, 1e-6)

    halves = fill()
    monkeypatch.setattr(sidebyside, "PARTS", 1)
    whole = fill()
    assert halves.index.size > 1000
    np.testing.assert_array_equal(halves.index, whole.index)
    np.testing.assert_array_equal(halves.film_m, whole.film_m)


@pytest.mark.parametrize("case", ["random", "a slot from the edge past the middle", "no wall in one half"])
def test_distances_to_walls_are_those_of_the_whole_however_far_they_lie(case: str) -> None:
    size = (100e-9, 120e-9, 110e-9)
    open_ = np.random.default_rng(1).random((6, 9, 120)) < 0.9
    if case != "random":
        open_[:] = False
        open_[:, :, : 90 if case.startswith("a slot") else 120] = True
        open_[:, :, 110:] = case.startswith("a slot")
        open_[0, 0, 3] = case.startswith("a slot")
    wanted = np.zeros_like(open_)
    wanted[:, 2:, 1:] = True
    exact = ndimage.distance_transform_edt(open_, sampling=size)
    np.testing.assert_allclose(deposition._walls(open_, wanted, size), np.where(wanted, exact, 0), rtol=1e-5)
