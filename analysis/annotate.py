"""Prepares an image for strokes: a template to paint on, the image itself, and where strokes would help most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from analysis.core import SegmentationCore
from analysis.files import write_whole
from analysis.overlay import WARNING, blended, png
from analysis.phases import COLOURS, IGNORE, NAMES, Phase, merged_shares
from analysis.scribbles import Spot, helpful, read_scribbles, template
from analysis.trust import warnings

STROKES, IMAGE, WHERE = "strokes.png", "image.png", "where.png"
_LEAST_WIDTH = 900
_LINE_PX = 24


@dataclass(frozen=True)
class Prepared:
    """Where strokes would help most, and what speaks against the labels that say so (analysis.trust)."""

    spots: list[Spot]
    warnings: list[str]


def annotate(
    channels: Mapping[str, NDArray[np.float32]],
    pixel_m: float,
    out: Path,
    *,
    model: Path | None = None,
    count: int = 10,
) -> Prepared:
    """Write image.png, strokes.png and where.png into `out`, and return where strokes would help most.

    strokes.png has the image's pixels and is all unmarked; one that is there already is left as it is.

    Parameters
    ----------
    channels : greys 0..1 by detector name, float32 (y, x)
    pixel_m : the pixel's edge, metres
    model : folder of the model that is to be taught; None is the package's own
    """
    from analysis.network import by_detector, normalised

    known = by_detector(channels)
    grey = normalised(next(iter(known.values())))
    core = SegmentationCore(model)
    shares = merged_shares(core.probabilities(channels, pixel_m))
    against = warnings(core.segment(channels, pixel_m).numbers)
    spots = helpful(shares, pixel_m, count)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / IMAGE, png(Image.fromarray(np.rint(255 * grey.clip(0, 1)).astype(np.uint8))))
    if not (out / STROKES).exists():
        write_whole(out / STROKES, template(grey.shape))
    write_whole(out / WHERE, png(_map(grey, shares.argmax(axis=0).astype(np.uint8), spots, against)))
    return Prepared(spots, against)


def paint(channels: Mapping[str, NDArray[np.float32]], strokes: Path) -> None:
    """Open the image in napari and keep what is painted in `strokes` when the window is closed.

    ImportError where napari isn't installed (extra `annotate`).
    """
    import napari

    viewer = napari.Viewer(title="kintsugi annotate: 1 pore, 2 CBD, 3 active, 4 collector, 5 outside; close to save")
    for name, image in channels.items():
        viewer.add_image(image, name=name, contrast_limits=(0.0, 1.0))
    painted = read_scribbles(strokes)
    # napari's 0 is unmarked: outside is painted as 5
    codes = np.select([painted == IGNORE, painted == Phase.OUTSIDE], [0, len(Phase)], painted).astype(np.uint8)
    layer = viewer.add_labels(codes, name="strokes")
    napari.run()
    held = np.asarray(layer.data)
    back = np.select([held == 0, held == len(Phase)], [IGNORE, Phase.OUTSIDE], held).astype(np.uint8)
    write_whole(strokes, template(back.shape, back))


def _map(grey: NDArray[np.float32], labels: NDArray[np.uint8], spots: list[Spot], against: list[str]) -> Image.Image:
    """Return the image with its labels, a numbered ring at every spot, a legend, and what speaks against it in red."""
    height, width = grey.shape
    factor = max(1, round(_LEAST_WIDTH / width))
    tinted = Image.fromarray(blended(grey, labels))
    picture = tinted.resize((width * factor, height * factor), Image.Resampling.NEAREST)
    below = picture.height + 34
    page = Image.new("RGB", (picture.width, below + _LINE_PX * len(against)), (255, 255, 255))
    page.paste(picture)
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(18)
    for number, spot in enumerate(spots, 1):
        y, x, reach = (spot.y + 0.5) * factor, (spot.x + 0.5) * factor, 16
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=(255, 0, 0), width=3)
        draw.text(
            (x + reach + 2, y),
            str(number),
            fill=(255, 0, 0),
            font=font,
            anchor="lm",
            stroke_width=2,
            stroke_fill="white",
        )
    at = 8
    for phase in Phase:
        draw.rectangle((at, below - 26, at + 18, below - 8), fill=COLOURS[phase])
        text = f"{int(phase)} {NAMES[phase]}"
        draw.text((at + 24, below - 17), text, fill=(0, 0, 0), font=font, anchor="lm")
        at += 44 + round(draw.textlength(text, font=font))
    for line, text in enumerate(against):
        draw.text((8, below + _LINE_PX * line), text, fill=WARNING, font=font)
    return page
