"""Contrast and brightness of detectors: knobs that stay as they were set last, at first in the middle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from instrument.settings import DetectorSettings, Scan

#: Contrast and brightness, 0 to 1, by detector.
Knobs = Mapping[str, tuple[float, float]]

#: Where pictures of a usual specimen keep between black and white.
STANDING = 0.5


def levels(detector: DetectorSettings) -> tuple[float, float]:
    """Return a detector's contrast and brightness, 0 to 1."""
    contrast, brightness = detector.contrast, detector.brightness
    return STANDING if contrast is None else contrast, STANDING if brightness is None else brightness


def as_it_stands(scan: Scan, knobs: Knobs) -> Scan:
    """Return a scan that says contrast and brightness of each detector; what it does not set is as the knobs stand."""
    told = []
    for one in scan.detectors:
        contrast, brightness = knobs.get(one.name, (STANDING, STANDING))
        contrast = contrast if one.contrast is None else one.contrast
        brightness = brightness if one.brightness is None else one.brightness
        told.append(one.replace(contrast=contrast, brightness=brightness))
    return scan.replace(detectors=tuple(told))


def turned(knobs: Knobs, detectors: Iterable[DetectorSettings]) -> dict[str, tuple[float, float]]:
    """Return the knobs as they stand once these detectors are set."""
    return {**knobs, **{one.name: levels(one) for one in detectors}}
