"""AutoscriptMicroscope: the verbs of a microscope on the vendor's client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from instrument import guard_rules as rules
from instrument.autoscript import screen, values
from instrument.autoscript.columns import CURRENT_ROOM, put, put_back, settings_of, species_of, taken
from instrument.autoscript.connection import CALL_S, PATIENT, Connection, client_version, enumeration
from instrument.autoscript.current_lists import CurrentLists
from instrument.autoscript.description import currents_of, describe
from instrument.autoscript.elements import ElementMapper
from instrument.autoscript.following import Follower
from instrument.autoscript.gases import HOT_K, PATIENCE, STEADY_K, STEADY_S, Gases, needle_is_in
from instrument.autoscript.refusing import no_such_current, refused
from instrument.autoscript.safety import Safety
from instrument.autoscript.scans import framing
from instrument.autoscript.undoing import undone
from instrument.autoscript.writing import draw
from instrument.errors import (
    ConnectionLost,
    DeviceFault,
    InstrumentError,
    NotReached,
    Refused,
    Stopped,
    TimedOut,
)
from instrument.frame import Frame, FrameMeta
from instrument.microscope import Clock, Microscope, Watch, unwatched
from instrument.process import (
    HEAT_S,
    PURGE_S,
    RECOVERY_S,
    SPECIES_S,
    beam_seconds,
    eds_seconds,
    frame_seconds,
    move_seconds,
)
from instrument.settings import (
    Beam,
    BeamSettings,
    BeamState,
    Description,
    DetectorSettings,
    Device,
    Done,
    EdsScan,
    GasSetting,
    PatternJob,
    Recovery,
    Scan,
    StagePosition,
    State,
    Tune,
    Tuning,
)

T = TypeVar("T")

#: Slow ones: homing, lighting a source, pumping, automatic routines, s.
SLOW_S = {Recovery.HOME_STAGE: 600.0, Recovery.RELIGHT_SOURCE: 1800.0, Recovery.PUMP: 3600.0}
TUNE_DEADLINE_S = 600.0
#: A stage that reads otherwise by more than this is not where it was sent (m, rad).
STAGE_ROOM_M, STAGE_ROOM_RAD = 2e-6, 0.5 * np.pi / 180
#: A wait is cut into so many seconds of the instrument's time, so that a stop is heeded.
_WAIT_S = 1.0


class WallClock:
    """The instrument's time where it is that of the wall."""

    def now(self) -> float:
        """Return seconds on the wall's clock, since some beginning."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Let `seconds` pass."""
        threading.Event().wait(max(0.0, seconds))


