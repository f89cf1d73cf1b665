"""Frames are judged: blank, clipped, the last one again, nothing milled; the policy says what is done."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from instrument.frame import Frame
from tests.workflows.frames import frame as frame_of
from workflows.health import NOT_CUT, Sharpness, judge, way_come, ways_come
from workflows.policy import POLICY, action


def face(seed: int, noise: int = 0) -> NDArray[np.uint8]:
    soft = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((120, 160)), 4.0)
    grain = 2.0 * np.random.default_rng(100 + noise).standard_normal(soft.shape)
    return np.clip(128 + 40 * soft / soft.std() + grain, 1, 254).astype(np.uint8)


def frame(picture: NDArray[np.uint8]) -> Frame:
    return frame_of(picture[None])


def symptoms(
    newest: NDArray[np.uint8],
    before: NDArray[np.uint8] | None,
    off_m: float = 0.0,
    come: tuple[float, float] = (1.0, 1.0),
) -> list[str]:
    earlier = None if before is None else frame(before)
    return [one.symptom for one in judge(frame(newest), earlier, off_m=off_m, spacing_m=100e-9, come=come)]


def test_a_good_slice_has_no_findings() -> None:
    assert symptoms(face(1), face(2)) == []
    assert symptoms(face(1), None) == []


def test_what_holds_the_run() -> None:
    assert symptoms(np.full((120, 160), 90, np.uint8), None) == ["blank"]
    assert "identical" in symptoms(face(1), face(1))
    assert all(action(name) == "hold" for name in ("blank", "identical", "nothing-milled"))


def test_a_picture_that_lies_beside_the_last_one_is_told() -> None:
    last = face(1)

    def moved(down: int, right: int) -> list[str]:
        rolled = np.roll(last, (down, right), (0, 1))
        return symptoms(face(9, 3) // 8 + (7 * rolled.astype(int) // 8).astype(np.uint8), last)

    assert moved(0, 0) == moved(6, 3) == []
    assert moved(0, -25) == moved(17, 0) == moved(50, 0) == ["shifted"]
    assert symptoms(face(1), face(2)) == []  # another face shows no shift
    layers = np.repeat([[200], [120], [60]], 40, axis=0).astype(np.uint8)  # nor do layers, which are alike everywhere
    assert symptoms(face(1) // 4 + layers * 3 // 4, face(2) // 4 + layers * 3 // 4) == []
    assert action("shifted") == "note"


def test_a_detector_that_shows_nothing_is_named_whichever_it_is() -> None:
    def told(cbs: NDArray[np.uint8], tld: NDArray[np.uint8]) -> list[tuple[str, str]]:
        found = judge(frame_of(np.stack([cbs, tld])), None, off_m=0.0, spacing_m=100e-9)
        return [(one.symptom, one.what) for one in found]

    dark, white = np.zeros((120, 160), np.uint8), face(2)
    white[:90] = 255
    assert told(face(1), face(2)) == []
    assert told(face(1), dark) == [("blank", "the picture of TLD is blank")]
    assert told(dark, dark) == [("blank", "the picture of CBS and TLD is blank")]
    assert told(face(1), white) == [("saturated", "75 % of TLD is clipped")]


def test_a_cut_that_took_nothing_is_told_and_the_second_holds() -> None:
    assert symptoms(face(1), face(2), off_m=-100e-9, come=(0.05, 0.5)) == ["missed", "plane-off"]
    assert symptoms(face(1), face(2), off_m=-170e-9, come=(0.05, 0.5)) == ["missed", "plane-off"]  # behind already
    assert symptoms(face(1), face(2), off_m=-200e-9, come=(0.05, 0.02)) == ["nothing-milled", "plane-off"]
    assert symptoms(face(1), face(2), off_m=-200e-9, come=(0.5, 0.5)) == ["plane-off"]  # slow, but cut
    assert symptoms(face(1), face(2), off_m=-200e-9, come=(-2.0, -0.5)) == ["plane-off"]  # misread
    assert action("missed") == "note"


def test_a_coarse_ruler_tells_over_a_longer_way() -> None:
    seen = [(1.0e-6, 0.9e-6), (1.1e-6, 0.98e-6), (1.2e-6, 0.99e-6)]
    assert way_come(seen, 1.3e-6, 0.99e-6, 5e-9) == pytest.approx(0.0)
    assert way_come(seen, 1.3e-6, 0.99e-6, 60e-9) == pytest.approx(0.3)  # since the first
    assert way_come(seen, 1.3e-6, 0.99e-6, 80e-9) == way_come([], 1.3e-6, 0.99e-6, 5e-9) == 1.0


def test_a_slice_that_took_nothing_after_a_fill_is_one_and_a_second_one_is_two() -> None:
    """As in rehearsals: the first cuts after a fill take its film alone, and its clean has gone on a little."""
    seen = [(11.85e-6, 13.00e-6), (11.95e-6, 13.10e-6), (12.05e-6, 13.20e-6)]
    one, two = ways_come(seen, 12.216e-6, 13.15e-6, 20e-9)
    assert one < NOT_CUT < two
    one, two = ways_come([*seen, (12.216e-6, 13.21e-6)], 12.316e-6, 13.20e-6, 20e-9)
    assert max(one, two) < NOT_CUT
    assert ways_come([], 12.0e-6, 13.0e-6, 20e-9) == (1.0, 1.0)


def test_what_is_only_told() -> None:
    clipped = face(1)
    clipped[:60] = 255
    assert symptoms(clipped, None) == ["saturated"]
    assert symptoms(face(1), face(2), off_m=70e-9) == ["plane-off"]
    assert action("saturated") == "note"


@pytest.mark.parametrize("symptom", ["never-heard-of", ""])
def test_the_unknown_holds(symptom: str) -> None:
    assert symptom not in POLICY
    assert action(symptom) == "hold"


def test_a_blurred_picture_is_seen_and_what_stays_so_is_the_sample() -> None:
    sharpness = Sharpness()

    def blurred(detail: float) -> bool:
        told = sharpness.blurred(detail)
        sharpness.take(detail)
        return told

    assert not any(blurred(one) for one in (0.9, 0.95, 0.85, 0.9))
    assert [blurred(0.6) for _ in range(4)] == [True, True, True, False]
    assert not blurred(0.58)
    assert not any(blurred(one) for one in (0.6, 0.62, 0.9))  # sharper is never blurred
