"""Would a microscopist tell which is real? Virtual faces beside published micrographs at the same pixel size.

`python -m simulator.likeness --real FOLDER --out FIGURE.png`, with a folder that holds `cbs.png` and `tld.png` of the
method's first paper (Cooper et al. 2022, fig. 4a and 4c, CC BY 4.0; 186 nm a pixel, in print resolution). Needs Pillow.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulator.dataset import curtains
from simulator.deposition import infiltrate
from simulator.electrode import Electrode
from simulator.face import sample_face
from simulator.imaging import render
from simulator.randomness import rng
from simulator.volume import build

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

Picture = NDArray[np.floating[Any]]

DETECTORS = ("CBS", "TLD")
#: Pixel of the published panels, metres; how many of ours go into one, as print does; where their foil begins, metres.
PIXEL_M, FINER, COATING_M = 186e-9, 3, 39.5e-6
#: The face lies so far behind the front, so much film has been laid on it, metres.
_PLANE_M, _FILM_M = 0.5e-6, 2e-6
#: What was printed had been taken at 20 nm and 3 us a pixel (protocol.md): our coarser pixels get as many electrons.
_NATIVE_M, _DWELL_S, _CURTAINS_M = 20e-9, 3e-6, 12e-9
#: The print's own softness, in its pixels: read off the real spectra, where they fall faster than the probe's.
_PRINT_PX = 0.35
#: The figure: height of its plots and width of its gaps in pixels, colours of real and virtual curves.
_PLOT_PX, _GAP_PX, _COLOURS = 260, 10, ((30, 30, 30), (200, 60, 30))


@dataclass(frozen=True)
class Likeness:
    """Figures of one picture: greys (256), power by wavelength (m), noise in active material and foil, greys."""

    histogram: NDArray[np.float64]
    wavelengths_m: NDArray[np.float64]
    power: NDArray[np.float64]
    noise: tuple[float, float]


#: Figures of the real and the virtual picture, by detector.
Pairs = dict[str, tuple[Likeness, Likeness]]


def virtual(shape: tuple[int, int], seed: int = 3) -> dict[str, Picture]:
    """Return a filled virtual face by detector, 8 bit, in `shape` of the published pixels, (y, x)."""
    step = PIXEL_M / FINER
    width, height = shape[1] * PIXEL_M, shape[0] * PIXEL_M
    volume = build(
        Electrode(seed=seed, width_m=width + 1e-6, height_m=height + 1e-6, depth_m=8.5e-6, above_m=0.5e-6,
                  coating_m=COATING_M, large_m=11e-6, small_m=3.6e-6, voxel_m=step, layer_m=80e-9)
    )  # fmt: skip
    x = volume.origin[0] + np.arange(shape[1] * FINER) * step
    y = np.arange(shape[0] * FINER) * step
    coarse = [axis[:: 2 * FINER] for axis in (x, y)]
    flat = np.zeros((coarse[1].size, coarse[0].size))
    infiltrate(volume, coarse[0], coarse[1], flat + _PLANE_M - 0.1e-6, flat + _FILM_M).write(volume)
    relief = curtains(x, y, rng(seed, "likeness"), _CURTAINS_M)
    scene = sample_face(volume, np.full((y.size, x.size), _PLANE_M), 0.0, x, y, relief_m=relief)
    found = {}
    for name in DETECTORS:
        fine = render(scene, name, dwell_s=_DWELL_S * (step / _NATIVE_M) ** 2, seed=seed).astype(float)
        printed = fine.reshape(shape[0], FINER, shape[1], FINER).mean(axis=(1, 3))
        found[name] = np.clip(np.rint(ndimage.gaussian_filter(printed, _PRINT_PX)), 0, 255)
    return found


def measured(picture: Picture) -> Likeness:
    """Return what is compared of a picture."""
    counts = np.bincount(np.clip(picture, 0, 255).astype(int).ravel(), minlength=256)
    histogram = ndimage.gaussian_filter1d(counts / counts.sum(), 1.5)
    window = np.outer(np.hanning(picture.shape[0]), np.hanning(picture.shape[1]))
    power = np.abs(np.fft.fft2((picture - picture.mean()) * window)) ** 2
    fy, fx = (np.fft.fftfreq(size, PIXEL_M) for size in picture.shape)
    radius = np.hypot(fy[:, None], fx[None, :])
    edges = np.geomspace(1 / (20e-6), 1 / (2 * PIXEL_M), 25)
    rings = [power[(radius >= a) & (radius < b)].mean() for a, b in pairwise(edges)]
    return Likeness(histogram, 1 / np.sqrt(edges[1:] * edges[:-1]), np.array(rings), (_noise(picture), _foil(picture)))


def _noise(picture: Picture) -> float:
    """Return the deviation of high-passed greys where nothing but active material is near."""
    soft = ndimage.gaussian_filter(picture, 2.0)
    level = float(np.median(soft[(soft > 85) & (soft < 150)]))
    flat = ndimage.binary_erosion(np.abs(soft - level) < 12, iterations=6)
    return float((picture - soft)[flat].std()) if flat.sum() > 100 else float("nan")


def _foil(picture: Picture) -> float:
    """Return the same in the foil, at the picture's lower edge."""
    part = picture[round(COATING_M / PIXEL_M) + 22 :]
    return float((part - ndimage.gaussian_filter(part, 2.0)).std())


