"""Recipes: what is read, what is refused and in which words, and that the packaged ones say what they claim."""

import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instrument.process import densest_film
from workflows.recipe import Recipe, RecipeProblem, check, dump, load, without
from workflows.recipe_rules import last_plane, planes_lost

RECIPES = Path(__file__).parents[2] / "workflows" / "recipes"
FIRST = (RECIPES / "first-run.yaml").read_text(encoding="utf-8")
NAMES = ("first-run", "cooper2022", "overnight")


def problems(text: str):
    with pytest.raises(RecipeProblem) as caught:
        load(text)
    return caught.value.problems


def changed(*pairs: tuple[str, str], text: str = FIRST) -> str:
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    return text


# -- reading and writing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_packaged_recipes_load_and_come_back_the_same(name):
    recipe = load(RECIPES / f"{name}.yaml")
    assert load(dump(recipe)) == recipe
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert recipe.replace() == recipe
    check(recipe)


def test_dump_has_units_and_defaults():
    text = dump(load(RECIPES / "overnight.yaml"))
    assert "budget: 300 nm" in text
    assert 'or: "08:00"' in text
    assert "when: unfilled pores > 20 %" in text


def test_lengths_are_metres_and_angles_radians():
    slicing = load(FIRST).slicing
    assert slicing is not None
    assert slicing.cut.thickness == 25e-9
    assert slicing.cut.rocking == math.radians(3)
    assert slicing.spacing == pytest.approx(50e-9)
    assert (slicing.images, slicing.image.size_px, slicing.image.bits_used) == (20, (800, 600), 8)
    assert slicing.image.box == pytest.approx((-16e-6, -2.5e-6, 16e-6, 21.5e-6))


def test_refill_takes_what_it_lacks_from_the_infiltration():
    without_merge = changed(("refill: {<<: *fill, ", "refill: {"))
    recipe = load(without_merge)
    assert recipe == load(FIRST)
    refill = recipe.slicing.refill
    assert (refill.thickness, refill.rounds, refill.clean.coarse) == (1e-6, 1, 15e-9)
    own = load(changed(("refill: {<<: *fill, ", "refill: {current: 3 nA, "))).slicing.refill
    assert (own.current, own.density) == (3e-9, None)


def test_finish_is_added():
    recipe = load(changed(("  - finish: {source: leave-on}\n", "")))
    assert recipe.steps[-1].finish is not None


def test_a_bare_step_name_is_a_step_with_defaults():
    assert load(changed(("  - finish: {source: leave-on}\n", "  - finish\n"))).steps[-1].finish.source == "standby"


def test_steps_have_names_of_their_own():
    twice = changed(("  - slice:", "  - infiltrate: *fill\n  - slice:"))
    assert [name for name, _ in load(twice).named_steps()] == [
        "protect", "block", "infiltrate", "infiltrate-2", "slice", "finish",
    ]  # fmt: skip


def test_without_leaves_refills_out():
    recipe = load(FIRST)
    assert without(recipe, "refill").slicing.refill is None
    assert without(recipe, "eds").slicing.eds is None
    with pytest.raises(RecipeProblem, match="refill, eds"):
        without(recipe, "refil")
    with pytest.raises(RecipeProblem, match="before there is a"):
        without(recipe, "block")


def test_refill_none():
    start = FIRST.index("      refill:")
    end = FIRST.index("  - finish")
    assert load(FIRST[:start] + "      refill: none\n" + FIRST[end:]).slicing.refill is None


def test_size_of_image_takes_a_preset_when_near():
    image = load(RECIPES / "overnight.yaml").slicing.image
    assert image.size_px == (4096, 3536)
    assert image.bits_used == 16


def test_due():
    assert [k for k in range(1, 200) if load(RECIPES / "overnight.yaml").slicing.eds.due(k)] == [60, 120, 180]
    assert [k for k in range(1, 200) if load(FIRST).slicing.eds.due(k)] == [10]


def test_the_design_page_s_rule_of_three_lines_holds():
    recipe = load(RECIPES / "overnight.yaml")
    assert planes_lost(recipe) == pytest.approx(3 * 50e-9 + 15 * 50e-9 + 6 * 50e-9)
    assert last_plane(recipe) == pytest.approx(30e-6 + 15e-6 + 1.2e-6)


