"""The emulated client as scripts use it: the traps that open clients fall into, and that what is done is seen."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from instrument.geometry import Pose, Site, stage_for
from simulator.autoscript import enumerations, structures
from simulator.autoscript.images import AdornedImage
from simulator.autoscript.tree import ApplicationServerException
from tests.contract.emulation import client
from workflows.tracking import moved

#: A block in whose ion picture there is something to see, its time running fast.
#: Without drift: at this pace a second in which the computer was busy would move the sample as far as what is tested.
SEEN = "simulator:3?width=12um&height=10um&depth=4um&coating=8um&above=3um&voxel=80nm&layer=100nm&pace=200&drift=0"
SMALL = structures.GrabFrameSettings(resolution="768x512", dwell_time=100e-9)
ENDS_WITHIN_S = 60.0


@pytest.fixture
def scope() -> Iterator[Any]:
    with client() as connected:
        yield connected


@pytest.fixture(scope="module")
def seen() -> Iterator[Any]:
    with client(url=SEEN) as connected:
        connected.specimen.stage.absolute_move(structures.StagePosition(t=np.radians(7)))
        yield connected


def grabbed(scope: Any, view: int = 2) -> np.ndarray[Any, Any]:
    scope.imaging.set_active_view(view)
    return np.asarray(scope.imaging.grab_frame(SMALL).data, float)


# -- the client -------------------------------------------------------------------------------------------------------


def test_connecting_says_the_clients_own_words_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with client() as scope:
        port = scope.server_port
        said = capsys.readouterr().out
        assert said == f"Client connecting to [localhost:{port}]...\nClient connected to [localhost:{port}]\n"
        assert scope.server_host == "localhost"
        scope.disconnect()
        assert scope.server_host is None
        assert capsys.readouterr().out == "Client disconnected\n"
        with pytest.raises(AttributeError, match="not connected"):
            _ = scope.beams


def test_what_is_not_there_is_named_with_its_path(scope: Any) -> None:
    for path in ("beams.electron_beam.monochromator", "imaging.grab", "optics"):
        branch, _, name = path.rpartition(".")
        with pytest.raises(AttributeError, match=name):
            getattr(attrgetter(branch)(scope) if branch else scope, name)
    with pytest.raises(AttributeError, match=r"microscope\.beams\.ion_beam\.currant"):
        scope.beams.ion_beam.currant = 1e-9


def test_enumerations_can_be_subclassed_and_structures_too() -> None:
    class Mine(enumerations.StageAxis):
        pass

    class Position(structures.StagePosition):
        pass

    assert Mine.X == "X"
    assert Position(x=1.0).x == 1.0
    assert Position().t is None
    with pytest.raises(TypeError, match="tilt"):
        structures.StagePosition(tilt=1.0)


def test_points_are_equal_by_value_and_add_up() -> None:
    point = structures.Point(1.0, 2.0)
    assert point == structures.Point(x=1.0, y=2.0)
    assert point + structures.Point(1, 1) == structures.Point(2.0, 3.0)
    assert point + np.array([1.0, 1.0]) == structures.Point(2.0, 3.0)


def test_a_value_out_of_range_is_refused_and_says_what_is_allowed(scope: Any) -> None:
    shift = scope.beams.ion_beam.beam_shift
    before = shift.value
    for wrong in (structures.Point(1.0, 0.0), structures.Point(float("nan"), 0.0)):
        with pytest.raises(ApplicationServerException, match="allowed"):
            shift.value = wrong
    assert shift.value == before
    with pytest.raises(ApplicationServerException, match="available"):
        scope.beams.electron_beam.scanning.resolution.value = "1000x1000"
    with pytest.raises(ApplicationServerException, match="no patterning application with name: 'Cheese'"):
        scope.patterning.set_default_application_file("Cheese")


def test_what_is_set_is_read_back_exactly(scope: Any) -> None:
    column = scope.beams.electron_beam
    for setting, value in (
        (column.working_distance, np.float64(4.123e-3)), (column.scanning.rotation, 0.123),
        (column.horizontal_field_width, 51.2e-6), (column.scanning.dwell_time, 3e-7),
    ):  # fmt: skip
        setting.value = value
        assert setting.value == value
    column.scanning.rotation.value = 0.0
    assert column.beam_current.limits.min > 0
    assert scope.beams.electron_beam == scope.beams.electron_beam


def test_detectors_follow_the_active_view(scope: Any) -> None:
    for view, device, detector in ((1, 1, "TLD"), (3, 1, "ETD"), (2, 2, "ICE")):
        scope.imaging.set_active_view(view)
        scope.imaging.set_active_device(device)
        scope.detector.type.value = detector
    scope.imaging.set_active_view(1)
    assert scope.detector.type.value == "TLD"
    scope.detector.contrast.value = 0.0
    scope.imaging.set_active_view(2)
    assert (scope.detector.type.value, scope.detector.contrast.value) == ("ICE", 0.5)
    with pytest.raises(ApplicationServerException):
        scope.detector.type.value = "CBS"
    with pytest.raises(ApplicationServerException):
        scope.imaging.set_active_device(8)
    scope.imaging.set_active_view(1)
    scope.detector.contrast.value = 0.5


def test_whatever_is_so_already_is_harmless(scope: Any) -> None:
    for _ in range(2):
        scope.specimen.stage.link()
    for _ in range(2):
        scope.specimen.stage.unlink()
    scope.imaging.stop_acquisition()
    scope.patterning.clear_patterns()
    scope.gas.get_multichem().retract()
    scope.beams.electron_beam.scanning.mode.set_reduced_area()
    assert scope.beams.electron_beam.scanning.mode.value == enumerations.ScanningMode.REDUCED_AREA
    scope.beams.electron_beam.scanning.mode.set_full_frame()


def test_limits_take_axes_as_enumeration_and_in_small_letters(scope: Any) -> None:
    stage = scope.specimen.stage
    assert stage.get_axis_limits("x") == stage.get_axis_limits(enumerations.StageAxis.X)
    with client("offline") as office:
        limits = [office.specimen.stage.get_axis_limits(axis) for axis in "xyzt"]
        assert [one.max for one in limits] == [0.055, 0.055, 0.02, 2 * np.pi]
        before = office.beams.electron_beam.working_distance.value
        office.auto_functions.run_auto_focus()
        assert office.beams.electron_beam.working_distance.value == before


def test_rotation_is_read_back_between_minus_and_plus_180_degrees(scope: Any) -> None:
    stage = scope.specimen.stage
    stage.absolute_move(structures.StagePosition(r=np.radians(181)))
    assert stage.current_position.r == pytest.approx(np.radians(-179), abs=1e-3)
    stage.absolute_move(structures.StagePosition(r=0.0))
    stage.set_default_coordinate_system("Specimen")
    assert stage.current_position.coordinate_system == "Specimen"
    stage.set_default_coordinate_system("Raw")


# -- pictures ---------------------------------------------------------------------------------------------------------


def test_a_picture_knows_how_it_was_taken_and_keeps_it_in_its_file(scope: Any, tmp_path: Path) -> None:
    scope.imaging.set_active_view(1)
    scope.beams.electron_beam.horizontal_field_width.value = 76.8e-6
    image = copy.deepcopy(scope.imaging.grab_frame(SMALL))
    assert repr(image) == "AdornedImage(width=768, height=512, bit_depth=8)"
    assert image.metadata.binary_result.pixel_size.x == pytest.approx(100e-9)
    json.dumps(image.metadata.acquisition.acquisition_datetime)
    image.save(str(tmp_path / "a.tif"))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.fei_metadata["Scan"]["PixelWidth"] == pytest.approx(100e-9)
    again = AdornedImage.load(str(tmp_path / "a.tif"))
    assert np.array_equal(again.data, image.data)
    assert again.metadata.binary_result.pixel_size.x == pytest.approx(100e-9)
    bare = AdornedImage(data=image.data.astype(np.uint8), metadata=None)
    assert (bare.width, bare.height, bare.bit_depth) == (768, 512, 8)


def test_sizes_that_are_no_preset_go_to_disk_only(scope: Any, tmp_path: Path) -> None:
    odd = structures.GrabFrameSettings(resolution="100x80", dwell_time=100e-9)
    with pytest.raises(ApplicationServerException, match="100x80"):
        scope.imaging.grab_frame(odd)
    scope.imaging.grab_frame_to_disk(str(tmp_path / "odd.tif"), "Tiff", odd)
    assert tifffile.imread(tmp_path / "odd.tif").shape == (80, 100)


def test_a_reduced_area_is_the_same_part_of_the_whole(seen: Any) -> None:
    seen.imaging.set_active_view(2)
    whole = grabbed(seen)
    part = structures.GrabFrameSettings(
        resolution="768x512", dwell_time=100e-9, reduced_area=structures.Rectangle(0.25, 0.25, 0.5, 0.5)
    )
    cut = np.asarray(seen.imaging.grab_frame(part).data, float)
    assert cut.shape == (256, 384)
    down, right = moved(whole[128:384, 192:576], cut)
    assert max(abs(right), abs(down)) <= 3


def test_a_blanked_beam_gives_a_dark_frame(seen: Any) -> None:
    seen.beams.ion_beam.blank()
    dark = grabbed(seen)
    seen.beams.ion_beam.unblank()
    assert dark.max() < 20 < grabbed(seen).mean()


def test_views_of_one_column_are_scanned_at_once(seen: Any) -> None:
    for view, detector in ((1, "TLD"), (3, "ETD")):
        seen.imaging.set_active_view(view)
        seen.imaging.set_active_device(1)
        seen.detector.type.value = detector
    settings = structures.GrabFrameSettings(resolution="768x512", dwell_time=100e-9, views=[1, 3])
    images = seen.imaging.grab_multiple_frames(settings)
    assert [image.metadata.binary_result.detector for image in images] == ["TLD", "ETD"]
    assert not np.array_equal(images[0].data, images[1].data)


def test_a_live_picture_has_each_line_as_it_was_scanned() -> None:
    """Blanked in the middle of a frame: the lines above are bright, those below dark."""
    with client(url=SEEN.replace("pace=200", "pace=20")) as scope:
        scope.imaging.set_active_view(1)
        column = scope.beams.electron_beam
        column.scanning.resolution.value = "512x442"
        column.scanning.dwell_time.value = 100e-6  # a frame takes 22.6 s of its time, 1.1 s on the wall
        scope.imaging.start_acquisition()
        assert scope.imaging.state == enumerations.ImagingState.ACQUIRING
        live, clock = scope._console.view.live, scope.virtual_clock
        clock.wait(live.frame_s / 2 - (clock.now() - live._moments[0].at_s))
        column.blank()
        clock.wait(live.frame_s / 3)
        scope.imaging.stop_acquisition()
        column.unblank()
        picture = scope.imaging.get_image().data
    assert picture[40:200].mean() > 3 * picture[250:330].mean()
    assert scope.server_host is None


# -- which way things move --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", [1, 2])
def test_a_larger_beam_shift_moves_the_picture_right_and_up(seen: Any, view: int) -> None:
    column = seen.beams.electron_beam if view == 1 else seen.beams.ion_beam
    column.horizontal_field_width.value = 38.4e-6
    before = grabbed(seen, view)
    column.beam_shift.value = structures.Point(1e-6, 2e-6)
    down, right = moved(before, grabbed(seen, view))
    column.beam_shift.value = structures.Point(0, 0)
    assert right == pytest.approx(20, abs=3)
    assert down == pytest.approx(-40, abs=3)


@pytest.mark.parametrize("system", ["Raw", "Specimen"])
def test_a_compucentric_turn_is_about_the_stages_own_axis(system: str) -> None:
    with client(url="simulator:3?axis=150um x -80um&jump=0um") as scope:
        stage = scope.specimen.stage
        site = Site(sx=1e-3, sy=2e-3, sz=0.0, pretilt=0.0, ax=150e-6, ay=-80e-6)
        start, end = (stage_for(site, Pose(name="mill", r=np.radians(r), t=0.0), (0.0, 0.0, 0.0)) for r in (0.0, 90.0))
        stage.set_default_coordinate_system("Raw")
        stage.absolute_move(structures.StagePosition(x=-start.x, y=-start.y, r=0.0))
        stage.set_default_coordinate_system(system)
        turn = structures.MoveSettings(rotate_compucentric=True)
        stage.absolute_move(structures.StagePosition(r=np.radians(90)), turn)
        stage.set_default_coordinate_system("Raw")
        now = stage.current_position
        assert (now.x, now.y) == pytest.approx((-end.x, -end.y), abs=1e-6)


def test_a_larger_stage_x_brings_in_what_is_right(seen: Any) -> None:
    seen.beams.ion_beam.horizontal_field_width.value = 38.4e-6
    before = grabbed(seen)
    seen.specimen.stage.relative_move(structures.StagePosition(x=2e-6, y=0, z=0, r=0, t=0))
    down, right = moved(before, grabbed(seen))
    seen.specimen.stage.relative_move(structures.StagePosition(x=-2e-6))
    assert right == pytest.approx(-40, abs=8)  # a stage errs by some tenths of a micron
    assert abs(down) <= 8


# -- patterns ---------------------------------------------------------------------------------------------------------


def test_a_start_is_seen_as_running_and_ends(seen: Any) -> None:
    seen.patterning.clear_patterns()
    seen.patterning.set_default_beam_type(beam_index=2)
    seen.patterning.set_default_application_file("Si")
    made = seen.patterning.create_rectangle(center_x=0, center_y=6e-6, width=2e-6, height=2e-6, depth=0.1e-6)
    made.time = 0.5
    seen.patterning.start()
    assert seen.patterning.state == "Running"
    deadline = time.monotonic() + ENDS_WITHIN_S
    while seen.patterning.state != enumerations.PatterningState.IDLE:
        assert time.monotonic() < deadline
    with pytest.raises(ApplicationServerException):
        seen.patterning.pause()


def test_what_is_milled_is_seen_above_where_it_was_drawn(seen: Any) -> None:
    seen.beams.ion_beam.horizontal_field_width.value = 38.4e-6
    seen.beams.ion_beam.beam_current.value = 15e-9
    before = grabbed(seen)
    seen.patterning.clear_patterns()
    seen.patterning.set_default_application_file("Si")
    made = seen.patterning.create_rectangle(0, 5e-6, 4e-6, 3e-6, 2e-6)  # y upwards
    made.time = 120.0
    seen.patterning.run()
    seen.patterning.clear_patterns()
    changed = np.abs(grabbed(seen) - before)
    rows, columns = changed.shape
    above = changed[rows // 2 - 130 : rows // 2 - 70, columns // 2 - 30 : columns // 2 + 30].mean()
    below = changed[rows // 2 + 70 : rows // 2 + 130, columns // 2 - 30 : columns // 2 + 30].mean()
    assert above > 2 * below


def test_pausing_keeps_what_is_left(seen: Any) -> None:
    seen.patterning.clear_patterns()
    made = seen.patterning.create_rectangle(0, 6e-6, 2e-6, 2e-6, 0.1e-6)
    made.time = 300.0
    seen.patterning.start()
    clock, start = seen.virtual_clock, seen.virtual_clock.now()
    clock.wait(60.0)
    seen.patterning.pause()
    assert seen.patterning.state == "Paused"
    gone = clock.now() - start
    seen.patterning.resume()
    seen.patterning._writing.wait()
    assert seen.patterning.state in ("Running", "Idle")
    assert clock.now() - start >= 300.0 + gone - 60.0 - 15.0
    seen.patterning.clear_patterns()


def test_time_dwell_and_passes_hang_together(scope: Any) -> None:
    scope.patterning.clear_patterns()
    scope.patterning.set_default_application_file("Si")
    made = scope.patterning.create_rectangle(0, 0, 5e-6, 5e-6, 1e-6)
    made.time = 100.0
    assert made.time == pytest.approx(100.0, rel=0.01)
    passes = made.pass_count
    made.pass_count = passes // 2
    assert made.time == pytest.approx(50.0, rel=0.01)
    made.dwell_time = 2 * made.dwell_time
    assert made.time == pytest.approx(100.0, rel=0.01)
    for wrong in (0, -1.0):
        with pytest.raises(ApplicationServerException):
            made.width = wrong


def test_files_for_one_shape_take_no_other(scope: Any) -> None:
    scope.patterning.clear_patterns()
    scope.patterning.mode = "Serial"
    scope.patterning.set_default_application_file("Si-ccs")
    with pytest.raises(ApplicationServerException, match="Si-ccs"):
        scope.patterning.create_rectangle(0, 0, 1e-6, 1e-6, 1e-6)
    scope.patterning.create_cleaning_cross_section(0, 0, 1e-6, 1e-6, 1e-6)
    files = scope.patterning.list_all_application_files()
    files.clear()
    assert "Si" in scope.patterning.list_all_application_files()
    scope.patterning.clear_patterns()
    scope.patterning.set_default_application_file("Si")


def test_all_shapes_are_drawn(scope: Any) -> None:
    scope.patterning.clear_patterns()
    draw = scope.patterning
    bitmap = structures.BitmapPatternDefinition()
    bitmap.points = np.zeros((4, 4, 2), dtype=object)
    bitmap.points[..., 0] = 0.5
    stream = structures.StreamPatternDefinition()
    stream.points = np.array([[1, 1, 25e-9, 1], [32768, 32768, 1e-3, 0], [40000, 40000, 1e-3, 0]], dtype=object)
    made = [
        draw.create_line(0, 0, 1e-6, 1e-6, 1e-7), draw.create_circle(0, 0, 2e-6, 1e-6, 1e-7),
        draw.create_bitmap(0, 0, 2e-6, 2e-6, 1e-7, bitmap),
        draw.create_polygon([(0, 0), (1e-6, 0), (0, 1e-6)], depth=1e-7),
        draw.create_stream(center_x=0, center_y=0, stream_pattern_definition=stream),
        draw.create_regular_cross_section(0, 0, 1e-6, 1e-6, 1e-6),
    ]  # fmt: skip
    assert all(one.time > 0 for one in made)
    assert made[4].time == pytest.approx(2e-3, rel=0.01)
    draw.clear_patterns()


def test_a_bitmap_is_milled_by_its_shares_and_a_fine_one_by_their_means(scope: Any) -> None:
    bitmap = structures.BitmapPatternDefinition()
    bitmap.points = np.zeros((300, 2, 2), dtype=object)
    bitmap.points[:150, 0, 0] = 1.0
    bitmap.points[150:, :, 0] = 0.5
    bitmap.points[150:, 1, 1] = 1  # blanked
    drawn = scope.patterning.create_bitmap(0, 1e-6, 2e-6, 3e-6, 1e-7, bitmap).drawn(0.0, 1.0)[0]
    assert (drawn.kind, drawn.x_m, drawn.y_m, drawn.height_m) == ("bitmap", 0.0, -1e-6, 3e-6)
    shares = np.array(drawn.shares)
    assert shares.shape == (128, 2)
    assert shares[:64].tolist() == [[1.0, 0.0]] * 64
    assert shares[64:].tolist() == [[0.5, 0.0]] * 64
    bitmap.points[..., 1] = 1
    with pytest.raises(ApplicationServerException, match="some above 0"):
        scope.patterning.create_bitmap(0, 0, 2e-6, 2e-6, 1e-7, bitmap)
    scope.patterning.clear_patterns()


def test_a_regular_cross_section_is_deepest_where_its_scan_ends(scope: Any) -> None:
    scope.patterning.set_default_application_file("Si-multipass")
    made = scope.patterning.create_regular_cross_section(0, 0, 4e-6, 2e-6, 1e-6)
    assert made.drawn(0.0, 1.0)[0].deep == "bottom"
    made.scan_direction = "BottomToTop"
    assert made.drawn(0.0, 1.0)[0].deep == "top"
    scope.patterning.set_default_application_file("Pt dep")
    film = scope.patterning.create_regular_cross_section(0, 0, 4e-6, 2e-6, 1e-6)
    assert film.drawn(0.0, 1.0)[0].kind == "rectangle"
    scope.patterning.clear_patterns()
    scope.patterning.set_default_application_file("Si")


# -- gas, and scripts -------------------------------------------------------------------------------------------------


def test_a_multichem_heats_opens_and_leaves(scope: Any) -> None:
    chem = scope.gas.get_multichem()
    assert scope.gas.list_all_gis_ports() == []
    cold = chem.get_temperature("Pt")
    chem.turn_heater_on("Pt")
    scope.virtual_clock.wait(15.0)
    assert chem.get_temperature("Pt") > cold
    with pytest.raises(ApplicationServerException):
        chem.open()  # neither in nor hot
    with pytest.raises(ApplicationServerException, match="Au"):
        chem.turn_heater_on("Au")
    chem.turn_heater_off()
    with client("hydra-gis") as other:
        assert other.gas.list_all_multichem_ports() == []
        port = other.gas.get_gis_port("Pt dep")
        port.insert()
        assert port.state == "Inserted"
        port.retract()


SCRIPT = """
import sys
from autoscript_sdb_microscope_client import SdbMicroscopeClient
from autoscript_sdb_microscope_client.structures import *
from autoscript_sdb_microscope_client.enumerations import *
from autoscript_core.common import ApplicationServerException

