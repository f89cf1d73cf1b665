"""What a set-up needs beyond numbers: the ion beam placed on the fiducial, the electron beam in focus, the drift gone.

Valid for one session with the server and one state of stage and beam; when either has changed it is made again. None of
it is an act: nothing here is worth keeping, and at replay the instrument may stand elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from instrument.errors import DeviceFault, NotReached
from instrument.frame import Frame
from instrument.geometry import View
from instrument.guard_rules import current_is_right, point_of
from instrument.microscope import Microscope
from instrument.settings import (
    Beam,
    BeamSettings,
    Description,
    DetectorSettings,
    Device,
    GasSetting,
    Scan,
    Setup,
    StagePosition,
    State,
    Tune,
)
from workflows import tracking
from workflows.ensure import Ensurer, Standing, Stood
from workflows.layout import RULER_WIDTH_M, Layout, Mark
from workflows.limits import idle_current, looked_off, mark_field
from workflows.pointing import Pointing
from workflows.recipe_rules import LOOK_PX, MARK_PX, SEARCH_MARGIN_M
from workflows.ruler import read_ruler
from workflows.untouched import Untouched

log = logging.getLogger(__name__)

#: Quick pictures: pixels, dwell of ion and electron looks (s).
ION_DWELL_S, ELECTRON_DWELL_S = 100e-9, 300e-9
#: Gas that flows raises the pressure by this factor at the least (physics.md 1.5: from 1-5e-4 to 5e-4-5e-3 Pa).
FLOW_RISE = 1.5
#: Vacuum after gas: it is waited for while it falls by more than 3 % in 10 s, five minutes at the most.
PUMP_EVERY_S, PUMP_MOST_S, STILL_FALLING, PUMPED = 10.0, 300.0, 0.97, 1.2
#: Pixels of the pictures that show drift: a part of the face is enough.
SETTLE_PX = (384, 332)
#: Quick looks at the face are so much of its picture wide.
FACE_LOOK = 0.6
#: Longest time for drift to die down, time between two quick pictures (night.md 14), s; drift far above the limit is
#: looked at again after up to so many times that.
SETTLE_MOST_S, SETTLE_EVERY_S, SETTLE_PATIENCE = 180.0, 30.0, 3.0
#: No sample drifts so fast (physics.md 4.6: 20-100 nm/min): the pictures had nothing to compare, m/s.
UNBELIEVABLE_M_PER_S = 300e-9 / 60
#: The focus is set again when the face has receded by this much, m.
FOCUS_STEP_M = 50e-9
#: An ion focus with a lower score, or farther from the one before (m), is none: there was nothing to focus on.
LEAST_SHARP, FOCUS_REACH_M = 0.1, 200e-6
#: How far a mark is looked for from afar, both in one picture (m).
WIDE_SEARCH_M = 12e-6
#: How far the cap's edge may be from where it should be (m).
CAP_SEARCH_M = 5e-6
#: Pixel of the picture that finds cap and ruler: grooves of half a micron are some pixels wide (m).
CAP_PIXEL_M = 60e-9
#: How far the plane may be from where it should be as long as the ruler's zero is not known: the site's own error (m).
FIRST_SEARCH_M = 4e-6
#: Dwell of the picture that finds it: backscattered electrons are fewer (s).
CAP_DWELL_S = 1e-6

Note = Callable[[str, Any], object]


class SourceOff(DeviceFault):
    """A column's source gives nothing: it is relit, or a person looks."""

    symptom = "source-off"


class CurrentOff(NotReached):
    """A beam's measured current is not what was asked for."""

    symptom = "current-off"


