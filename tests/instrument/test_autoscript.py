"""The AutoScript backend where the vendor's side does what no emulation shows: missing, failing, hanging, lying."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pytest_mock import MockerFixture

from instrument import connect
from instrument.autoscript import connection, following, microscope, opening, safety, writing
from instrument.autoscript.elements import Exports, FolderMapper
from instrument.autoscript.microscope import AutoscriptMicroscope
from instrument.autoscript.scans import framing
from instrument.autoscript.xray import Command, LaserApi
from instrument.errors import BadData, ConnectionLost, DeviceFault, NotReached, Refused, Stopped, TimedOut, Unsafe
from instrument.process import PURGE_S
from instrument.remote import attach
from instrument.server import serve
from instrument.settings import (
    Beam,
    BeamSettings,
    DetectorSettings,
    Device,
    EdsScan,
    GasSetting,
    Line,
    PatternJob,
    Progress,
    Rectangle,
    Scan,
    StagePosition,
    State,
)
from instrument.watchdog import _make_safe_beside
from simulator.sidebyside import HAND
from tests.contract.emulation import BARE, emulated, vendor_named
from tests.instrument.serving import until


@pytest.fixture
def scope() -> Iterator[AutoscriptMicroscope]:
    with emulated(BARE) as opened:
        yield opened


def job(seconds: float = 20.0) -> PatternJob:
    pattern = Rectangle(x_m=0.0, y_m=-6e-6, width_m=2e-6, height_m=2e-6, depth_m=0.2e-6)
    return PatternJob(
        patterns=(pattern,), purpose="mill", area="trench", current_a=1e-9, voltage_v=30e3, dose_c=seconds * 1e-9
    )


def is_quiet(scope: AutoscriptMicroscope) -> bool:
    state = scope.state()
    return state.safe and state.ion.blanked and state.electron.blanked and not state.patterning


# -- coming to speak with it ------------------------------------------------------------------------------------------


def test_a_client_that_is_not_installed_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [one for one in sys.path if "autoscript" not in one])
    for name in [one for one in sys.modules if one.startswith("autoscript_")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(Refused, match="can't be imported") as caught:
        connect("autoscript://localhost")
    assert caught.value.remedy


def test_a_client_that_is_too_old_is_refused(mocker: MockerFixture) -> None:
    vendor_named()
    mocker.patch("autoscript_sdb_microscope_client.build_information.INFO_VERSIONSHORT", "4.8.1")
    with pytest.raises(Refused, match=r"4\.8\.1.*4\.13"):
        connect("autoscript://localhost")


def test_nothing_that_answers_is_a_lost_connection(mocker: MockerFixture) -> None:
    vendor_named()
    mocker.patch(
        "autoscript_sdb_microscope_client.SdbMicroscopeClient.connect", side_effect=ConnectionError("no route")
    )
    with pytest.raises(ConnectionLost, match="no route"):
        connect("autoscript://nowhere:7520")


@pytest.mark.parametrize("url", ["autoscript://localhost?pace=3", "autoscript://localhost?elements=/no/such/folder"])
def test_a_url_that_can_not_be_is_refused(url: str) -> None:
    vendor_named()
    with pytest.raises(Refused):
        connect(url)


def test_it_begins_blanked_and_leaves_no_thread(scope: AutoscriptMicroscope) -> None:
    assert is_quiet(scope)
    before = threading.active_count()
    with emulated(BARE):
        assert threading.active_count() > before
    assert threading.active_count() == before


# -- failing, hanging, lying ------------------------------------------------------------------------------------------


def raised(error: Exception | None) -> None:
    if error is not None:
        raise error


def back_once_stopped(scope: AutoscriptMicroscope, mocker: MockerFixture) -> threading.Event:
    """What a call hangs on until it is stopped from beside."""
    go_on, really = threading.Event(), scope._safety.stop

    def stop() -> None:
        try:
            really()
        finally:
            go_on.set()

    mocker.patch.object(scope._safety, "stop", stop)
    return go_on


def test_an_exception_in_mid_pattern_leaves_it_blanked_and_cleared(
    scope: AutoscriptMicroscope, mocker: MockerFixture
) -> None:
    client = scope._acts.client
    mocker.patch.object(type(client.patterning), "start", side_effect=RuntimeError("high tension tripped"))
    with pytest.raises(DeviceFault, match="high tension tripped"):
        scope.pattern(job())
    assert is_quiet(scope)
    assert client.patterning._patterns == []


def test_a_start_whose_answer_is_lost_is_ended(scope: AutoscriptMicroscope, mocker: MockerFixture) -> None:
    """The call took effect, its answer never came: nothing may go on writing."""
    client = scope._acts.client
    really = type(client.patterning).start

    def lost(patterning: Any) -> None:
        really(patterning)
        raise ConnectionError("reset by peer")

    mocker.patch.object(type(client.patterning), "start", lost)
    assert not scope.lost
    with pytest.raises(ConnectionLost, match="reset by peer"):
        scope.pattern(job())
    assert is_quiet(scope)
    assert scope.lost  # as its server has to know


def test_a_call_that_hangs_ends_by_its_deadline_and_is_stopped_from_beside(mocker: MockerFixture) -> None:
    with emulated(BARE) as scope:
        go_on, client = threading.Event(), scope._acts.client
        mocker.patch.object(microscope, "CALL_S", 0.3)
        mocker.patch.object(connection, "LATE_S", 0.1)
        mocker.patch.object(microscope, "move_seconds", return_value=0.0)
        mocker.patch.object(type(client.specimen.stage), "absolute_move", side_effect=lambda *_: go_on.wait(30.0))
        client.beams.ion_beam.unblank()
        try:
            with pytest.raises(
                ConnectionLost, match="never came back"
            ):  # which a run is resumed after, on a new server
                scope.move_stage(StagePosition(x=1e-6))
            assert scope._safety._line.client.beams.ion_beam.is_blanked
            with pytest.raises(ConnectionLost, match="never came back"):
                scope.set_beam(Beam.ION, BeamSettings(shift_x_m=0.0))
            assert scope.lost
            scope.stop()
            assert scope.make_safe().safe
        finally:
            go_on.set()
    scope._acts._thread.join(20.0)
    assert not scope._acts._thread.is_alive()


def test_a_call_that_comes_back_late_is_stopped_from_beside_and_work_goes_on(
    scope: AutoscriptMicroscope, mocker: MockerFixture
) -> None:
    go_on, client = back_once_stopped(scope, mocker), scope._acts.client
    mocker.patch.object(microscope, "CALL_S", 0.3)
    mocker.patch.object(microscope, "move_seconds", return_value=0.0)

    def late(*_: Any) -> None:
        assert go_on.wait(10.0)
        client.beams.ion_beam.unblank()

    moves = mocker.patch.object(type(client.specimen.stage), "absolute_move", side_effect=late)
    with pytest.raises(TimedOut, match="whether it was done is not known"):
        scope.move_stage(StagePosition(x=1e-6))
    assert not scope._acts.hangs
    assert client.beams.ion_beam.is_blanked
    assert not scope._stopping.is_set()  # else the act that has begun by then would throw its picture away
    mocker.stop(moves)
    scope.set_beam(Beam.ION, BeamSettings(shift_x_m=1e-6))
    assert scope.state().ion.blanked
    assert not scope.lost


@pytest.mark.parametrize("verb", ["pattern", "map"])
def test_what_hangs_is_stopped_from_beside_before_anything_waits_for_it(
    scope: AutoscriptMicroscope, elements: Elements, mocker: MockerFixture, verb: str
) -> None:
    """It comes back because it is stopped: were it waited for first, it never would."""
    go_on, client = back_once_stopped(scope, mocker), scope._acts.client
    scope.set_beam(Beam.ION, BeamSettings(voltage_v=30e3, current_a=1e-9))
    if verb == "map":
        scope.insert(Device.EDS)
    asked: list[str] = []

    def hangs(*_: Any) -> bool:
        asked.append(threading.current_thread().name)
        return asked != ["autoscript acts"] or go_on.wait(10.0)

    def mapped(scan: EdsScan) -> NDArray[np.uint16]:
        mocker.patch.object(type(client.beams.electron_beam), "is_blanked", property(hangs))
        return Elements().map(scan)

    mocker.patch.object(elements, "map", mapped)
    mocker.patch.object(type(client.patterning), "start", hangs)
    mocker.patch.object(AutoscriptMicroscope._do, "__defaults__", (1.0,))
    mocker.patch.object(connection, "LATE_S", 5.0)
    with pytest.raises(TimedOut):
        scope.acquire_eds(SCAN) if verb == "map" else scope.pattern(job())
    assert go_on.is_set()
    assert not scope.lost


def test_a_complaint_while_what_hangs_is_stopped_hides_nothing(
    scope: AutoscriptMicroscope, mocker: MockerFixture
) -> None:
    """To a complaint, inserting would answer that it is refused."""
    go_on, client = back_once_stopped(scope, mocker), scope._acts.client
    mocker.patch.object(microscope, "CALL_S", 0.3)
    mocker.patch.object(type(client.gas.get_multichem()), "insert", side_effect=lambda *_: go_on.wait(10.0))
    complaints = iter([RuntimeError("busy")])
    mocker.patch.object(type(client.imaging), "stop_acquisition", side_effect=lambda: raised(next(complaints, None)))
    with pytest.raises(TimedOut) as told:
        scope.insert(Device.NEEDLE)
    assert "busy" in told.value.evidence["stop"]


def test_a_gas_that_is_opened_late_is_shut_again(mocker: MockerFixture) -> None:
    """What comes before it hangs, is given up, and all is made safe; then needle and valve move after all."""
    with emulated(BARE, kind="hydra-gis") as scope:
        scope.insert(Device.NEEDLE)
        scope.set_gas("W", GasSetting(heater_on=True))
        port = type(scope._acts.client.gas.get_gis_port("W dep"))
        go_on, really = threading.Event(), port.open
        flowed: list[bool] = []

        def late(self: Any) -> None:
            assert go_on.wait(10.0)
            self.insert()
            really(self)
            flowed.append(truly(scope).gases["W"].valve_open)

        def made_safe() -> None:
            if not go_on.is_set():
                assert scope.make_safe().safe
                go_on.set()

        mocker.patch.object(port, "open", late)
        mocker.patch.object(scope._safety, "stop", made_safe)
        mocker.patch.object(microscope, "CALL_S", 0.3)
        mocker.patch.object(microscope, "PATIENT", 0.0)
        with pytest.raises(TimedOut):
            scope.set_gas("W", GasSetting(valve_open=True))
        assert flowed == [True]
        assert is_truly_safe(scope)
        assert not scope._gases.books["W"].valve_open


def test_who_only_looks_stops_nobodys_beam() -> None:
    with emulated(BARE, place=("looked-at", 7520)) as scope:
        go_on = threading.Event()
        scope._acts.client.beams.ion_beam.unblank()
        with closing(AutoscriptMicroscope("looked-at", 7520, ready=False)) as looking:
            with pytest.raises(TimedOut):
                looking._do("look", lambda _scope: go_on.wait(10.0), 0.1)
            go_on.set()
            looking._acts.settle()  # back, late
        assert not scope._acts.client.beams.ion_beam.is_blanked


def test_a_server_whose_vendors_call_never_returns_ends_safely_and_the_next_one_works(
    tmp_path: Path, mocker: MockerFixture
) -> None:
    go_on, ended = threading.Event(), []
    mocker.patch.object(microscope, "CALL_S", 0.3)
    mocker.patch.object(microscope, "move_seconds", return_value=0.0)
    mocker.patch.object(connection, "LATE_S", 0.1)

    def work(scope: AutoscriptMicroscope) -> None:
        try:
            serve(scope, tmp_path)
        except Unsafe as error:
            ended.append(error)

    with emulated(BARE, place=("hung", 7520)) as scope:
        stage = type(scope._acts.client.specimen.stage)
        hangs = mocker.patch.object(stage, "absolute_move", side_effect=lambda *_: go_on.wait(60.0))
        thread = threading.Thread(target=work, args=(scope,))
        thread.start()
        try:
            until((tmp_path / "server.json").exists)
            with attach(tmp_path / "server.json", "run-1") as remote:
                remote.claim()
                with pytest.raises(ConnectionLost):
                    remote.move_stage(StagePosition(x=1e-6))
                thread.join(30.0)
            assert not thread.is_alive()
            assert len(ended) == 1  # which is what has its watchdog make safe once more
            assert not (tmp_path / "server.json").exists()
            mocker.stop(hangs)
            with closing(opening.open_url("autoscript://hung")) as again:
                assert again.state().safe
                again.move_stage(StagePosition(x=1e-6))
        finally:
            go_on.set()
    scope._acts._thread.join(20.0)


def test_what_nobody_waits_for_any_more_is_not_begun() -> None:
    go_on, begun = threading.Event(), threading.Event()
    caller = connection.Caller("test")
    first = threading.Thread(target=lambda: caller.call("one", lambda: go_on.wait(30.0)))
    first.start()
    with pytest.raises(TimedOut):
        caller.call("two", begun.set, 0.1)
    go_on.set()
    assert caller.call("three", lambda: 3) == 3
    assert not begun.is_set()
    first.join(5.0)
    caller.end()
    with pytest.raises(ConnectionLost, match="closed"):
        caller.call("four", begun.set)


def test_what_came_back_late_and_can_not_be_stopped_is_lost(mocker: MockerFixture) -> None:
    mocker.patch.object(connection, "LATE_S", 0.2)
    go_on = threading.Event()

    def broken() -> None:
        msg = "the stop does not answer"
        raise Unsafe(msg)

    caller = connection.Caller("test", late=broken)
    with pytest.raises(TimedOut):
        caller.call("one", lambda: go_on.wait(30.0), 0.1)
    go_on.set()
    with pytest.raises(ConnectionLost, match="never came back"):
        caller.call("two", lambda: 2)
    assert caller.lost


# -- making safe, whatever fails ------------------------------------------------------------------------------------


@pytest.fixture
def gassed(scope: AutoscriptMicroscope) -> AutoscriptMicroscope:
    """A microscope with gas flowing and a beam on."""
    scope.insert(Device.NEEDLE)
    scope.set_gas("Pt", GasSetting(heater_on=True, valve_open=True))
    scope._acts.client.beams.ion_beam.unblank()
    return scope


def truly(scope: AutoscriptMicroscope) -> State:
    """What the virtual microscope itself says, whatever our side remembers."""
    found: State = scope._acts.client._console.state()
    return found


def is_truly_safe(scope: AutoscriptMicroscope) -> bool:
    client, state = scope._acts.client, truly(scope)
    blanked = client.beams.ion_beam.is_blanked and client.beams.electron_beam.is_blanked
    return blanked and not state.devices[Device.NEEDLE] and not any(one.valve_open for one in state.gases.values())


@pytest.mark.parametrize(
    ("part", "verb", "named"), [("patterning", "stop", "stop patterning"), ("imaging", "stop_acquisition", "scanning")]
)
def test_every_step_of_making_safe_is_tried_where_one_fails(
    gassed: AutoscriptMicroscope, mocker: MockerFixture, part: str, verb: str, named: str
) -> None:
    client = gassed._acts.client
    mocker.patch.object(type(client.patterning), "state", mocker.PropertyMock(return_value="Running"))
    mocker.patch.object(type(client.patterning), "stop")
    mocker.patch.object(type(getattr(client, part)), verb, side_effect=RuntimeError("no"))
    with pytest.raises(DeviceFault, match=named):
        gassed.make_safe()
    assert is_truly_safe(gassed)


def test_all_that_failed_is_named(gassed: AutoscriptMicroscope, mocker: MockerFixture) -> None:
    client = gassed._acts.client
    mocker.patch.object(type(client.imaging), "stop_acquisition", side_effect=RuntimeError("busy"))
    mocker.patch.object(type(client.gas.get_multichem()), "close", side_effect=RuntimeError("stuck"))
    with pytest.raises(DeviceFault, match=r"busy.*stuck") as told:
        gassed.make_safe()
    assert told.value.evidence["failed"] == ["stop scanning", "shut the valves"]
    assert not truly(gassed).devices[Device.NEEDLE]


def test_one_bad_port_keeps_no_other_from_being_shut(mocker: MockerFixture) -> None:
    with emulated(BARE, kind="hydra-gis") as scope:
        scope.insert(Device.NEEDLE)
        scope.set_gas("W", GasSetting(heater_on=True, valve_open=True))
        gas = type(scope._acts.client.gas)
        really = gas.get_gis_port

        def port(self: Any, name: str) -> Any:
            if name == "Pt dep":
                msg = "this port does not answer"
                raise RuntimeError(msg)
            return really(self, name)

        mocker.patch.object(gas, "get_gis_port", port)
        with pytest.raises(DeviceFault, match="shut Pt dep, retract Pt dep"):
            scope.make_safe()
        assert is_truly_safe(scope)


def test_a_blanking_that_hangs_keeps_nothing_else_from_being_made_safe(
    gassed: AutoscriptMicroscope, mocker: MockerFixture
) -> None:
    go_on, beam = threading.Event(), gassed._acts.client.beams.ion_beam
    mocker.patch.object(safety, "BLANK_S", 0.2)
    really = type(beam).blank
    hung: list[str] = []

    def blank(self: Any) -> None:
        if not hung:
            hung.append("once")
            assert go_on.wait(30.0)
        really(self)

    mocker.patch.object(type(beam), "blank", blank)
    before = gassed._safety._line
    try:
        assert gassed.make_safe().safe  # the second blanking, over a fresh connection, has done it
        assert gassed._safety._line is not before
        assert is_truly_safe(gassed)
    finally:
        go_on.set()
    before._thread.join(10.0)
    assert before.client.server_host is None  # disconnected, once it came back


def test_a_stop_works_again_after_one_that_hung_and_could_not_connect_anew(
    scope: AutoscriptMicroscope, mocker: MockerFixture
) -> None:
    go_on, client, before = threading.Event(), scope._acts.client, scope._safety._line
    mocker.patch.object(safety, "BLANK_S", 0.2)
    hangs = mocker.patch.object(type(client.beams.ion_beam), "blank", side_effect=lambda: go_on.wait(30.0))
    away = mocker.patch.object(type(client), "connect", side_effect=ConnectionError("no route"))
    with pytest.raises(Unsafe, match="no route"):
        scope.stop()
    go_on.set()
    before._thread.join(10.0)
    mocker.stop(hangs)
    mocker.stop(away)
    client.beams.ion_beam.unblank()
    scope.stop()
    assert scope.state().ion.blanked


def test_what_never_answers_is_unsafe_and_all_else_is_done(gassed: AutoscriptMicroscope, mocker: MockerFixture) -> None:
    go_on, beam = threading.Event(), gassed._acts.client.beams.electron_beam
    mocker.patch.object(safety, "BLANK_S", 0.2)
    really = type(beam).blank

    def blank(self: Any) -> None:
        if self._column.index == 1:
            assert go_on.wait(30.0)
        really(self)

    mocker.patch.object(type(beam), "blank", blank)
    try:
        with pytest.raises(Unsafe, match="a person is needed now") as told:
            gassed.make_safe()
        assert told.value.evidence["failed"] == ["blank the electron beam"]
        assert is_truly_safe(gassed)
    finally:
        go_on.set()


def test_what_can_not_be_connected_anew_is_asked_for_once(gassed: AutoscriptMicroscope, mocker: MockerFixture) -> None:
    """Each try takes its deadline where it hangs: all steps together would take minutes."""
    go_on, client = threading.Event(), gassed._acts.client
    mocker.patch.object(safety, "BLANK_S", 0.2)
    mocker.patch.object(type(client.beams.ion_beam), "blank", side_effect=lambda: go_on.wait(30.0))
    connects = mocker.patch.object(type(client), "connect", side_effect=lambda *_: go_on.wait(30.0))
    before = {one.name for one in threading.enumerate()}
    try:
        for count in (1, 2):
            with pytest.raises(Unsafe, match="no AutoScript server answers") as told:
                gassed.make_safe()
            assert connects.call_count == count
            assert "find the gases" in told.value.evidence["failed"]
    finally:
        go_on.set()
    until(lambda: {one.name for one in threading.enumerate() if not one.name.startswith(HAND)} <= before)


def test_a_connection_that_can_not_be_let_go_of_is_no_failure_to_make_safe(
    mocker: MockerFixture, caplog: pytest.LogCaptureFixture
) -> None:
    with emulated(BARE, place=("going", 7520)) as scope:
        away = mocker.patch.object(type(scope._acts.client), "disconnect", side_effect=RuntimeError("gone already"))
        _make_safe_beside("autoscript://going")
        mocker.stop(away)
    assert "gone already" in caplog.text
    assert "could not be made safe" not in caplog.text


def test_what_makes_safe_beside_a_server_asks_nothing_else(mocker: MockerFixture) -> None:
    with emulated(BARE, place=("beside", 7520)) as scope:
        scope.insert(Device.NEEDLE)
        scope.set_gas("Pt", GasSetting(heater_on=True, valve_open=True))
        client = scope._acts.client
        connected = mocker.spy(type(client), "connect")
        for part, name in (("vacuum", "chamber_pressure"), ("specimen", "stage"), ("detector", "type")):
            mocker.patch.dict(getattr(client, part).__dict__, {name: mocker.Mock(side_effect=RuntimeError)})
        mocker.patch.object(type(client.gas.get_multichem()), "get_temperature", side_effect=RuntimeError("no"))
        views = mocker.spy(type(client.imaging), "set_active_view")
        with closing(opening.open_for_safety("autoscript://beside")) as beside:
            beside.make_safe()
            beside.make_safe()
        assert connected.call_count == 1
        assert views.call_count == 0
        assert is_truly_safe(scope)


def test_a_value_that_does_not_stick_is_not_reached(scope: AutoscriptMicroscope, mocker: MockerFixture) -> None:
    mocker.patch.object(scope._acts.client.beams.electron_beam.working_distance, "_set", return_value=None)
    with pytest.raises(NotReached, match="working_distance"):
        scope.set_beam(Beam.ELECTRON, BeamSettings(working_distance_m=4.2e-3))


def test_a_stage_that_stands_elsewhere_is_not_reached(scope: AutoscriptMicroscope, mocker: MockerFixture) -> None:
    mocker.patch.object(type(scope._acts.client.specimen.stage), "absolute_move", return_value=None)
    with pytest.raises(NotReached, match="stage's x"):
        scope.move_stage(StagePosition(x=50e-6))


def test_a_gas_that_does_not_flow_is_shut_again(scope: AutoscriptMicroscope, mocker: MockerFixture) -> None:
    scope.insert(Device.NEEDLE)
    scope.set_gas("Pt", GasSetting(heater_on=True))
    mocker.patch.object(scope, "_pressure", return_value=3e-4)
    with pytest.raises(DeviceFault, match="no gas flows"):
        scope.set_gas("Pt", GasSetting(valve_open=True))
    assert not scope._acts.client._console.state().gases["Pt"].valve_open


@pytest.mark.parametrize("waits_itself", [True, False])
def test_an_opened_gas_is_purged_once_before_anything_else(
    scope: AutoscriptMicroscope, mocker: MockerFixture, waits_itself: bool
) -> None:
    scope.insert(Device.NEEDLE)
    scope.set_gas("Pt", GasSetting(heater_on=True))
    if not waits_itself:
        mocker.patch("simulator.microscope.PURGE_S", 0.0)
    began = scope.clock.now()
    scope.set_gas("Pt", GasSetting(valve_open=True))
    assert PURGE_S <= scope.clock.now() - began < 1.5 * PURGE_S


def test_a_purge_that_is_stopped_leaves_the_valve_shut(scope: AutoscriptMicroscope, mocker: MockerFixture) -> None:
    scope.insert(Device.NEEDLE)
    scope.set_gas("Pt", GasSetting(heater_on=True))
    mocker.patch("simulator.microscope.PURGE_S", 0.0)
    began, really = scope.clock.now(), scope.clock.wait

    def wait(seconds: float) -> None:
        really(seconds)
        if scope.clock.now() - began > 30.0:
            scope.stop()

    mocker.patch.object(scope.clock, "wait", wait)
    with pytest.raises(Stopped, match="purged"):
        scope.set_gas("Pt", GasSetting(valve_open=True))
    assert scope.clock.now() - began < PURGE_S
    assert not truly(scope).gases["Pt"].valve_open
    assert not scope.state().gases["Pt"].valve_open


def let_patterns_begin(scope: AutoscriptMicroscope, mocker: MockerFixture, *, at_look: int, start_s: float) -> None:
    """Let a pattern run from so many looks after its start on, which itself comes back after so long."""
    patterning = type(scope._acts.client.patterning)
    really, start = patterning.state, patterning.start
    looks: list[str] = []

    def asked(_self: Any) -> None:
        looks.clear()
        threading.Event().wait(start_s)

    def state(self: Any) -> str:
        looks.append("look")
        if len(looks) == at_look:
            start(self)
        return "Idle" if len(looks) < at_look else str(really.fget(self))

    mocker.patch.object(patterning, "start", asked)
    mocker.patch.object(patterning, "state", property(state))


def test_a_pattern_that_begins_slowly_is_followed_to_its_end(
    scope: AutoscriptMicroscope, mocker: MockerFixture
) -> None:
    scope.set_beam(Beam.ION, BeamSettings(voltage_v=30e3, current_a=1e-9))
    let_patterns_begin(scope, mocker, at_look=5, start_s=0.0)
    done = scope.pattern(job())
    assert (done.fraction, done.stopped) == (1.0, False)
    assert done.elapsed_s == pytest.approx(20.0)


def test_a_pattern_has_its_time_to_begin_after_its_start_has_come_back(
    scope: AutoscriptMicroscope, mocker: MockerFixture
) -> None:
    scope.set_beam(Beam.ION, BeamSettings(voltage_v=30e3, current_a=1e-9))
    mocker.patch.object(following, "_BEGIN_S", 1.0)
    let_patterns_begin(scope, mocker, at_look=3, start_s=1.1)
    assert scope.pattern(job()).fraction == 1.0


@pytest.mark.parametrize("seconds", [20.0, 1e-3])
def test_a_pattern_that_is_never_seen_running_was_not_given_unless_it_is_shorter_than_a_look(
    scope: AutoscriptMicroscope, mocker: MockerFixture, seconds: float
) -> None:
    scope.set_beam(Beam.ION, BeamSettings(voltage_v=30e3, current_a=1e-9))
    mocker.patch.object(following, "_BEGIN_S", 0.3)
    mocker.patch.object(type(scope._acts.client.patterning), "start")
    if seconds > 1.0:
        with pytest.raises(DeviceFault, match="has not begun") as told:
            scope.pattern(job(seconds))
        assert told.value.evidence["fraction"] == 0.0
    else:
        assert scope.pattern(job(seconds)).fraction == 1.0
    assert is_quiet(scope)


def test_a_picture_of_another_size_is_no_picture(scope: AutoscriptMicroscope, mocker: MockerFixture) -> None:
    client = scope._acts.client
    small = client._console.views[1]
    mocker.patch.object(type(client.imaging), "grab_frame", return_value=mocker.Mock(data=np.zeros((5, 5), np.uint8)))
    scan = Scan(detectors=(DetectorSettings(name="ETD"),), width_px=512, height_px=442, pixel_m=20e-9, dwell_s=1e-7)
    with pytest.raises(DeviceFault, match="asked for"):
        scope.acquire(scan)
    assert small.live is None
    assert is_quiet(scope)


def test_views_and_devices_are_put_back(scope: AutoscriptMicroscope) -> None:
    client = scope._acts.client
    client.imaging.set_active_view(4)
    scan = Scan(
        detectors=(DetectorSettings(name="ETD"), DetectorSettings(name="TLD")), width_px=512, height_px=442,
        pixel_m=20e-9, dwell_s=1e-7,
    )  # fmt: skip
    scope.acquire(scan)
    assert client.imaging.get_active_view() == 4
    assert [view.device for view in client._console.views.values()] == [1, 2, 5, 3]


def test_single_needles_do_as_a_multichem() -> None:
    with emulated(BARE, kind="hydra-gis") as scope:
        assert scope.describe().gases == ("Pt", "C", "W")
        scope.insert(Device.NEEDLE)
        scope.set_gas("W", GasSetting(heater_on=True, valve_open=True))
        assert scope.state().gases["W"].valve_open
        state = scope.make_safe()
        assert not state.devices[Device.NEEDLE]
        assert not state.gases["W"].valve_open


def test_another_plasma_takes_its_own_currents(scope: AutoscriptMicroscope) -> None:
    reached = scope.set_beam(Beam.ION, BeamSettings(species="Argon", current_a=28e-9))
    assert (reached.species, reached.current_a) == ("Argon", 28e-9)
    with pytest.raises(Refused, match="current"):
        scope.set_beam(Beam.ION, BeamSettings(current_a=60e-9))


# -- in its words -----------------------------------------------------------------------------------------------------


@given(
    width=st.integers(12, 6144), height=st.integers(12, 4096), pixel=st.floats(2e-9, 2e-7),
    x=st.floats(-0.4, 0.4), y=st.floats(-0.4, 0.4),
)  # fmt: skip
def test_a_framing_is_the_part_that_was_asked_for(width: int, height: int, pixel: float, x: float, y: float) -> None:
    scan = Scan(
        detectors=(DetectorSettings(name="TLD"), DetectorSettings(name="CBS")), width_px=width, height_px=height,
        pixel_m=pixel, centre_x_m=x * width * pixel, centre_y_m=y * height * pixel, dwell_s=1e-6,
    )  # fmt: skip
    try:
        framed = framing(scan, 1e-7, 2.3e-3)
    except Refused:
        assert width * (1 + 2 * abs(x)) > 6143 or height * (1 + 2 * abs(y)) > 4095 or 6144 * pixel < 1e-7
        return
    assert framed.hfw_m / framed.resolution[0] == pytest.approx(pixel, rel=1e-12)
    left, top, wide, high = framed.area or (0.0, 0.0, 1.0, 1.0)
    assert left >= 0
    assert top >= 0
    assert left + wide <= 1 + 1e-9
    assert top + high <= 1 + 1e-9
    assert wide * framed.resolution[0] == pytest.approx(width, abs=1e-6)
    assert (left + wide / 2 - 0.5) * framed.resolution[0] == pytest.approx(x * width, abs=1e-3)
    assert (top + high / 2 - 0.5) * framed.resolution[1] == pytest.approx(y * height, abs=1e-3)


def test_a_line_is_drawn_as_the_outline_of_its_groove() -> None:
    corners = writing.outline(Line(x0_m=0, y0_m=0, x1_m=3e-6, y1_m=-3e-6, line_width_m=1e-6, depth_m=1e-6))
    middle = corners.mean(0)
    assert middle == pytest.approx([1.5e-6, 1.5e-6])  # y upwards
    sides = sorted(float(np.hypot(*(corners[(i + 1) % 4] - corners[i]))) for i in range(4))
    assert sides == pytest.approx([1e-6, 1e-6, 3e-6 * np.sqrt(2) + 1e-6, 3e-6 * np.sqrt(2) + 1e-6])


def test_a_job_in_parts_is_drawn_in_parts(scope: AutoscriptMicroscope) -> None:
    drawn = scope._do("draw", lambda client: writing.draw(client.patterning, job(80).replace(from_fraction=0.75)))
    assert [one.time for one in drawn] == pytest.approx([20.0], rel=1e-3)


def test_errors_are_told_by_what_happened() -> None:
    assert isinstance(connection.told("x", EOFError("gone")), ConnectionLost)
    assert isinstance(connection.told("x", ValueError("odd")), DeviceFault)


# -- the X-ray system -------------------------------------------------------------------------------------------------

SCAN = EdsScan(elements=("Ni", "Pt"), width_px=16, height_px=12, pixel_m=1e-7)
#: A command of a site: keeps the detector's place in a file, and exports when asked for a map.
COMMAND = """
import sys, os, time, pathlib, numpy, tifffile
folder, verb = pathlib.Path(sys.argv[1]), sys.argv[2]
place = folder / "place.txt"
if verb in ("insert", "retract"):
    place.write_text("in" if verb == "insert" else "out")
