"""`patterning`: draws patterns, writes them in a thread, stops, pauses and goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, TypeVar

from instrument.errors import InstrumentError
from instrument.settings import Device, GasSetting, PatternJob, Progress
from simulator.autoscript.console import Console
from simulator.autoscript.patterns import (
    BitmapPattern,
    CirclePattern,
    CleaningCrossSectionPattern,
    LinePattern,
    PatternBase,
    PolygonPattern,
    RectanglePattern,
    RegularCrossSectionPattern,
    StreamPattern,
    jobs_of,
)
from simulator.autoscript.profiles import APPLICATIONS, SHAPES_OF
from simulator.autoscript.structures import RtmDataSet, RtmPositionSet
from simulator.autoscript.tree import ApplicationServerException, Node, serving

P = TypeVar("P", bound=PatternBase)

#: Longest wait for a stopped pattern's thread, s on the wall.
_END_S = 120.0
#: Shapes that are written in series only.
_SERIAL_ONLY = ("RegularCrossSection", "CleaningCrossSection")


class Writing:
    """Jobs that are written one after the other in a thread. `seconds` is how far they have come, s of beam time."""

    def __init__(self, console: Console, jobs: Sequence[tuple[PatternJob, float]]) -> None:
        self._console = console
        self._jobs = list(jobs)
        self._stopped = threading.Event()
        self.seconds = jobs[0][1] if jobs else 0.0
        self.error: InstrumentError | None = None
        self._thread = threading.Thread(target=self._work, name="patterning", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """End the job in hand and write no further one."""
        self._stopped.set()
        deadline = time.monotonic() + _END_S
        while self._thread.is_alive() and time.monotonic() < deadline:
            self._console.scope.stop()
            self._thread.join(0.05)

    def wait(self) -> None:
        """Wait until all is written; raise what went wrong."""
        self._thread.join()
        if self.error is not None:
            with serving():
                raise self.error

    def _work(self) -> None:
        for job, begins_s in self._jobs:
            if self._stopped.is_set():
                return
            try:
                opened = self._gas(job)
                try:
                    self._write(job, begins_s)
                finally:
                    for name in opened:
                        self._console.scope.set_gas(name, GasSetting(valve_open=False))
            except InstrumentError as error:
                self.error = error
                return

    def _write(self, job: PatternJob, begins_s: float) -> None:
        whole = job.dose_c / job.current_a

        def watch(progress: Progress) -> None:
            self.seconds = begins_s + progress.fraction * whole
            if self._stopped.is_set():
                self._console.scope.stop()

        done = self._console.scope.pattern(job, watch)
        self.seconds = begins_s + done.fraction * whole

    def _gas(self, job: PatternJob) -> tuple[str, ...]:
        """Set the flows of a deposit and open its valves; return those that were shut."""
        if job.purpose != "deposit" or not self._console.state().devices[Device.NEEDLE]:
            return ()
        opened = []
        for name, flow in job.gases.items():
            held = self._console.state().gases.get(name)
            if held is None or not held.ready:
                continue
            if held.duty != flow:
                self._console.scope.set_gas(name, GasSetting(duty=flow))
            if not held.valve_open:
                self._console.scope.set_gas(name, GasSetting(valve_open=True))
                opened.append(name)
        return tuple(opened)


class Patterning(Node):
    """`patterning`. `mode` is kept: patterns are written in series either way."""

    def __init__(self, console: Console) -> None:
        super().__init__("microscope.patterning")
        self.with_members(
            _console=console, mode="Serial", _patterns=[], _beam=2, _application="Si", _number=0, _writing=None,
            _paused_s=None, _seen=True, real_time_monitor=_RealTimeMonitor(self),
        )  # fmt: skip

    # -- what is drawn ------------------------------------------------------------------------------------------------

    def clear_patterns(self) -> None:
        self._patterns.clear()

    def set_default_beam_type(self, beam_index: int) -> None:
        if int(beam_index) not in (1, 2):
            msg = f"beam type {beam_index!r} is not possible; use 1 (electron) or 2 (ion)"
            raise ApplicationServerException(msg)
        self.__dict__["_beam"] = int(beam_index)

    def set_default_application_file(self, application_file: str) -> None:
        if application_file not in APPLICATIONS:
            msg = f"There is no patterning application with name: '{application_file}'."
            raise ApplicationServerException(msg)
        self.__dict__["_application"] = str(application_file)

    def list_all_application_files(self) -> list[str]:
        return list(APPLICATIONS)

    def create_rectangle(
        self, center_x: float, center_y: float, width: float, height: float, depth: float
    ) -> RectanglePattern:
        return self._draw(RectanglePattern, **_box(center_x, center_y, width, height, depth))

    def create_regular_cross_section(
        self, center_x: float, center_y: float, width: float, height: float, depth: float
    ) -> RegularCrossSectionPattern:
        return self._draw(RegularCrossSectionPattern, **_box(center_x, center_y, width, height, depth))

    def create_cleaning_cross_section(
        self, center_x: float, center_y: float, width: float, height: float, depth: float
    ) -> CleaningCrossSectionPattern:
        return self._draw(CleaningCrossSectionPattern, **_box(center_x, center_y, width, height, depth))

    def create_line(self, start_x: float, start_y: float, end_x: float, end_y: float, depth: float) -> LinePattern:
        ends = {"start_x": start_x, "start_y": start_y, "end_x": end_x, "end_y": end_y}
        return self._draw(LinePattern, depth=_positive("depth", depth), **{k: float(v) for k, v in ends.items()})

    def create_circle(
        self, center_x: float, center_y: float, outer_diameter: float, inner_diameter: float, depth: float
    ) -> CirclePattern:
        outer = _positive("outer_diameter", outer_diameter)
        drawn = _box(center_x, center_y, outer, outer, depth)
        return self._draw(CirclePattern, outer_diameter=outer, inner_diameter=float(inner_diameter), **drawn)

    def create_bitmap(
        self,
        center_x: float,
        center_y: float,
        width: float,
        height: float,
        depth: float,
        bitmap_pattern_definition: Any,
    ) -> BitmapPattern:
        drawn = _box(center_x, center_y, width, height, depth)
        return self._draw(BitmapPattern, bitmap_pattern_definition=bitmap_pattern_definition, **drawn)

    def create_polygon(self, vertices: Any, depth: float) -> PolygonPattern:
        return self._draw(PolygonPattern, vertices=vertices, depth=_positive("depth", depth))

    def create_stream(self, center_x: float, center_y: float, stream_pattern_definition: Any) -> StreamPattern:
        return self._draw(
            StreamPattern, center_x=float(center_x), center_y=float(center_y),
            stream_pattern_definition=stream_pattern_definition,
        )  # fmt: skip

    def _draw(self, kind: type[P], **drawn: Any) -> P:
        shapes = SHAPES_OF.get(self._application, ())
        if shapes and kind._shape not in shapes:  # noqa: SLF001 - the patterns are this module's own
            msg = f"application file {self._application!r} takes {', '.join(shapes)}, not {kind.__name__}"
            raise ApplicationServerException(msg)
        if kind._shape in _SERIAL_ONLY and self.mode != "Serial":  # noqa: SLF001 - the patterns are this module's own
            msg = f"{kind.__name__} is written in Serial mode only"
            raise ApplicationServerException(msg)
        self.__dict__["_number"] += 1
        made = kind(self._console, self._number, self._beam, self._application, **drawn)
        self._patterns.append(made)
        return made

    # -- what is written ----------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """Idle, Running or Paused. A start is seen as Running once at least, however short what it writes."""
        writing = self._writing
        if self._paused_s is not None:
            return "Paused"
        if writing is not None and writing.is_running:
            self.__dict__["_seen"] = True
            return "Running"
        if not self._seen:
            self.__dict__["_seen"] = True
            return "Running"
        return "Idle"

    def run(self) -> None:
        self._begin(0.0)
        self._writing.wait()
        self.__dict__["_seen"] = True

    def start(self) -> None:
        self._begin(0.0)

    def stop(self) -> None:
        writing = self._writing
        self.__dict__.update(_paused_s=None, _seen=True)
        if writing is not None:
            writing.stop()

    def pause(self) -> None:
        writing = self._writing
        if writing is None or not writing.is_running:
            msg = "nothing is written, so that nothing can be paused"
            raise ApplicationServerException(msg)
        writing.stop()
        self.__dict__["_paused_s"] = writing.seconds

    def resume(self) -> None:
        if self._paused_s is None:
            msg = "nothing is paused, so that nothing can go on"
            raise ApplicationServerException(msg)
        self._begin(self._paused_s)

    def _begin(self, start_s: float) -> None:
        if self._writing is not None and self._writing.is_running:
            msg = "patterning is running already; stop it first"
            raise ApplicationServerException(msg)
        wanted = [one for one in self._patterns if one.enabled and not one.is_exclusion_zone]
        jobs = jobs_of(wanted, start_s)
        if not jobs:
            msg = "there is no enabled pattern to write"
            raise ApplicationServerException(msg)
        for job, _ in jobs:
            if not self._console.state().beam(job.beam).source_on:
                msg = f"the {job.beam} beam is off; turn it on first"
                raise ApplicationServerException(msg)
        self.__dict__.update(_seen=False, _paused_s=None, _writing=Writing(self._console, jobs))


class _RealTimeMonitor(Node):
    """`patterning.real_time_monitor`: switched and read, but nothing is monitored here."""

    def __init__(self, patterning: Patterning) -> None:
        super().__init__("microscope.patterning.real_time_monitor")
        self.with_members(mode=2, _patterning=patterning)

    def restart(self) -> None:
        """Nothing is kept between patterns."""

    def stop(self) -> None:
        """Nothing is monitored."""

    def get_data(self) -> list[RtmDataSet]:
        return [RtmDataSet(one.id, []) for one in self._patterning._patterns]  # noqa: SLF001 - its own parent

    def get_positions(self, settings: Any = None) -> list[RtmPositionSet]:
        system = getattr(settings, "coordinate_system", None)
        return [RtmPositionSet(one.id, [], system) for one in self._patterning._patterns]  # noqa: SLF001 - its parent


def _positive(name: str, value: float) -> float:
    if not float(value) > 0:
        msg = f"a pattern's {name} is more than 0, not {value!r}"
        raise ApplicationServerException(msg)
    return float(value)


def _box(center_x: float, center_y: float, width: float, height: float, depth: float) -> dict[str, float]:
    return {
        "center_x": float(center_x), "center_y": float(center_y), "width": _positive("width", width),
        "height": _positive("height", height), "depth": _positive("depth", depth),
    }  # fmt: skip


__all__ = ["PatternBase", "Patterning", "Writing"]
