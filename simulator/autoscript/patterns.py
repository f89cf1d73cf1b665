"""Patterns: what is drawn, how long it takes, and its way into the virtual microscope as jobs."""

from __future__ import annotations

from math import ceil, pi
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from instrument.process import mill_rate, spot
from instrument.settings import (
    BITMAP_PX,
    Beam,
    Bitmap,
    CleaningCrossSection,
    Line,
    Pattern,
    PatternJob,
    Rectangle,
    RegularCrossSection,
    volume,
)
from simulator.autoscript.profiles import APPLICATIONS
from simulator.autoscript.tree import ApplicationServerException, Node
from simulator.milling import SLICE_M

if TYPE_CHECKING:
    from simulator.autoscript.console import Column, Console

#: Dwell of a new pattern (s) and overlap of its spots; growth of a film per charge for its time (m3/C): our choices.
_DWELL_S, _OVERLAP, _FILM_YIELD = 1e-6, 0.5, 0.3e-9
#: A box so many times longer than wide is a groove.
_SLENDER = 3.0
#: A spot that stays is written as a box of this side (m), for at most this long (s).
_SPOT_BOX_M, _SPOT_S = 0.2e-6, 3600.0


class PatternBase(Node):
    """A pattern on the screen. `time`, `dwell_time` and `pass_count` hang together: time = dwell x points x passes.

    Setting one of them changes time (dwell, passes) or passes (time); the later one wins.
    """

    _shape: ClassVar[str] = ""

    def __init__(self, console: Console, number: int, beam: int, application: str, **drawn: Any) -> None:
        super().__init__(f"microscope.patterning.{type(self).__name__}[{number}]")
        state = console.beam(beam)
        current, voltage = state.settings.current_a or 1e-9, state.settings.voltage_v or 30e3
        size = spot(current, voltage)
        gases = APPLICATIONS[application]
        self.with_members(
            _beam=beam, _current=current, _voltage=voltage, _dwell=_DWELL_S, _passes=1,
            id=number, enabled=True, is_exclusion_zone=False, application_file=application, beam_type=beam,
            scan_direction="TopToBottom", scan_type="Serpentine", rotation=0.0, overlap_x=_OVERLAP, overlap_y=_OVERLAP,
            overlap_r=_OVERLAP, overlap_t=_OVERLAP, pitch_x=size * (1 - _OVERLAP), pitch_y=size * (1 - _OVERLAP),
            gas_type="+".join(gases), gas_flow=[100.0 for _ in gases], **drawn,
        )  # fmt: skip
        rate = _FILM_YIELD if gases else mill_rate("electrode", voltage) if beam == 2 else 1e-11
        self.time = max(1e-3, self._area * drawn["depth"] / rate / current)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("width", "height", "depth", "pitch_x", "pitch_y") and not float(value) > 0:
            msg = f"{self._path}.{name}: {value!r} is not possible; it is more than 0"
            raise ApplicationServerException(msg)
        super().__setattr__(name, value)

    @property
    def _area(self) -> float:
        return float(self.width * self.height)

    @property
    def _points(self) -> int:
        return max(1, ceil(self._area / float(self.pitch_x * self.pitch_y)))

    @property
    def time(self) -> float:
        """Seconds that the beam writes it."""
        return float(self._dwell * self._points * self._passes)

    @time.setter
    def time(self, seconds: float) -> None:
        if not float(seconds) > 0:
            msg = f"{self._path}.time: {seconds!r} is not possible; it is more than 0"
            raise ApplicationServerException(msg)
        passes = float(seconds) / (self._dwell * self._points)
        self.__dict__["_passes"] = passes if passes >= 1 else 1
        if passes < 1:
            self.__dict__["_dwell"] = float(seconds) / self._points

    @property
    def dwell_time(self) -> float:
        """Seconds on a point in one pass."""
        return float(self._dwell)

    @dwell_time.setter
    def dwell_time(self, seconds: float) -> None:
        if not float(seconds) > 0:
            msg = f"{self._path}.dwell_time: {seconds!r} is not possible; it is more than 0"
            raise ApplicationServerException(msg)
        self.__dict__["_dwell"] = float(seconds)

    @property
    def pass_count(self) -> int:
        """How often the pattern is gone over."""
        return max(1, round(float(self._passes)))

    @pass_count.setter
    def pass_count(self, passes: int) -> None:
        if int(passes) < 1:
            msg = f"{self._path}.pass_count: {passes!r} is not possible; it is 1 or more"
            raise ApplicationServerException(msg)
        self.__dict__["_passes"] = int(passes)

    def drawn(self, first: float, last: float) -> tuple[Pattern, ...]:
        """Return what the virtual microscope writes of the pattern between two fractions of its time."""
        del first, last
        return (_box(self.center_x, self.center_y, self.width, self.height, self.depth),)

    @property
    def _lays(self) -> bool:
        """Whether its application file works with a gas."""
        return bool(APPLICATIONS[self.application_file])

    @property
    def area(self) -> str:
        """What is written, for the account of doses and the faults of a night."""
        return "emulated"