microscope = SdbMicroscopeClient()
microscope.connect("localhost")
microscope.imaging.set_active_view(2)
image = microscope.imaging.grab_frame(GrabFrameSettings(resolution="768x512", dwell_time=100e-9))
image.save(sys.argv[1])
try:
    microscope.beams.ion_beam.beam_shift.value = Point(1, 0)
except ApplicationServerException as error:
    print("refused:", error)
print(microscope.service.system.name, PlasmaGasType.XENON == microscope.beams.ion_beam.source.plasma_gas.value)
microscope.disconnect()
"""


def test_anybodys_script_runs_unchanged(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, "-m", "simulator.autoscript", "--simulator", SEEN, str(script), str(tmp_path / "a.tif")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    assert "VIRTUAL" in done.stderr
    assert "refused: microscope.beams.ion_beam.beam_shift" in done.stdout
    assert "(virtual) True" in done.stdout
    assert tifffile.imread(tmp_path / "a.tif").shape == (512, 768)


def test_the_path_is_all_that_an_interpreter_needs(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "simulator.autoscript"]
    root = Path(__file__).parents[3]
    path = subprocess.run([*run, "--path"], capture_output=True, text=True, timeout=60, cwd=root, check=True).stdout
    code = "import autoscript_sdb_microscope_client as a; print(a.build_information.INFO_VERSIONSHORT)"
    environment = {**os.environ, "PYTHONPATH": path.strip()}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout.strip() == "4.13.1"
    wrong = subprocess.run([*run, str(tmp_path / "none.py")], capture_output=True, text=True, timeout=60, cwd=root)
    assert wrong.returncode == 2
    assert "none.py" in wrong.stderr