# -- the published protocol -------------------------------------------------------------------------------------------


def test_cooper2022_has_every_number_of_the_protocol():
    recipe = load(RECIPES / "cooper2022.yaml")
    assert recipe.sample.pretilt == math.radians(45)
    assert recipe.sample.composition.coating == 80e-6
    protect, block = recipe.protect, recipe.block
    assert protect.area == (200e-6, 30e-6)
    assert protect.thickness == 5e-6
    assert protect.gas == {"Pt": 1.0, "C": 0.02}
    assert protect.ion.voltage == 8e3
    assert block.face == (200e-6, 230e-6)
    assert block.trench.currents[0] == 2500e-9
    assert block.voltage == 30e3
    assert block.fiducial.current == 15e-9
    assert block.fiducial.place == "on-cap"
    fill = next(step.infiltrate for step in recipe.steps if step.infiltrate is not None)
    assert fill.thickness == 2e-6
    assert fill.clean.fine_from == 1.5e-6
    assert fill.rounds > 1
    slicing = recipe.slicing
    cut, image, eds = slicing.cut, slicing.image, slicing.eds
    assert (cut.voltage, cut.current, cut.rocking, cut.thickness) == (30e3, 60e-9, math.radians(3), 25e-9)
    assert (image.voltage, image.current, image.working_distance, image.dwell) == (5e3, 1.6e-9, 4e-3, 3e-6)
    assert image.size_px == (4096, 3816)
    assert image.pixel == 20e-9
    assert image.detectors == ("CBS", "TLD")
    assert image.every == 4
    assert slicing.spacing == pytest.approx(100e-9)
    assert (eds.voltage, eds.current, eds.working_distance) == (10e3, 1.6e-9, 4.1e-3)
    assert eds.area == (72.8e-6, 52e-6)
    size = tuple(round(side / eds.pixel) for side in eds.area)
    assert size == (1358, 970)
    assert round(eds.pixel * 1e9) == 54
    assert eds.frames == 10
    assert size[0] * size[1] * eds.frames * eds.dwell == pytest.approx(1317, abs=1)
    assert set(eds.elements) == {"Al", "Ni", "Pt", "C", "F"}