class RectanglePattern(PatternBase):
    _shape = "Rectangle"


class RegularCrossSectionPattern(PatternBase):
    _shape = "RegularCrossSection"

    def __init__(self, *given: Any, **drawn: Any) -> None:
        super().__init__(*given, multi_scan_pass_count=1, scan_method=0, scan_ratio=1.0, **drawn)

    def drawn(self, first: float, last: float) -> tuple[Pattern, ...]:
        if self._lays:
            return super().drawn(first, last)
        deep = "bottom" if self.scan_direction == "TopToBottom" else "top"
        box = _box(self.center_x, self.center_y, self.width, self.height, self.depth)
        return (RegularCrossSection.model_validate({**box.model_dump(exclude={"kind"}), "deep": deep}),)


class CleaningCrossSectionPattern(PatternBase):
    """A line that advances across the box: the part of a time is the part of a way."""

    _shape = "CleaningCrossSection"

    def drawn(self, first: float, last: float) -> tuple[Pattern, ...]:
        start, end = -self.center_y + self.height / 2, -self.center_y - self.height / 2
        if self.scan_direction == "TopToBottom":
            start, end = end, start
        span = end - start
        return (
            CleaningCrossSection(
                x_m=self.center_x, width_m=self.width, start_y_m=start + span * first, end_y_m=start + span * last,
                depth_m=self.depth,
            ),
        )  # fmt: skip

    @property
    def area(self) -> str:
        return "face" if self.height <= SLICE_M else "emulated"


class LinePattern(PatternBase):
    _shape = "Line"

    def __init__(self, console: Console, number: int, beam: int, application: str, **drawn: Any) -> None:
        state = console.beam(beam).settings
        self.__dict__["_wide"] = spot(state.current_a or 1e-9, state.voltage_v or 30e3)
        super().__init__(console, number, beam, application, width=None, height=None, **drawn)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("width", "height") and value is None:
            self.__dict__[name] = None
            return
        super().__setattr__(name, value)

    @property
    def _length(self) -> float:
        return float(np.hypot(self.end_x - self.start_x, self.end_y - self.start_y))

    @property
    def length(self) -> float:
        return self._length

    @property
    def _area(self) -> float:
        return (self._length + self._line) * self._line

    @property
    def _line(self) -> float:
        """Width of the groove: as set, else the spot's, m."""
        return float(self.width or self._wide)

    def drawn(self, first: float, last: float) -> tuple[Pattern, ...]:
        return (
            Line(
                x0_m=self.start_x, y0_m=-self.start_y, x1_m=self.end_x, y1_m=-self.end_y, line_width_m=self._line,
                depth_m=self.depth,
            ),
        )  # fmt: skip


class CirclePattern(PatternBase):
    _shape = "Circle"

    @property
    def _area(self) -> float:
        return float(pi / 4 * (self.outer_diameter**2 - self.inner_diameter**2))

    def drawn(self, first: float, last: float) -> tuple[Pattern, ...]:
        side = float(self.outer_diameter * np.sqrt(pi) / 2)
        return (_box(self.center_x, self.center_y, side, side, self.depth),)


