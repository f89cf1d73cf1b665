"""A live scan: its picture is made when it is asked for, each line with the settings in force while it was scanned."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instrument.settings import BeamSettings, Scan
from simulator.autoscript.console import Column, Console, View
from simulator.autoscript.scans import dark, scan_of


@dataclass(frozen=True)
class Moment:
    """From a time on (s, the instrument's), the settings with which lines are scanned."""

    at_s: float
    beam: BeamSettings
    scan: Scan
    blanked: bool


class Live:
    """The scan that goes on in a view from its start until `stop`."""

    def __init__(self, console: Console, view: View, before: NDArray[Any] | None) -> None:
        self._console, self._view, self._before = console, view, before
        self._lock = threading.Lock()
        self._moments = [self._moment()]
        self._end: float | None = None

    def note(self) -> None:
        """Lines scanned from now on have the settings as they are now."""
        with self._lock:
            if self._end is None:
                self._moments.append(self._moment())

    def stop(self) -> None:
        """End the scan; the picture stays as far as it came."""
        if self._end is None:
            self._end = self._console.scope.clock.now()

    @property
    def frame_s(self) -> float:
        """How long one frame takes, seconds of the instrument's."""
        scan = self._moments[-1].scan
        return scan.height_px * self._line_s(scan)

    @property
    def frames_done(self) -> int:
        """How many frames are complete."""
        return int(self._gone // self.frame_s)

    def picture(self) -> NDArray[Any]:
        """Return what the screen shows: lines of the frame in hand above lines of the one before."""
        with self._lock:
            moments = list(self._moments)
        scan = moments[-1].scan
        rows, line_s, start = scan.height_px, self._line_s(scan), moments[0].at_s
        lines = int(self._gone / line_s)
        shape = (rows, scan.width_px)
        if self._before is not None and self._before.shape == shape:
            out = self._before.copy()
        else:
            out = np.zeros(shape, np.uint8 if scan.bits == 8 else np.uint16)
        # the newest time at which each row was scanned
        newest = [start + line_s * (lines - 1 - (lines - 1 - row) % rows) for row in range(min(rows, lines))]
        at = [max(i for i, one in enumerate(moments) if one.at_s <= time_s + 1e-9) for time_s in newest]
        row = 0
        while row < len(at):
            end = row
            while end < len(at) and at[end] == at[row]:
                end += 1
            out[row:end] = self._strip(moments[at[row]], row, end, newest[row])
            row = end
        return out

    @property
    def _gone(self) -> float:
        end = self._end if self._end is not None else self._console.scope.clock.now()
        return max(0.0, end - self._moments[0].at_s)

    @staticmethod
    def _line_s(scan: Scan) -> float:
        return scan.width_px * scan.dwell_s * scan.line_integrations

    def _column(self) -> Column:
        return self._console.column_of(self._view)

    def _moment(self) -> Moment:
        column = self._column()
        state = self._console.beam(column.index)
        scan = scan_of(self._console, column, (self._view.detector,))
        blanked = column.blanked or not state.source_on
        return Moment(self._console.scope.clock.now(), state.settings, scan, blanked)

    def _strip(self, moment: Moment, first: int, end: int, at_s: float) -> NDArray[Any]:
        scan = moment.scan
        if moment.blanked:
            return dark(scan)[0, first:end]
        # a strip has twelve rows at least: fewer are cut out of it
        low = max(0, min(first, scan.height_px - 12))
        rows = max(12, end - low)
        middle = scan.centre_y_m + (low + rows / 2 - scan.height_px / 2) * scan.pixel_m
        strip = scan.replace(height_px=rows, centre_y_m=middle)
        pixels = self._console.scope.glimpse(strip, moment.beam, at_s)
        return np.asarray(pixels[0, first - low : end - low])
