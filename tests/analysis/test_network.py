"""The network: sizes, detectors, pixel sizes, tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis import network
from analysis.network import CLASSES, PIXEL_MAX_M, PIXEL_MIN_M, Channels, Network, detector_of, predict, resampling
from tests.analysis.drawn import drawn


@pytest.fixture(scope="module")
def fused() -> Network:
    torch.manual_seed(3)
    net = Network(base=4)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.fuse()


def whole(net: Network, channels: Channels, pixel_m: float, **how: Any) -> NDArray[np.float32]:
    """The probabilities of an image, put together from their parts."""
    found = np.full((CLASSES, *next(iter(channels.values())).shape), np.nan, np.float32)
    for part in predict(net, channels, pixel_m, **how):
        height, width = part.probabilities.shape[1:]
        found[:, part.top : part.top + height, part.left : part.left + width] = part.probabilities
    assert np.isfinite(found).all()
    return found


@pytest.mark.parametrize(
    ("size", "pixel_m"), [((37, 61), 60e-9), ((64, 64), 186e-9), ((101, 90), 12e-9), ((1, 1), 5e-8)]
)
def test_any_image_gets_probabilities_on_its_own_pixels(fused: Network, size: tuple[int, int], pixel_m: float) -> None:
    image = np.random.default_rng(0).random(size, np.float32)
    found = whole(fused, {"CBS": image}, pixel_m)
    assert found.shape == (CLASSES, *size)
    np.testing.assert_allclose(found.sum(axis=0), 1.0, atol=1e-4)


def _seen() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two images of the network's nine each; of the first all are there, of the second only the first."""
    present = torch.ones(2, 9)
    present[1, 1:] = 0
    return torch.rand(2, 9, 64, 64), present, torch.tensor([30e-9, 100e-9])


def test_planes_that_are_constant_or_missing_need_not_be_laid_out(fused: Network) -> None:
    greys, present, pixel_m = _seen()
    there = present[:, :, None, None]
    size = torch.log2(pixel_m / 60e-9)[:, None, None, None]
    planes = torch.cat([greys * there, there.expand_as(greys), size.expand(-1, -1, 64, 64)], dim=1)
    with torch.no_grad():
        laid_out = fused.down[0](fused.stem(planes))
        torch.testing.assert_close(fused.read(greys, present, pixel_m)[0], laid_out, atol=1e-5, rtol=1e-4)
        alone = fused.read(greys[1:, :1], present[1:, :1], pixel_m[1:], (0,))[0]
    torch.testing.assert_close(alone, laid_out[1:], atol=1e-5, rtol=1e-4)


def test_folding_the_normalisation_changes_nothing() -> None:
    torch.manual_seed(5)
    net = Network(base=4)
    seen = _seen()
    net.train()
    with torch.no_grad():
        net(*seen)
        net.eval()
        before = net(*seen)
        after = net.fuse()(*seen)
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


def test_a_detector_that_is_missing_is_not_the_same_as_a_black_one(fused: Network) -> None:
    image = drawn(2).channels["CBS"]
    alone = whole(fused, {"CBS": image}, 60e-9)
    black = whole(fused, {"CBS": image, "TLD": np.zeros_like(image)}, 60e-9)
    assert np.abs(alone - black).max() > 1e-6


def test_the_slices_beside_one_have_a_part_and_may_be_missing(fused: Network) -> None:
    image, other = drawn(2).channels["CBS"], drawn(3).channels["CBS"]
    alone = whole(fused, {"CBS": image}, 60e-9)
    live = whole(fused, {"CBS": image}, 60e-9, before={"CBS": other})
    both = whole(fused, {"CBS": image}, 60e-9, before={"CBS": other}, after={"CBS": other})
    assert all(np.abs(a - b).max() > 1e-6 for a, b in ((alone, live), (live, both)))
    with pytest.raises(ValueError, match="the slice after has 10 x 12 pixels"):
        list(predict(fused, {"CBS": image}, 60e-9, after={"CBS": np.zeros((10, 12), np.float32)}))


def test_a_temperature_makes_less_sure_and_changes_no_label(fused: Network) -> None:
    channels = drawn(2).channels
    cold, hot = (whole(fused, channels, 60e-9, temperature=t) for t in (1.0, 3.0))
    assert hot.max(axis=0).mean() < cold.max(axis=0).mean()
    assert (hot.argmax(axis=0) == cold.argmax(axis=0)).all()