def figure(real: dict[str, Picture], ours: dict[str, Picture], found: Pairs) -> Image:
    """Return pictures side by side, real left, twice as large, with histograms and spectra below."""
    from PIL import Image, ImageDraw

    height, width = (2 * size for size in real["CBS"].shape)
    top = 2 * (height + _GAP_PX)
    page = Image.new("RGB", (2 * width + _GAP_PX, top + _PLOT_PX + _GAP_PX), "white")
    for row, name in enumerate(DETECTORS):
        for column, picture in enumerate((real[name], ours[name])):
            panel = Image.fromarray(picture.astype(np.uint8)).resize((width, height))
            page.paste(panel, (column * (width + _GAP_PX), row * (height + _GAP_PX)))
    draw = ImageDraw.Draw(page)
    wide = (page.width - 3 * _GAP_PX) // 4
    greys = np.arange(256)
    for place, name in enumerate(DETECTORS):
        shown = [(greys, np.log10(np.maximum(one.histogram, 1e-5))) for one in found[name]]
        _plot(draw, (place * (wide + _GAP_PX), top, wide), f"{name}: grey, log share", shown)
        shown = [(-np.log10(one.wavelengths_m), np.log10(one.power)) for one in found[name]]
        title = f"{name}: power from 20 um to {2e9 * PIXEL_M:.0f} nm, log"
        _plot(draw, ((place + 2) * (wide + _GAP_PX), top, wide), title, shown)
    return page


def _plot(draw: ImageDraw, at: tuple[int, int, int], title: str, curves: list[tuple[Any, Any]]) -> None:
    """Draw curves, the real one black, ours red, in a box at left, top, of a width."""
    left, top, wide = at
    draw.rectangle((left, top, left + wide, top + _PLOT_PX - 1), outline=(160, 160, 160))
    draw.text((left + 6, top + 4), f"{title}; real black, virtual red", fill=(0, 0, 0))
    x_low, x_high = min(float(x.min()) for x, _ in curves), max(float(x.max()) for x, _ in curves)
    y_low, y_high = min(float(y.min()) for _, y in curves), max(float(y.max()) for _, y in curves)
    for colour, (x, y) in zip(_COLOURS, curves, strict=True):
        across = left + (np.asarray(x) - x_low) / (x_high - x_low) * wide
        down = top + _PLOT_PX - 6 - (np.asarray(y) - y_low) / (y_high - y_low) * (_PLOT_PX - 30)
        draw.line([(float(a), float(b)) for a, b in zip(across, down, strict=True)], fill=colour, width=2)


def lines(real: dict[str, Picture], ours: dict[str, Picture], found: Pairs) -> list[str]:
    """Return the figures as a table: real and virtual."""
    told = [f"{'':42}{'real':>8}{'virtual':>9}"]
    for name in DETECTORS:
        pair = found[name]
        rows = [
            ("mean grey", [float(one[name].mean()) for one in (real, ours)]),
            ("below grey 20, %", [100 * float((one[name] < 20).mean()) for one in (real, ours)]),
            ("above grey 200, %", [100 * float((one[name] > 200).mean()) for one in (real, ours)]),
            ("noise in active material", [one.noise[0] for one in pair]),
            ("noise in the foil", [one.noise[1] for one in pair]),
            ("histograms overlap, %", [100.0, 100 * float(np.minimum(*(one.histogram for one in pair)).sum())]),
            ("fine over coarse power, 1e-4", [1e4 * _fine(one) for one in pair]),
        ]
        told += [f"{name} {what:38}{a:>8.1f}{b:>9.1f}" for what, (a, b) in rows]
    return told


def _fine(one: Likeness) -> float:
    """Return the power at wavelengths of 0.4 to 1 um over that at 3 to 10 um."""
    fine = one.power[(one.wavelengths_m > 0.4e-6) & (one.wavelengths_m < 1e-6)].mean()
    return float(fine / one.power[(one.wavelengths_m > 3e-6) & (one.wavelengths_m < 10e-6)].mean())


def main(arguments: list[str] | None = None) -> int:
    """Draw the figure and print its numbers; return 2 where the micrographs or Pillow are missing."""
    parser = argparse.ArgumentParser(prog="python -m simulator.likeness", description=__doc__)
    parser.add_argument("--real", type=Path, required=True, metavar="FOLDER", help="holds cbs.png and tld.png")
    parser.add_argument("--out", type=Path, required=True, metavar="FIGURE.png", help="the figure to write")
    parser.add_argument("--seed", type=int, default=3, help="of the virtual electrode")
    asked = parser.parse_args(arguments)
    try:
        from PIL import Image
    except ImportError:
        sys.stderr.write("pillow is needed for pictures: pip install pillow\n")
        return 2
    real = {}
    for name in DETECTORS:
        path = asked.real / f"{name.lower()}.png"
        if not path.is_file():
            sys.stderr.write(
                f"{path} is missing: --real must hold cbs.png and tld.png, {PIXEL_M * 1e9:.0f} nm a pixel\n"
            )
            return 2
        with Image.open(path) as opened:
            real[name] = np.asarray(opened.convert("L"), float)
    shape = real["CBS"].shape
    ours = virtual((shape[0], shape[1]), asked.seed)
    found = {name: (measured(real[name]), measured(ours[name])) for name in DETECTORS}
    figure(real, ours, found).save(asked.out)
    sys.stdout.write("\n".join((*lines(real, ours, found), f"drawn: {asked.out}")) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
