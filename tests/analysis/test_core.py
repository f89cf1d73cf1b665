"""The core: what its numbers mean, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from analysis.core import (
    DOUBTFUL,
    UNFAMILIAR,
    Segmentation,
    SegmentationCore,
    SliceNumbers,
    fillable_pores,
    film_fraction,
    intervals,
    joint,
    pores_in,
)  # fmt: skip
from analysis.known import Known
from analysis.phases import MERGE, Fine, Phase, merged
from analysis.trust import warnings
from tests.analysis.drawn import drawn

PIXEL_M = 50e-9
FILLABLE_M = 1.2e-6  # 24 pixels


@pytest.fixture(scope="module")
def core(small_model: Path) -> SegmentationCore:
    return SegmentationCore(small_model)


def solid() -> NDArray[np.uint8]:
    return np.full((100, 200), Fine.ACTIVE, np.uint8)


def test_an_empty_narrow_pore_asks_for_platinum() -> None:
    fine = solid()
    fine[20:30, 20:80] = Fine.OPEN_PORE
    found = fillable_pores(fine, PIXEL_M, FILLABLE_M)
    assert found.area_m2 == pytest.approx(600 * PIXEL_M**2)
    assert found.share == 1.0


def test_a_narrow_pore_with_platinum_round_most_of_it_is_filled() -> None:
    fine = solid()
    fine[20:30, 20:80] = Fine.PT_PORE
    fine[23:27, 24:76] = Fine.OPEN_PORE
    found = fillable_pores(fine, PIXEL_M, FILLABLE_M)
    assert found.area_m2 == pytest.approx(600 * PIXEL_M**2)
    assert found.share == 0.0


def test_platinum_on_exactly_half_of_the_outline_is_not_enough() -> None:
    fine = solid()
    fine[20:30, 20:40] = Fine.PT_PORE
    fine[20:30, 40:60] = Fine.OPEN_PORE
    assert fillable_pores(fine, PIXEL_M, FILLABLE_M).share == 1.0
    fine[20:30, 40:42] = Fine.PT_PORE
    assert fillable_pores(fine, PIXEL_M, FILLABLE_M).share == 0.0


def test_a_pore_that_is_platinum_inside_is_filled_whatever_its_edge_pixels_look_like() -> None:
    fine = solid()
    fine[20:30, 20:80] = Fine.OPEN_PORE
    fine[21:29, 21:79] = Fine.PT_PORE
    assert fillable_pores(fine, PIXEL_M, FILLABLE_M).share == 0.0


def test_the_dark_core_of_a_wide_pore_never_counts() -> None:
    fine = solid()
    fine[20:60, 20:80] = Fine.OPEN_PORE
    found = fillable_pores(fine, PIXEL_M, FILLABLE_M)
    assert (found.area_m2, found.unfilled_m2, found.share) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("width_px", "counts"), [(23, True), (25, False)])
def test_the_width_is_the_full_one_to_a_pixel(width_px: int, counts: bool) -> None:
    fine = solid()
    fine[20 : 20 + width_px, 10:190] = Fine.OPEN_PORE
    assert (fillable_pores(fine, PIXEL_M, FILLABLE_M).area_m2 > 0) is counts


def test_a_wide_pore_cut_by_the_image_edge_is_not_taken_for_a_narrow_one() -> None:
    fine = solid()
    fine[:16, 40:100] = Fine.OPEN_PORE
    assert fillable_pores(fine, PIXEL_M, FILLABLE_M).area_m2 == 0.0


@given(st.integers(0, 2**32 - 1), st.floats(2.0, 12.0), st.floats(1.0, 3.0))
def test_distances_are_left_out_only_where_no_pore_can_be_wide(seed: int, width_px: float, smooth: float) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((60, 80)), smooth)
    fine = np.where(noise > np.median(noise), np.uint8(Fine.OPEN_PORE), np.uint8(Fine.ACTIVE))
    found = pores_in(fine, 1.0, width_px)
    distance = ndimage.distance_transform_edt(fine == Fine.OPEN_PORE)
    widest = ndimage.maximum(2.0 * distance - 1.0, found.components, np.arange(1, len(found.wide)))
    assert found.wide[1:].tolist() == [bool(one >= width_px) for one in widest]


def test_specks_are_no_pores_and_shares_are_by_area() -> None:
    fine = solid()
    fine[10:12, 10:12] = Fine.OPEN_PORE
    fine[40:50, 20:50] = Fine.OPEN_PORE
    fine[70:80, 20:110] = Fine.PT_PORE
    found = fillable_pores(fine, PIXEL_M, FILLABLE_M)
    assert found.share == pytest.approx(300 / 1200)
    assert fillable_pores(solid(), PIXEL_M).share == 0.0


def test_film_is_counted_on_the_face_only() -> None:
    fine = solid()
    fine[:50] = Fine.OUTSIDE
    fine[50:75] = Fine.FILM
    assert film_fraction(fine) == 0.5
    assert film_fraction(np.zeros((4, 4), np.uint8)) == 0.0


def test_numbers_fit_the_labels(core: SegmentationCore) -> None:
    sample = drawn(1, (120, 150))
    result = core.segment(sample.channels, sample.pixel_m, name="s0007", frame_sha256="ab")
    numbers = result.numbers
    assert result.labels.shape == result.fine.shape == result.confidence.shape == (120, 150)
    assert (merged(result.fine) == result.labels).all()
    assert sum(numbers.phase_fractions.values()) == pytest.approx(1.0)
    assert sum(numbers.electrode_fractions.values()) == pytest.approx(1.0)
    assert list(numbers.phase_fractions) == ["pore", "cbd", "active", "collector"]
    assert (numbers.name, numbers.frame_sha256, numbers.model_id) == ("s0007", "ab", core.model_id)
    assert 0.0 <= numbers.doubt <= 1.0


def test_shares_lie_within_what_doubt_leaves_open(core: SegmentationCore) -> None:
    sample = drawn(1, (120, 150))
    result = core.segment(sample.channels, sample.pixel_m)
    numbers = result.numbers
    assert list(numbers.electrode_intervals) == ["pore", "cbd", "active"]
    for name, (low, high) in numbers.electrode_intervals.items():
        assert 0.0 <= low <= numbers.electrode_fractions[name] <= high <= 1.0
    assert any(high > low for low, high in numbers.electrode_intervals.values())
    assert result.doubtful.any()


def plainly(result: Segmentation) -> dict[str, object]:
    """The numbers of a labelled slice, counted pixel by pixel."""
    inside = result.labels != Phase.OUTSIDE
    pore, cbd = (result.possible >> phase & 1 for phase in (Phase.PORE, Phase.CBD))
    novelty = result.numbers.novelty
    most = 1.0 if novelty <= DOUBTFUL else 1.0 - novelty
    electrode = [int((result.labels == phase).sum()) for phase in (Phase.PORE, Phase.CBD, Phase.ACTIVE)]
    return {
        "electrode_fractions": dict(
            zip(("pore", "cbd", "active"), (n / sum(electrode) for n in electrode), strict=True)
        ),
        "film_fraction": int((result.fine == Fine.FILM).sum()) / int((result.fine != Fine.OUTSIDE).sum()),
        "confidence": min(float(result.confidence[inside].mean() / 255.0), most),
        "doubt": int((pore & cbd & inside).sum()) / int(inside.sum()),
    }


def test_numbers_are_those_of_counting_pixel_by_pixel(core: SegmentationCore) -> None:
    for seed in (1, 3):
        sample = drawn(seed, (120, 150), film=True)
        result = core.segment(sample.channels, sample.pixel_m, y_top_m=1e-6)
        found = result.numbers.model_dump()
        assert {name: found[name] for name in plainly(result)} == plainly(result)


@given(st.integers(0, 2**32 - 1), st.floats(1.0, 3.0))
def test_pores_are_those_of_counting_one_by_one(seed: int, smooth: float) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((40, 50)), smooth)
    fine = np.digitize(noise, np.quantile(noise, (0.25, 0.5))).astype(np.uint8)  # outside, platinum, open
    found = pores_in(fine, 1.0, 6.0)
    pore, platinum = fine != Fine.OUTSIDE, fine == Fine.PT_PORE
    padded = np.pad(pore, 1, constant_values=True)
    rim = pore & ~(padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])
    for code in range(1, len(found.area_px)):
        own = found.components == code
        assert found.area_px[code] == own.sum()
        assert found.fillable[code] == (own.sum() >= 9 and not found.wide[code])
        mostly_open = 2 * (own & platinum).sum() <= own.sum() and 2 * (own & rim & platinum).sum() <= (own & rim).sum()
        assert found.unfilled[code] == (found.fillable[code] and mostly_open)


def test_a_detector_that_shows_nothing_is_left_out_and_named(core: SegmentationCore) -> None:
    sample = drawn(1, (120, 150))
    cbs = sample.channels["CBS"]
    alone = core.segment({"CBS": cbs}, sample.pixel_m)
    faint = np.random.default_rng(0).normal(0.1, 0.002, cbs.shape).astype(np.float32)
    white = np.ones_like(cbs)
    white[:5] = 0.2
    for dark in (np.zeros_like(cbs), np.ones_like(cbs), faint, white):
        found = core.segment({"CBS": cbs, "TLD": dark}, sample.pixel_m, before={"CBS": cbs, "TLD": dark})
        assert found.numbers.blank == ("TLD", "before TLD")
        assert np.array_equal(core.segment({"CBS": cbs, "TLD": dark}, sample.pixel_m).labels, alone.labels)
        with pytest.raises(ValueError, match="CBS and TLD shows nothing"):
            core.segment({"CBS": dark, "TLD": dark}, sample.pixel_m)
        beside = core.segment({"CBS": cbs}, sample.pixel_m, after={"CBS": dark}).numbers
        assert (beside.blank, beside.beside) == (("after CBS",), ())
    assert core.segment(sample.channels, sample.pixel_m).numbers.blank == ()
    few_bits = {
        name: (image * np.float32(0.015)) for name, image in sample.channels.items()
    }  # 10 bits in a 16-bit file
    assert core.segment(few_bits, sample.pixel_m).numbers.blank == ()


def test_a_detector_that_shows_another_place_is_left_out_and_named(core: SegmentationCore) -> None:
    sample, other = drawn(4), drawn(5)
    cbs, tld = sample.channels["CBS"], sample.channels["TLD"]
    alone = core.segment({"CBS": cbs}, sample.pixel_m)
    for wrong in (np.ascontiguousarray(tld[:, ::-1]), np.roll(tld, 40, 1), other.channels["TLD"]):
        beside = {"CBS": cbs, "TLD": wrong}
        found = core.segment({"TLD": wrong, "CBS": cbs}, sample.pixel_m, before=beside)
        assert found.numbers.elsewhere == ("TLD", "before TLD")
        assert found.numbers.blank == ()
        assert np.array_equal(core.segment(beside, sample.pixel_m).labels, alone.labels)
    both = core.segment(sample.channels, sample.pixel_m, before=other.channels).numbers
    assert (both.elsewhere, both.beside) == ((), ("before",))
    shifted = core.segment({"CBS": cbs, "TLD": np.roll(tld, 2, 0)}, sample.pixel_m)
    assert shifted.numbers.elsewhere == ()
    assert not np.array_equal(shifted.confidence, alone.confidence)


def test_a_detector_that_lies_off_is_laid_over_the_first_and_named(core: SegmentationCore) -> None:
    sample = drawn(4)
    cbs, tld = sample.channels["CBS"], sample.channels["TLD"]
    off = {"CBS": cbs, "TLD": np.roll(tld, (4, -3), (0, 1))}
    right, found = (
        core.segment(own, sample.pixel_m, before=beside)
        for own, beside in ((sample.channels, sample.channels), (off, off))
    )
    assert right.numbers.moved == {}
    assert found.numbers.moved == {"TLD": (4, -3), "before TLD": (4, -3)}
    inside = (slice(32, -32), slice(32, -32))
    assert np.mean(found.labels[inside] == right.labels[inside]) > 0.999
    assert SliceNumbers.model_validate_json(found.numbers.model_dump_json()) == found.numbers


def test_intervals_by_hand() -> None:
    pore, cbd, active = (1 << phase for phase in (Phase.PORE, Phase.CBD, Phase.ACTIVE))
    labels = np.array([[1, 1, 2, 3, 4]], np.uint8)
    collector = 1 << Phase.COLLECTOR
    possible = np.array([[pore, pore | cbd, cbd | pore, active | collector, collector]], np.uint8)
    assert intervals(joint(labels, possible)) == {"pore": (0.25, 0.75), "cbd": (0.0, 0.5), "active": (0.0, 0.25)}
    nothing = np.zeros((2, 2), np.uint8)
    assert intervals(joint(nothing, nothing))["pore"] == (0.0, 0.0)


def test_a_doubtful_image_is_not_sure_and_is_told_of(core: SegmentationCore, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = drawn(1, (120, 150))
    found = core.label(sample.channels, sample.pixel_m)

    def numbers(novelty: float) -> SliceNumbers:
        odds = np.log(novelty / (1 - novelty))
        known = Known(np.zeros_like(found.gist), np.zeros_like(found.gist), float(odds))
        monkeypatch.setattr(core, "_known", known)
        return core.numbers_of(found)

    usual, doubtful, strange = (numbers(one) for one in (0.9 * DOUBTFUL, 1.1 * DOUBTFUL, 1.6 * UNFAMILIAR))
    assert 0.04 < usual.confidence < 1 - 1.1 * DOUBTFUL
    assert doubtful.confidence == usual.confidence
    assert strange.confidence == pytest.approx(1 - 1.6 * UNFAMILIAR)
    assert warnings(usual) == []
    assert "look before you trust" in warnings(doubtful)[0]
    assert "don't trust" in warnings(strange)[0]
    elsewhere = usual.model_copy(update={"elsewhere": ("TLD", "before TLD")})
    assert [one for one in warnings(elsewhere) if "another place" in one and "TLD" in one] == warnings(elsewhere)


def test_probabilities_are_those_that_the_labels_come_from(core: SegmentationCore) -> None:
    sample = drawn(1, (120, 150))
    fine = core.probabilities(sample.channels, sample.pixel_m)
    assert fine.shape == (len(Fine), 120, 150)
    merged_shares = np.stack([fine[[c for c in Fine if MERGE[c] is phase]].sum(axis=0) for phase in Phase])
    assert (merged_shares.argmax(axis=0) == core.segment(sample.channels, sample.pixel_m).labels).mean() > 0.999


def test_a_card_of_another_version_is_told_apart_from_no_model(small_model: Path, tmp_path: Path) -> None:
    for file in small_model.iterdir():
        shutil.copy(file, tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    del card["temperature"]
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"no card of this version \(temperature\)"):
        SegmentationCore(tmp_path)


def test_the_same_slice_gets_the_same_labels(core: SegmentationCore) -> None:
    sample = drawn(3)
    first, second = (core.segment(sample.channels, sample.pixel_m) for _ in range(2))
    for name in ("labels", "fine", "confidence", "possible", "gist"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name


def test_asked_both_ways_labels_of_a_mirrored_slice_are_mirrored_and_else_they_stay(core: SegmentationCore) -> None:
    sample = drawn(3, (120, 150))
    turned = {name: np.ascontiguousarray(image[:, ::-1]) for name, image in sample.channels.items()}
    once = core.segment(sample.channels, sample.pixel_m)
    there, back = (core.segment(shown, sample.pixel_m, mirrored=True) for shown in (sample.channels, turned))
    assert (there.labels == back.labels[:, ::-1]).mean() > 0.99
    assert there.numbers.phase_fractions == pytest.approx(back.numbers.phase_fractions, abs=0.01)
    assert not np.array_equal(there.confidence, once.confidence)
    assert np.array_equal(there.gist, once.gist)
    again = core.label(sample.channels, sample.pixel_m, mirrored=False)
    assert np.array_equal(again.labels, once.labels)


def test_above_the_electrode_all_is_outside(core: SegmentationCore) -> None:
    sample = drawn(1)
    result = core.segment(sample.channels, 50e-9, y_top_m=2e-6)
    assert (result.labels[:40] == 0).all()
    assert (result.labels[40:] != 0).any()


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no model"):
        SegmentationCore(tmp_path)


def test_weights_that_are_not_the_cards_are_refused(small_model: Path, tmp_path: Path) -> None:
    for file in small_model.iterdir():
        shutil.copy(file, tmp_path)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match="SHA-256 differs"):
        SegmentationCore(tmp_path)