elif verb == "state":
    print(place.read_text() if place.exists() else "out")
elif verb == "map":
    wide, high, elements = int(sys.argv[3]), int(sys.argv[4]), sys.argv[7].split(",")
    for number, element in enumerate(elements):
        file = folder / f"map_{element}.tif"
        tifffile.imwrite(file, numpy.full((high, wide), number + 1, numpy.uint16))
        os.utime(file, (time.time() - 60, time.time() - 60))
"""


def mapper(folder: Path) -> FolderMapper:
    script = folder / "command.py"
    script.write_text(COMMAND, encoding="utf-8")
    return FolderMapper(folder, Command((sys.executable, str(script), str(folder))))


def test_maps_come_from_the_folder_into_which_they_are_exported(tmp_path: Path) -> None:
    found = mapper(tmp_path)
    assert not found.is_in()
    found.insert()
    assert found.is_in()
    counts = found.map(SCAN)
    assert counts.shape == (2, 12, 16)
    assert (counts[0] == 1).all()
    assert (counts[1] == 2).all()
    found.retract()
    assert not found.is_in()


def test_maps_of_another_size_and_broken_ones_are_bad_data(tmp_path: Path, mocker: MockerFixture) -> None:
    found = mapper(tmp_path)
    mocker.patch.object(Command, "_ask", return_value="in")
    mocker.patch.object(Exports, "ready", return_value=[tmp_path / "map_Ni.tif", tmp_path / "map_Pt.tif"])
    for name in ("Ni", "Pt"):
        tifffile.imwrite(tmp_path / f"map_{name}.tif", np.zeros((3, 4), np.uint16))
    with pytest.raises(BadData, match="not"):
        found.map(SCAN)
    (tmp_path / "map_Pt.tif").write_bytes(b"no tiff")
    with pytest.raises(BadData, match="can't be read"):
        found.map(SCAN)


def test_an_export_is_new_by_its_content_and_rests_by_our_own_clock(tmp_path: Path, mocker: MockerFixture) -> None:
    clock = mocker.patch("instrument.autoscript.elements.time.monotonic", return_value=100.0)
    old, reused, grows = (tmp_path / f"map_{name}.tif" for name in ("Ni", "Pt", "Al"))
    for one in (old, reused):
        one.write_bytes(b"before")
    found = Exports(tmp_path)
    reused.write_bytes(b"a map of the same name")
    grows.write_bytes(b"half")
    for ahead in (reused, grows):  # by a computer whose clock is a day ahead of ours
        os.utime(ahead, ns=(0, 10**9 * (86_400 + int(time.time()))))
    assert found.ready() == []
    clock.return_value = 104.0
    grows.write_bytes(b"the whole of it")
    assert found.ready() == []
    clock.return_value = 106.0
    assert found.ready() == [reused]
    clock.return_value = 109.5
    assert found.ready() == [grows, reused]


def test_a_map_beside_the_middle_of_the_field_is_refused(scope: AutoscriptMicroscope, elements: Elements) -> None:
    elements.insert()
    with pytest.raises(Refused, match=r"4\.0 um off the middle of the field is not possible"):
        scope.acquire_eds(SCAN.replace(centre_y_m=-4e-6))
    assert scope.acquire_eds(SCAN.replace(centre_x_m=1e-9)).pixels.shape == (2, 12, 16)


def test_a_map_by_hand_is_collected_by_nobody_who_has_not_handed_over(tmp_path: Path) -> None:
    url = f"autoscript://localhost?elements={tmp_path}"
    with emulated(BARE, place=("localhost", 7520)), closing(opening.open_url(url)) as opened:
        with pytest.raises(Refused, match="insert EDS first"):
            opened.acquire_eds(SCAN)
        opened.insert(Device.EDS)
        with pytest.raises(Refused):  # the detector may be in
            opened.insert(Device.NEEDLE)
        with pytest.raises(NotReached, match="is not collected"):
            opened.retract(Device.EDS)
        assert opened.state().devices[Device.EDS]


def test_the_description_says_who_starts_maps(tmp_path: Path, mocker: MockerFixture) -> None:
    mocker.patch.object(Command, "_ask", return_value="out")
    with emulated(BARE, place=("localhost", 7520)):
        for query, starter in (("", "person"), ("&elements_command=start%20map", "command")):
            with closing(opening.open_url(f"autoscript://localhost?elements={tmp_path}{query}")) as opened:
                assert opened.describe().maps_by == starter
        with closing(opening.open_url("autoscript://localhost")) as opened:
            assert opened.describe().maps_by is None  # the virtual X-ray system needs nobody


class Elements:
    """An X-ray system that counts how often it is asked, and may fail."""

    maps_by = None

    def __init__(self) -> None:
        self.asked, self.fails, self.inside = 0, False, False

    def is_in(self) -> bool:
        self.asked += 1
        if self.fails:
            msg = "the X-ray program has crashed"
            raise DeviceFault(msg)
        return self.inside

    def insert(self) -> None:
        self.inside = True

    def retract(self) -> None:
        self.inside = False

    def map(self, scan: EdsScan) -> NDArray[np.uint16]:
        return np.ones((len(scan.elements), scan.height_px, scan.width_px), np.uint16)


@pytest.fixture
def elements(scope: AutoscriptMicroscope) -> Elements:
    found = Elements()
    scope._elements = found
    return found


def test_the_xray_program_is_not_asked_for_the_state(scope: AutoscriptMicroscope, elements: Elements) -> None:
    scope.insert(Device.EDS)
    assert scope.state().devices[Device.EDS]
    asked = elements.asked
    scope.state()
    scope.set_beam(Beam.ION, BeamSettings(shift_x_m=1e-6))
    assert elements.asked == asked
    elements.inside = False  # a person has taken it out
    scope.move_stage(StagePosition(x=1e-3))
    assert not scope.state().devices[Device.EDS]


def test_an_xray_program_that_fails_keeps_nobody_from_making_safe(
    scope: AutoscriptMicroscope, elements: Elements
) -> None:
    scope.insert(Device.NEEDLE)
    elements.fails = True
    assert scope.make_safe().safe
    scan = Scan(detectors=(DetectorSettings(name="ETD"),), width_px=512, height_px=442, pixel_m=20e-9, dwell_s=1e-7)
    scope.acquire(scan)
    with pytest.raises(DeviceFault, match="has crashed"):  # nobody knows whether it is in the way
        scope.move_stage(StagePosition(x=1e-6))
    with pytest.raises(DeviceFault, match="has crashed"):
        scope.pattern(job())


LONG = SCAN.replace(width_px=200, height_px=200, dwell_s=1e-3, frames=2)


@pytest.fixture
def control(mocker: MockerFixture) -> Any:
    """The vendor's Laser.PythonControl: a detector that must be asked twice, a map that begins after a while."""
    said = {"EDS_CameraStatus": ["Retracted"], "EDS_MappingStatus": ["Idle"]}
    module = mocker.MagicMock()
    module.TestConnection.side_effect = lambda: sys.stdout.write("Connection test successful.\n")

    def answers(question: str) -> str:
        return said[question].pop(0) if len(said[question]) > 1 else said[question][0]

    for question in said:
        getattr(module, question).side_effect = lambda question=question: answers(question)
    inserted: list[str] = []

    def insert() -> None:
        inserted.append("asked")
        said["EDS_CameraStatus"] = ["Busy", "Retracted"] if len(inserted) == 1 else ["Busy", "Inserted"]

    module.EDS_InsertCamera.side_effect = insert
    module.EDS_RetractCamera.side_effect = lambda: said.update(EDS_CameraStatus=["Busy", "Retracted"])
    module.EDS_StartMap.side_effect = lambda: said.update(EDS_MappingStatus=["Idle", "Active", "Active", "Idle"])
    module.said = said
    mocker.patch.dict(sys.modules, {"Laser": mocker.MagicMock(), "Laser.PythonControl": module})
    mocker.patch("instrument.autoscript.xray._POLL_S", 0.01)
    mocker.patch("instrument.autoscript.xray.START_S", 0.2)
    mocker.patch("instrument.autoscript.xray.COMMAND_S", 0.5)
    return module


