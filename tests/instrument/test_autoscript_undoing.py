"""The AutoScript backend after an error: the microscope is put back as it was, and the first error is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from math import radians
from typing import Any

import numpy as np
import pytest
from pytest_mock import MockerFixture

from instrument.autoscript import microscope, writing
from instrument.autoscript.microscope import AutoscriptMicroscope
from instrument.errors import ConnectionLost, DeviceFault, NotReached, TimedOut, Unsafe
from instrument.settings import (
    Beam,
    BeamSettings,
    DetectorSettings,
    Device,
    EdsScan,
    PatternJob,
    Rectangle,
    Scan,
    StagePosition,
)
from tests.contract.emulation import BARE, emulated

BEFORE = BeamSettings(voltage_v=30e3, current_a=1e-9, species="Xenon", hfw_m=80e-6, shift_x_m=1e-6)
LARGE = BeamSettings(voltage_v=8e3, current_a=13.3e-9)
TOO_WIDE = LARGE.replace(hfw_m=1.0, shift_x_m=2e-6)
LOOK = Scan(detectors=(DetectorSettings(name="ETD"),), width_px=512, height_px=442, pixel_m=20e-9, dwell_s=1e-7)


@pytest.fixture
def scope() -> Iterator[AutoscriptMicroscope]:
    with emulated(BARE) as opened:
        opened.set_beam(Beam.ION, BEFORE)
        yield opened


def job(seconds: float = 20.0) -> PatternJob:
    pattern = Rectangle(x_m=0.0, y_m=-6e-6, width_m=2e-6, height_m=2e-6, depth_m=0.2e-6)
    return PatternJob(
        patterns=(pattern,), purpose="mill", area="trench", current_a=1e-9, voltage_v=30e3, dose_c=seconds * 1e-9
    )


def screen(scope: AutoscriptMicroscope) -> Any:
    """Which view is active, what each shows, and both fields."""
    client = scope._acts.client
    devices = [view.device for view in client._console.views.values()]
    fields = [one.horizontal_field_width.value for one in (client.beams.electron_beam, client.beams.ion_beam)]
    return client.imaging.get_active_view(), devices, fields


# -- a column ---------------------------------------------------------------------------------------------------------


def test_a_column_that_can_not_be_set_is_put_back(scope: AutoscriptMicroscope) -> None:
    before = scope.state().ion.settings
    with pytest.raises(DeviceFault, match="horizontal_field_width"):
        scope.set_beam(Beam.ION, TOO_WIDE)
    assert scope.state().ion.settings == before
    assert scope.state().ion.measured_current_a == pytest.approx(1e-9, rel=0.05)


def test_a_current_that_followed_its_voltage_follows_it_back(scope: AutoscriptMicroscope) -> None:
    """Only the voltage was asked for."""
    before, column = scope.state().ion.settings, scope._acts.client.beams.ion_beam
    seen = scope._acts.client._console
    with pytest.raises(DeviceFault):
        scope.set_beam(Beam.ION, BeamSettings(voltage_v=8e3, hfw_m=1.0))
    assert scope.state().ion.settings == before
    assert seen.state().ion.settings.current_a == column.beam_current.value == before.current_a


def test_another_plasma_is_taken_back_with_its_current(scope: AutoscriptMicroscope) -> None:
    with pytest.raises(DeviceFault):
        scope.set_beam(Beam.ION, BeamSettings(species="Argon", current_a=28e-9, hfw_m=1.0))
    found = scope.state().ion.settings
    assert (found.species, found.voltage_v, found.current_a) == ("Xenon", 30e3, 1e-9)


def test_what_was_not_asked_for_is_left_alone(scope: AutoscriptMicroscope, mocker: MockerFixture) -> None:
    """A person at the screen may be setting it."""
    column = scope._acts.client.beams.ion_beam
    width = mocker.spy(column.horizontal_field_width, "_set")
    mocker.patch.object(column.stigmator, "_set", side_effect=RuntimeError("no"))
    with pytest.raises(DeviceFault, match="no"):
        scope.set_beam(Beam.ION, LARGE.replace(stigmator_x=0.1))
    assert scope.state().ion.settings.voltage_v == 30e3
    assert width.call_count == 0


def test_a_value_that_does_not_stick_takes_the_others_back(scope: AutoscriptMicroscope, mocker: MockerFixture) -> None:
    mocker.patch.object(scope._acts.client.beams.ion_beam.working_distance, "_set")
    with pytest.raises(NotReached, match="working_distance"):
        scope.set_beam(Beam.ION, LARGE.replace(working_distance_m=15e-3))
    found = scope.state().ion.settings
    assert (found.voltage_v, found.current_a) == (30e3, 1e-9)


def test_the_first_error_is_told_where_putting_back_fails_too(
    scope: AutoscriptMicroscope, mocker: MockerFixture, caplog: pytest.LogCaptureFixture
) -> None:
    voltage = scope._acts.client.beams.ion_beam.high_voltage
    really = voltage._set

    def once(value: float) -> None:
        if value == 30e3:
            msg = "arcing"
            raise RuntimeError(msg)
        really(value)

    mocker.patch.object(voltage, "_set", once)
    with pytest.raises(DeviceFault, match="horizontal_field_width") as told:
        scope.set_beam(Beam.ION, TOO_WIDE)
    assert "arcing" in told.value.evidence["not_undone"]
    assert "arcing" in caplog.text


def test_nothing_is_put_back_while_the_connection_is_lost(scope: AutoscriptMicroscope, mocker: MockerFixture) -> None:
    column = scope._acts.client.beams.ion_beam
    voltages = mocker.spy(column.high_voltage, "_set")
    mocker.patch.object(column.horizontal_field_width, "_set", side_effect=ConnectionError("reset by peer"))
    with pytest.raises(ConnectionLost, match="reset by peer"):
        scope.set_beam(Beam.ION, LARGE.replace(hfw_m=50e-6))
    assert [call.args for call in voltages.call_args_list] == [(8e3,)]


def test_what_comes_back_late_is_put_back_after_all(scope: AutoscriptMicroscope, mocker: MockerFixture) -> None:
    go_on, really, column = threading.Event(), scope._safety.stop, scope._acts.client.beams.ion_beam

    def stop() -> None:
        really()
        go_on.set()

    mocker.patch.object(scope._safety, "stop", stop)
    mocker.patch.object(microscope, "beam_seconds", return_value=0.0)
    mocker.patch.object(microscope, "CALL_S", 0.3)
    mocker.patch.object(column.scanning.rotation, "_set", side_effect=lambda _value: go_on.wait(10.0))
    before = scope.state().ion.settings
    with pytest.raises(TimedOut):
        scope.set_beam(Beam.ION, LARGE.replace(scan_rotation_rad=0.1))
    assert scope.state().ion.settings == before


def test_who_does_not_answer_while_it_is_put_back_is_unsafe(scope: AutoscriptMicroscope, mocker: MockerFixture) -> None:
    """That nothing can be stopped is worse than what went wrong before."""
    go_on, column = threading.Event(), scope._acts.client.beams.ion_beam
    really = column.high_voltage._set

    def hangs(value: float) -> None:
        if value == 30e3:
            assert go_on.wait(10.0)
        really(value)

    mocker.patch.object(column.high_voltage, "_set", hangs)
    mocker.patch.object(microscope, "beam_seconds", return_value=0.0)
    mocker.patch.object(microscope, "CALL_S", 0.5)
    mocker.patch.object(scope._safety, "stop", side_effect=Unsafe("nothing answers"))
    try:
        with pytest.raises(Unsafe, match="nothing answers"):
            scope.set_beam(Beam.ION, TOO_WIDE)
    finally:
        go_on.set()


# -- the screen and what is drawn on it -------------------------------------------------------------------------------


def test_a_pattern_that_can_not_start_leaves_the_screen_as_it_was(
    scope: AutoscriptMicroscope, mocker: MockerFixture
) -> None:
    before = screen(scope)
    mocker.patch.object(type(scope._acts.client.patterning), "start", side_effect=RuntimeError("not now"))
    with pytest.raises(DeviceFault, match="not now"):
        scope.pattern(job())
    assert screen(scope) == before


def test_a_pattern_that_can_not_be_drawn_leaves_nothing_drawn(
    scope: AutoscriptMicroscope, mocker: MockerFixture
) -> None:
    before, really = screen(scope), writing.draw

    def draw(patterning: Any, wanted: PatternJob) -> None:
        assert really(patterning, wanted)
        msg = "a rectangle would take 3 s instead of 20 s"
        raise NotReached(msg)

    mocker.patch.object(microscope, "draw", draw)
    with pytest.raises(NotReached, match="would take"):
        scope.pattern(job())
    assert scope._acts.client.patterning._patterns == []
    assert screen(scope) == before


def test_how_much_was_written_is_told_where_its_end_fails_too(
    scope: AutoscriptMicroscope, mocker: MockerFixture, caplog: pytest.LogCaptureFixture
) -> None:
    told_first = DeviceFault("it ended", at_least=0.2, at_most=0.4)
    mocker.patch("instrument.autoscript.following.Follower.follow", side_effect=told_first)
    mocker.patch.object(type(scope._acts.client.patterning), "clear_patterns", _fails_once_running())
    with pytest.raises(DeviceFault, match="it ended") as told:
        scope.pattern(job())
    assert told.value.evidence["at_most"] == 0.4
    assert "stuck" in told.value.evidence["not_undone"]
    assert "stuck" in caplog.text
    assert scope.state().safe


def _fails_once_running() -> Any:
    """Let clearing fail but while patterns are drawn, which begins with it twice."""
    calls: list[None] = []

    def clear(_patterning: Any) -> None:
        calls.append(None)
        if len(calls) > 2:
            msg = "stuck"
            raise RuntimeError(msg)

    return clear


def test_a_picture_that_is_none_leaves_the_field_as_it_was(scope: AutoscriptMicroscope, mocker: MockerFixture) -> None:
    before, small = screen(scope), mocker.Mock(data=np.zeros((5, 5), np.uint8))
    grab = mocker.patch.object(type(scope._acts.client.imaging), "grab_frame", side_effect=RuntimeError("no frame"))
    with pytest.raises(DeviceFault, match="no frame"):
        scope.acquire(LOOK)
    assert screen(scope) == before
    grab.side_effect, grab.return_value = None, small
    with pytest.raises(DeviceFault, match="asked for"):
        scope.acquire(LOOK)
    assert screen(scope) == before


def test_a_map_that_fails_leaves_the_field_as_it_was(scope: AutoscriptMicroscope, mocker: MockerFixture) -> None:
    scope.move_stage(StagePosition(t=scope.describe().column_angle_rad - radians(45)))
    scope.insert(Device.EDS)
    before = screen(scope)
    mocker.patch.object(scope._elements, "map", side_effect=DeviceFault("no counts"))
    with pytest.raises(DeviceFault, match="no counts"):
        scope.acquire_eds(EdsScan(elements=("Ni",), width_px=16, height_px=12, pixel_m=1e-7))
    assert screen(scope) == before
    assert scope.state().safe