# -- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "field", "words"),
    [
        ("thickness: 25 nm", "thickness: 50 kV", "slice.cut.thickness", ["is a voltage, not a length", "54 nm"]),
        ("thickness: 25 nm", "thickness: 50", "slice.cut.thickness", ["bare number", "50 um"]),
        ("thickness: 25 nm", "thickness: -50 nm", "slice.cut.thickness", ["'-50 nm'", "more than 0"]),
        ("thickness: 25 nm", "thickness: '0,05 um'", "slice.cut.thickness", ["comma", "0.05 um"]),
        ("thickness: 25 nm", "thickness: 0,05 um", "slice.cut.05 um", ["decimal point"]),
        ("thickness: 25 nm", "thickness: 50 nM", "slice.cut.thickness", ["did you mean '50 nm'"]),
        ("thickness: 25 nm", "thicknes: 50 nm", "slice.cut.thicknes", ["unknown key", "did you mean 'thickness'"]),
        ("refill:", "reinfiltrate:", "slice.reinfiltrate", ["unknown key", "did you mean 'refill'"]),
        ("pose: face-on", "pose: faceon", "slice.image.pose", ["'faceon'", "did you mean 'face-on'"]),
        ("area: 32 um x 24 um", "area: 38 um x 24 um", "slice.image.area", ["face 18 um", "36 um"]),
        ("area: 32 um x 24 um", "area: 32 um x 32 um", "slice.image.area", ["down to 29.5 um", "28 um"]),
        ("above: 2.5 um", "above: 3 um", "slice.image.area", ["3 um above", "cap is 2.5 um"]),
        ("area: 40 um x 16 um", "area: 40 um x 8 um", "protect.area", ["8 um long", "margin 5 um", "lengthen the cap"]),
        ("area: 40 um x 16 um", "area: 30 um x 16 um", "protect.area", ["30 um wide", "36 um"]),
        ("density: 4 pA/um2}, ruler", "density: 40 pA/um2}, ruler", "protect.ion.density", ["faster than it grows"]),
        ("8 kV, density: 4 pA/um2, pose", "30 kV, density: 16 pA/um2, pose", "infiltrate.density", ["30 kV"]),
        ("pretilt: 45 deg", "pretilt: 0 deg", "slice.cut.rocking", ["3 deg", "0 deg pre-tilt", "45 deg stub"]),
        ("at: [10]", "at: [21]", "slice.eds.at", ["image 21", "20"]),
        ("at: [10]", "at: [10], every: 3 images", "slice.eds", ["every and at", "write one"]),
        ("length: 14 um", "length: 5 um", "block.trench.length", ["5 um long"]),
        ("width: 15 um", "width: 6 um", "block.trench.width", ["1.4 x"]),
        ("[60 nA, 15 nA]", "[15 nA, 60 nA]", "block.trench.currents", ["fall", "15 nA, 60 nA, 4 nA"]),
        ("depth: 1 um", "depth: 3 um", "block.fiducial.depth", ["1.5 um high", "electrode"]),
        ("size: 5 um", "size: 9 um", "block.fiducial.size", ["9 um", "8 um x 8 um"]),
        ("beyond: 1 um, keep: 1 um", "keep: 1 um", "infiltrate.beyond", ["lip"]),
        ("fine_from: 0.2 um", "fine_from: 3 um", "infiltrate.clean.fine_from", ["2 um"]),
        ("when: unfilled pores > 20 %", "when: pores > 20 %", "slice.refill.when", ["unfilled pores > 20 %"]),
        ("when: unfilled pores > 20 %", "when: unfilled pores > 20", "slice.refill.when", ["20 %"]),
        ("at_most: 3", "at_least_every: 5 images", "slice.refill", ["5 images", "6 images", "raise"]),
        ("every: 2 cuts", "every: 2 images", "slice.image.every", ["2 cuts"]),
        ("until: {images: 20}", "until: {depth: 25 nm}", "slice.until.depth", ["50 nm"]),
        ("until: {images: 20}", "until: {images: 20, or: 8 o'clock}", "slice.until.or", ["08:00"]),
        ("until: {images: 20}", "until: {}", "slice.until", ["depth", "images"]),
        ("kintsugi: 1", "kintsugi: 2", "kintsugi", ["2"]),
        ("instrument: simulator:11?coating=19um", "instrument: autoscript://localhost", "site", ["kintsugi site"]),
        ("site: auto", "site: auto\nsteps: []", "recipe", ["duplicate key", "once"]),
        ("sample: {pretilt: 45 deg, ", "sample: {", "sample.pretilt", ["missing"]),
        ("gas: {Pt: 100 %, C: 2 %}", "gas: {Pt: 120 %}", "protect.gas.Pt", ["at most 100 %"]),
        ("voltage: 5 kV", "voltage: .inf", "slice.image.voltage", ["5 kV", "30 kV"]),
        ("name: First", "name: !!python/object:os.system First", "recipe", ["tag"]),
        ("source: leave-on", "source: lit", "finish.source", ["leave-on, standby, off"]),
    ],
)  # fmt: skip
def test_refused_in_one_sentence_with_its_line(old, new, field, words):
    text = changed((old, new))
    found = problems(text)
    fields = [problem.field for problem in found]
    if field == "slice.image.voltage":
        words = ["bare number"]
    problem = next((problem for problem in found if problem.field == field), None)
    assert problem is not None, fields
    for word in words:
        assert word in str(problem)
    assert problem.line is not None
    if old in FIRST and not problem.field.endswith(("rocking", "fiducial", "missing")):
        first_changed = next(i for i, line in enumerate(text.splitlines(), 1) if line not in FIRST.splitlines())
        assert abs(problem.line - first_changed) <= 12
    assert "\n" not in str(problem)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ("[slice, block]", "slice"),
        ("[infiltrate]", "infiltrate comes before there is a block or adopt"),
        ("[block]", "block comes before there is a protect"),
    ],
)
def test_impossible_orders(steps, words):
    recipe = load(FIRST)
    by_kind = {step.kind: step for step in recipe.steps}
    wanted = tuple(by_kind[kind] for kind in steps.strip("[]").split(", "))
    with pytest.raises(RecipeProblem, match=words):
        check(recipe.replace(steps=wanted))