class Aligner:
    """Brings set-ups about on one instrument in one session.

    Parameters
    ----------
    instrument : every verb; acts and looks go through the same server
    description : of the instrument
    note : keeps an event in the journal
    budget_m : how much of the mark all looks together may take (m)
    stood : where a session before this one sent the stage, None when nothing is known
    focused : what a session before this one noted of its focus, newest last
    """

    def __init__(
        self,
        instrument: Microscope,
        description: Description,
        note: Note,
        budget_m: float = 0.3e-6,
        *,
        stood: Stood | None = None,
        focused: Iterable[Mapping[str, Any]] = (),
        usual: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self._instrument = Untouched(instrument)
        self._description = description
        self._note = note
        self._budget = budget_m
        self._ensurer = Ensurer(self._instrument, stood, self._moved)
        self._registered: Standing | None = None
        self._settled: Standing | None = None
        self._focus: dict[tuple[object, ...], tuple[float, float]] = {
            (one["pose"], one["voltage_v"], one["current_a"]): (one["working_distance_m"], one["plane_m"])
            for one in focused
        }
        self.layout: Layout | None = None
        self.marks: Sequence[Mark] = ()
        self._base_pa = 0.0
        self._usual_a = {
            point_of(Beam(one["beam"]), BeamSettings.model_validate(one["point"])): float(one["measured_a"])
            for one in usual
        }
        self.worn_m = 0.0
        self.ruler_zero = 0.0
        self.pointing = Pointing()
        self._placed: tuple[float, float, float] | None = None

    def forget(self) -> None:
        """Forget all alignment: somebody else had the instrument in hand."""
        self._registered = self._settled = self._placed = None
        self._focus.clear()
        self._ensurer.forget()
        self._instrument.forget()

    def focus_anew(self) -> None:
        """Have the electron beam focused before the next picture of the face, whichever process takes it."""
        self._focus.clear()
        self._note("focus anew", {})

    def ensure(self, setup: Setup) -> State:
        """Bring a set-up about and return the state that shows it; NotReached or DeviceFault where it fails.

        AnotherHand, before anything more is set, where somebody else has changed what this run has set last.
        """
        self.shut_gas(but=tuple(setup.gases_open))
        if setup.ion is not None and not setup.gases_open:
            self._pumped()
        if setup.ion is not None and setup.ion.shift_x_m is not None:
            self._registered = None
            self._placed = _working_point(setup.ion)
        state = self._ensurer.ensure(setup)
        self._current_is_right(setup, state)
        if setup.focus_z_m is not None:
            self._focused(setup, setup.focus_z_m, state)
        if setup.settle_m_per_s is not None:
            self._rested(setup, setup.settle_m_per_s, state)
        if setup.register_on_mark:
            self._on_mark(setup, state)
        if setup.register_on_cap:
            self._on_cap(setup, state)
        if setup.gases_open:
            self._gas_flows(setup)
        state = self._instrument.state()
        if self._description.maps_by is not None and Device.EDS in setup.inserted:
            self._instrument.forget()  # who starts maps beside the instrument may set what he needs
        return state

    def state(self) -> State:
        """Return the instrument's state as it is now."""
        return self._instrument.state()

    def _gas_flows(self, setup: Setup) -> None:
        """Open the set-up's valves; no beam without the rise of pressure that proves a flow."""
        before = self._instrument.state()
        for gas, duty in setup.gases_open.items():
            self._instrument.set_gas(gas, GasSetting(duty=duty, valve_open=True))
        after = self._instrument.state()
        was_open = any(gas.valve_open for gas in before.gases.values())
        if not was_open and after.pressure_pa < FLOW_RISE * before.pressure_pa:
            self.shut_gas()
            names = ", ".join(setup.gases_open)
            msg = (
                f"the pressure stayed at {after.pressure_pa:.2g} Pa when {names} was opened: no gas flows; "
                "look at heater, reservoir and needle"
            )
            raise DeviceFault(msg, before_pa=before.pressure_pa, after_pa=after.pressure_pa)

    def shut_gas(self, *, but: tuple[str, ...] = ()) -> None:
        """Shut every valve that is open, but those of some gases."""
        for gas, now in self._instrument.state().gases.items():
            if now.valve_open and gas not in but:
                self._instrument.set_gas(gas, GasSetting(valve_open=False))

    def contrast(self, setup: Setup, scan: Scan) -> tuple[DetectorSettings, ...]:
        """Find contrast and brightness on a set-up, once for a run: grey means phase (night.md 18)."""
        self.ensure(setup)
        return self._instrument.tune(Tune.CONTRAST, scan).detectors

    def ion_focus(self, setup: Setup, scan: Scan) -> float | None:
        """Focus the ion beam on a set-up; return its working distance (m), as it was where nothing is told by it.

        None where it has none.
        """
        before = self.ensure(setup).ion.settings.working_distance_m or 0.0
        found = self._instrument.tune(Tune.FOCUS, scan)
        distance = found.working_distance_m
        if distance is not None and found.score >= LEAST_SHARP and abs(distance - before) <= FOCUS_REACH_M:
            return distance
        log.warning("the ion beam could not be focused (score %.2f); it stays as it was", found.score)
        self._instrument.set_beam(Beam.ION, BeamSettings(working_distance_m=before or None))
        return before or None

    def idle(self) -> None:
        """Set the ion beam to its voltage's least current: one that is unblanked by accident then hurts nothing."""
        ion = self._instrument.state().ion
        current = idle_current(self._description, ion.settings.voltage_v or 0.0, ion.settings.species)
        if ion.source_on and current is not None:
            self._instrument.set_beam(Beam.ION, BeamSettings(current_a=current))

    def leave(self, source: str) -> None:
        """End the work: gas shut and cold, devices out, beams blanked; the ion current least, or its source off.

        Nothing of it is set by eye: it is done whoever else has changed something.
        """
        self._instrument.make_safe()
        self._instrument.forget()
        state = self._instrument.state()
        for device, inserted in state.devices.items():
            if inserted:
                self._instrument.retract(device)
        for gas, now in state.gases.items():
            if now.heater_on:
                self._instrument.set_gas(gas, GasSetting(heater_on=False))
        if source == "off":
            self._instrument.set_beam(Beam.ION, BeamSettings(source_on=False))
        else:
            self.idle()

    # -- private ------------------------------------------------------------------------------------------------------

    def _moved(self, stood: Stood) -> None:
        self._note("stage", {name: at.model_dump(mode="json") for name, at in stood._asdict().items()})

    def _pumped(self) -> None:
        """Wait while the vacuum still recovers from gas: whoever shut the valve may not have waited."""
        pressure, waited = self._instrument.state().pressure_pa, 0.0
        while waited < PUMP_MOST_S:
            if pressure <= PUMPED * self._base_pa:
                break
            self._instrument.clock.wait(PUMP_EVERY_S)
            waited += PUMP_EVERY_S
            now = self._instrument.state().pressure_pa
            if now > STILL_FALLING * pressure:
                pressure = now
                break
            pressure = now
        self._base_pa = pressure if self._base_pa == 0.0 else min(self._base_pa, pressure)

    def _current_is_right(self, setup: Setup, state: State) -> None:
        for beam, wanted in ((Beam.ELECTRON, setup.electron), (Beam.ION, setup.ion)):
            if wanted is None or wanted.current_a is None:
                continue
            now = state.beam(beam)
            if not now.source_on:
                msg = f"the {beam} source is off; relight it and go on with `kintsugi resume`"
                raise SourceOff(msg, beam=str(beam))
            point = point_of(beam, now.settings)
            usual = self._usual_a.get(point)
            if not current_is_right(now.measured_current_a, wanted.current_a, usual):
                before = "" if usual is None else f", {usual * 1e9:.3g} nA was measured before"
                msg = (
                    f"the {beam} beam's measured current is {now.measured_current_a * 1e9:.3g} nA and "
                    f"{wanted.current_a * 1e9:.3g} nA is asked for{before}; check source and aperture"
                )
                raise CurrentOff(msg, beam=str(beam), measured_a=now.measured_current_a, wanted_a=wanted.current_a)
            if usual is None:
                self._usual_a[point] = now.measured_current_a
                settings = now.settings
                self._note("usual current", {
                    "beam": str(beam), "measured_a": now.measured_current_a,
                    "point": {
                        "voltage_v": settings.voltage_v, "current_a": settings.current_a, "species": settings.species,
                    },
                })  # fmt: skip

    def _on_mark(self, setup: Setup, state: State) -> None:
        """Correct the ion beam's shift so that the mark is seen where it lies."""
        standing = self._ensurer.standing(state, state.ion.settings.voltage_v, state.ion.settings.current_a)
        if standing.holds(self._registered):
            return
        if self.layout is None or not self.marks or setup.stage is None:
            msg = "there is no fiducial yet to place the ion beam on"
            raise NotReached(msg, pose=setup.pose)
        state = self._pointed(state)
        view = _view(self.layout, Beam.ION, setup.stage, state)
        seen: list[float] = []
        centred = any(self._centred(view, mark, seen, state) for mark in self.marks)
        scores = ", ".join(f"{one:.2f}" for one in seen)
        if centred:
            self._registered = standing
            if len(seen) > 1:
                log.warning("the fiducial was found at look %d in %s: scores %s", len(seen), setup.pose, scores)
            return
        msg = (
            f"the fiducial was not found in the {setup.pose} pose: scores {scores}, "
            f"at least {tracking.LEAST_SCORE} is needed; look at it, then `kintsugi resume`"
        )
        raise NotReached(msg, pose=setup.pose, scores=seen)

    def _pointed(self, state: State) -> State:
        """Shift the beam by what this current is known to point beside the one that was placed last."""
        now = state.ion.settings
        here = _working_point(now)
        before, self._placed = self._placed, here
        if before is None or before == here or None in (self.pointing.of(*before[:2]), self.pointing.of(*here[:2])):
            return state
        (u0, v0), (u1, v1) = self.pointing.shift(*before), self.pointing.shift(*here)
        shift = BeamSettings(shift_x_m=(now.shift_x_m or 0.0) + u1 - u0, shift_y_m=(now.shift_y_m or 0.0) + v1 - v0)
        self._instrument.set_beam(Beam.ION, shift)
        return self._instrument.state()

    def _centred(self, view: View, mark: Mark, seen: list[float], state: State) -> bool:
        """Shift the ion beam so that a mark is where it should be; adds to the scores `seen`, tells whether it did.

        The first mark is looked for from afar as well, if it has a spare to be told from.
        """
        near = SEARCH_MARGIN_M
        if self._shifted(self._look(view, mark, near, state), seen):
            return True
        # what a wider picture finds is looked at again from near: its pixels are coarser
        if self._shifted(self._look(view, mark, 2 * near, state), seen):
            return self._shifted(self._look(view, mark, near, state), seen)
        if mark is not self.marks[0] or len(self.marks) < 2:
            return False
        afar = self._look_wide(view, mark, self.marks[1], state)
        return self._shifted(afar, seen) and self._shifted(self._look(view, mark, near, state), seen)

    def _look_wide(self, view: View, mark: Mark, spare: Mark, state: State) -> tracking.Found:
        """Look for a mark from afar, together with the spare: after hours of gas the sample may be many microns off."""
        one, other = view.field(mark.centre), view.field(spare.centre)
        apart = (other[0] - one[0], other[1] - one[1])
        field = mark_field(mark.size, WIDE_SEARCH_M) + abs(apart[0])
        middle = ((one[0] + other[0]) / 2, (one[1] + other[1]) / 2)
        frame = self._instrument.acquire(look_scan(self._description, Beam.ION, middle, field))
        self._wear(frame, field, state)
        found = tracking.find_pair(frame.pixels[0], frame.meta.pixel_x_m, mark.size, mark.line_width, apart_m=apart)
        found = tracking.Found(found.u_m + middle[0] - one[0], found.v_m + middle[1] - one[1], found.score)
        log.warning(
            "from afar the fiducial scores %.2f at %.1f, %.1f um", found.score, found.u_m * 1e6, found.v_m * 1e6
        )
        return found

    def _look(self, view: View, mark: Mark, reach: float, state: State) -> tracking.Found:
        field = mark_field(mark.size, reach)
        u, v = view.field(mark.centre)
        frame = self._instrument.acquire(look_scan(self._description, Beam.ION, (u, v), field, MARK_PX))
        self._wear(frame, field, state)
        found = tracking.find_mark(frame.pixels[0], frame.meta.pixel_x_m, mark.size, mark.line_width, reach_m=reach)
        log.debug("fiducial off by %.0f, %.0f nm, score %.2f", found.u_m * 1e9, found.v_m * 1e9, found.score)
        return found

    def _wear(self, frame: Frame, field: float, state: State) -> None:
        """Add up what looks take off the mark (night.md 9); NotReached once the budget is spent."""
        current = state.ion.measured_current_a
        charge = current * frame.pixels.shape[1] * frame.pixels.shape[2] * ION_DWELL_S
        self.worn_m += looked_off(charge, field, state.ion.settings.voltage_v or 30e3)
        self._note("look", {"worn_m": self.worn_m, "pose_field_m": field})
        if self.worn_m > self._budget:
            msg = (
                f"looks have taken {self.worn_m * 1e9:.0f} nm off the fiducial and {self._budget * 1e9:.0f} nm are "
                "allowed (fiducial.budget); raise it, or use fewer rocking moves"
            )
            raise NotReached(msg, worn_m=self.worn_m, budget_m=self._budget)

    def _shifted(self, found: tracking.Found, seen: list[float]) -> bool:
        """Shift the ion beam, from where it is now, by what a look found; False where that is no mark."""
        seen.append(found.score)
        if found.score < tracking.LEAST_SCORE:
            return False
        now = self._instrument.state().ion.settings
        self._instrument.set_beam(
            Beam.ION,
            BeamSettings(shift_x_m=(now.shift_x_m or 0.0) + found.u_m, shift_y_m=(now.shift_y_m or 0.0) + found.v_m),
        )
        return True

    def _focused(self, setup: Setup, plane: float, state: State) -> None:
        """Focus once per pose and voltage, and follow the face as it recedes."""
        layout, stage = self.layout, setup.stage
        if layout is None or stage is None:
            return
        settings = state.electron.settings
        view = _view(layout, Beam.ELECTRON, stage, state)
        key = (setup.pose, settings.voltage_v, settings.current_a)
        if key not in self._focus:
            x0, y0, x1, y1 = layout.image
            centre = view.field(((x0 + x1) / 2, (y0 + y1) / 2, plane))
            scan = look_scan(self._description, Beam.ELECTRON, centre, FACE_LOOK * min(x1 - x0, y1 - y0))
            found = self._instrument.tune(Tune.FOCUS, scan)
            if found.working_distance_m is None:
                msg = "the automatic focus found nothing; focus by hand, then `kintsugi resume`"
                raise NotReached(msg, pose=setup.pose)
            self._focus[key] = (found.working_distance_m, plane)
            self._note("focused", {
                "pose": setup.pose, "voltage_v": settings.voltage_v, "current_a": settings.current_a,
                "working_distance_m": found.working_distance_m, "plane_m": plane, "score": found.score,
            })  # fmt: skip
            return
        distance, at = self._focus[key]
        wanted = distance + view.slice_shift(1.0)[1] * (plane - at)
        if abs((settings.working_distance_m or 0.0) - wanted) > FOCUS_STEP_M:
            self._instrument.set_beam(Beam.ELECTRON, BeamSettings(working_distance_m=wanted))

    def _on_cap(self, setup: Setup, state: State) -> None:
        """Correct the electron beam's shift on the buried ruler, else on the cap's lower edge.

        For every picture anew: what was found for the last one is gone with a run that dies in between, and the next
        picture would then lie otherwise, and the planes that are placed by it.
        """
        settings, layout, stage = state.electron.settings, self.layout, setup.stage
        if layout is None or stage is None:
            return
        view = _view(layout, Beam.ELECTRON, stage, state)
        plane = layout.trim if setup.focus_z_m is None else setup.focus_z_m
        edge_v = view.field((0.0, 0.0, plane))[1]
        backscatter = next((one for one in ("CBS", "TLD") if one in self._seeing(state)), "ETD")
        down = view.field((0.0, 1.0, plane))[1] - view.field((0.0, 0.0, plane))[1]
        width = layout.image[2] - layout.image[0] + CAP_SEARCH_M
        scan = look_scan(self._description, Beam.ELECTRON, (0.0, edge_v), width).replace(
            detectors=(DetectorSettings(name=backscatter),), dwell_s=CAP_DWELL_S, pixel_m=CAP_PIXEL_M,
            width_px=round(width / CAP_PIXEL_M),
            height_px=round((2 * CAP_SEARCH_M + 3 * layout.cap_height * down) / CAP_PIXEL_M),
        )  # fmt: skip
        frame = self._instrument.acquire(scan)
        ruler, edge = self._ruler_in(frame, plane, down), self._edge_in(frame, down)
        # the ruler lies as high as the bare top under it, which is uneven; the edge is the mean over the picture
        seen = ruler or edge
        if seen is None:
            log.warning("neither ruler nor cap was seen in the %s pose; the picture lies as the last one", setup.pose)
            self._note("unregistered", {"pose": setup.pose})
            return
        self._instrument.set_beam(
            Beam.ELECTRON,
            BeamSettings(
                shift_x_m=(settings.shift_x_m or 0.0) + seen[0],
                shift_y_m=(settings.shift_y_m or 0.0) + (edge or seen)[1],
            ),
        )

    def _ruler_in(self, frame: Frame, plane: float, down: float) -> tuple[float, float] | None:
        """Return how far (m, field) the ruler lies from where it should, None where it isn't seen."""
        layout = self.layout
        if layout is None or layout.ruler is None:
            return None
        pixel = frame.meta.pixel_x_m
        middle = 0.5 * (layout.ruler.top + layout.ruler.bottom) * down
        row = (frame.pixels.shape[1] - 1) / 2 + middle / pixel
        reach = CAP_SEARCH_M / pixel
        found = read_ruler(
            frame.pixels[0],
            (pixel, pixel),
            rows=slice(max(0, round(row - reach)), round(row + reach)),
            expected_half_m=layout.ruler.half_at(plane + self.ruler_zero),
            search_m=CAP_SEARCH_M / 4 if self.ruler_zero else FIRST_SEARCH_M,
            groove_m=(RULER_WIDTH_M * 2**0.5, (layout.ruler.bottom - layout.ruler.top) * down),
            half_at_zero_m=layout.ruler.half_at_zero,
            aside_m=CAP_SEARCH_M,
        )
        return None if found is None else (found.middle_m, found.row_m - middle)

    def _edge_in(self, frame: Frame, down: float) -> tuple[float, float] | None:
        """Return how far (m, field) the cap's lower edge lies from where it should, None where it isn't seen."""
        if self.layout is None:
            return None
        found = tracking.find_lower_edge(
            frame.pixels[0], frame.meta.pixel_x_m, thickness_m=self.layout.cap_height * down, reach_m=CAP_SEARCH_M
        )
        return None if found is None else (0.0, found)

    def _seeing(self, state: State) -> tuple[str, ...]:
        """Return the detectors that can be used as devices stand now."""
        out = set() if state.devices.get(Device.CBS, False) else {"CBS"}
        return tuple(name for name in self._description.detectors if name not in out)

    def _rested(self, setup: Setup, limit: float, state: State) -> None:
        """Wait until two quick pictures say that the sample drifts by less than `limit` (m/s), or for three minutes."""
        layout, stage = self.layout, setup.stage
        standing = self._ensurer.standing(state, *sorted(name for name, inserted in state.devices.items() if inserted))
        if standing.holds(self._settled) or layout is None or stage is None:
            return
        view = _view(layout, Beam.ELECTRON, stage, state)
        x0, y0, x1, y1 = layout.image
        plane = layout.trim if setup.focus_z_m is None else setup.focus_z_m
        scan = look_scan(
            self._description,
            Beam.ELECTRON,
            view.field(((x0 + x1) / 2, (y0 + y1) / 2, plane)),
            FACE_LOOK * (y1 - y0),
            SETTLE_PX,
        )
        first = self._instrument.acquire(scan)
        began, rate, waits = first.meta.started_s, float("inf"), SETTLE_EVERY_S
        while (left := SETTLE_MOST_S - (first.meta.started_s - began)) > 0:
            self._instrument.clock.wait(max(SETTLE_EVERY_S, min(waits, left)))
            second = self._instrument.acquire(scan)
            moved = tracking.drift_between(first.pixels[0], second.pixels[0], scan.pixel_m)
            rate = moved / max(1.0, second.meta.started_s - first.meta.started_s)
            first, waits = second, SETTLE_EVERY_S * min(SETTLE_PATIENCE, rate / limit)
            if rate <= limit:
                break
        self._settled = standing
        waited = first.meta.started_s - began
        self._note("settled", {"pose": setup.pose, "drift_m_per_s": rate, "waited_s": waited})
        if rate > UNBELIEVABLE_M_PER_S:
            log.warning("no drift could be measured on this picture; %.0f s were waited", waited)
        elif rate > limit:
            log.warning("drift is still %.0f nm/min after %.0f s", rate * 60e9, waited)


def look_scan(
    description: Description, beam: Beam, centre: tuple[float, float], field_m: float, size: tuple[int, int] = LOOK_PX
) -> Scan:
    """Return a quick picture of some pixels around a field position (m), `field_m` wide."""
    name = "ICE" if beam is Beam.ION and "ICE" in description.detectors else "ETD"
    return Scan(
        beam=beam,
        detectors=(DetectorSettings(name=name),),
        width_px=size[0],
        height_px=size[1],
        pixel_m=field_m / size[0],
        centre_x_m=centre[0],
        centre_y_m=centre[1],
        dwell_s=ION_DWELL_S if beam is Beam.ION else ELECTRON_DWELL_S,
    )


def _view(layout: Layout, beam: Beam, stage: StagePosition, state: State) -> View:
    """Return how a beam, as it is turned now, sees the block from where the stage was sent."""
    return View(layout.site, beam, stage, scan_rotation=state.beam(beam).settings.scan_rotation_rad or 0.0)


def _working_point(ion: BeamSettings) -> tuple[float, float, float]:
    """Return voltage (V), current (A) and scan rotation (rad) of a beam."""
    return ion.voltage_v or 0.0, ion.current_a or 0.0, ion.scan_rotation_rad or 0.0
