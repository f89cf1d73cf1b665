"""What pictures show: cap and buried ruler, the mark, films and filled pores, foreshortening, the truth beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import radians
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import fftconvolve

from instrument.process import mill_dose
from instrument.settings import Beam, BeamSettings, DetectorSettings, Device, Scan, Tune
from simulator import face
from simulator import materials as m
from simulator.electrode import Electrode
from simulator.face import roughen, sample_face
from simulator.imaging import dose_of, electrons_of, emission, render
from simulator.volume import build
from tests.simulator.bench import SMALL, Bench

#: What makes a face stand upright at 60 nA (physics.md 2.2).
OVER_TILT = radians(1.5)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A block with cap, ruler and polished face; tests leave the face where they find it, or further back."""
    made = Bench(SMALL, tmp_path_factory.mktemp("machine"))
    made.cap_with_ruler()
    made.go("cut", over_tilt=OVER_TILT)
    made.ion(60e-9)
    made.cut(-0.2e-6, 0.5e-6, dose_factor=1.2)
    yield made
    made.microscope.close()


def grooves(bench: Bench) -> tuple[float, float]:
    """Return the distance of the ruler's two spots in a face-on picture, and how much darker they are."""
    box = (-5e-6, -bench.cap_height() + 0.1e-6, 5e-6, -0.5e-6)
    frame = bench.picture("CBS", box=box, pixel=20e-9)
    band = ndimage.gaussian_filter(frame.pixels[0].astype(float), 2)
    dark = band < 0.8 * np.median(band)
    found, count = ndimage.label(dark)
    sizes = ndimage.sum(dark, found, range(1, count + 1))
    order = np.argsort(sizes)[::-1][:2] + 1
    columns = [float(at[1]) for at in ndimage.center_of_mass(dark, found, list(order))]
    depth = 1 - float(band[dark].mean()) / float(np.median(band))
    return abs(columns[0] - columns[1]) * 20e-9, depth


def face_on(bench: Bench) -> None:
    bench.go("face-on")
    bench.microscope.insert(Device.CBS)


def test_cap_and_ruler_are_seen_and_its_spots_part_by_twice_what_is_cut(bench: Bench) -> None:
    face_on(bench)
    whole = bench.picture("CBS")
    rows = whole.pixels[0].mean(axis=1)
    cap, electrode = rows[10:20].mean(), np.median(rows[60:120])
    assert cap > 1.4 * electrode
    before, depth = grooves(bench)
    at = bench.face_z()
    assert depth > 0.3
    assert before == pytest.approx(2e-6 + 2 * at, abs=0.1e-6)
    bench.microscope.retract(Device.CBS)
    bench.go("cut", over_tilt=OVER_TILT)
    bench.ion(60e-9)
    bench.cut(at, at + 0.45e-6, 1.2)
    face_on(bench)
    after, _ = grooves(bench)
    bench.microscope.retract(Device.CBS)
    layer = bench.microscope.options.electrode().layer_m  # the grooves are drawn in whole layers
    assert bench.face_z() - at > 4 * layer
    assert after - before == pytest.approx(2 * (bench.face_z() - at), abs=2 * layer)


def test_a_slanted_view_is_foreshortened_unless_corrected(bench: Bench) -> None:
    """At 38 deg to the face's normal its height shrinks by cos 38 deg = 0.788 (physics.md 1.6)."""
    bench.go("face-on")
    straight = bench.picture("TLD").pixels[0]
    bench.go("mill")
    slanted, corrected = bench.picture("TLD").pixels[0], bench.picture("TLD", tilt=True).pixels[0]
    rows = straight.shape[0]
    assert _lower_edge(straight) == pytest.approx(_lower_edge(corrected), abs=5)
    squeezed = (_lower_edge(slanted) - rows / 2) / (_lower_edge(straight) - rows / 2)
    assert squeezed == pytest.approx(0.788, abs=0.06)


