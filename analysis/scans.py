"""Reads one image of a TIFF: what was scanned, without the databar that a microscope writes below it, and its pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.ometiff import pixel_said, readable


@dataclass(frozen=True)
class Scan:
    """One image of a TIFF: its pixels above the databar, their edge (m) where the file says it, the databar's rows."""

    pixels: NDArray[np.generic]
    white_is_zero: bool
    pixel_m: float | None
    databar_px: int


def scan_of(path: Path, place: tuple[int, int]) -> Scan:
    """Read one image of a TIFF.

    A microscope writes the databar, scale bar and settings, below the picture; labelled, it would count as electrode.
    """
    import tifffile

    number, index = place
    with readable(path), tifffile.TiffFile(path) as tif:
        series = tif.series[number]
        page = series.keyframe
        if series.size == len(series.pages) * page.size:
            pixels = np.asarray(series.asarray(key=index))
        else:  # ImageJ describes one image, and the others follow it
            pixels = np.array(tifffile.memmap(path, series=number, mode="r").reshape(-1, *page.shape)[index])
        rows, pixel_m = _scanned(tif.fei_metadata or {}, pixels.shape)
        if tif.ome_metadata and pixel_m is None:
            pixel_m = pixel_said(tif.ome_metadata, path.name)
        white_is_zero = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    return Scan(pixels[:rows], white_is_zero, pixel_m, pixels.shape[0] - rows)


def _scanned(told: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[int, float | None]:
    """Return how many of an image's rows were scanned, and the pixel's edge (m), by what FEI's tag 34682 tells.

    Nothing is believed of an image that isn't as wide as its scan: it was made larger or smaller after it was taken.
    """
    columns, rows, databar, pixel = (
        _number(told, section, name)
        for section, name in (
            ("Image", "ResolutionX"), ("Image", "ResolutionY"), ("PrivateFei", "DatabarHeight"), ("Scan", "PixelWidth"),
        )
    )  # fmt: skip
    height = shape[0]
    if columns is not None and len(shape) > 1 and columns != shape[1]:
        return height, None
    if rows is None:
        rows = height - (databar or 0)
    return (int(rows) if 0 < rows < height else height), pixel


def _number(told: Mapping[str, Any], section: str, name: str) -> float | None:
    """Return a positive number of FEI's metadata, None where there is none."""
    values = told.get(section)
    value = values.get(name) if isinstance(values, dict) else None
    return float(value) if isinstance(value, int | float) and 0 < value < float("inf") else None
