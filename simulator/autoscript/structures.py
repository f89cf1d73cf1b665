"""The client's values: positions, points, limits and settings, all fields readable and writable."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray


def meant(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" with what is known by nearly this name, "" where nothing is."""
    by_small = {one.lower(): one for one in known if not one.startswith("_") and one != name}
    near = get_close_matches(name.lower(), by_small, 1)
    return f"; did you mean {by_small[near[0]]}?" if near else ""


class Named:
    """Takes no attributes but those of its names: one mistyped is told. Subclasses may have fields of their own."""

    _names: ClassVar[tuple[str, ...]] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        kind = type(self)
        if "_names" in vars(kind) and not name.startswith("_") and name not in self._names and not hasattr(kind, name):
            msg = f"{kind.__name__}.{name} is not there{meant(name, self._names)}; it has {', '.join(self._names)}"
            raise AttributeError(msg)
        object.__setattr__(self, name, value)


class _Fields(Named):
    """Fields by position or by name, None where not given; equal where all are."""

    def __init__(self, *values: Any, **named: Any) -> None:
        if len(values) > len(self._names):
            msg = f"{type(self).__name__} takes {', '.join(self._names)}, not {len(values)} values"
            raise TypeError(msg)
        given = {**dict(zip(self._names, values, strict=False)), **named}
        unknown = sorted(set(given) - set(self._names))
        if unknown:
            msg = f"{type(self).__name__} has no {', '.join(unknown)}; it has {', '.join(self._names)}"
            raise TypeError(msg)
        for name in self._names:
            setattr(self, name, given.get(name))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Fields) or self._names != other._names:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._names)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self._names))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._names)
        return f"{type(self).__name__}({shown})"


class Point(_Fields):
    _names = ("x", "y")
    x: Any
    y: Any

    def __init__(self, x: Any = 0.0, y: Any = 0.0) -> None:
        super().__init__(x, y)

    def __add__(self, other: Any) -> Point:
        x, y = (other.x, other.y) if isinstance(other, Point) else (other[0], other[1])
        return Point(self.x + x, self.y + y)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Point:
        x, y = (other.x, other.y) if isinstance(other, Point) else (other[0], other[1])
        return Point(self.x - x, self.y - y)

    __hash__ = _Fields.__hash__


class Rectangle(_Fields):
    _names = ("left", "top", "width", "height")


class Limits(_Fields):
    _names = ("min", "max")
    min: Any
    max: Any

    @property
    def midpoint(self) -> float:
        return (float(self.min) + float(self.max)) / 2

    def is_in(self, value: float) -> bool:
        return bool(self.min <= value <= self.max)


class Limits2d(_Fields):
    _names = ("limits_x", "limits_y")


class StagePosition(_Fields):
    _names = ("x", "y", "z", "r", "t", "coordinate_system")
    x: Any
    y: Any
    z: Any
    r: Any
    t: Any
    coordinate_system: Any


class CompustagePosition(_Fields):
    _names = ("x", "y", "z", "a", "coordinate_system")


class ManipulatorPosition(_Fields):
    _names = ("x", "y", "z", "r", "coordinate_system")


class MoveSettings(_Fields):
    _names = ("rotate_compucentric", "tilt_compucentric", "link_z_y")


class GrabFrameSettings(_Fields):
    _names = (
        "resolution", "dwell_time", "reduced_area", "line_integration", "scan_interlacing", "frame_integration",
        "drift_correction", "bit_depth", "views", "exposure_time", "emission_type",
    )  # fmt: skip


class GetImageSettings(_Fields):
    _names = ("wait_for_frame",)


class RunAutoCbSettings(_Fields):
    _names = ("method", "resolution", "number_of_frames")


class RunAutoFocusSettings(_Fields):
    _names = ("reduced_area", "method")


class RunAutoStigmatorSettings(_Fields):
    _names = ("method", "dwell_time", "resolution", "horizontal_field_width", "reduced_area", "line_integration")


class RunAutoLensAlignmentSettings(_Fields):
    _names = ("reduced_area", "dwell_time", "resolution", "line_integration")


class RunAutoSourceTiltSettings(_Fields):
    _names = ("contrast", "brightness", "dwell_time", "method")


class GetRtmPositionSettings(_Fields):
    _names = ("pattern_set", "coordinate_system")


class VacuumSettings(_Fields):
    _names = ("pressure",)


class RtmDataSet(_Fields):
    _names = ("pattern_id", "values")


class RtmPositionSet(_Fields):
    _names = ("pattern_id", "positions", "coordinate_system")


class BitmapPatternDefinition(Named):
    """A raster of dwell shares (0 to 1) and flags (1 blanks): `points`, shape (rows, columns, 2)."""

    _names = ("points",)

    def __init__(self) -> None:
        self.points: NDArray[Any] = np.zeros((0, 0, 2), dtype=object)

    @staticmethod
    def load(path: str | Path) -> BitmapPatternDefinition:
        """Read a 24-bit BMP: blue is the share of dwell, no green blanks."""
        from simulator.autoscript.bitmaps import read_bmp

        blue, green = read_bmp(Path(path))
        made = BitmapPatternDefinition()
        made.points = np.empty((*blue.shape, 2), dtype=object)
        made.points[..., 0] = blue / 255.0
        made.points[..., 1] = (green == 0).astype(int)
        return made


class StreamPatternDefinition(Named):
    """Points (N, 4): x, y, dwell (s), flag; 1-based on a raster of 2**16 across the field's width."""

    _names = ("bit_depth", "points", "repeat_count")

    def __init__(self) -> None:
        self.bit_depth: Any = 16
        self.points: Any = np.zeros((0, 4), dtype=object)
        self.repeat_count: Any = 1