def test_order_is_judged_step_by_step():
    recipe = load(FIRST)
    protect, block, fill, slicing, finish = recipe.steps
    for steps, words in [
        ((protect, block, slicing, protect, finish), "protect comes a second time"),
        ((protect, block, finish, slicing), "slice comes after finish"),
        ((protect, block, slicing, slicing), "slice comes a second time"),
        ((block, protect), "protect comes after block"),
    ]:
        with pytest.raises(RecipeProblem, match=words):
            check(recipe.replace(steps=steps))
    check(recipe.replace(steps=(protect, block, fill, fill, slicing, fill, finish)))


def test_adopt_stands_for_protect_and_block():
    start, end = FIRST.index("  - protect"), FIRST.index("  - infiltrate")
    text = FIRST[:start] + "  - adopt: {site: B, face: 36 um x 28 um, cap: 2.5 um}\n" + FIRST[end:]
    assert load(text).adopt is not None
    assert "adopt comes after" not in str(
        problems(text.replace("  - infiltrate", "  - protect: {area: 1 um x 1 um}\n  - infiltrate"))
    )


def test_unattended_eds_on_hardware_needs_somebody_to_start_it():
    text = (RECIPES / "overnight.yaml").read_text(encoding="utf-8")
    assert "laser-api or command" in problems(text.replace(", start: laser-api", ""))[0].limit
    load(text.replace(", start: laser-api", "").replace("confirm: [site, block]", "confirm: [site, block, eds]"))


def test_a_fault_that_a_refill_inherits_is_told_once():
    found = problems(changed(("voltage: 8 kV, density: 4 pA/um2, pose", "voltage: 8 V8, density: 4 pA/um2, pose")))
    assert [problem.field for problem in found] == ["infiltrate.voltage"]


def test_all_problems_are_told_at_once():
    found = problems(changed(("thickness: 25 nm", "thickness: 50"), ("pixel: 40 nm", "pixels: 40 nm")))
    assert {problem.field for problem in found} >= {"slice.cut.thickness", "slice.image.pixels"}


@pytest.mark.parametrize(
    "text", ["just words\n", "- a\n- b\n", "a: [1\nb: 2\n", "\n", "a: &x [*x]\n", "\t- a\n", "a: b: c\n"]
)
def test_what_is_no_recipe_is_refused_in_a_sentence(text):
    assert problems(text)


def test_a_missing_file_and_a_binary_one(tmp_path):
    with pytest.raises(RecipeProblem, match="can't be read"):
        load(tmp_path / "nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeProblem, match="UTF-8"):
        load(tmp_path / "binary.yaml")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_change_of_a_value_loads_or_is_told(data):
    lines = FIRST.splitlines()
    index = data.draw(st.integers(2, len(lines) - 1))
    position = data.draw(st.integers(0, len(lines[index])))
    lines[index] = lines[index][:position] + data.draw(st.text(max_size=3)) + lines[index][position:]
    told = ("",)
    try:
        load("\n".join(lines) + "\n")
    except RecipeProblem as error:
        told = tuple(str(problem) for problem in error.problems)
    assert told


def test_densest_film_agrees_with_the_model_s_two_points():
    assert densest_film(30e3) == pytest.approx(15, rel=0.02)
    assert densest_film(8e3) == pytest.approx(28.5, rel=0.03)


@pytest.mark.parametrize("given", ["{face: 36 um x 28 um}", "{site: B, faec: 36 um x 28 um}", "{site: B, colour: red}"])
def test_a_key_that_nobody_writes_is_offered_to_nobody(given):
    start = FIRST.index("  - protect:")
    with pytest.raises(RecipeProblem) as told:
        load(FIRST[:start] + f"  - adopt: {given}\n" + FIRST[start:])
    assert "fiducial" in str(told.value) or "'face'" in str(told.value)
    assert "made" not in str(told.value)
