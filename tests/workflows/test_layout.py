"""Where things lie on the block, as the beams see them."""

from __future__ import annotations

from itertools import pairwise
from math import radians, tan
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instrument.geometry import PoseName, Site
from instrument.hydra import hydra
from instrument.process import mill_dose
from instrument.settings import Beam
from workflows.envelope import envelope
from workflows.launch import dry, instrument_url
from workflows.layout import Layout, front_cuts
from workflows.plan import plan
from workflows.planes import DOSE_FACTOR
from workflows.recipe import Recipe, load, without
from workflows.recipe_rules import last_plane

RECIPES = Path(__file__).parents[2] / "workflows" / "recipes"
NAMES = ("first-run", "overnight", "cooper2022")


@pytest.fixture(params=NAMES)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return load(RECIPES / f"{request.param}.yaml")


def layout_of(recipe: Recipe) -> Layout:
    return Layout(recipe, Site(sx=0.0, sy=0.0, sz=0.0, pretilt=recipe.sample.pretilt))


def test_a_cut_goes_to_its_plane_in_every_milling_pose(recipe: Recipe) -> None:
    layout = layout_of(recipe)
    for name in (PoseName.CUT, PoseName.ROCK_PLUS, PoseName.ROCK_MINUS):
        view = layout.view(layout.pose(name, radians(3.0)), Beam.ION)
        plane = layout.trim + 50e-9
        cut = layout.cut(view, layout.trim, plane)
        assert abs(cut.end_y_m - cut.start_y_m) == pytest.approx(50e-9, rel=1e-3)
        for y in (0.0, layout.face[1]):  # over-tilted it goes deeper at the foot, by what taper leaves there
            at = plane + y * tan(layout.over_tilt)
            assert view.field((0.0, y, at))[1] == pytest.approx(cut.end_y_m, abs=2e-3 * (at - plane) + 1e-12)


@settings(max_examples=20, deadline=None)
@given(st.floats(-5e-6, 5e-6), st.floats(-5e-6, 5e-6), st.floats(-5e-6, 5e-6))
def test_a_moved_layout_sees_the_moved_block_where_it_was(dx: float, dy: float, dz: float) -> None:
    layout = layout_of(load(RECIPES / "first-run.yaml"))
    moved = layout.moved(dx, dy, dz)
    for name, beam in ((PoseName.MILL, Beam.ION), (PoseName.FACE_ON, Beam.ELECTRON), (PoseName.DEPOSIT, Beam.ION)):
        here = layout.view(layout.pose(name), beam).field((0.0, 3e-6, layout.trim))
        there = moved.view(moved.pose(name), beam).field((0.0, 3e-6, layout.trim))
        assert there == pytest.approx(here, abs=1e-12)


def test_ruler_and_marks_lie_on_their_caps_and_out_of_the_way_of_the_slices(recipe: Recipe) -> None:
    layout = layout_of(recipe)
    reach = last_plane(recipe)
    for mark in layout.marks:
        assert mark.centre[2] - mark.size / 2 >= reach
    ruler = layout.ruler
    assert (ruler is None) == (recipe.protect is not None and recipe.protect.ruler == "none")
    if ruler is not None:
        assert ruler.start <= layout.trim
        assert ruler.end >= reach
        assert ruler.half_at(reach) < layout.cap[2]
        assert -layout.cap_height < ruler.top < ruler.bottom < 0
        assert ruler.half_at(2e-6) - ruler.half_at(1e-6) == pytest.approx(1e-6)


def test_the_deposit_pose_writes_the_film_upright_on_the_face(recipe: Recipe) -> None:
    layout = layout_of(recipe)
    view = layout.view(layout.pose(PoseName.DEPOSIT), Beam.ION)
    film = layout.on_face(view, (-5e-6, 2e-6, 5e-6, 9e-6), layout.trim, 1e-6)
    assert (film.width_m, film.height_m) == pytest.approx((10e-6, 7e-6))