class BitmapPattern(PatternBase):
    _shape = "Bitmap"

    def __init__(self, *given: Any, bitmap_pattern_definition: Any, **drawn: Any) -> None:
        _shares(bitmap_pattern_definition)  # what is wrong with it is said when it is drawn
        super().__init__(*given, bitmap_pattern_definition=bitmap_pattern_definition, **drawn)

    def drawn(self, first: float, last: float) -> tuple[Pattern, ...]:
        if self._lays:
            return super().drawn(first, last)
        box = _box(self.center_x, self.center_y, self.width, self.height, self.depth)
        shares = _shares(self.bitmap_pattern_definition)
        return (Bitmap.model_validate({**box.model_dump(exclude={"kind"}), "shares": shares.tolist()}),)


class PolygonPattern(PatternBase):
    _shape = "Polygon"

    def __init__(self, *given: Any, vertices: Any, **drawn: Any) -> None:
        points = np.asarray(vertices, float)
        if points.ndim != 2 or points.shape[0] < 3 or points.shape[1] != 2:
            msg = f"a polygon has three corners or more, (N, 2) in metres, not {points.shape}"
            raise ApplicationServerException(msg)
        low, high = points.min(0), points.max(0)
        middle, size = (low + high) / 2, high - low
        super().__init__(
            *given, vertices=points, center_x=float(middle[0]), center_y=float(middle[1]), width=float(size[0]),
            height=float(size[1]), **drawn,
        )  # fmt: skip

    @property
    def _area(self) -> float:
        x, y = self.vertices[:, 0], self.vertices[:, 1]
        return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)

    def drawn(self, first: float, last: float) -> tuple[Pattern, ...]:
        """Return a groove for a slender box, however it is turned; for anything else the box around it."""
        if len(self.vertices) == 4:
            a, b, c, d = self.vertices
            if np.abs(a - b + c - d).max() < 1e-12 and abs((b - a) @ (d - a)) < 1e-18:
                if np.hypot(*(b - a)) < np.hypot(*(d - a)):
                    a, b, c, d = b, c, d, a
                length, width = float(np.hypot(*(b - a))), float(np.hypot(*(d - a)))
                if length >= _SLENDER * width:
                    start, end = (a + d) / 2, (b + c) / 2
                    short = (end - start) * (width / 2 / length)
                    (x0, y0), (x1, y1) = start + short, end - short
                    return (Line(x0_m=x0, y0_m=-y0, x1_m=x1, y1_m=-y1, line_width_m=width, depth_m=self.depth),)
        return super().drawn(first, last)


class StreamPattern(PatternBase):
    """A stream: its time is that of its points; written as the box around them."""

    _shape = "Stream"

    def __init__(self, console: Console, number: int, beam: int, application: str, **drawn: Any) -> None:
        definition = drawn["stream_pattern_definition"]
        points = np.asarray(definition.points)
        field = console.beam(beam).settings.hfw_m or 100e-6
        unit = field / 2**16
        lit = points[points[:, 3].astype(int) == 0] if len(points) else points
        low, high = (
            (lit[:, :2].astype(float).min(0), lit[:, :2].astype(float).max(0)) if len(lit) else (np.zeros(2),) * 2
        )
        size = np.maximum((high - low) * unit, 1e-9)
        middle = ((low + high) / 2 - 2**15) * unit
        drawn.update(
            center_x=drawn["center_x"] + float(middle[0]), center_y=drawn["center_y"] - float(middle[1]),
            width=float(size[0]), height=float(size[1]), depth=1e-9,
        )  # fmt: skip
        super().__init__(console, number, beam, application, **drawn)
        seconds = float(points[:, 2].astype(float).sum()) * int(definition.repeat_count or 1) if len(points) else 0.0
        self.time = max(seconds, 1e-6)


def jobs_of(patterns: list[PatternBase], start_s: float) -> list[tuple[PatternJob, float]]:
    """Return jobs that write patterns from a time of theirs on, each with the seconds at which it begins.

    Patterns whose times are in proportion to what they take are one job, as when their client thinks of them as one.
    """
    left: list[tuple[PatternBase, float, float]] = []
    gone = 0.0
    for one in patterns:
        first = min(1.0, max(0.0, (start_s - gone) / one.time))
        if first < 1 - 1e-12:
            left.append((one, first, gone + first * one.time))
        gone += one.time
    if not left:
        return []
    groups: list[list[tuple[PatternBase, float, float]]] = []
    for item in left:
        if groups and _alike(groups[-1], item):
            groups[-1].append(item)
        else:
            groups.append([item])
    return [(_job([(one, first) for one, first, _ in group]), group[0][2]) for group in groups]


