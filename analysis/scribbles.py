"""Strokes that a user paints on an image, in label codes: a template to paint on, reading it, where one would help.

The template is a PNG with a palette: a painting program shows the phases' own colours, and what it writes are codes.
Programs that turn it into plain colours are understood too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from scipy import ndimage

from analysis.overlay import png
from analysis.phases import COLOURS, IGNORE, NAMES, Phase
from analysis.sources import must_exist

#: Of so many strokes or more one in five is kept back, to tell how right a taught model is.
_ENOUGH, _KEPT_BACK = 10, 5
#: A colour counts as a phase's own within this distance in each of red, green, blue: soft brushes mix edges.
_NEAR = 24
_SPOT_M = 1.0e-6
#: More of an image is never marked by strokes, but by a mistake.
_MOST = 0.5


@dataclass(frozen=True)
class Spot:
    """Where a stroke would help: middle (row, column), pixels; the two likeliest phases there; doubt, 0..1."""

    y: int
    x: int
    phases: tuple[Phase, Phase]
    doubt: float


def template(shape: tuple[int, int], strokes: NDArray[np.uint8] | None = None) -> bytes:
    """Return a PNG to paint strokes on, unmarked or with those given, uint8 (y, x)."""
    palette = np.full((256, 3), 255, np.uint8)
    for phase, colour in COLOURS.items():
        palette[phase] = colour
    codes = np.full(shape, IGNORE, np.uint8) if strokes is None else strokes
    picture = Image.fromarray(codes)
    picture.putpalette(palette.ravel().tolist())
    return png(picture)


def read_scribbles(path: Path) -> NDArray[np.uint8]:
    """Read strokes as label codes, 255 where nothing is marked, uint8 (y, x).

    Grey images and palettes hold codes; in coloured ones the phases' colours are told, all else is unmarked. ValueError
    for what is no such image.
    """
    must_exist(path)
    if path.suffix.lower() in (".tif", ".tiff"):
        import tifffile

        try:
            found = np.asarray(tifffile.imread(path))
        except (tifffile.TiffFileError, OSError, ValueError) as error:
            msg = f"{path} cannot be read as a TIFF image: {error}"
            raise ValueError(msg) from error
        return _codes(found, path)
    try:
        with Image.open(path) as picture:
            if picture.mode in ("RGB", "RGBA") or (picture.mode == "P" and not _ours(picture)):
                return _by_colour(np.asarray(picture.convert("RGBA")))
            if picture.mode not in ("P", "L"):
                msg = f"{path}: strokes are an 8-bit image of label codes or of the phases' colours, not {picture.mode}"
                raise ValueError(msg)
            return _codes(np.asarray(picture), path)
    except (UnidentifiedImageError, OSError) as error:
        msg = f"{path} cannot be read as an image: {error}"
        raise ValueError(msg) from error


def _ours(picture: Image.Image) -> bool:
    """Tell whether an image's palette is the template's: its indices are codes then; other programs' are anything."""
    palette = picture.getpalette() or []
    return all(tuple(palette[3 * phase : 3 * phase + 3]) == colour for phase, colour in COLOURS.items())


def _codes(found: NDArray[np.generic], path: Path) -> NDArray[np.uint8]:
    if found.dtype != np.uint8 or found.ndim != 2:
        msg = f"{path}: strokes are one 8-bit grey image, not {found.dtype} {' x '.join(map(str, found.shape))}"
        raise ValueError(msg)
    return found.astype(np.uint8)