@pytest.mark.parametrize(
    ("size", "pixel_m"), [((64, 96), 60e-9), ((101, 87), 60e-9), ((50, 70), 186e-9), ((120, 148), 12e-9)]
)
def test_asked_both_ways_a_mirrored_image_gives_the_mirror_image(
    fused: Network, size: tuple[int, int], pixel_m: float
) -> None:
    image = drawn(2, size).channels["CBS"]
    turned = np.ascontiguousarray(image[:, ::-1])
    once, there, back = (
        whole(fused, {"CBS": shown}, pixel_m, mirrored=both)
        for shown, both in ((image, False), (image, True), (turned, True))
    )
    assert np.mean(there.argmax(axis=0) == back[:, :, ::-1].argmax(axis=0)) > 0.99
    np.testing.assert_allclose(there, back[:, :, ::-1], atol=0.02)
    assert np.abs(there - once).max() > 1e-4


@given(st.floats(0.5e-9, 2e-6))
def test_every_pixel_size_is_brought_into_the_range(pixel_m: float) -> None:
    up, down = resampling(pixel_m)
    assert PIXEL_MIN_M * (1 - 1e-5) <= pixel_m * down / up <= PIXEL_MAX_M * (1 + 1e-5)
    assert up == 1 or down == 1


@pytest.mark.parametrize("pixel_m", [0.0, -1e-9, float("nan"), float("inf")])
def test_an_impossible_pixel_size_is_refused(pixel_m: float) -> None:
    with pytest.raises(ValueError, match="length above zero"):
        resampling(pixel_m)


@pytest.mark.parametrize(
    ("pixel_m", "said"), [(186e-6, "186 um"), (1e-3, "1 mm"), (186.0, "186000 mm"), (0.1e-9, "0.1 nm")]
)
def test_a_mistaken_unit_is_refused_and_said(fused: Network, pixel_m: float, said: str) -> None:
    image = drawn(2).channels["CBS"]
    with pytest.raises(ValueError, match=f"pixels of {said} are no FIB-SEM's.*was nm meant"):
        next(predict(fused, {"CBS": image}, pixel_m))


@pytest.mark.parametrize("pixel_m", [0.5e-9, 2e-6])
def test_the_finest_and_coarsest_pixels_are_labelled(
    fused: Network, pixel_m: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_TILE_PX", 2000)
    assert whole(fused, {"CBS": drawn(2, (60, 75)).channels["CBS"]}, pixel_m).shape[1:] == (60, 75)


def test_channel_names_of_real_files_are_understood() -> None:
    names = ("CBS", "cbs", "CBS-AB", "BSE", "TLD", "TLD_SE", "ETD", "ICE", "channel 0")
    assert [detector_of(name) for name in names] == [
        "CBS", "CBS", "CBS", "CBS", "TLD", "TLD", "ETD", None, None,
    ]  # fmt: skip


def test_no_known_detector_and_unlike_sizes_are_said(fused: Network) -> None:
    image = np.zeros((32, 32), np.float32)
    with pytest.raises(ValueError, match="no channel of ICE"):
        list(predict(fused, {"ICE": image}, 5e-8))
    with pytest.raises(ValueError, match="CBS 32 x 32, TLD 32 x 31"):
        list(predict(fused, {"CBS": image, "TLD": image[:, 1:]}, 5e-8))


@pytest.mark.parametrize("pixel_m", [60e-9, 12e-9])
def test_tiles_join_to_what_the_whole_image_gives(
    fused: Network, pixel_m: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = drawn(4, (300, 420)).channels
    at_once = whole(fused, channels, pixel_m)
    monkeypatch.setattr(network, "_TILE_PX", 2000)
    monkeypatch.setattr(network, "_TILE_EDGE", 64)
    tiled = whole(fused, channels, pixel_m)
    assert np.mean(tiled.argmax(axis=0) == at_once.argmax(axis=0)) > 0.97


def test_an_image_of_fine_pixels_is_tiled_by_its_own_size(fused: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    channels = drawn(4, (300, 420)).channels
    at_once = whole(fused, channels, 12e-9)
    monkeypatch.setattr(network, "_FINE_PX", 100_000)
    monkeypatch.setattr(network, "_FINE_EDGE", 200)
    parts = list(predict(fused, channels, 12e-9))
    assert max(part.probabilities[0].size for part in parts) <= 192**2
    assert len({(part.top, part.left) for part in parts}) == len(parts) == 6
    assert np.mean(whole(fused, channels, 12e-9).argmax(axis=0) == at_once.argmax(axis=0)) > 0.97


def test_a_twelve_bit_image_in_a_sixteen_bit_file_is_stretched_and_an_ordinary_one_is_not() -> None:
    image = np.linspace(0, 1, 10_000, dtype=np.float32).reshape(100, 100)
    assert network.normalised(image) is image
    assert network.normalised(image / 16).max() == pytest.approx(0.9, abs=0.01)
    assert network.normalised(np.zeros((9, 9), np.float32)).max() == 0.0