def test_the_envelope_holds_every_pattern_of_its_recipe(recipe: Recipe) -> None:
    layout = layout_of(recipe)
    planned = plan(recipe, hydra(), options=False)
    found = envelope("run", recipe, layout, planned, hydra())
    areas = {dose.area: dose for dose in found.doses}
    assert {"cap", "trim", "trench", "mark", "polish", "face"} <= set(areas)
    for pose in (PoseName.MILL, PoseName.FACE_ON, PoseName.DEPOSIT):
        stage = layout.stage(layout.pose(pose))
        for axis in ("x", "y", "z"):
            low, high = getattr(found.stage_box, axis)
            assert low <= getattr(stage, axis) <= high
        assert any(abs(limit.t - (stage.t or 0.0)) <= limit.tolerance_rad for limit in found.poses)
    view = layout.view(layout.pose(PoseName.MILL), Beam.ION)
    for mark in layout.marks:
        u, v = view.field(mark.centre)
        x0, y0, x1, y1 = areas["mark"].box
        assert x0 < u - mark.size
        assert u + mark.size < x1
        assert y0 < v - mark.size
        assert v + mark.size < y1


def test_the_envelope_holds_the_electron_dose_of_the_recipe_s_own_pictures_and_maps_and_no_more(recipe: Recipe) -> None:
    def most(one: Recipe) -> float:
        found = envelope("run", one, layout_of(one), plan(one, hydra(), options=False), hydra())
        return found.electron_dose_c_per_m2 or 0.0

    slicing = recipe.slicing
    assert slicing is not None
    assert slicing.eds is not None
    eds, image = slicing.eds, slicing.image
    mapped = (eds.current or image.current) * eds.dwell * eds.frames / eds.pixel**2
    assert most(recipe) == pytest.approx(1.5 * mapped)
    taken = image.current * image.dwell / image.pixel**2
    assert most(without(recipe, "eds")) == pytest.approx(1.5 * taken)


def test_the_envelope_lets_every_ion_voltage_be_left_with_its_least_current(recipe: Recipe) -> None:
    found = envelope("run", recipe, layout_of(recipe), plan(recipe, hydra(), options=False), hydra())
    ion = [one for one in found.beams if one.beam is Beam.ION]
    assert ion
    for one in ion:
        assert min(one.currents_a) == min(hydra().currents(Beam.ION, one.voltage_v))


def test_a_simulator_is_made_large_enough_and_keeps_what_it_is_told() -> None:
    recipe = load(RECIPES / "first-run.yaml")
    url = instrument_url(recipe)
    assert url.startswith("simulator:11?coating=19um&")
    assert "width=40um" in url
    assert instrument_url(recipe, "simulator:3?width=50um").count("width=") == 1
    assert instrument_url(recipe, "autoscript://localhost") == "autoscript://localhost"
    assert dry(load(RECIPES / "overnight.yaml")) == "simulator:1?coating=80um"
    assert dry(recipe, 5).startswith("simulator:5")


def test_the_front_is_trimmed_and_polished_with_enough_dose_and_within_the_envelope(recipe: Recipe) -> None:
    block = recipe.block
    assert block is not None
    *trims, polish = front_cuts(block)
    assert polish.end == pytest.approx(block.trim)
    assert all(one.end <= other.end for one, other in pairwise([*trims, polish]))
    assert sum(cut.removed for cut in (*trims, polish)) >= block.trim
    planned = plan(recipe, hydra(), options=False)
    found = envelope("run", recipe, layout_of(recipe), planned, hydra())
    width, height = block.face
    for area, cuts in (("trim", trims), ("polish", [polish])):
        charge = DOSE_FACTOR * sum(mill_dose(width * height * cut.removed, "electrode", block.voltage) for cut in cuts)
        assert charge <= next(dose.charge_c for dose in found.doses if dose.area == area)