def _lower_edge(picture: NDArray[np.generic]) -> float:
    """Return the row at which the coating ends on the foil: where grey falls for good."""
    rows = ndimage.gaussian_filter1d(np.median(picture, axis=1).astype(float), 3)
    lower = rows[rows.size // 2 :]
    return float(np.argmin(np.gradient(lower)) + rows.size // 2)


def test_two_detectors_share_their_pixels_and_truth_lies_on_the_same_grid(bench: Bench) -> None:
    face_on(bench)
    frame = bench.picture("CBS", "TLD")
    bench.microscope.retract(Device.CBS)
    folder = _folder(bench) / "truth"
    classes = tifffile.imread(folder / f"{frame.meta.uid}.tif")
    assert classes.shape == frame.pixels.shape[1:]
    assert classes.dtype == np.uint8
    facts = json.loads((folder / f"{frame.meta.uid}.json").read_text())
    assert facts["z_m"] == pytest.approx(bench.face_z(), abs=20e-9)
    assert facts["film_share"] == 0.0
    for channel in frame.pixels:
        active, foil = channel[classes == m.TRUTH_ACTIVE], channel[classes == m.TRUTH_COLLECTOR]
        binder = channel[classes == m.TRUTH_CBD]
        assert np.median(active) > np.median(foil) > np.median(binder)


def _folder(bench: Bench) -> Path:
    store = bench.microscope._store
    assert store is not None
    return store.folder


def test_the_mark_is_found_where_stage_and_beam_shift_put_it(bench: Bench) -> None:
    bench.go("mill")
    bench.ion(1e-9)
    centre, arm = (0.0, -bench.cap_height(), 2.2e-6), 0.6e-6
    lines = [
        bench.line((-arm, centre[1], centre[2] - s * arm), (arm, centre[1], centre[2] + s * arm), 0.2e-6, 0.5e-6)
        for s in (1, -1)
    ]
    bench.microscope.pattern(bench.job(lines, mill_dose(2 * 1.9e-6 * 0.2e-6 * 0.5e-6, "cap"), area="mark"))
    at = _mark(bench, centre)
    assert np.hypot(*at) < 40e-9
    bench.microscope.set_beam(Beam.ION, BeamSettings(shift_x_m=0.3e-6, shift_y_m=-0.2e-6))
    shifted = _mark(bench, centre)
    assert np.subtract(shifted, at) == pytest.approx((-0.3e-6, 0.2e-6), abs=15e-9)
    bench.microscope.set_beam(Beam.ION, BeamSettings(shift_x_m=0.0, shift_y_m=0.0))
    bench.microscope.move_stage(bench.stage.replace(x=(bench.stage.x or 0.0) + 0.4e-6))
    moved = _mark(bench, centre)
    assert np.subtract(moved, at) == pytest.approx((0.4e-6, 0.0), abs=20e-9)
    for name in ("rock-plus", "rock-minus"):
        bench.go(name)
        assert np.hypot(*_mark(bench, centre)) < 60e-9


def _mark(bench: Bench, centre: tuple[float, float, float]) -> tuple[float, float]:
    """Return how far (u, v; m) the dark cross lies from where it is expected."""
    field = 4e-6
    picture = bench.ion_look(centre, field).pixels[0].astype(float)
    pixel = field / 256
    y, x = np.mgrid[-50:51, -50:51] * pixel
    template = -(np.minimum(np.abs(x - y), np.abs(x + y)) / np.sqrt(2) < 0.12e-6).astype(float)
    score = fftconvolve(picture - picture.mean(), (template - template.mean())[::-1, ::-1], mode="same")
    row, column = np.unravel_index(int(np.argmax(score)), score.shape)
    return (column - 127.5) * pixel, (row - 109.5) * pixel


def test_looks_wear_the_mark_a_little(bench: Bench) -> None:
    bench.go("mill")
    bench.ion(60e-9)
    before = max(one.worn for one in bench.microscope.block.features)
    bench.ion_look((0.0, -bench.cap_height(), 2e-6), 5e-6)
    after = max(one.worn for one in bench.microscope.block.features)
    charge = 60e-9 * 256 * 220 * 400e-9
    assert after - before == pytest.approx(charge * 0.3e-9 / (5e-6 * 5e-6 * 220 / 256), rel=0.1)


def test_focus_is_found_and_contrast_is_set_without_clipping(bench: Bench) -> None:
    face_on(bench)
    view = bench.view(Beam.ELECTRON)
    u, v = view.field((0.0, 3.5e-6, bench.face_z()))
    scan = Scan(
        detectors=(DetectorSettings(name="CBS"), DetectorSettings(name="TLD")), width_px=256, height_px=200,
        pixel_m=30e-9, centre_x_m=u, centre_y_m=v, dwell_s=3e-6,
    )  # fmt: skip
    bench.microscope.set_beam(Beam.ELECTRON, BeamSettings(working_distance_m=4.012e-3))
    blurred = bench.microscope.acquire(scan).pixels[0].astype(float)
    found = bench.microscope.tune(Tune.FOCUS, scan)
    assert found.working_distance_m == bench.microscope.state().electron.settings.working_distance_m
    assert abs((found.working_distance_m or 0.0) - 4.012e-3) > 3e-6
    sharp = bench.microscope.acquire(scan).pixels[0].astype(float)
    assert (
        np.abs(np.diff(ndimage.gaussian_filter(sharp, 1))).mean()
        > 1.1 * np.abs(np.diff(ndimage.gaussian_filter(blurred, 1))).mean()
    )
    tuned = bench.microscope.tune(Tune.CONTRAST, scan)
    frame = bench.microscope.acquire(scan.replace(detectors=tuned.detectors))
    bench.microscope.retract(Device.CBS)
    classes = tifffile.imread(_folder(bench) / "truth" / f"{frame.meta.uid}.tif")
    assert (frame.pixels[0] == 255).mean() < 0.01
    assert np.median(frame.pixels[0][classes == m.TRUTH_CBD]) > 10


def test_platinum_fills_what_is_open_to_the_face_and_shows_after_the_clean(bench: Bench) -> None:
    machine, plane = bench.microscope, bench.face_z()
    labels_before = machine.block.volume.labels.copy()
    bench.go("deposit")
    bench.gas(True)
    bench.film(bench.box((-5.5e-6, -1.2e-6, plane), (5.5e-6, 7.4e-6, plane), 1e-6), 1e-6, "face")
    bench.gas(False)
    face_on(bench)
    covered = bench.picture("CBS")
    bench.microscope.retract(Device.CBS)
    facts = json.loads((_folder(bench) / "truth" / f"{covered.meta.uid}.json").read_text())
    assert facts["film_share"] > 0.9
    filled = (machine.block.volume.labels == m.PT) & (labels_before != m.PT)
    assert (labels_before[filled] == m.PORE).all()
    depth = np.nonzero(filled)[0] * machine.block.volume.layer
    assert np.percentile(depth, 2) > plane - 0.2e-6
    assert depth.max() < plane + 2.5e-6  # open pores are filled near the face only
    thickness = float(np.median(machine.block.film[machine.block.film > 0.5e-6]))
    assert thickness == pytest.approx(1e-6 * machine.rates.film_factor, rel=0.3)
    bench.go("cut", over_tilt=OVER_TILT)
    bench.ion(60e-9)
    bench.cut(plane - 1.4e-6, plane + 0.3e-6, dose_factor=1.6)  # the face lies short of so broad a beam
    face_on(bench)
    clean = bench.picture("CBS")
    bench.microscope.retract(Device.CBS)
    classes = tifffile.imread(_folder(bench) / "truth" / f"{clean.meta.uid}.tif")
    assert (classes == m.TRUTH_PT_PORE).sum() > 200
    bright = np.median(clean.pixels[0][classes == m.TRUTH_PT_PORE])
    assert bright > 1.3 * np.median(clean.pixels[0][classes == m.TRUTH_ACTIVE])


def test_detectors_that_share_an_emission_show_what_each_shows_alone() -> None:
    volume = build(Electrode(seed=2, width_m=6e-6, height_m=5e-6, depth_m=9e-6, above_m=0.5e-6, coating_m=4e-6))
    x, y = np.arange(-2.5e-6, 2.5e-6, 25e-9), np.arange(-0.3e-6, 4.2e-6, 25e-9)
    film = np.where(x > 1e-6, 30e-9, 0.0) * np.ones((y.size, 1))
    relief = 30e-9 * np.sin(x / 0.3e-6) * np.ones((y.size, 1))
    flat = sample_face(volume, np.full((y.size, x.size), 0.4e-6), film, x, y)
    scene = roughen(flat, relief)
    assert (scene.material == m.PORE).any()
    assert (scene.slope != flat.slope).any()
    at_once = sample_face(volume, np.full((y.size, x.size), 0.4e-6), film, x, y, relief_m=relief)
    np.testing.assert_array_equal(scene.slope, at_once.slope)
    known = {one: emission(scene, one, dose=dose_of(scene, 1.6e-9, 3e-6)) for one in ("backscattered", "secondary")}
    for name in ("CBS", "TLD", "ETD"):
        for defocus in (0.0, 4e-6):
            alone = render(scene, name, defocus_m=defocus, seed=1)
            shared = render(scene, name, defocus_m=defocus, seed=1, sent=known[electrons_of(name)])
            np.testing.assert_array_equal(shared, alone)
    with pytest.raises(ValueError, match="ETD takes secondary electrons"):
        render(scene, "ETD", sent=known["backscattered"])


def test_backs_of_pores_slope_as_a_gradient_says() -> None:
    depth = np.random.default_rng(3).random((12, 17), np.float32)
    pore = depth > 0.4
    found = face._slopes(depth * pore, np.flatnonzero(pore), (0.7, 0.4))
    soft = ndimage.uniform_filter(depth * pore, 3)
    wanted = [np.where(pore, np.gradient(soft, step, axis=axis), 0) for axis, step in ((0, 0.7), (1, 0.4))]
    np.testing.assert_allclose(found, np.clip(wanted, -1.7, 1.7), rtol=1e-6)
    assert np.abs(found[:, [0, -1]]).max() > 0
