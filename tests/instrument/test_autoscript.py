"""The AutoScript backend where the vendor's side does what no emulation shows: missing, failing, hanging, lying."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from pytest_mock import MockerFixture

from instrument import connect
from instrument.autoscript import connection, microscope, opening, writing
from instrument.autoscript.elements import FolderMapper
from instrument.autoscript.microscope import AutoscriptMicroscope
from instrument.autoscript.scans import framing
from instrument.autoscript.xray import ByHand, Command, LaserApi
from instrument.errors import BadData, ConnectionLost, DeviceFault, NotReached, Refused, TimedOut
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
)
from instrument.watchdog import _make_safe_beside
from tests.contract.emulation import BARE, emulated, vendor_named


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
    with pytest.raises(ConnectionLost, match="reset by peer"):
        scope.pattern(job())
    assert is_quiet(scope)


def test_a_call_that_hangs_ends_by_its_deadline_and_is_stopped_from_beside(mocker: MockerFixture) -> None:
    with emulated(BARE) as scope:
        go_on, client = threading.Event(), scope._acts.client
        mocker.patch.object(microscope, "CALL_S", 0.3)
        mocker.patch.object(microscope, "move_seconds", return_value=0.0)
        mocker.patch.object(type(client.specimen.stage), "absolute_move", side_effect=lambda *_: go_on.wait(30.0))
        client.beams.ion_beam.unblank()
        try:
            with pytest.raises(TimedOut, match="whether it was done is not known"):
                scope.move_stage(StagePosition(x=1e-6))
            assert scope._stops.client.beams.ion_beam.is_blanked
            with pytest.raises(ConnectionLost, match="never came back"):
                scope.set_beam(Beam.ION, BeamSettings(shift_x_m=0.0))
            scope.stop()
            assert scope.make_safe().safe
        finally:
            go_on.set()
    scope._acts._thread.join(20.0)
    assert not scope._acts._thread.is_alive()


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


@pytest.mark.parametrize(
    ("purpose", "gases", "listed", "found"),
    [
        ("mill", {}, ["Al", "Si"], "Si"),
        ("deposit", {"Pt": 1.0, "C": 0.02}, ["Pt dep", "C dep", "Pt-C dep"], "Pt-C dep"),
        ("deposit", {"Pt": 1.0}, ["W dep", "Pt dep surface", "Pt dep"], "Pt dep"),
    ],
)
def test_application_files_are_found_by_what_they_do(
    purpose: str, gases: dict[str, float], listed: list[str], found: str
) -> None:
    wanted = job().replace(purpose=purpose, gases=gases)
    assert writing.candidates(wanted, wanted.patterns[0], listed)[0] == found
    with pytest.raises(Refused, match="GaAs"):
        writing.candidates(wanted, wanted.patterns[0], ["GaAs"])


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
    mocker.patch("instrument.autoscript.elements._is_still", return_value=True)
    exports = iter([[], [tmp_path / "map_Ni.tif", tmp_path / "map_Pt.tif"]] * 2)
    mocker.patch.object(found, "_exports", side_effect=exports)
    for name in ("Ni", "Pt"):
        tifffile.imwrite(tmp_path / f"map_{name}.tif", np.zeros((3, 4), np.uint16))
    with pytest.raises(BadData, match="not"):
        found.map(SCAN)
    (tmp_path / "map_Pt.tif").write_bytes(b"no tiff")
    with pytest.raises(BadData, match="can't be read"):
        found.map(SCAN)


def test_without_a_command_a_person_is_needed(tmp_path: Path) -> None:
    alone = FolderMapper(tmp_path, ByHand())
    assert not alone.is_in()
    with pytest.raises(DeviceFault, match="a person"):
        alone.map(SCAN)
    alone.retract()


def test_the_description_says_who_starts_maps(tmp_path: Path, mocker: MockerFixture) -> None:
    mocker.patch.object(Command, "_ask", return_value="out")
    with emulated(BARE, place=("localhost", 7520)):
        for query, starter in (("", "person"), ("&elements_command=start%20map", "command")):
            with closing(opening.open_url(f"autoscript://localhost?elements={tmp_path}{query}")) as opened:
                assert opened.describe().maps_by == starter
        with closing(opening.open_url("autoscript://localhost")) as opened:
            assert opened.describe().maps_by is None  # the virtual X-ray system needs nobody


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
    mocker.patch("instrument.autoscript.microscope.SILENT_S", 0.2)
    described = scope.describe().replace(virtual=False)
    looks = 0

    def asleep(_progress: Progress) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            mocker.patch.object(scope, "_description", described)
            scope._stops.call("stop", scope._stops.client.patterning.stop)
            threading.Event().wait(0.5)

    with pytest.raises(DeviceFault, match="not looked at") as told:
        scope.pattern(job(600.0), asleep)
    assert 0 <= told.value.evidence["at_least"] <= told.value.evidence["at_most"] <= 1
