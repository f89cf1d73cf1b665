"""Plans: hours by activity, what fits a night, limits of an instrument with field, value, limit and remedy."""

from datetime import datetime
from pathlib import Path

import pytest

from instrument.hydra import hydra
from instrument.settings import StageLimits
from workflows.limits import disk_problem, film_current, instrument_problems
from workflows.plan import lines, maps, plan, refills, seconds_until
from workflows.recipe import load, without

RECIPES = Path(__file__).parents[2] / "workflows" / "recipes"
FIRST = (RECIPES / "first-run.yaml").read_text(encoding="utf-8")
HYDRA = hydra()


def overnight():
    return load(RECIPES / "overnight.yaml")


@pytest.mark.parametrize("name", ["first-run", "cooper2022", "overnight"])
def test_packaged_recipes_fit_a_usual_instrument(name):
    found = plan(load(RECIPES / f"{name}.yaml"), HYDRA)
    assert found.problems == ()
    assert found.total_s > 3600
    assert sum(found.seconds.values()) == pytest.approx(found.prelude_s + found.slicing_s)
    assert 0 < found.after_s < found.closing_s < found.slicing_s
    assert found.armed_s == pytest.approx(1.25 * found.total_s)
    assert lines(found)[0].startswith(found.name)


def test_a_night_of_twelve_hours_holds_about_as_many_images_as_worked_out_by_hand():
    # night.md 4: about 120 images in 12 h with refills every ten images, classic pose
    found = plan(overnight(), HYDRA)
    assert found.images == 150
    assert 90 <= found.images_fit <= 150
    assert found.slicing_s <= 12 * 3600
    assert found.refills == (found.images_fit - 1) // 10
    assert set(found.seconds) == {"block", "films", "cleaning", "slicing", "imaging", "EDS", "moves", "gas"}


def test_more_time_holds_more_images_and_the_next_one_would_not_fit():
    fits = [plan(overnight(), HYDRA, finish_by=f"{hours} h", options=False) for hours in (2, 4, 8, 12)]
    counts = [found.images_fit for found in fits]
    assert counts == sorted(counts)
    assert len(set(counts)) == 4
    for found, hours in zip(fits, (2, 4, 8, 12), strict=True):
        per_image = found.slicing_s / found.images_planned
        assert found.slicing_s <= hours * 3600 < found.slicing_s + 12 * per_image


def test_start_of_the_night_counts():
    late = plan(overnight(), HYDRA, start=datetime(2026, 11, 24, 23, 30), options=False)  # noqa: DTZ001
    assert late.images_fit < plan(overnight(), HYDRA, options=False).images_fit
    assert seconds_until("08:00") == 12 * 3600
    assert seconds_until("90 min") == 5400
    assert seconds_until("23:45", datetime(2026, 11, 24, 23, 30)) == 900  # noqa: DTZ001


def test_options_say_what_each_choice_costs():
    by_choice = {option.choice: option for option in plan(overnight(), HYDRA).options}
    stands = by_choice["as it stands"]
    assert by_choice["pose: face-on"].seconds_per_image > stands.seconds_per_image
    for cheaper in ("no rocking", "one cut per image", "no refill"):
        assert by_choice[cheaper].seconds_per_image < stands.seconds_per_image
        assert by_choice[cheaper].images_fit >= stands.images_fit


def test_refills_and_maps_are_counted_as_the_recipe_expects():
    slicing = load(FIRST).slicing
    assert [refills(slicing, images) for images in (0, 10, 11, 20, 21, 99)] == [0, 0, 1, 1, 2, 3]
    assert [maps(slicing, images) for images in (9, 10, 20)] == [0, 1, 1]
    without_refill = plan(without(load(FIRST), "refill"), HYDRA, options=False)
    assert without_refill.refills == 0
    assert without_refill.seconds["films"] < plan(load(FIRST), HYDRA, options=False).seconds["films"]


def test_data_gas_and_dose_add_up():
    recipe = load(FIRST)
    found = plan(recipe, HYDRA, options=False)
    assert found.bytes >= 20 * 800 * 600 * 2
    rounds = 2 + found.refills
    assert found.gas_s["Pt"] > 0
    assert found.charge_c["face"] > 0
    assert rounds == 3
    assert set(found.currents_a) == {"protect", "infiltrate", "slice.refill"}


