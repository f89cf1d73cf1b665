"""Pictures for a report: loaded, made small, with scale bar and mark, as JPEG in a data URI."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from analysis.ometiff import read_slice, scaled
from analysis.overlay import blended, length_text, scale_bar_m
from analysis.phases import COLOURS, Phase
from analysis.register import ElementMap

Rgb = NDArray[np.uint8]
Grey = NDArray[np.float32]
Labels = NDArray[np.uint8]

_QUALITY = 82
_LEAST_WIDTH = 480
ELEMENT_COLOURS: dict[str, tuple[int, int, int]] = {
    "C": (255, 40, 40),
    "Ni": (40, 220, 40),
    "Pt": (60, 110, 255),
    "Al": (170, 170, 170),
    "F": (255, 60, 220),
}


@dataclass(frozen=True)
class Loaded:
    """A picture in memory: greys 0..1 (y, x) or colours uint8 (y, x, 3), pixel (m) where known, labels where there."""

    image: Grey | Rgb
    pixel_m: float | None
    labels: Labels | None


def load(
    image: Path | NDArray[Any],
    *,
    pixel_m: float | None = None,
    channel: str = "CBS",
    labels: Path | NDArray[np.uint8] | None = None,
    stretch: bool = False,
) -> Loaded:
    """Read a picture and its labels; see `report_data.Picture`.

    ValueError: something that is no picture, an OME-TIFF without that channel, labels of another shape.
    """
    if isinstance(image, Path):
        pixels, said = _read(image, channel)
        pixel_m = pixel_m or said
    else:
        pixels = image if image.ndim == 3 else scaled(image)
    found: Labels | None = None
    if labels is not None:
        found = _read_labels(labels) if isinstance(labels, Path) else labels
        if found.shape != pixels.shape[:2]:
            msg = f"labels {found.shape} and picture {pixels.shape[:2]} differ in shape"
            raise ValueError(msg)
    if pixels.ndim == 3:
        return Loaded(np.asarray(pixels, np.uint8), pixel_m, found)
    grey = np.asarray(pixels, np.float32)
    return Loaded(stretched(grey) if stretch else grey, pixel_m, found)


def _read(path: Path, channel: str) -> tuple[NDArray[Any], float | None]:
    if path.name.endswith((".ome.tif", ".ome.tiff")):
        found = read_slice(path)
        if channel not in found.channels:
            channel = next(iter(found.channels))
        return found.channels[channel], found.pixel_m
    pixels = _pixels(path)
    if pixels.ndim == 3:
        return pixels, None
    return scaled(pixels.astype(np.uint16) if pixels.dtype == np.int32 else pixels), None


def _pixels(path: Path) -> NDArray[Any]:
    import tifffile

    if path.suffix.lower() in (".tif", ".tiff"):
        return np.asarray(tifffile.imread(path))
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB") if picture.mode in ("RGB", "RGBA", "P") else picture)


def _read_labels(path: Path) -> Labels:
    found = _pixels(path)
    if found.ndim != 2 or found.dtype != np.uint8:
        msg = f"{path.name}: labels are an 8-bit picture (y, x), this is {found.dtype} {found.shape}"
        raise ValueError(msg)
    return found


def stretched(grey: Grey) -> Grey:
    """Return greys stretched so that all but half a per cent at each end fill 0..1."""
    low, high = (float(value) for value in np.percentile(grey, (0.5, 99.5)))
    if high <= low:
        return grey
    result: Grey = ((grey - np.float32(low)) / np.float32(high - low)).clip(0.0, 1.0)
    return result


# -- drawing -----------------------------------------------------------------------------------------------------------


def plain(picture: Loaded, width_px: int) -> Image.Image:
    """Return the picture itself, at most `width_px` wide."""
    return _sized(_rgb(picture.image), width_px, smooth=True)


def overlay(picture: Loaded, width_px: int) -> Image.Image:
    """Return greys tinted with their phases, at most `width_px` wide; the plain picture where there are no labels."""
    if picture.labels is None:
        return plain(picture, width_px)
    grey = np.asarray(_sized(_rgb(picture.image), width_px, smooth=True).convert("L"), np.float32) / 255.0
    labels = np.asarray(_sized(Image.fromarray(picture.labels), width_px, smooth=False))
    return Image.fromarray(blended(grey, labels.astype(np.uint8)))


def flat(labels: Labels, width_px: int) -> Image.Image:
    """Return labels in the colours of their phases; what is no phase is white."""
    return _sized(Image.fromarray(_coloured(labels)), width_px, smooth=False)


def changed(after: Loaded, before_labels: Labels, width_px: int) -> Image.Image:
    """Return the picture `after`, faded, with the pixels whose phase changed in the colour of their new phase."""
    if after.labels is None:
        return plain(after, width_px)
    base = _rgb(after.image).convert("L")
    faded = 150.0 + 0.35 * np.asarray(base, np.float32)
    rgb = np.repeat(np.rint(faded)[..., None], 3, axis=2).astype(np.uint8)
    outside = int(Phase.OUTSIDE)
    where = (before_labels != after.labels) & (before_labels != outside) & (after.labels != outside)
    rgb[where] = _coloured(after.labels)[where]
    return _sized(Image.fromarray(rgb), width_px, smooth=True)


def elements(element_map: ElementMap, names: Mapping[str, tuple[int, int, int]], width_px: int) -> Image.Image:
    """Return element maps as one false-colour picture, each smoothed by 0.25 um (sigma) and on its own scale."""
    from scipy import ndimage

    total = np.zeros((*element_map.shape, 3), np.float64)
    for name, colour in names.items():
        if name not in element_map.counts:
            continue
        soft = ndimage.gaussian_filter(element_map.counts[name].astype(np.float64), 0.25e-6 / element_map.pixel_m)
        high = float(np.percentile(soft, 99.5))
        total += (soft / max(high, 1e-9)).clip(0.0, 1.0)[..., None] * np.asarray(colour, np.float64)
    return _sized(Image.fromarray(np.rint(total.clip(0, 255)).astype(np.uint8)), width_px, smooth=True)


def _coloured(labels: Labels) -> Rgb:
    table = np.full((256, 3), 255, np.uint8)
    for phase, colour in COLOURS.items():
        table[phase] = colour
    result: Rgb = table[labels]
    return result


def _rgb(image: Grey | Rgb) -> Image.Image:
    if image.ndim == 3:
        return Image.fromarray(image.astype(np.uint8))
    return Image.fromarray(np.rint(255.0 * image.clip(0.0, 1.0)).astype(np.uint8)).convert("RGB")


def _sized(picture: Image.Image, width_px: int, *, smooth: bool) -> Image.Image:
    """Make a picture at most `width_px` wide, and a tiny one large enough for its scale bar."""
    width, height = picture.size
    target = min(width_px, width) if width >= _LEAST_WIDTH else min(width_px, width * math.ceil(_LEAST_WIDTH / width))
    size = (target, max(1, round(height * target / width)))
    if size == picture.size:
        return picture
    method = Image.Resampling.NEAREST if not smooth else Image.Resampling.LANCZOS
    return picture.resize(size, method)


def finished(
    picture: Image.Image, *, source_width_px: int, pixel_m: float | None, virtual: bool, mark: str = ""
) -> Image.Image:
    """Return the picture with scale bar (where the pixel size is known), a letter, and VIRTUAL where it is.

    `source_width_px` is the width before it was made smaller; `pixel_m` the pixel's edge then, metres.
    """
    drawn = picture.convert("RGB")
    draw = ImageDraw.Draw(drawn)
    width, height = drawn.size
    size = max(13, round(width / 30))
    font = ImageFont.load_default(size)
    pad = max(4, size // 3)
    if pixel_m is not None:
        shown = pixel_m * source_width_px / width
        length = scale_bar_m(width * shown)
        text = length_text(length)
        bar = round(length / shown)
        box = max(bar, round(draw.textlength(text, font=font))) + 2 * pad
        left, top = width - box - pad, height - pad - round(1.7 * size) - pad
        draw.rectangle((left, top, width - pad, height - pad), fill=(0, 0, 0))
        middle = left + box / 2
        draw.rectangle((middle - bar / 2, top + pad, middle + bar / 2, top + pad + max(2, size // 5)), fill="white")
        draw.text((middle, height - pad - size // 3), text, fill="white", font=font, anchor="ms")
    x = pad
    if mark:
        big = ImageFont.load_default(round(1.5 * size))
        wide = draw.textlength(mark, font=big) + 2 * pad
        draw.rectangle((pad, pad, pad + wide, pad + 1.9 * size), fill=(255, 255, 255))
        draw.text((pad + wide / 2, pad + 0.95 * size), mark, fill="black", font=big, anchor="mm")
    if virtual:
        wide = draw.textlength("VIRTUAL", font=font) + 2 * pad
        draw.rectangle((x, height - pad - 1.5 * size, x + wide, height - pad), fill=(176, 0, 32))
        draw.text((x + wide / 2, height - pad - 0.75 * size), "VIRTUAL", fill="white", font=font, anchor="mm")
    return drawn


def data_uri(picture: Image.Image, quality: int = _QUALITY) -> str:
    """Return a picture as a data URI: JPEG."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
