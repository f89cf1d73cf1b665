"""Contrast and brightness of a detector that a scan leaves as it stands: it stands in the middle of both."""

from __future__ import annotations

from instrument.settings import DetectorSettings, Scan

#: Where pictures of a usual specimen keep between black and white.
STANDING = 0.5


def levels(detector: DetectorSettings) -> tuple[float, float]:
    """Return a detector's contrast and brightness, 0 to 1."""
    contrast, brightness = detector.contrast, detector.brightness
    return STANDING if contrast is None else contrast, STANDING if brightness is None else brightness


def as_it_stands(scan: Scan) -> Scan:
    """Return a scan that says contrast and brightness of each detector."""
    told = []
    for one in scan.detectors:
        contrast, brightness = levels(one)
        told.append(one.replace(contrast=contrast, brightness=brightness))
    return scan.replace(detectors=tuple(told))
