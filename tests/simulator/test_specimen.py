"""What virtual electrodes are made of: shares, materials, and that voxels do not depend on how they are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from pydantic import ValidationError
from scipy import ndimage

import simulator
from instrument.errors import Refused
from simulator import materials as m
from simulator.electrode import Electrode
from simulator.options import parse
from simulator.specimen import model_of
from simulator.volume import build

SMALL = {"width_m": 16e-6, "height_m": 22e-6, "depth_m": 3e-6, "above_m": 1e-6, "voxel_m": 60e-9, "layer_m": 80e-9}


def coating(electrode: Electrode) -> np.ndarray:
    volume = build(electrode)
    y = volume.origin[1] + volume.voxel * np.arange(volume.labels.shape[1])
    return volume.labels[:, (y > 0.5e-6) & (y < electrode.coating_m - 0.3e-6)]


def share(labels: np.ndarray, *codes: int) -> float:
    return float(np.isin(labels, codes).mean())


@pytest.mark.parametrize(
    ("preset", "active", "binder", "pore"),
    [("nmc-cathode", 0.72, 0.115, 0.165), ("graphite-anode", 0.66, 0.06, 0.28), ("porous-carbon", 0.28, 0.0, 0.72)],
)
def test_presets_have_their_shares(preset: str, active: float, binder: float, pore: float) -> None:
    made = {**SMALL, "preset": preset, "seed": 3}
    if preset == "porous-carbon":
        made |= {"width_m": 5e-6, "height_m": 5e-6, "depth_m": 2e-6, "voxel_m": 20e-9, "layer_m": 20e-9}
        made |= {"coating_m": 4e-6}
    electrode = Electrode.model_validate(made)
    labels = coating(electrode)
    assert share(labels, electrode.material) == pytest.approx(active, abs=0.03)
    assert share(labels, m.CBD, m.CRACK_RESIDUE) == pytest.approx(binder, abs=0.03)
    assert share(labels, m.PORE) == pytest.approx(pore, abs=0.04)
    whole = build(electrode).labels
    assert (whole == electrode.collector).any()
    assert not (whole == (m.AL if electrode.collector == m.COPPER else m.COPPER)).any()


@pytest.mark.parametrize("preset", ["nmc-cathode", "graphite-anode", "porous-carbon"])
def test_voxels_are_the_same_however_they_are_asked_for(preset: str) -> None:
    made = {**SMALL, "preset": preset, "width_m": 5e-6, "height_m": 5e-6, "depth_m": 2e-6, "coating_m": 4e-6}
    if preset == "porous-carbon":
        made |= {"voxel_m": 25e-9, "layer_m": 25e-9}
    electrode = Electrode.model_validate(made)
    whole = build(electrode).labels
    depth, rows, columns = electrode.shape
    model = model_of(electrode)
    z, y, x = np.arange(3, 9), np.arange(5, rows, 3), np.arange(columns - 20, columns)
    np.testing.assert_array_equal(model.voxels((z, y, x)), whole[3:9, 5::3, -20:])
    np.testing.assert_array_equal(build(electrode, depth - 4, depth).labels, whole[-4:])


def test_graphite_lies_along_the_foil() -> None:
    labels = coating(Electrode.model_validate({**SMALL, "preset": "graphite-anode"})) == m.GRAPHITE
    runs = []
    for axis in (1, 2):
        edges = np.abs(np.diff(labels.astype(np.int8), axis=axis)).sum()
        runs.append(labels.sum() / edges)
    assert runs[1] > 1.3 * runs[0]


def test_the_pores_of_porous_carbon_are_about_90_nm_wide() -> None:
    electrode = Electrode(
        preset="porous-carbon", width_m=3e-6, height_m=3e-6, depth_m=2e-6, above_m=0.0, coating_m=4e-6
    )
    pores = build(electrode).labels == m.PORE
    distance = ndimage.distance_transform_edt(pores, sampling=20e-9)
    assert 2 * distance[pores].mean() == pytest.approx(90e-9, rel=0.25)
    with pytest.raises(ValidationError, match="at most 30 nm"):
        Electrode(preset="porous-carbon", voxel_m=40e-9)


def test_cracks_are_open_full_of_binder_or_full_deep_in_alone() -> None:
    labels = coating(Electrode(width_m=30e-6, height_m=22e-6, depth_m=4e-6, voxel_m=60e-9, layer_m=80e-9, seed=3))
    solid = ndimage.binary_closing(labels == m.NMC, iterations=4)
    inside = ndimage.binary_erosion(solid, iterations=6)
    assert (labels[inside] == m.PORE).sum() > 200
    assert (labels[inside] == m.CBD).sum() > 200
    assert (labels == m.CRACK_RESIDUE).sum() > 200


def test_binder_lies_between_foil_and_particles() -> None:
    electrode = Electrode(width_m=30e-6, height_m=22e-6, depth_m=2e-6, voxel_m=60e-9, layer_m=80e-9, seed=3)
    labels = build(electrode).labels
    above = labels[:, :-1][labels[:, 1:] == m.AL]
    touching = above[above != m.AL]
    assert share(touching, m.CBD) > 0.7


@pytest.fixture
def phases() -> np.ndarray:
    labels = np.zeros((20, 30, 24), np.uint8)
    labels[:, 6:] = 1
    labels[:, 10:14] = 2
    labels[5:12, 14:20, 3:9] = 3
    labels[:, 26:] = 4
    return labels


@pytest.mark.parametrize("name", ["phases.tif", "phases.npy", "compressed.tif"])
def test_a_volume_of_labels_is_a_specimen(tmp_path: Path, phases: np.ndarray, name: str) -> None:
    file = tmp_path / name
    if name.endswith("npy"):
        np.save(file, phases)
    else:
        tifffile.imwrite(file, phases, compression="zlib" if name.startswith("c") else None)
    url = f"simulator?preset=from-volume&file={file}&file_voxel=100nm&voxel=100nm&layer=100nm"
    options = parse(f"{url}&width=4um&height=4um&depth=2um&above=0.5um&coating=2um")
    volume = build(options.electrode())
    y = volume.origin[1] + volume.voxel * np.arange(volume.labels.shape[1])
    first = int(np.flatnonzero(y > 0)[0])
    assert np.all(volume.labels[:, :first] == m.VACUUM)
    expected = np.array([m.VACUUM, m.PORE, m.CBD, m.NMC, m.AL], np.uint8)[phases]
    middle = volume.labels.shape[2] // 2
    np.testing.assert_array_equal(volume.labels[:20, first : first + 24, middle - 12 : middle + 12], expected[:, 6:, :])
    np.testing.assert_array_equal(volume.labels[:20, first, middle + 12], expected[:, 6, -1])  # mirrored beyond


def test_a_volume_that_cannot_be_read_is_refused_with_its_name_and_the_remedy(
    tmp_path: Path, phases: np.ndarray
) -> None:
    size = "&width=4um&height=4um&depth=2um&coating=2um&voxel=100nm&layer=100nm"
    with pytest.raises(Refused, match="give it"):
        parse(f"simulator?preset=from-volume&file={tmp_path / 'no.tif'}{size}")
    with pytest.raises(Refused, match="give both or neither"):
        parse("simulator?preset=from-volume")
    for labels, says in ((phases + 3, "recode it"), (phases[0], "3-D"), (phases.astype(np.uint16), "8 bit")):
        np.save(tmp_path / "bad.npy", labels)
        with pytest.raises(Refused, match=says):
            simulator.open(f"simulator?preset=from-volume&file={tmp_path / 'bad.npy'}&file_voxel=100nm{size}")
    with pytest.raises(Refused, match=r"missing\.npy"):
        simulator.open(f"simulator?preset=from-volume&file={tmp_path / 'missing.npy'}&file_voxel=100nm{size}")