def test_not_one_image_fits():
    found = plan(overnight(), HYDRA, finish_by="60 s", options=False)
    assert "not one image fits" in found.problems[0]
    assert lines(found) == list(found.problems)


# -- limits -----------------------------------------------------------------------------------------------------------


def only(recipe, description):
    found = instrument_problems(recipe, description)
    assert found
    for problem in found:
        assert problem.field
        assert problem.value
        assert problem.limit
        assert problem.remedy
    return found[0]


def test_a_gas_that_the_instrument_lacks():
    problem = only(load(FIRST), HYDRA.replace(gases=("W",)))
    assert problem.field == "protect.gas"
    assert "'Pt'" in str(problem)
    assert "one of W" in str(problem)


def test_a_detector_that_the_instrument_lacks():
    assert only(load(FIRST), HYDRA.replace(detectors=("ETD", "TLD"))).value == "CBS"


def test_element_maps_that_the_instrument_lacks():
    assert only(load(FIRST), HYDRA.replace(elements=False)).field == "slice.eds"


def test_element_maps_that_somebody_else_starts_than_the_recipe_says():
    recipe = overnight()
    problem = only(recipe, HYDRA.replace(maps_by="person"))
    assert problem.field == "slice.eds.start"
    assert problem.limit == "person"
    assert "elements_start=laser-api" in problem.remedy
    assert not instrument_problems(recipe, HYDRA.replace(maps_by="laser-api"))


def test_a_pattern_that_does_not_fit_the_ion_field():
    problem = only(overnight(), HYDRA.replace(ion_field_max_m=120e-6))
    assert problem.field == "protect.area"
    assert "150 um" in problem.value
    assert "at most 120 um" in str(problem)


def test_an_image_that_does_not_fit_the_electron_field():
    assert only(overnight(), HYDRA.replace(electron_field_max_m=50e-6)).field == "slice.image.area"


@pytest.mark.parametrize(
    ("old", "new", "field", "remedy"),
    [
        ("current: 4 nA, rocking", "current: 5 nA, rocking", "slice.cut.current", "write '4 nA'"),
        ("current: 1.6 nA", "current: 1 nA", "slice.image.current", "write '800 pA'"),
        ("coarse: 15 nA", "coarse: 20 nA", "infiltrate.clean.coarse", "write '15 nA'"),
        ("voltage: 5 kV", "voltage: 6 kV", "slice.image.voltage", "use one of these"),
        ("8 kV, density: 4 pA/um2, pose", "9 kV, density: 4 pA/um2, pose", "infiltrate.voltage", "use one of these"),
        ("4 pA/um2}, ruler", "0.1 pA/um2}, ruler", "protect.ion.density", "pA/um2"),
    ],
)
def test_a_working_point_that_the_instrument_lacks(old, new, field, remedy):
    assert old in FIRST
    found = instrument_problems(load(FIRST.replace(old, new, 1)), HYDRA)
    assert found[0].field == field
    assert remedy in found[0].remedy


def test_a_film_denser_than_grows_at_the_smallest_current():
    coarse = HYDRA.replace(ion_currents_a={**HYDRA.ion_currents_a, "Xenon@8000": (60e-9,)})
    problem = only(load(FIRST), coarse)
    assert problem.field == "protect.ion.density"
    assert "less than" in problem.limit


def test_a_pose_beyond_the_stage_s_travel():
    stage = StageLimits(x=(-1, 1), y=(-1, 1), z=(0, 1), t=(-0.2, 0.5))
    found = instrument_problems(load(FIRST), HYDRA.replace(stage=stage))
    assert {problem.field for problem in found} == {"slice.image.pose", "slice.eds.pose"}
    assert "45.0 deg" in found[0].value


def test_problems_of_the_instrument_stop_the_plan():
    found = plan(load(FIRST), HYDRA.replace(gases=()))
    assert found.problems
    assert found.total_s == 0


def test_more_data_than_the_disk_has():
    assert disk_problem(1e9, 10**10) is None
    problem = disk_problem(9e9, 10**10)
    assert "9.0 GB" in problem.value
    found = plan(overnight(), HYDRA, free_bytes=10**9, options=False)
    assert "disk" in found.problems[0]


def test_film_current_is_the_nearest_on_the_list():
    assert film_current(4.0, 1000e-12, (1e-9, 3e-9, 9e-9)) == 3e-9