def test_the_vendors_control_moves_the_detector_and_starts_maps(control: Any) -> None:
    found = LaserApi()
    assert not found.is_in()
    found.insert()
    assert found.is_in()
    assert control.EDS_InsertCamera.call_count == 2
    found.start(LONG)
    assert control.EDS_StartMap.call_count == 1
    assert control.said["EDS_MappingStatus"] == ["Idle"]
    found.retract()
    assert not found.is_in()


def test_what_the_vendors_control_does_not_do_is_told(control: Any) -> None:
    found = LaserApi()
    with pytest.raises(Refused, match="starts none under 30 s"):
        found.start(SCAN)
    assert not control.EDS_StartMap.called
    control.EDS_StartMap.side_effect = None
    with pytest.raises(NotReached, match="did not start"):
        found.start(LONG)
    control.said["EDS_MappingStatus"] = ["Active", "Error"]
    with pytest.raises(DeviceFault, match="reports an error"):
        found.start(LONG)
    control.EDS_InsertCamera.side_effect = None
    with pytest.raises(NotReached, match="does not say that it is in"):
        found.insert()


def test_a_control_that_hangs_is_left_to_itself(control: Any) -> None:
    found = LaserApi()
    never = threading.Event()
    control.EDS_CameraStatus.side_effect = never.wait
    with pytest.raises(TimedOut, match="not answered"):
        found.is_in()
    never.set()


