"""The patterns' classes, by their vendor's name."""

from simulator.autoscript.patterns import (
    BitmapPattern,
    CirclePattern,
    CleaningCrossSectionPattern,
    LinePattern,
    PolygonPattern,
    RectanglePattern,
    RegularCrossSectionPattern,
    StreamPattern,
)

__all__ = [
    "BitmapPattern", "CirclePattern", "CleaningCrossSectionPattern", "LinePattern", "PolygonPattern",
    "RectanglePattern", "RegularCrossSectionPattern", "StreamPattern",
]  # fmt: skip