def _alike(group: list[tuple[PatternBase, float, float]], item: tuple[PatternBase, float, float]) -> bool:
    """Tell whether a pattern can go into a group's job: same beam and gas, times in proportion to volumes."""
    (old, old_first, _), (new, new_first, _) = group[0], item
    if old_first > 0 or new_first > 0 or old.application_file != new.application_file or old.area != new.area:
        return False
    a, b = volume(old.drawn(0, 1)[0]), volume(new.drawn(0, 1)[0])
    return abs(old.time / a - new.time / b) < 1e-6 * old.time / a and old.beam_type == new.beam_type


def _job(parts: list[tuple[PatternBase, float]]) -> PatternJob:
    first = parts[0][0]
    gases = APPLICATIONS[first.application_file]
    seconds = sum(one.time * (1 - done) for one, done in parts)
    flows = dict(zip(gases, first.gas_flow, strict=False))
    current = first._current  # noqa: SLF001 - a pattern's own module
    return PatternJob(
        beam=Beam.ELECTRON if first.beam_type == 1 else Beam.ION,
        patterns=tuple(p for one, done in parts for p in one.drawn(done, 1.0)),
        purpose="deposit" if gases else "mill", area=first.area, current_a=current,
        voltage_v=first._voltage, dose_c=seconds * current,  # noqa: SLF001 - a pattern's own module
        gases={name: min(1.0, max(0.0, float(flow) / 100.0)) for name, flow in flows.items()},
    )  # fmt: skip


class SpotBurn:
    """A spot that stands still on an unblanked ion beam writes until it is blanked or moved."""

    def __init__(self, console: Console, column: Column) -> None:
        self._console, self._column = console, column
        self._writing: Any = None

    def begin(self) -> None:
        """Start to write, where the column is in spot mode and not blanked."""
        column = self._column
        if column.index != 2 or column.scan.mode != 3 or column.blanked or self._writing is not None:
            return
        from simulator.autoscript.patterning import Writing

        state = self._console.beam(2)
        settings = state.settings
        width = settings.hfw_m or 100e-6
        across, down = int(column.scan.resolution[1].split("x")[0]), int(column.scan.resolution[1].split("x")[1])
        x, y = (column.scan.spot[0] - 0.5) * width, (column.scan.spot[1] - 0.5) * width * down / across
        job = PatternJob(
            patterns=(_box(x, -y, _SPOT_BOX_M, _SPOT_BOX_M, 1e-6),), purpose="mill", area="emulated",
            current_a=settings.current_a or 0.0, voltage_v=settings.voltage_v or 0.0,
            dose_c=_SPOT_S * (settings.current_a or 0.0),
        )  # fmt: skip
        self._writing = Writing(self._console, [(job, 0.0)])

    def end(self) -> None:
        """Stop writing."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.stop()


def _box(x: float, y: float, width: float, height: float, depth: float) -> Rectangle:
    return Rectangle(x_m=float(x), y_m=-float(y), width_m=float(width), height_m=float(height), depth_m=float(depth))


def _shares(definition: Any) -> NDArray[np.float64]:
    """Return a bitmap's shares of the dwell, (rows, columns); a fine one is averaged to `BITMAP_PX` at most."""
    points = np.asarray(definition.points)
    if points.ndim != 3 or points.shape[2] < 2 or points.size == 0:
        msg = f"a bitmap pattern has points (rows, columns, 2), not {points.shape}"
        raise ApplicationServerException(msg)
    shares: NDArray[np.float64] = points[..., 0].astype(float) * (points[..., 1].astype(float) == 0)
    if not (shares.min() >= 0 and shares.max() <= 1 and shares.max() > 0):
        msg = f"a bitmap's shares of the dwell are 0 to 1, some above 0, not {shares.min():g} to {shares.max():g}"
        raise ApplicationServerException(msg)
    for axis, size in enumerate(shares.shape):
        kept = min(size, BITMAP_PX)
        starts = np.arange(kept) * size // kept
        shares = np.add.reduceat(shares, starts, axis=axis)
        shares /= np.expand_dims(np.diff(starts, append=size), 1 - axis)
    return shares
