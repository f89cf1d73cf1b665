"""Pictures of labels a person can judge: the grey image, the phases over it, a legend and a scale bar."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from analysis.phases import COLOURS, NAMES, Phase

_OPACITY = 0.5
_LEAST_EDGE = 560
_MOST_EDGE = 1400
_GAP = 12
_TEXT_PX = 18
_STRIP = 256
_PLAIN = (60, 60, 60)
WARNING = (200, 0, 0)


def blended(grey: NDArray[np.float32], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return RGB uint8 (y, x, 3): greys 0..1 (y, x) tinted with the colours of the phases; outside stays grey."""
    table = np.zeros((256, 3), np.float32)
    for phase, colour in COLOURS.items():
        table[phase] = colour
    mixed = np.empty((*labels.shape, 3), np.uint8)
    for top in range(0, len(labels), _STRIP):  # floats of a whole large image would take gigabytes
        part = slice(top, top + _STRIP)
        base = 255.0 * grey[part].clip(0.0, 1.0)[..., None]
        opacity = np.where(labels[part] == Phase.OUTSIDE, np.float32(0.0), np.float32(_OPACITY))[..., None]
        mixed[part] = np.rint(base * (1.0 - opacity) + table[labels[part]] * opacity)
    return mixed


def scale_bar_m(width_m: float) -> float:
    """Return a scale bar's length (m), a fifth of `width_m` or less: 1, 2 or 5 times a power of ten."""
    aim = width_m / 5.0
    decade = 10.0 ** math.floor(math.log10(aim))
    return max(step * decade for step in (1.0, 2.0, 5.0) if step * decade <= aim * (1.0 + 1e-9))


def length_text(length_m: float) -> str:
    """Return a scale bar's length as text: 500 nm, 5 um, 1 mm."""
    for unit, metres in (("mm", 1e-3), ("um", 1e-6)):
        if length_m >= metres * (1.0 - 1e-9):
            return f"{length_m / metres:g} {unit}"
    return f"{length_m / 1e-9:g} nm"


def overlay_png(
    grey: NDArray[np.float32],
    labels: NDArray[np.uint8],
    pixel_m: float,
    fractions: Mapping[str, float],
    title: str,
    warnings: Sequence[str] = (),
) -> bytes:
    """Return a PNG file: grey image and labelled image, one scale bar, a legend with the phases' shares, a title.

    Parameters
    ----------
    grey : greys 0..1, float32 (y, x)
    labels : phases, uint8 (y, x)
    pixel_m : the pixel's edge, metres
    fractions : share (0..1) by phase name, as shown in the legend
    title : one line below the legend
    warnings : what speaks against the labels, a red line each below the title
    """
    height, width = labels.shape
    factor = max(1, math.ceil(_LEAST_EDGE / width)) if width < _LEAST_EDGE else _MOST_EDGE / max(width, _MOST_EDGE)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    panels = [
        Image.fromarray(np.rint(255.0 * grey.clip(0.0, 1.0)).astype(np.uint8)).convert("RGB"),
        Image.fromarray(blended(grey, labels)),
    ]
    beside = size[0] <= 1.6 * size[1]
    offset = (size[0] + _GAP, 0) if beside else (0, size[1] + _GAP)
    body = (size[0] + offset[0], size[1] + offset[1])
    page = Image.new("RGB", (body[0], body[1] + (4 + len(warnings)) * _TEXT_PX), (255, 255, 255))
    for panel, at in zip(panels, ((0, 0), offset), strict=True):
        page.paste(panel.resize(size, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX), at)
    draw = ImageDraw.Draw(page)
    _scale_bar(draw, size, pixel_m / factor)
    _legend(draw, body[1] + _TEXT_PX // 2, labels, fractions)
    below = body[1] + round(2.2 * _TEXT_PX)
    for line, (text, colour) in enumerate([(title, _PLAIN), *((one, WARNING) for one in warnings)]):
        draw.text((_GAP, below + line * _TEXT_PX), text, fill=colour, font=_font(_TEXT_PX - 4))
    return png(page)


def png(picture: Image.Image) -> bytes:
    """Return a picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _scale_bar(draw: ImageDraw.ImageDraw, size: tuple[int, int], pixel_m: float) -> None:
    length = scale_bar_m(size[0] * pixel_m)
    right, bottom = size[0] - _GAP, size[1] - _GAP
    left = right - round(length / pixel_m)
    text = length_text(length)
    draw.rectangle((left - 6, bottom - _TEXT_PX - 14, right + 6, bottom + 6), fill=(0, 0, 0))
    draw.rectangle((left, bottom - 5, right, bottom), fill=(255, 255, 255))
    draw.text(((left + right) / 2, bottom - 9), text, fill=(255, 255, 255), font=_font(_TEXT_PX - 4), anchor="ms")


def _legend(draw: ImageDraw.ImageDraw, top: int, labels: NDArray[np.uint8], fractions: Mapping[str, float]) -> None:
    x = _GAP
    for phase in Phase:
        if phase is Phase.OUTSIDE and not (labels == phase).any():
            continue
        name = NAMES[phase]
        text = f"{name} {100.0 * fractions[name]:.1f} %" if name in fractions else name
        draw.rectangle((x, top, x + _TEXT_PX, top + _TEXT_PX), fill=COLOURS[phase], outline=(0, 0, 0))
        draw.text((x + _TEXT_PX + 6, top), text, fill=(0, 0, 0), font=_font(_TEXT_PX - 4))
        x += _TEXT_PX + 6 + round(draw.textlength(text, font=_font(_TEXT_PX - 4))) + 18
