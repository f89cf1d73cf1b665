"""Element maps have the counts of the published one (physics.md 5): 2.6 per pixel at 54 nm, 10 kV, 1.6 nA, 1 ms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from instrument.errors import Refused
from instrument.frame import Frame
from instrument.settings import Beam, BeamSettings, Device, EdsScan
from simulator import materials as m
from simulator.eds import dead_share, element_counts, shadow_reach
from simulator.electrode import Electrode
from simulator.face import sample_face
from simulator.volume import build
from tests.simulator.bench import SMALL, Bench

ELEMENTS = ("Al", "O", "Ni", "Co", "Mn", "Pt", "C", "F")


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(SMALL)
    made.go("mill")
    made.ion(60e-9)
    made.cut(-0.2e-6, 0.5e-6)
    made.go("face-on")
    made.microscope.set_beam(Beam.ELECTRON, BeamSettings(voltage_v=10e3, current_a=1.6e-9))
    yield made
    made.microscope.close()


def element_map(bench: Bench, **changes: object) -> Frame:
    u, v = bench.view(Beam.ELECTRON).field((0.0, 4.8e-6, bench.face_z()))
    asked = {
        "elements": ELEMENTS, "width_px": 180, "height_px": 130, "pixel_m": 54e-9, "centre_x_m": u, "centre_y_m": v,
        "dwell_s": 100e-6, "frames": 10, **changes,
    }  # fmt: skip
    return bench.microscope.acquire_eds(EdsScan.model_validate(asked))


def test_an_electrodes_map_has_2_6_counts_per_pixel() -> None:
    """The published face: 67 um of coating on either side of 17 um of foil, pores with platinum in them."""
    volume = build(Electrode(seed=3, width_m=24e-6, height_m=26e-6, depth_m=3e-6, coating_m=19e-6, voxel_m=54e-9))
    volume.labels[volume.labels == m.PORE] = m.PT
    x = volume.origin[0] + 54e-9 * np.arange(volume.labels.shape[2])
    y = 54e-9 * np.arange(int(25e-6 / 54e-9))
    scene = sample_face(volume, np.full((y.size, x.size), 1e-6), 0.0, x, y)
    counts = element_counts(scene, ELEMENTS, (y.size, x.size), seed=3)
    coating = y < 18.5e-6
    share = 17 / (2 * 67 + 17)
    total = (1 - share) * counts[:, coating].sum(0).mean() + share * counts[:, ~coating].sum(0).mean()
    assert total == pytest.approx(2.6, abs=0.3)
    binder = (scene.material == m.CBD)[:, :]
    at_foil = binder & (y > 18.2e-6)[:, None] & (y < 19.2e-6)[:, None]
    inside = binder & (y > 5e-6)[:, None] & (y < 13e-6)[:, None]
    fluorine = counts[ELEMENTS.index("F")]
    assert 1.25 < fluorine[at_foil].mean() / fluorine[inside].mean() < 2.5


def test_maps_are_counted_by_material_and_time(bench: Bench) -> None:
    with pytest.raises(Refused) as refused:
        element_map(bench)
    assert refused.value.rule == "detector-out"
    bench.microscope.insert(Device.EDS)
    before = bench.microscope.clock.now()
    frame = element_map(bench)
    assert bench.microscope.clock.now() - before == pytest.approx(180 * 130 * 1e-3, rel=0.1)
    assert frame.pixels.dtype == np.uint16
    assert frame.meta.channels == ELEMENTS
    nickel, aluminium = frame.channel("Ni").astype(float), frame.channel("Al").astype(float)
    assert aluminium[-10:].mean() > 50 * aluminium[20:60].mean()
    assert nickel[20:60].mean() > 5 * nickel[-10:].mean()
    again = element_map(bench)
    assert not np.array_equal(again.pixels, frame.pixels)
    others = [name for name in ELEMENTS if name != "F"]
    for name in others:
        assert again.channel(name).mean() == pytest.approx(frame.channel(name).mean(), rel=0.08, abs=0.01)
    assert again.channel("F").mean() < 0.75 * frame.channel("F").mean()  # the beam drives it out (night.md 17)
    short = element_map(bench, frames=1)
    assert short.pixels.mean() == pytest.approx(0.1 * frame.pixels.mean(), rel=0.15)


def test_a_fast_detector_is_dead_for_a_tenth_at_5_and_for_a_third_at_20_thousand_a_second() -> None:
    assert dead_share(2_500) == pytest.approx(0.10, abs=0.02)
    assert dead_share(10_000) == pytest.approx(0.30, abs=0.02)


def test_a_wall_of_the_trench_hides_a_strip_of_the_recess() -> None:
    volume = build(Electrode(seed=3, width_m=8e-6, height_m=6e-6, depth_m=1e-6, coating_m=5e-6, voxel_m=60e-9))
    x, y = -3e-6 + 60e-9 * np.arange(100), 0.5e-6 + 60e-9 * np.arange(60)
    scene = sample_face(volume, np.full((60, 100), 0.3e-6), 0.0, x, y)
    assert shadow_reach(10e-6) == pytest.approx(14.3e-6, rel=0.01)
    shaded = x < -3e-6 + shadow_reach(1.4e-6)
    counts = element_counts(scene, ("Ni", "Pt", "C"), (60, 100), seconds=20e-3, shaded=shaded, seed=3).sum(0)
    assert counts[:, shaded].mean() < 0.15 * counts[:, ~shaded].mean()


def test_what_a_map_cracks_onto_the_face_darkens_pictures_until_the_next_cut_and_no_longer(bench: Bench) -> None:
    clean = float(np.median(bench.picture("ETD").pixels))
    bench.microscope.insert(Device.EDS)
    element_map(bench)
    bench.microscope.retract(Device.EDS)
    dark = float(np.median(bench.picture("ETD").pixels))
    assert dark < 0.9 * clean
    damage = float(bench.microscope.block.maps.dose.max())
    at = bench.face_z()
    bench.go("mill")
    bench.cut(at, at + 0.06e-6)
    assert bench.microscope.block.maps.dose.max() > 0.5 * damage  # the electrons went deeper than that
    bench.go("face-on")
    assert float(np.median(bench.picture("ETD").pixels)) == pytest.approx(clean, rel=0.05)