def _by_colour(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    strokes = np.full(rgba.shape[:2], IGNORE, np.uint8)
    for phase, colour in COLOURS.items():
        off = np.abs(rgba[..., :3].astype(int) - np.array(colour)).max(axis=2)
        near = _NEAR if max(colour) > min(colour) else 2  # a grey must be that very grey: images are full of others
        strokes[(off <= near) & (rgba[..., 3] > 127)] = phase
    return strokes


def helpful(shares: NDArray[np.float32], pixel_m: float, count: int = 10) -> list[Spot]:
    """Return where strokes would help most: where the model is in doubt over about a micrometre, the worst first.

    Parameters
    ----------
    shares : probabilities of the five phases, (5, y, x)
    pixel_m : the pixel's edge, metres
    """
    ordered = np.sort(shares, axis=0)
    doubt = 1.0 - (ordered[-1] - ordered[-2])
    reach = max(1.0, 0.5 * _SPOT_M / pixel_m)
    soft = ndimage.gaussian_filter(doubt, reach, mode="nearest")
    margin = round(reach)  # nobody can say what lies at the very edge
    edge = np.ones(soft.shape, np.bool_)
    edge[margin : soft.shape[0] - margin, margin : soft.shape[1] - margin] = False
    soft[edge] = 0.0
    spots: list[Spot] = []
    apart = max(2, round(4 * reach))
    for _ in range(count):
        y, x = (int(at) for at in np.unravel_index(int(np.argmax(soft)), soft.shape))
        if soft[y, x] <= 0.0:
            break
        around = (slice(max(0, y - apart // 4), y + apart // 4 + 1), slice(max(0, x - apart // 4), x + apart // 4 + 1))
        likely = np.argsort(shares[(slice(None), *around)].mean(axis=(1, 2)))[::-1]
        spots.append(Spot(y, x, (Phase(int(likely[0])), Phase(int(likely[1]))), float(soft[y, x])))
        soft[max(0, y - apart) : y + apart + 1, max(0, x - apart) : x + apart + 1] = 0.0
    return spots


def check(scribbles: NDArray[np.uint8], shape: tuple[int, ...]) -> None:
    """Raise ValueError for strokes that don't fit an image, hold other codes than labels, or mark a single phase."""
    if scribbles.dtype != np.uint8 or scribbles.shape != shape:
        size = " x ".join(map(str, scribbles.shape))
        msg = f"strokes are an 8-bit grey image of the image's size {shape[0]} x {shape[1]}; this is {size}"
        raise ValueError(f"{msg}, {scribbles.dtype}")
    codes = set(np.unique(scribbles).tolist()) - {IGNORE}
    meant = ", ".join(f"{int(phase)} {NAMES[phase]}" for phase in Phase)
    if wrong := sorted(codes - {int(phase) for phase in Phase}):
        msg = f"strokes have the codes {wrong}; labels are {meant}, and {IGNORE} is unmarked"
        raise ValueError(msg)
    if (scribbles != IGNORE).mean() > _MOST:
        msg = f"more than {100 * _MOST:.0f} % of the image is marked: strokes are few, and {IGNORE} is unmarked"
        raise ValueError(msg)
    if len(codes) < 2:
        found = ", ".join(NAMES[Phase(code)] for code in codes) or "nothing"
        msg = f"strokes mark {found}; mark at least two phases ({meant}; {IGNORE} is unmarked)"
        raise ValueError(msg)


def held_back(scribbles: NDArray[np.uint8], seed: int) -> NDArray[np.bool_]:
    """Return where strokes are kept back for checking: one in five of each phase, where there are enough of them."""
    rng = np.random.default_rng([seed, 0x5C21])
    kept = np.zeros(scribbles.shape, np.bool_)
    if strokes_in(scribbles) < _ENOUGH:
        return kept
    for phase in Phase:
        strokes, count = ndimage.label(scribbles == phase, np.ones((3, 3)))
        chosen = rng.permutation(count)[: count // _KEPT_BACK] + 1
        kept |= np.isin(strokes, chosen)
    return kept


def strokes_in(scribbles: NDArray[np.uint8]) -> int:
    """Return the number of strokes: connected pixels of one phase."""
    return sum(int(ndimage.label(scribbles == phase, np.ones((3, 3)))[1]) for phase in Phase)