def test_a_control_that_is_missing_or_silent_is_refused_before_anything(control: Any, tmp_path: Path) -> None:
    control.TestConnection.side_effect = None
    with pytest.raises(Refused, match="does not answer"):
        opening.open_url(f"autoscript://localhost?elements={tmp_path}&elements_start=laser-api")
    sys.modules["Laser.PythonControl"] = None  # type: ignore[assignment]
    with pytest.raises(Refused, match="can't be imported"):
        opening.open_url(f"autoscript://localhost?elements={tmp_path}&elements_start=laser-api")
    with pytest.raises(Refused, match="laser-api"):
        opening.open_url(f"autoscript://localhost?elements={tmp_path}&elements_start=now")


def test_a_silent_servers_instrument_is_made_safe_over_a_connection_beside_it() -> None:
    with emulated(BARE, place=("silent", 7520)) as scope:
        scope.insert(Device.NEEDLE)
        scope.set_gas("Pt", GasSetting(heater_on=True, valve_open=True))
        before = scope.state().pressure_pa
        assert not scope.state().safe
        _make_safe_beside("autoscript://silent?elements=/gone&elements_start=laser-api")  # no X-ray program is asked
        assert is_quiet(scope)
        assert not any(gas.valve_open for gas in scope.state().gases.values())
        scope.insert(Device.NEEDLE)
        assert not scope.state().gases["Pt"].valve_open
        scope.set_gas("Pt", GasSetting(valve_open=True))  # and opens it, rather than taking it to be open
        assert scope.state().pressure_pa == pytest.approx(before, rel=0.3)


def test_what_can_not_be_reached_beside_it_is_told_and_ends_nothing(
    mocker: MockerFixture, caplog: pytest.LogCaptureFixture
) -> None:
    opened = mocker.patch("instrument.autoscript.opening.open_for_safety", side_effect=ConnectionLost("no route"))
    _make_safe_beside("autoscript://localhost")
    assert "no route" in caplog.text
    _make_safe_beside("simulator:3")  # its state belongs to one process
    assert opened.call_count == 1


def test_a_pattern_that_ended_while_nobody_looked_has_bounds_only(
    scope: AutoscriptMicroscope, mocker: MockerFixture
) -> None:
    scope.set_beam(Beam.ION, BeamSettings(voltage_v=30e3, current_a=1e-9))
    mocker.patch("instrument.autoscript.following.SILENT_S", 0.2)
    mocker.patch.object(scope, "_description", scope.describe().replace(virtual=False))
    looks = 0

    def asleep(_progress: Progress) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            scope._safety.stop()
            threading.Event().wait(0.5)

    with pytest.raises(DeviceFault, match="not looked at") as told:
        scope.pattern(job(600.0), asleep)
    assert 0 <= told.value.evidence["at_least"] <= told.value.evidence["at_most"] <= 1
