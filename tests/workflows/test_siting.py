"""Teaching a site: clicks become a place, the edge is turned to X, and a run works there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from math import cos, pi, radians
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_mock import MockerFixture

import simulator
from instrument.errors import BadData, NotReached, Refused
from instrument.frame import Frame
from instrument.geometry import PoseName, Site, View, holder_point, pose, stage_for
from instrument.guard import Guarded
from instrument.hydra import hydra
from instrument.settings import (
    Beam,
    BeamSettings,
    Device,
    GasSetting,
    Lens,
    PatternJob,
    Rectangle,
    StagePosition,
)
from simulator.chamber import holder_point as true_place
from simulator.microscope import SimulatedMicroscope
from simulator.options import parse
from tests.workflows.frames import frame
from workflows import sites
from workflows.layout import Layout
from workflows.recipe import RecipeProblem, load
from workflows.rehearse import poses_of
from workflows.site_page import page
from workflows.siting import Clicks, Located, Pictures, envelope, found_by_itself, located, teach

URL = (
    "simulator:3?width=40um&height=20um&depth=4um&coating=16um&above=3um&voxel=100nm&layer=100nm&site=10um&turned=3deg"
)
RECIPE = Path(__file__).parents[2] / "workflows" / "recipes" / "first-run.yaml"
PRETILT, FIELD_M = radians(45), 60e-6


@pytest.fixture(autouse=True)
def _own_sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINTSUGI_SITES", str(tmp_path / "sites"))


def picture(size: tuple[int, int] = (1024, 1536), pixel_m: float = 40e-9) -> Frame:
    return frame(np.zeros((1, *size), np.uint8), pixel_m=pixel_m)


def clicks_on(site: Site, stage: StagePosition, pixel_m: float = 40e-9) -> Clicks:
    """Where a person would click who sees the block through both beams."""

    def pixel(beam: Beam, point: tuple[float, float, float]) -> tuple[float, float]:
        u, v = View(site, beam, stage).field(point)
        return u / pixel_m + 767.5, v / pixel_m + 511.5

    return Clicks(
        edge=(pixel(Beam.ION, (-20e-6, 0, 0)), pixel(Beam.ION, (20e-6, 0, 0))), middle=pixel(Beam.ION, (0, 0, 0)),
        electron=pixel(Beam.ELECTRON, (0, 0, 0)), marks=(pixel(Beam.ION, (5e-6, 0, 30e-6)),),
    )  # fmt: skip


@given(
    place=st.tuples(*[st.floats(-2e-5, 2e-5)] * 3),
    turned=st.floats(-0.1, 0.1),
    r=st.floats(-0.05, 0.05),
    off=st.tuples(*[st.floats(-1e-5, 1e-5)] * 3),
)
def test_clicks_tell_where_the_block_is(
    place: tuple[float, float, float], turned: float, r: float, off: tuple[float, float, float]
) -> None:
    true = Site(sx=place[0], sy=place[1], sz=place[2], pretilt=PRETILT, turned=turned)
    mill = pose(PoseName.MILL, PRETILT)
    at = stage_for(true, mill.replace(r=turned + r), (0.0, 0.0, 0.0))
    stage = at.replace(x=at.x + off[0], y=at.y + off[1], z=at.z + off[2])
    found = located(Pictures(picture(), picture(), stage), clicks_on(true, stage), PRETILT, true.column)
    assert (found.site.sx, found.site.sy, found.site.sz) == pytest.approx(place, abs=1e-10)
    assert found.site.turned == pytest.approx(turned, abs=1e-6)
    assert found.edge_off_rad == pytest.approx(-r, abs=1e-6)
    assert found.apart_m == pytest.approx(float(np.linalg.norm(off)), abs=1e-9)
    assert found.marks[0] == pytest.approx((5e-6, 30e-6), abs=1e-9)
    # and there the block is seen straight and in the middle
    there = stage_for(found.site, mill.replace(r=found.site.turned), (0.0, 0.0, 0.0))
    assert View(true, Beam.ELECTRON, there).field((0, 0, 0)) == pytest.approx((0, 0), abs=1e-9)


@pytest.mark.parametrize("mounted", [0.0, 30.0, 91.0, 100.0, 150.0, 179.0, 180.0, -180.0, -120.0, -91.0])
@pytest.mark.parametrize("askew", [-4.0, 0.0, 4.0])
def test_the_edge_is_turned_to_x_the_short_way_from_where_the_person_put_it(mounted: float, askew: float) -> None:
    true = Site(sx=3e-3, sy=-2e-3, sz=1e-6, pretilt=PRETILT, turned=radians(mounted))
    mill = pose(PoseName.MILL, PRETILT)
    stage = stage_for(true, mill.replace(r=radians(mounted + askew)), (0.0, 0.0, 0.0))
    for r in (stage.r, (stage.r + pi) % (2 * pi) - pi):  # as it was sent, or as an instrument reads it
        seen = Pictures(picture(), picture(), stage.replace(r=r))
        found = located(seen, clicks_on(true, stage), PRETILT, true.column)
        assert found.edge_off_rad == pytest.approx(radians(-askew), abs=1e-6)
        assert found.site.turned - r == pytest.approx(radians(-askew), abs=1e-6)
        assert cos(found.site.turned - true.turned) == pytest.approx(1.0)  # the pre-tilt still faces the ion beam


@settings(max_examples=20)
@given(turned=st.floats(-0.1, 0.1), name=st.sampled_from([PoseName.FACE_ON, PoseName.DEPOSIT, PoseName.ROCK_PLUS]))
def test_a_block_that_stands_turned_is_seen_as_one_that_does_not(turned: float, name: PoseName) -> None:
    recipe = load(RECIPE)
    straight = Layout.at(recipe, None)
    other = Layout.at(recipe, straight.site.replace(turned=turned)).moved(1e-6, 2e-6, 3e-6)
    straight = straight.moved(1e-6, 2e-6, 3e-6)
    for beam in Beam:
        one = straight.view(straight.pose(name, 0.05), beam).field((3e-6, 4e-6, 5e-6))
        assert other.view(other.pose(name, 0.05), beam).field((3e-6, 4e-6, 5e-6)) == pytest.approx(one, abs=1e-12)


def test_a_virtual_sample_that_is_mounted_askew_is_turned_straight() -> None:
    scope = simulator.open(URL)
    told: list[str] = []
    try:
        scope.make_safe()
        found, _ = teach(scope, PRETILT, FIELD_M, lambda seen, _: found_by_itself(seen), lambda _: True, told.append)
    finally:
        scope.close()
    assert found.site.turned == pytest.approx(radians(-3), abs=radians(0.4))
    true = np.array(true_place(parse(URL)))
    straight = Site(sx=0, sy=0, sz=0, pretilt=PRETILT, turned=radians(-3))
    # along the edge nothing tells where its middle is; jump and aim of the virtual machine are 1 um each
    off = holder_point(found.site, np.zeros(3)) - true
    across = holder_point(straight, np.array([0, 1, 0])), holder_point(straight, np.array([0, 0, 1]))
    assert max(abs(float(off @ one)) for one in across) < 5e-6
    assert len(told) >= 2
    assert "+" in told[0] or "-" in told[0]


def test_nothing_moves_without_a_yes_nor_with_a_device_in_and_a_crooked_sample_is_refused() -> None:
    scope = simulator.open(URL)
    try:
        start = scope.state().stage
        with pytest.raises(Refused, match="not confirmed"):
            teach(scope, PRETILT, FIELD_M, lambda seen, _: found_by_itself(seen), lambda _: False, print)
        assert scope.state().stage == start

        def crooked(_seen: Pictures, _number: int) -> Clicks:
            return Clicks.parse("edge 100,500 1400,600 middle 767,550 electron 767,511")

        with pytest.raises(NotReached, match="mount the sample straighter"):
            teach(scope, PRETILT, FIELD_M, crooked, lambda _: True, lambda _: None)
        scope.make_safe()
        scope.insert(Device.NEEDLE)
        with pytest.raises(Refused, match="needle"):
            teach(scope, PRETILT, FIELD_M, crooked, lambda _: True, lambda _: None)
    finally:
        scope.close()


def test_the_sample_is_low_while_it_turns_far_and_the_lens_field_free(mocker: MockerFixture) -> None:
    scope = simulator.open(URL)
    try:
        start = scope.make_safe().stage
        scope.set_beam(Beam.ELECTRON, BeamSettings(lens=Lens.IMMERSION))
        guarded = Guarded(scope, envelope(start, scope.describe(), PRETILT))
        moves = mocker.spy(scope, "move_stage")
        asked: list[str] = []

        def yes(question: str) -> bool:
            asked.append(question)
            return True

        teach(guarded, PRETILT, FIELD_M, lambda seen, _: found_by_itself(seen), yes, lambda _: None)
        assert scope.state().electron.settings.lens is Lens.FIELD_FREE
    finally:
        scope.close()
    assert guarded.refusals == 0
    sent = [call.args[0] for call in moves.call_args_list]
    assert [one.model_dump(exclude_none=True).keys() for one in sent[:3]] == [{"z"}, {"t"}, {"z"}]
    assert sent[0].z < start.z - 4.9e-3
    assert sent[2].z == pytest.approx(start.z, abs=0.2e-6)
    assert [one.split()[0] for one in asked[:3]] == ["lower", "tilt", "raise"]
    assert len(asked) == len(sent)
    assert all(one.r is not None for one in sent[3:])  # small turns, made where it stands


def test_teaching_may_turn_and_look_and_nothing_else() -> None:
    scope = simulator.open(URL)
    try:
        stage = scope.make_safe().stage
        guarded = Guarded(scope, envelope(stage, scope.describe(), PRETILT))
        mill = pose(PoseName.MILL, PRETILT)

        def refused(rule: str, act: Callable[[], object]) -> None:
            with pytest.raises(Refused) as caught:
                act()
            assert caught.value.rule == rule

        refused("stage-box", lambda: guarded.move_stage(StagePosition(z=(stage.z or 0.0) + 1.5e-3)))
        refused("stage-box", lambda: guarded.move_stage(StagePosition(t=radians(45))))
        refused("stage-box", lambda: guarded.move_stage(StagePosition(x=5e-3)))
        refused("pose-of-the-run", lambda: guarded.move_stage(StagePosition(r=pi, t=mill.t)))
        refused("beam-of-the-run", lambda: guarded.set_beam(Beam.ION, BeamSettings(voltage_v=30e3, current_a=60e-9)))
        refused("gas-of-the-run", lambda: guarded.set_gas("Pt", GasSetting(heater_on=True)))
        box = Rectangle(x_m=0.0, y_m=0.0, width_m=1e-6, height_m=1e-6, depth_m=1e-7)
        now = scope.state().ion.settings
        job = PatternJob(
            patterns=(box,), purpose="mill", area="trench", current_a=now.current_a, voltage_v=now.voltage_v,
            dose_c=1e-9,
        )  # fmt: skip
        refused("area-of-the-run", lambda: guarded.pattern(job))
    finally:
        scope.close()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "edge has 0 clicks"),
        ("edge 1,2 middle 3,4 electron 5,6", "edge has 1 clicks"),
        ("edge 1,2 3,4 middle 3,4 electron x", "electron has 0|no click"),
        ("edge 1,2 1,2 middle 3,4 electron 5,6", "in one place"),
        ("edge 1,2 9,2 middle 3,4 electron 5,6 spot 1,1", "spot"),
        ("edge 1,2 9,2 middle 3;4 electron 5,6", "'3;4' is no click"),
        ("edge 1,2 9,2 middle 3,4 electron 5,6 marks 1,1", "marks has 1 clicks and needs 0"),
    ],
)
def test_a_line_that_is_not_the_pages_is_told_from_one_that_is(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Clicks.parse(line)


def test_marks_are_all_clicked_or_none() -> None:
    line = "edge 1,2 9,2 middle 3,4 electron 5,6"
    assert Clicks.parse(f"{line} marks 7,8", marks=1).marks == ((7.0, 8.0),)
    with pytest.raises(ValueError, match="marks has 1 clicks and needs 2"):
        Clicks.parse(f"{line} marks 7,8", marks=2)
    with pytest.raises(ValueError, match="marks has 0 clicks and needs 1"):
        Clicks.parse(line, marks=1)


def test_the_page_holds_both_pictures_and_what_will_be_cut() -> None:
    shown = page("Site edge-A", Pictures(picture(), picture(), StagePosition()), Layout.at(load(RECIPE), None), 2)
    assert shown.count("data:image/png;base64,") == 2
    assert '"cap"' in shown
    assert '"face"' in shown
    assert "marks=2" in shown
    assert not [name for name in ("@W@", "@BOXES@", "@TITLE@", "@MARKS@") if name in shown]


def kept(name: str = "edge-A", **other: object) -> sites.TaughtSite:
    site = Site(sx=1e-6, sy=2e-6, sz=3e-6, pretilt=PRETILT, turned=0.02)
    return sites.TaughtSite(
        name=name, serial=hydra().serial, taught="2026-01-01T20:00:00+00:00", site=site, edge_off_rad=0.001,
        apart_m=1e-6,
    ).replace(**other)  # fmt: skip


def test_a_real_run_needs_a_site_of_its_instrument_whose_poses_were_rehearsed() -> None:
    recipe, real = load(RECIPE).replace(site="edge-A"), hydra().replace(virtual=False)
    with pytest.raises(Refused, match="never taught"):
        sites.site_for(recipe, real)
    assert sites.site_for(recipe, real.replace(virtual=True)) is None
    sites.save(kept(serial="another"))
    with pytest.raises(Refused, match="taught on instrument another"):
        sites.site_for(recipe, real)
    assert sites.site_for(recipe, real.replace(virtual=True)) is None
    sites.save(kept())
    with pytest.raises(Refused, match="kintsugi rehearse"):
        sites.site_for(recipe, real)
    taught = kept(rehearsed=poses_of(Layout.at(recipe, kept().site)))
    sites.save(taught)
    with pytest.raises(Refused, match="before the axis was measured"):
        sites.site_for(recipe, real)
    taught = taught.replace(axis_left_m=2e-6)
    sites.save(taught)
    assert sites.site_for(recipe, real) == taught
    sites.path_of("edge-A").write_text("{}", encoding="utf-8")
    with pytest.raises(BadData, match="teach it again"):
        sites.load("edge-A")


def test_a_site_is_of_one_stub_and_keeps_the_poses_of_every_recipe() -> None:
    recipe, virtual = load(RECIPE).replace(site="edge-A"), hydra().replace(virtual=True)
    sites.save(kept())
    assert sites.site_for(recipe, virtual) == kept()
    flat = recipe.replace(sample=recipe.sample.replace(pretilt=radians(36)))
    with pytest.raises(Refused, match=r"45 deg pre-tilt.*sample\.pretilt is 36 deg"):
        sites.site_for(flat, virtual)
    poses = poses_of(Layout.at(recipe, kept().site))
    steeper = poses[0].replace(t=poses[0].t + radians(5.0))
    both = kept().with_poses(poses).with_poses((*poses, steeper))
    assert both.rehearsed == (*poses, steeper)
    assert all(both.knows(pose) for pose in (*poses, steeper))
    assert not both.knows(steeper.replace(t=steeper.t + radians(1.0)))


def test_a_block_that_nobody_has_clicked_is_not_adopted_on_any_microscope() -> None:
    text = (
        "kintsugi: 1\nname: A\nsample: {pretilt: 45 deg}\nsteps:\n"
        "  - adopt: {site: edge-A, face: 20 um x 15 um, cap: 2.5 um}\n"
        "  - slice: {cut: {thickness: 25 nm}, image: {area: 10 um x 8 um, pixel: 40 nm}, until: {images: 2}}\n"
    )
    recipe, virtual = load(text), hydra().replace(virtual=True)
    with pytest.raises(Refused, match=r"nobody has clicked.*--marks 1.*run: DIR"):
        sites.site_for(recipe, virtual)
    sites.save(kept())
    with pytest.raises(Refused, match="nobody has clicked"):
        sites.site_for(recipe, virtual)
    sites.save(kept(marks=((0.0, 3e-5),)))
    assert sites.site_for(recipe, virtual) is not None
    with pytest.raises(RecipeProblem, match="no slice step says how the face is cut"):
        load(text.split("  - slice")[0])


def test_a_line_that_was_pasted_wrong_is_asked_for_again(tmp_path: Path) -> None:
    scope_url = URL.replace("&turned=3deg", "")
    command = ["site", "edge-B", "--recipe", str(RECIPE), "--instrument", scope_url, "--field", "60 um"]
    typed = "y\ny\ny\nedge 1,2 3,4\nedge 100,512 1400,512 middle 767,512 electron 767,512\n"
    done = subprocess.run(
        [sys.executable, "-m", "workflows.cli", *command], input=typed + "n\n", capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip
    assert "middle has 0 clicks and needs 1" in done.stderr
    assert "once more" in done.stderr
    assert "the edge lies" in done.stdout  # the second line was taken


@pytest.mark.parametrize("name", ["", "a/b", "..", "a\\b", " a"])
def test_a_site_has_a_name_that_a_folder_can_have(name: str) -> None:
    with pytest.raises(Refused, match="site's name"):
        sites.path_of(name)


def test_found_says_what_is_off() -> None:
    site = Site(sx=0, sy=0, sz=0, pretilt=PRETILT)
    assert Located(site, radians(0.4), 4e-6, ()).good
    assert not Located(site, radians(0.6), 4e-6, ()).good
    assert not Located(site, 0.0, 6e-6, ()).good
    assert "+0.60 deg" in Located(site, radians(0.6), 4e-6, ()).sentence()


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workflows.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_a_site_is_taught_rehearsed_and_worked_on(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    text = RECIPE.read_text(encoding="utf-8")
    assert "site: auto" in text
    recipe.write_text(text.replace("site: auto", "site: edge-A"), encoding="utf-8")
    url = (
        URL.replace("height=20um", "height=28um")
        .replace("depth=4um&", "depth=8um&")
        .replace("coating=16um", "coating=19um")
    ) + "&axis=150um x -80um"
    taught = run("site", "edge-A", "--recipe", recipe, "--instrument", url, "--yes")
    assert taught.returncode == 0, taught.stderr
    folder = sites.path_of("edge-A").parent
    assert {"site.json", "ion.ome.tif", "electron.ome.tif", "look-1.html"} <= {path.name for path in folder.iterdir()}
    rehearsed = run("rehearse", recipe, "--instrument", url, "--yes")
    assert rehearsed.returncode == 0, rehearsed.stderr
    assert "the stage's axis at X +1" in rehearsed.stdout
    site = sites.load("edge-A")
    assert site is not None
    assert (site.site.ax, site.site.ay) == pytest.approx((150e-6, -80e-6), abs=5e-6)
    assert site.axis_left_m is not None
    assert run("rehearse", recipe, "--instrument", url, "--yes").stdout.count("the stage's axis") == 0  # only checked
    assert {one.name for one in site.rehearsed} >= {PoseName.MILL, PoseName.FACE_ON, PoseName.DEPOSIT}
    done = run("run", recipe, "--instrument", url, "--out", tmp_path / "RUN", "--until", "protect", "--model", "none")
    assert done.returncode == 3, done.stderr
    from workflows.journal import Journal

    with Journal(tmp_path / "RUN" / "journal.sqlite") as journal:
        assert journal.meta("site")["name"] == "edge-A"
        edge = next(act for act in journal.acts(kind="measure") if act.key == "site/edge")
        stood = [json.loads(json.dumps(event.data)) for event in journal.events(kind="stage")]
    assert edge.result["contrast"] > 0.5
    assert abs(edge.result["z_m"]) < 5e-6
    assert any(
        abs(at["r"] - site.site.turned) < 1e-6 for one in stood for at in one.values() if at.get("r") is not None
    )


@pytest.mark.slow
def test_the_commands_drive_through_the_guard(tmp_path: Path, mocker: MockerFixture) -> None:
    from workflows.commands_instrument import rehearse
    from workflows.commands_instrument import site as teach_site

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.read_text(encoding="utf-8").replace("site: auto", "site: edge-C"), encoding="utf-8")
    moves = mocker.spy(Guarded, "move_stage")
    opened = mocker.spy(SimulatedMicroscope, "move_stage")
    assert teach_site("edge-C", recipe, instrument=URL, field="60 um", yes=True) == 0
    assert rehearse(recipe, instrument=URL, yes=True) == 0
    assert moves.call_count == opened.call_count > 10
    assert {call.args[0].envelope.run for call in moves.call_args_list} == {"site", "rehearse"}
    assert {call.args[0].envelope.doses for call in moves.call_args_list} == {()}
