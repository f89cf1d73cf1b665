"""Training images: repeatable, of all classes, truth and image on one grid; and the hash of what makes them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from simulator import dataset
from simulator import materials as m


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = dataset._Kind(1.0, (6e-6, 8e-6), None, 9e-6, 2.6e-6, 60e-9, 75e-9, (50e-9, 110e-9))
    monkeypatch.setattr(dataset, "_KINDS", (kind,))


def test_the_same_seed_gives_the_same_samples(small: None) -> None:
    first, second = list(dataset.samples(2, 4)), list(dataset.samples(2, 4))
    other = list(dataset.samples(3, 4))
    assert len(first) == 4
    for a, b, c in zip(first, second, other, strict=True):
        assert a.pixel_m == b.pixel_m != c.pixel_m
        assert np.array_equal(a.fine, b.fine)
        assert all(np.array_equal(a.channels[name], b.channels[name]) for name in ("CBS", "TLD"))


def test_samples_are_what_training_takes(small: None) -> None:
    seen: set[int] = set()
    detectors: set[str] = set()
    beside: set[str] = set()
    for sample in dataset.samples(4, 24):
        for one in (sample, *sample.beside.values()):
            assert {"CBS", "TLD"} <= set(one.channels) == set(sample.channels)
            assert one.fine.dtype == np.uint8
            for image in one.channels.values():
                assert image.dtype == np.float32
                assert image.shape == one.fine.shape == sample.fine.shape
                assert 0 <= image.min() <= image.max() <= 1
            assert 20e-9 < one.pixel_m == sample.pixel_m < 200e-9
        seen |= set(np.unique(sample.fine).tolist())
        detectors |= set(sample.channels)
        beside |= set(sample.beside)
    assert seen == set(range(7))
    assert detectors == {"CBS", "TLD", "ETD"}
    assert beside == {"before", "after"}


def test_slices_beside_one_are_nearly_the_same(small: None) -> None:
    found = 0
    for sample in dataset.samples(4, 12):
        for other in sample.beside.values():
            same = other.fine == sample.fine
            film = (sample.fine == m.TRUTH_FILM) | (other.fine == m.TRUTH_FILM)
            assert same[~film].mean() > 0.6 or film.mean() > 0.5
            found += 1
    assert found >= 3


def test_images_and_truth_belong_together(small: None) -> None:
    """Platinum is brighter than active material, and that brighter than binder, in nearly every image."""
    wrong = known = 0
    for sample in dataset.samples(6, 16):
        greys = {
            code: float(np.median(sample.channels["CBS"][sample.fine == code]))
            for code in (m.TRUTH_PT_PORE, m.TRUTH_ACTIVE, m.TRUTH_CBD)
            if (sample.fine == code).sum() > 300
        }
        order = [greys[code] for code in (m.TRUTH_CBD, m.TRUTH_ACTIVE, m.TRUTH_PT_PORE) if code in greys]
        known += len(order) > 1
        wrong += order != sorted(order)
    assert known >= 6
    assert wrong <= 1


def test_the_hash_is_of_the_files_that_make_images() -> None:
    folder = Path(dataset.__file__).parent
    assert all((folder / name).is_file() for name in dataset.SOURCES)
    assert len(dataset.renderer_sha256()) == 64
    assert dataset.renderer_sha256() == dataset.renderer_sha256()
    used = {
        "specimen", "electrode", "model", "particles", "volume", "packing", "textures", "face", "imaging", "deposition",
        "materials",
        "randomness", "widths",
    }  # fmt: skip
    assert {f"{name}.py" for name in used} < set(dataset.SOURCES)


def test_a_changed_renderer_has_another_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dataset.renderer_sha256()
    monkeypatch.setattr(dataset, "SOURCES", dataset.SOURCES[1:])
    assert dataset.renderer_sha256() != before


def test_rounding_shares_out_everything() -> None:
    for count, weights in itertools.product((1, 7, 30), ([1.0], [0.12, 1.0], [0.12, 1.0, 1.0])):
        assert sum(dataset._shared(count, np.array(weights))) == count
