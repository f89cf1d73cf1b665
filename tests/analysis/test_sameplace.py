"""Detectors of one place are told from those of two, and laid over each other; what shows too little is believed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from analysis.sameplace import agreeing, laid_over
from tests.analysis.drawn import drawn

REAL = Path(os.environ.get("KINTSUGI_REAL", Path(__file__).parents[3] / "shared/data/kintsugi-real"))
Grey = NDArray[np.float32]


def apart(cbs: Grey, tld: Grey) -> bool:
    kept, elsewhere = agreeing({"CBS": cbs, "TLD": tld})
    assert [*kept, *elsewhere] == ["CBS", "TLD"]
    return bool(elsewhere)


def soft(seed: int, shape: tuple[int, int], width: float) -> Grey:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), width)
    return (noise / noise.std()).astype(np.float32)


@pytest.fixture(scope="module")
def real() -> tuple[Grey, Grey]:
    if not (REAL / "tld.png").is_file():
        pytest.skip(f"the real micrographs are not at {REAL}; set KINTSUGI_REAL to their folder")
    cbs, tld = (np.asarray(Image.open(REAL / f"{name}.png"), np.float32) / 255 for name in ("cbs", "tld"))
    return cbs, tld


def test_a_real_face_and_another_place_of_it(real: tuple[Grey, Grey]) -> None:
    cbs, tld = real
    for same in (tld, 1 - tld, tld**2, np.roll(tld, 2, 1), np.roll(tld, -2, 0)):
        assert not apart(cbs, same)
    for other in (tld[:, ::-1], tld[::-1], np.roll(tld, 8, 1), np.roll(tld, 20, 0), np.roll(tld, 40, 1)):
        assert apart(cbs, other)


def test_noise_and_curtains_do_not_hide_that_it_is_one_place(real: tuple[Grey, Grey]) -> None:
    cbs, tld = real
    for strength in (0.1, 0.2, 0.4):
        assert not apart(cbs + 0.6 * strength * soft(1, cbs.shape, 0.7), tld + strength * soft(2, cbs.shape, 0.7))
        curtain = 1 + strength * soft(3, (1, cbs.shape[1]), 2.0)
        assert not apart((cbs * curtain).clip(0, 1), (tld * curtain).clip(0, 1))


@pytest.mark.parametrize("seed", range(1, 9, 2))
def test_drawn_electrodes_of_any_size(seed: int) -> None:
    for size in ((256, 256), (300, 700), (1400, 900)):
        shown, other = drawn(seed, size).channels, drawn(seed + 100, size).channels
        assert not apart(shown["CBS"], shown["TLD"])
        assert apart(shown["CBS"], other["TLD"])


def test_what_shows_too_little_is_believed() -> None:
    for width in (0.0, 1.0, 2.5):
        assert not apart(soft(1, (320, 300), width), soft(2, (320, 300), width))
    plain = np.full((200, 200), 0.5, np.float32)
    structure = drawn(3, (200, 200)).channels["CBS"]
    for dull in (plain, plain + 0.02 * soft(5, plain.shape, 0.0)):
        assert not apart(structure, dull)
        assert not apart(dull, structure)
    assert not apart(structure[:20, :15], structure[180:, :15])


def test_every_detector_is_asked_about_the_first() -> None:
    shown, other = drawn(3).channels, drawn(8).channels
    kept, elsewhere = agreeing({"CBS": shown["CBS"], "TLD": other["TLD"], "ETD": shown["TLD"]})
    assert (list(kept), elsewhere) == (["CBS", "ETD"], ("TLD",))
    assert agreeing({"TLD": other["TLD"]}) == ({"TLD": other["TLD"]}, ())


@pytest.mark.parametrize("off", [(0, 0), (0, 1), (2, 0), (-3, 1), (4, 4), (0, -6), (8, -8)])
def test_a_real_detector_that_lies_off_is_laid_over_the_other(real: tuple[Grey, Grey], off: tuple[int, int]) -> None:
    cbs, tld = real
    laid, moved = laid_over({"CBS": cbs, "TLD": np.roll(tld, off, (0, 1))})
    if max(map(abs, off)) < 2:
        assert moved == {}
        return
    assert moved == {"TLD": off}
    inside = (slice(8, -8), slice(8, -8))
    assert np.array_equal(laid["TLD"][inside], tld[inside])
    assert laid["CBS"] is cbs
    assert agreeing(laid)[1] == ()


@pytest.mark.parametrize("seed", range(4))
def test_a_drawn_detector_that_lies_off_is_laid_over_the_other(seed: int) -> None:
    shown = drawn(seed, (300, 420)).channels
    rng = np.random.default_rng(seed)
    noisy = {name: image + rng.normal(0, 0.05, image.shape).astype(np.float32) for name, image in shown.items()}
    assert laid_over(noisy)[1] == {}
    assert laid_over(noisy | {"TLD": np.roll(noisy["TLD"], (5, -3), (0, 1))})[1] == {"TLD": (5, -3)}


def test_what_lies_elsewhere_or_shows_too_little_is_not_moved(real: tuple[Grey, Grey]) -> None:
    cbs, tld = real
    for other in (tld[:, ::-1], tld[::-1], np.roll(tld, 20, 0), np.full_like(tld, 0.4)):
        assert laid_over({"CBS": cbs, "TLD": other})[1] == {}
        assert laid_over({"CBS": other, "TLD": cbs})[1] == {}
    for width in (0.0, 1.0, 2.5):
        for seed in range(5):
            pair = {"CBS": soft(seed, (320, 300), width), "TLD": soft(seed + 50, (320, 300), width)}
            assert laid_over(pair)[1] == {}
    assert laid_over({"CBS": cbs[:100], "TLD": np.roll(tld, 4, 1)[:100]})[1] == {}
    assert laid_over({"TLD": tld}) == ({"TLD": tld}, {})