class AutoscriptMicroscope(Microscope):
    """A Thermo Fisher dual beam through AutoScript.

    It holds three connections: one acts, one reads, one stops, so that neither reading nor stopping queues behind an
    act. It begins by stopping live scans and blanking both beams.

    Parameters
    ----------
    host, port : of the microscope's server
    elements : the X-ray system; None: none, unless the client brings a virtual one
    ready : False leaves everything as it is, for looking only
    state : folder in which the lists of currents that were seen last; None: in memory only
    """

    clock: Clock

    def __init__(
        self, host: str, port: int, elements: ElementMapper | None = None, *, ready: bool = True,
        state: Path | None = None,
    ) -> None:  # fmt: skip
        version = client_version()
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._looks_only = not ready
        self._safety = Safety(host, port)
        self._acts = Connection(host, port, "acts", late=self._came_late)
        self._reads = Connection(host, port, "reads")
        virtual_clock = getattr(self._acts.client, "virtual_clock", None)
        self.clock = virtual_clock if virtual_clock is not None else WallClock()
        self._elements = elements if elements is not None else getattr(self._acts.client, "virtual_elements", None)
        self._gases: Gases = self._do("look at the gases", lambda scope: Gases(scope.gas))
        described: Description = self._do(
            "describe",
            lambda scope: describe(
                scope, version, gases=self._gases.names, elements=self._elements,
                virtual=virtual_clock is not None,
            ),
        )  # fmt: skip
        self._lists = CurrentLists(state, described.serial)
        self._description = described
        self._do("read the currents", lambda scope: self._currents(Beam.ION, scope.beams.ion_beam))
        self._description = self._lists.put_into(self._description)
        self._frames = 0
        self._session = f"{time.time_ns() // 1_000_000_000}"  # names files: of the wall's calendar
        self._cbs_in = self._eds_in = False
        self._shown: dict[Beam, tuple[str, ...]] = {}
        self._turned = 0.0
        if ready:
            self._do("make ready", self._ready)
        self._looked(eds=True)

    @staticmethod
    def _ready(scope: Any) -> None:
        for view in (*screen.ELECTRON_VIEWS, *screen.ION_VIEWS):
            scope.imaging.set_active_view(view)
            scope.imaging.stop_acquisition()
        for beam in (scope.beams.electron_beam, scope.beams.ion_beam):
            beam.blank()
        scope.specimen.stage.set_default_coordinate_system(enumeration("CoordinateSystem").RAW)
        scope.specimen.stage.unlink()

    # -- reading ------------------------------------------------------------------------------------------------------

    @property
    def lost(self) -> bool:
        """Whether a connection is lost for good, so that only a new process speaks with the microscope again."""
        return self._acts.lost or self._reads.lost

    def describe(self) -> Description:
        """Return what this instrument is and can do."""
        return self._description

    def state(self) -> State:
        """Return all that can be read, in one snapshot.

        Whether CBS and EDS are in is known from the last act: to ask for CBS would change what the screen shows, maybe
        under a person's hands, and the X-ray program may not answer. Acts ask before they begin.
        """
        return self._reads.call("read the state", lambda: self._read(self._reads.client))

    def _looked(self, *, eds: bool) -> State:
        """Return the state after a look at CBS, and at EDS for an act that it matters to: what an act begins with."""
        if Device.CBS in self._description.devices:
            self._cbs_in = self._do("look at CBS", screen.cbs_is_in)
        if eds and self._elements is not None:
            self._eds_in = self._elements.is_in()
        return self.state()

    def _read(self, scope: Any) -> State:
        now = self.clock.now()
        electron, ion = self._column(scope, Beam.ELECTRON), self._column(scope, Beam.ION)
        inside = {
            Device.CBS: self._cbs_in, Device.EDS: self._eds_in, Device.NEEDLE: needle_is_in(scope.gas),
        }  # fmt: skip
        devices = {device: inside[device] for device in self._description.devices}
        gases = self._gases.states(now, needle_in=inside[Device.NEEDLE])
        patterning = str(scope.patterning.state) != "Idle"
        quiet = electron.blanked and ion.blanked and not patterning
        return State(
            time_s=now, stage=values.stage_from_client(screen.raw(scope), self._turned),
            stage_homed=bool(scope.specimen.stage.is_homed), electron=electron, ion=ion, devices=devices, gases=gases,
            pressure_pa=float(scope.vacuum.chamber_pressure.value), patterning=patterning,
            safe=quiet and not devices[Device.NEEDLE] and not any(one.valve_open for one in gases.values()),
        )  # fmt: skip

    def _column(self, scope: Any, beam: Beam) -> BeamState:
        column = screen.of(scope, beam)
        settings = settings_of(column, beam)
        current = settings.current_a or 0.0
        measured = getattr(column.beam_current, "measured_value", None)
        on = bool(column.is_on)
        if beam is Beam.ION and measured is not None:
            current = float(measured)
        return BeamState(
            settings=settings, source_on=on, blanked=bool(column.is_blanked), measured_current_a=current if on else 0.0
        )

    # -- setting ------------------------------------------------------------------------------------------------------

    def set_beam(self, beam: Beam, settings: BeamSettings) -> BeamSettings:
        """Change the given fields of a column; return all of them as reached. Refuses a current not in its list.

        After an error they are put back as they were.
        """
        with self._act(f"set the {beam} beam"):
            now = self._do("read the beam", lambda scope: settings_of(screen.of(scope, beam), beam))
            self._possible(beam, now, settings)
            seconds = SPECIES_S if settings.species not in (None, now.species) else beam_seconds(now, settings)
            deadline_s = PATIENT * seconds + CALL_S

            def work(scope: Any) -> None:
                put(screen.of(scope, beam), beam, now, settings, lambda column: self._currents(beam, column))

            def back(scope: Any) -> None:
                put_back(screen.of(scope, beam), beam, now, settings)

            with self._put_back(f"put the {beam} beam back", back, deadline_s):
                self._do(f"set the {beam} beam", work, deadline_s)
                reached = self._do("read the beam", lambda scope: settings_of(screen.of(scope, beam), beam))
                taken(beam, settings, reached)
            return reached

    def _currents(self, beam: Beam, column: Any) -> tuple[float, ...]:
        """Return a column's list of currents (A) where it stands; the ion column's is remembered."""
        if beam is Beam.ELECTRON:
            return self._description.electron_currents_a
        listed = currents_of(column)
        name = self._description.list_name(float(column.high_voltage.value), species_of(column))
        if self._lists.learn(name, listed):
            self._description = self._lists.put_into(self._description)
        return listed

    def _possible(self, beam: Beam, now: BeamSettings, asked: BeamSettings) -> None:
        """Refuse what the column lacks, before anything is changed."""
        described = self._description
        after = now.replace(**asked.model_dump(exclude_none=True))
        listed = described.ion_voltages_v if beam is Beam.ION else described.electron_voltages_v
        if asked.voltage_v is not None and not any(abs(asked.voltage_v - one) <= 1.0 for one in listed):
            shown = ", ".join(f"{one / 1e3:g}" for one in listed) + " kV"
            raise refused(
                "voltage-listed", f"{beam}.voltage", f"{asked.voltage_v / 1e3:g} kV", shown, "use one of these"
            )
        if asked.species is not None and asked.species not in described.species:
            known = ", ".join(described.species)
            raise refused("species-listed", "ion.species", asked.species, known, "use one of these")
        for name, value in (("shift_x", asked.shift_x_m), ("shift_y", asked.shift_y_m)):
            if value is not None and abs(value) > described.beam_shift_max_m:
                limit = f"{described.beam_shift_max_m * 1e6:g} um"
                raise refused("beam-shift-range", f"{beam}.{name}", f"{value * 1e6:.2f} um", limit, "move the stage")
        if asked.current_a is not None:
            moved = after.voltage_v != now.voltage_v or after.species != now.species
            self._listed(beam, after, standing=not moved)

    def _listed(self, beam: Beam, wanted: BeamSettings, *, standing: bool) -> None:
        """Refuse a current that is not listed within 5 %, where the column's list is known before it stands there."""
        if standing:  # its list may have become another
            self._do("read the currents", lambda scope: self._currents(beam, screen.of(scope, beam)))
        described, voltage, current = self._description, wanted.voltage_v or 0.0, wanted.current_a or 0.0
        if not described.may_have(beam, voltage, current, CURRENT_ROOM, wanted.species):
            raise no_such_current(beam, current, voltage, described.currents(beam, voltage, wanted.species))

    def move_stage(self, to: StagePosition) -> StagePosition:
        """Move the given axes; return what was reached. Refuses what could touch an inserted device."""
        with self._act("move the stage"):
            state = self._looked(eds=True)
            context = rules.Context(self._description, state, None)
            for rule in (rules.homed, rules.within_travel, rules.devices_out_of_the_way):
                rule(context, to)
            if to.r is not None:
                self._turned = to.r
            target = values.stage_to_client(to)
            self._do(
                "move the stage", lambda scope: scope.specimen.stage.absolute_move(target),
                PATIENT * move_seconds(state.stage, to) + CALL_S,
            )  # fmt: skip
            reached = self._do(
                "read the stage", lambda scope: values.stage_from_client(screen.raw(scope), self._turned)
            )
            for axis in ("x", "y", "z", "r", "t"):
                wanted, got = getattr(to, axis), getattr(reached, axis)
                room = STAGE_ROOM_RAD if axis in "rt" else STAGE_ROOM_M
                if wanted is not None and not abs(wanted - got) <= room:
                    msg = f"the stage's {axis} reads {got:.7g} instead of {wanted:.7g}"
                    raise NotReached(msg, axis=axis, wanted=wanted, reached=got)
            return reached

    # -- devices and gas ----------------------------------------------------------------------------------------------

    def insert(self, device: Device, position: str | None = None) -> None:
        """Bring a device in; refuses devices that would collide."""
        with self._act(f"insert {device}"):
            state = self._looked(eds=True)
            rules.nothing_to_collide_with(rules.Context(self._description, state, None), device)
            inside = [one for one, there in state.devices.items() if there and one is not device]
            if inside:
                names = ", ".join(inside)
                raise refused(
                    "devices-collide", f"insert {device}", f"{names} in", "all others out", f"retract {names}"
                )
            if not state.devices.get(device, False):
                self._asking(f"insert {device}", lambda: self._move_device(device, position, inwards=True))
            self._must_be(device, inside=True)

    def retract(self, device: Device) -> None:
        """Take a device out; harmless when it is out. The needle's valves are shut first."""
        with self._act(f"retract {device}"):
            if device is Device.NEEDLE:
                self._do("shut the valves", lambda _scope: self._gases.shut(self.clock.now()), 10 * CALL_S)
            self._move_device(device, None, inwards=False)
            self._must_be(device, inside=False)

    def _move_device(self, device: Device, position: str | None, *, inwards: bool) -> None:
        verb = "insert" if inwards else "retract"
        if device is Device.NEEDLE:
            self._do(
                f"{verb} the needle",
                lambda _scope: (
                    self._gases.insert(position, self.clock.now()) if inwards else self._gases.retract()
                ), 3 * CALL_S,
            )  # fmt: skip
        elif device is Device.CBS:
            self._do(f"{verb} CBS", lambda scope: screen.move_cbs(scope, inwards=inwards), 3 * CALL_S)
        elif self._elements is not None:
            self._elements.insert() if inwards else self._elements.retract()

    def _must_be(self, device: Device, *, inside: bool) -> None:
        if self._looked(eds=device is Device.EDS).devices.get(device, False) is not inside:
            where = "in" if inside else "out"
            msg = f"{device} does not read {where}; look at it before the stage moves"
            raise NotReached(msg, device=str(device), wanted=where)

    def set_gas(self, gas: str, setting: GasSetting) -> GasSetting:
        """Heat, set duty, open or shut a gas; heating takes minutes and is waited for."""
        with self._act(f"set {gas}"):
            book = self._gases.book(gas)
            if setting.valve_open:
                if not self._do("look at the needle", lambda scope: needle_is_in(scope.gas)):
                    raise refused("needle-before-valve", f"gas.{gas}", "valve open", "needle in", "insert the needle")
                if setting.heater_on is False or not (setting.heater_on or book.ready):
                    limit, remedy = "gas at temperature", "switch its heater on"
                    raise refused("valve-needs-heat", f"gas.{gas}", "valve open", limit, remedy)
            if setting.heater_on and not book.ready:
                self._heat(gas)
            if setting.heater_on is False:
                self._do(f"cool {gas}", lambda _scope: self._gases.heat(gas, on=False))
            if setting.duty is not None:
                book.duty = setting.duty
            if setting.valve_open is not None and setting.valve_open is not book.valve_open:
                self._valve(gas, open_it=setting.valve_open)
            return GasSetting(heater_on=book.heater_on, duty=book.duty, valve_open=book.valve_open)

    def _heat(self, gas: str) -> None:
        """Heat a crucible and wait until its temperature stands."""
        book = self._gases.book(gas)
        self._do(f"heat {gas}", lambda _scope: self._gases.heat(gas, on=True))
        deadline, before = self.clock.now() + PATIENCE * HEAT_S, -1.0
        while self.clock.now() < deadline and not self._stopping.is_set():
            self.clock.wait(STEADY_S)
            kelvin = self._do(f"read {gas}'s temperature", lambda _scope: self._gases.kelvin(gas))
            if kelvin >= HOT_K and abs(kelvin - before) <= STEADY_K:
                book.ready = True
                return
            before = kelvin
        if self._stopping.is_set():
            return  # it goes on heating; not ready
        msg = f"{gas} has not come to a steady temperature within {PATIENCE * HEAT_S / 60:.0f} min ({before:.1f} K)"
        raise TimedOut(msg, gas=gas, kelvin=before)

    def _valve(self, gas: str, *, open_it: bool) -> None:
        """Open a valve and wait until it is purged, or shut it; that gas flows is seen from the chamber's pressure."""
        pressure, asked = self._pressure(), self.clock.now()
        self._asking(
            f"{'open' if open_it else 'shut'} {gas}",
            lambda: self._do(
                f"{'open' if open_it else 'shut'} {gas}",
                lambda _scope: self._gases.valve(gas, self.clock.now(), open_it=open_it),
                PATIENT * (PURGE_S + RECOVERY_S) + CALL_S,
            ),
        )
        if open_it:
            self._purge(gas, asked + PURGE_S)  # counts what the microscope's own opening took
        others = [name for name, one in self._gases.books.items() if one.valve_open and name != gas]
        if open_it and not others and not self._pressure() > pressure:
            self._do(f"shut {gas}", lambda _scope: self._gases.shut(self.clock.now()), 3 * CALL_S)
            msg = f"the chamber's pressure has not risen with {gas} open: no gas flows; look at crucible and valve"
            raise DeviceFault(msg, gas=gas, pressure_pa=pressure)

    def _purge(self, gas: str, until_s: float) -> None:
        """Wait, blanked, until a time on the instrument's clock (s); a stop shuts the valve: it was not purged."""
        while (left := until_s - self.clock.now()) > 0 and not self._stopping.is_set():
            self.clock.wait(min(left, _WAIT_S))
        if self._stopping.is_set():
            self._do(f"shut {gas}", lambda _scope: self._gases.shut(self.clock.now()), 3 * CALL_S)
            msg = f"{gas} was stopped while it was purged, and is shut again"
            raise Stopped(msg)

    def _pressure(self) -> float:
        return self._do("read the pressure", lambda scope: float(scope.vacuum.chamber_pressure.value))

    # -- looking ------------------------------------------------------------------------------------------------------

    def acquire(self, scan: Scan) -> Frame:
        """Take one picture with all detectors asked for, pixel-registered; ends blanked."""
        with self._act("take a picture"):
            self._can_look(scan)
            limits = self._field_limits(scan.beam)
            framed = framing(scan, *limits)
            seconds, started = frame_seconds(scan), self.clock.now()

            def work(scope: Any) -> tuple[list[Any], Scan]:
                with screen.restored(scope, scan.beam):
                    views, stand = screen.select(scope, scan.beam, scan.detectors)
                    screen.frame_up(scope, scan, framed.hfw_m)
                    screen.of(scope, scan.beam).unblank()
                    try:
                        return screen.grabbed(scope, views, scan, framed), scan.replace(detectors=stand)
                    finally:
                        screen.of(scope, scan.beam).blank()

            with self._screen_kept(scan.beam):
                images, stood = self._watched("take a picture", work, PATIENT * seconds + 10 * CALL_S)
                pixels = np.stack([screen.cropped(np.asarray(one.data), scan) for one in images])
            return self._frame(pixels, stood, tuple(one.name for one in scan.detectors), started, seconds, images[0])

    def _can_look(self, scan: Scan) -> None:
        """Refuse a picture that can't be taken."""
        state = self._looked(eds=scan.beam is Beam.ION)
        _lit(state, scan.beam)
        context = rules.Context(self._description, state, None)
        rules.no_ions_with_detector_in(context, scan.beam)
        rules.scan_fits_the_field(context, scan)
        if scan.beam not in self._shown:
            self._shown[scan.beam] = self._do("list detectors", lambda scope: screen.detectors(scope, scan.beam))
        shown = self._shown[scan.beam]
        for one in scan.detectors:
            if one.name not in shown:
                known = ", ".join(shown)
                raise refused("detector-listed", "scan.detector", one.name, known, "use one of these")
            if one.name == "CBS" and not self._cbs_in:
                raise refused("detector-out", "scan.detector", "CBS while it is out", "CBS in", "insert CBS first")
        most = len(screen.ELECTRON_VIEWS if scan.beam is Beam.ELECTRON else screen.ION_VIEWS)
        if len(scan.detectors) > most:
            raise refused("detectors-at-once", "scan.detectors", len(scan.detectors), most, "take fewer at once")
        size = (scan.width_px, scan.height_px)
        if scan.bits == 16 and size not in self._description.sixteen_bit_sizes:
            sizes = ", ".join(f"{w} x {h}" for w, h in self._description.sixteen_bit_sizes)
            raise refused(
                "bits-need-preset", "scan.bits", f"16 at {size[0]} x {size[1]}", sizes, "take 8 bit or one of these"
            )

    def _field_limits(self, beam: Beam) -> tuple[float, float]:
        def read(scope: Any) -> tuple[float, float]:
            limits = screen.of(scope, beam).horizontal_field_width.limits
            return float(limits.min), float(limits.max)

        return self._do("read the field's limits", read)

    def acquire_eds(self, scan: EdsScan) -> Frame:
        """Take element maps: channels are the elements, values are counts summed over the frames; ends blanked.

        What a person has taken is collected only: they had the beam.
        """
        with self._act("take element maps"):
            if self._elements is None:
                raise refused("elements", "eds", "no X-ray system", "one in the URL", "add elements=FOLDER to the URL")
            self._eds_in = self._elements.is_in()
            if not self._eds_in:
                raise refused("detector-out", "eds", "detector out", "EDS in", "insert EDS first")
            if (off := max(abs(scan.centre_x_m), abs(scan.centre_y_m))) > scan.pixel_m:
                raise refused(
                    "map-in-the-middle", "eds", f"{off * 1e6:.1f} um off the middle of the field", "the middle, which "
                    "is where X-ray programs map", "bring its middle under the beam by the stage",
                )  # fmt: skip
            started, seconds = self.clock.now(), eds_seconds(scan)
            field = scan.width_px * scan.pixel_m

            def frame_up(scope: Any) -> None:
                scope.beams.electron_beam.horizontal_field_width.value = field
                screen.correct_tilt(scope, scan.tilt_correction_rad, dynamic_focus=False)
                scope.beams.electron_beam.unblank()

            by_hand = self._elements.maps_by == "person"
            with self._screen_kept(Beam.ELECTRON):
                if not by_hand:
                    self._do("frame the map", frame_up)
                try:
                    counts = self._elements.map(scan)
                    if not by_hand and self._do(
                        "look at the beam", lambda scope: bool(scope.beams.electron_beam.is_blanked)
                    ):
                        msg = "the beam was blanked while the element map was taken: it is no map of all its frames"
                        raise DeviceFault(msg, device="EDS")
                finally:
                    self._do("blank", lambda scope: scope.beams.electron_beam.blank())
            return self._frame(counts, scan, scan.elements, started, seconds, getattr(self._elements, "last", None))

    def tune(self, routine: Tune, scan: Scan) -> Tuning:
        """Run an automatic routine on the given scan area and apply what it finds.

        The client's routines say nothing of how sure they are: the score is 1.
        """
        with self._act(f"tune {routine}"):
            self._can_look(scan)
            framed = framing(scan, *self._field_limits(scan.beam))

            def work(scope: Any) -> list[DetectorSettings]:
                with screen.restored(scope, scan.beam):
                    views, stand = screen.select(scope, scan.beam, scan.detectors)
                    screen.frame_up(scope, scan, framed.hfw_m)
                    column = screen.of(scope, scan.beam)
                    column.scanning.resolution.value = framed.text
                    column.scanning.dwell_time.value = scan.dwell_s
                    if framed.area is not None:
                        left, top, width, height = framed.area
                        column.scanning.mode.set_reduced_area(left=left, top=top, width=width, height=height)
                        column.scanning.resolution.value = framed.text
                        column.scanning.dwell_time.value = scan.dwell_s
                    column.unblank()
                    try:
                        return screen.tuned(scope, routine, views, stand)
                    finally:
                        column.blank()

            with self._screen_kept(scan.beam):
                found = self._watched(f"tune {routine}", work, TUNE_DEADLINE_S)
            after = self._do("read the beam", lambda scope: settings_of(screen.of(scope, scan.beam), scan.beam))
            if routine is Tune.FOCUS:
                return Tuning(routine=routine, score=1.0, working_distance_m=after.working_distance_m)
            if routine is Tune.STIGMATOR:
                return Tuning(routine=routine, score=1.0, stigmator_x=after.stigmator_x, stigmator_y=after.stigmator_y)
            return Tuning(routine=routine, score=1.0, detectors=tuple(found))

    # -- writing ------------------------------------------------------------------------------------------------------

    def pattern(self, job: PatternJob, watch: Watch = unwatched) -> Done:
        """Write a job: start, call `watch` as it goes on, end blanked; a stop ends it early with `Done.stopped`."""
        with self._act("write a pattern"):
            self._can_write(job)
            span = job.to_fraction - job.from_fraction
            if span <= 0:
                return Done(fraction=job.to_fraction, elapsed_s=0.0, charge_c=0.0)
            with self._screen_kept(job.beam), self._ended(job):
                self._do("draw the patterns", lambda scope: self._drawn(scope, job), 3 * CALL_S)
                current = self._reads.call("read the current", lambda: self._column(self._reads.client, job.beam))
                follower = Follower(
                    lambda: self._do("look at the pattern", lambda scope: str(scope.patterning.state)),
                    self.clock, self._stopping, virtual=self._description.virtual,
                )  # fmt: skip
                started, wall = self.clock.now(), time.monotonic()
                self._do("start the pattern", lambda scope: scope.patterning.start())
                share = follower.follow(job, watch, started, wall)
            done_s = share * job.seconds
            fraction = job.to_fraction if share >= 1 else job.from_fraction + span * share
            return Done(
                fraction=fraction, elapsed_s=done_s, charge_c=current.measured_current_a * done_s, stopped=share < 1
            )

    def _can_write(self, job: PatternJob) -> None:
        state = self._looked(eds=job.beam is Beam.ION)
        _lit(state, job.beam)
        context = rules.Context(self._description, state, None)
        rules.no_ions_with_detector_in(context, job.beam)
        rules.pattern_beam_is_set(context, job)
        rules.pattern_inside_its_box(context, job)
        if job.purpose == "deposit":
            rules.gas_as_the_job_says(context, job)

    def _drawn(self, scope: Any, job: PatternJob) -> None:
        column = screen.of(scope, job.beam)
        limits = column.horizontal_field_width.limits
        reach = max(abs(one) for pattern in job.patterns for one in rules.extent(pattern))
        # the field holds what is drawn, with room; the whole of the largest one where it must
        width = min(max(3.0 * reach, float(limits.min), 10e-6), float(limits.max))
        scope.imaging.set_active_view(1 if job.beam is Beam.ELECTRON else 2)
        scope.imaging.set_active_device(1 if job.beam is Beam.ELECTRON else 2)
        column.scanning.mode.set_full_frame()
        column.horizontal_field_width.value = width
        draw(scope.patterning, job)

    @contextmanager
    def _ended(self, job: PatternJob) -> Iterator[None]:
        """After a pattern, however it ended: nothing written, nothing drawn, blanked."""
        with undone(lambda: self._quiet(job)):
            yield
        self._quiet(job)

    def _quiet(self, job: PatternJob) -> None:
        def work(scope: Any) -> None:
            if str(scope.patterning.state) != "Idle":
                scope.patterning.stop()
            screen.of(scope, job.beam).blank()
            scope.patterning.clear_patterns()

        try:
            self._do("end the pattern", work, 3 * CALL_S)
        except InstrumentError:
            self.stop()  # over its own connection; once more where what hangs was stopped already
            raise

    # -- recovering, stopping -----------------------------------------------------------------------------------------

    def recover(self, what: Recovery) -> State:
        """Relight the sources, home the stage, pump: never done by itself."""
        with self._act(str(what)):

            def work(scope: Any) -> None:
                if what is Recovery.HOME_STAGE:
                    scope.specimen.stage.home()
                elif what is Recovery.PUMP:
                    scope.vacuum.pump()
                else:
                    for column in (scope.beams.ion_beam, scope.beams.electron_beam):
                        if not column.is_on:
                            column.turn_on()
                        column.blank()

            self._do(str(what), work, SLOW_S[what])
            if what is Recovery.HOME_STAGE:
                self._turned = 0.0
        return self.state()

    def stop(self) -> None:
        """Blank, end the pattern or scan in hand, from any thread, at once, over a connection of its own.

        Raises DeviceFault, or Unsafe where the microscope does not answer, which names all that failed.
        """
        self._stopping.set()
        self._safety.stop()

    def make_safe(self) -> State:
        """Patterning off, beams blanked, valves shut, then needles out; idempotent, from any thread.

        Every step is tried, whatever became of the others. Raises what `stop` does.
        """
        self._stopping.set()
        self._safety.make_safe()
        self._gases.all_shut(self.clock.now())
        return self.state()

    def close(self) -> None:
        """Let go of the connections; the microscope stays as it is."""
        for connection in (self._acts, self._reads, self._safety):
            try:
                connection.close()
            except InstrumentError as error:
                if not isinstance(error, TimedOut | ConnectionLost | DeviceFault):
                    raise

    # -- private ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _act(self, what: str) -> Iterator[None]:
        """One verb at a time; what has hung is back once it ends with TimedOut."""
        with self._lock:
            self._stopping.clear()
            try:
                yield
            except TimedOut:
                for line in (self._acts, self._reads):
                    line.settle()  # ConnectionLost where it never comes back: only a new server helps
                raise

    def _do(self, what: str, work: Callable[[Any], T], deadline_s: float = CALL_S) -> T:
        try:
            return self._acts.call(what, lambda: work(self._acts.client), deadline_s)
        except TimedOut as error:
            self._stop_beside(error)
            raise

    @contextmanager
    def _put_back(self, what: str, work: Callable[[Any], None], deadline_s: float = CALL_S) -> Iterator[None]:
        """After an error put back what an act has changed; a microscope whose connection is lost is left alone."""

        def back() -> None:
            if not self.lost:
                self._do(what, work, deadline_s)

        with undone(back):
            yield

    @contextmanager
    def _screen_kept(self, beam: Beam) -> Iterator[None]:
        """After an error show a column's view and field, and what was active, as before."""
        before = self._do("look at the screen", lambda scope: screen.shown(scope, beam))
        with self._put_back("put the screen back", lambda scope: screen.show_again(scope, beam, before)):
            yield

    def _stop_beside(self, late: TimedOut) -> None:
        """End what hangs, at once: it may still write. What the microscope complains of is kept as evidence."""
        if self._looks_only:
            return
        try:
            self._safety.stop()
        except DeviceFault as error:
            late.evidence["stop"] = error.message

    def _came_late(self) -> None:
        """After a call that had been given up: it may have unblanked, or opened a valve that was shut meanwhile.

        The next act may have begun, and is not told to stop.
        """
        if self._looks_only:
            return
        self._safety.make_safe()
        if hasattr(self, "_gases"):  # else it came from looking at them
            self._gases.all_shut(self.clock.now())

    def _watched(self, what: str, work: Callable[[Any], T], deadline_s: float) -> T:
        """Do something that a stop makes worthless."""
        try:
            out = self._do(what, work, deadline_s)
        except DeviceFault:
            if self._stopping.is_set():
                msg = f"{what}: it was stopped; what it gave is lost"
                raise Stopped(msg) from None
            raise
        if self._stopping.is_set():
            msg = f"{what}: it was stopped; what it gave is lost"
            raise Stopped(msg)
        return out

    @staticmethod
    def _asking(what: str, work: Callable[[], T]) -> T:
        """Ask for something that the microscope's software may forbid: its complaint is a refusal."""
        try:
            return work()
        except DeviceFault as error:
            msg = f"the microscope refuses to {what}: {error.message}"
            raise Refused(
                msg, rule="microscope-refuses", field=what, value=error.message, limit="what its software allows",
                remedy="see the message",
            ) from error  # fmt: skip

    def _frame(
        self, pixels: Any, scan: Scan | EdsScan, channels: tuple[str, ...], started: float, seconds: float, image: Any
    ) -> Frame:
        self._frames += 1
        given = getattr(getattr(getattr(image, "metadata", None), "acquisition", None), "uid", None)
        meta = FrameMeta(
            uid=given or f"{self._description.serial}-{self._session}-{self._frames}", channels=channels,
            pixel_x_m=scan.pixel_m, pixel_y_m=scan.pixel_m, started_s=started, seconds=seconds, scan=scan,
            state=self.state(), virtual=self._description.virtual,
        )  # fmt: skip
        return Frame(pixels, meta)


def _lit(state: State, beam: Beam) -> None:
    """Raise DeviceFault where a source is off."""
    if not state.beam(beam).source_on:
        msg = f"the {beam} source is off; relight it"
        raise DeviceFault(msg, beam=str(beam))
