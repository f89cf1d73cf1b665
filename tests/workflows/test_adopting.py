"""What is known of a run whose block is taken over, however that run ended."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from instrument.settings import DetectorSettings
from tests.workflows.frames import save_slices
from workflows.adopting import made
from workflows.journal import Journal, JournalTooNew
from workflows.recipe import Recipe, RecipeProblem, dump, load
from workflows.store import RunFolder

SMALL = Path(__file__).parents[1] / "end_to_end" / "small.yaml"
ZERO_M, THIN_M = 40e-9, 25e-9


def done(journal: Journal, key: str, kind: str, args: object, result: object) -> None:
    journal.intend(key, kind, args)
    journal.done(key, result)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that has a block, its trimmed plane by the ruler."""
    folder = RunFolder.create(tmp_path / "ONE")
    shutil.copy(SMALL, folder.recipe)
    with Journal.create(folder.journal, run_id="one") as journal:
        plane = {"z_m": 3e-6 + ZERO_M, "sigma_m": 20e-9, "by": "ruler"}
        done(journal, "block/plane", "measure", {"expected_m": 3e-6}, plane)
        journal.note("look", {"worn_m": 0.1e-6})
        done(journal, "contrast", "measure", {}, [{"name": "CBS", "contrast": 0.4}])
    return folder


def sliced(folder: RunFolder, planes: list[float | None]) -> None:
    """Let slices be imaged; None: the run ended before its plane was measured."""
    save_slices(folder.slices, len(planes))
    with Journal(folder.journal) as journal:
        for k, plane in enumerate(planes, start=1):
            key = f"slice/{k:04d}"
            for number in (1, 2):
                done(journal, f"{key}/cut-{number}", "mill", {}, {"charge_c": 1e-9})
            done(journal, f"{key}/image", "frame", {}, {"uid": f"u{k}", "seconds": 1.0})
            if plane is not None:
                result = {"z_m": plane + ZERO_M, "sigma_m": 20e-9, "by": "ruler"}
                done(journal, f"{key}/plane", "measure", {"expected_m": plane}, result)


def test_a_block_that_was_never_sliced_stands_where_it_was_trimmed(run: RunFolder) -> None:
    known = made(run.root)
    assert known.plane == pytest.approx(3e-6)
    assert (known.ruler_zero, known.worn) == (pytest.approx(ZERO_M), 0.1e-6)
    assert known.detectors == (DetectorSettings(name="CBS", contrast=0.4),)


def test_what_was_cut_and_not_measured_any_more_is_reckoned(run: RunFolder) -> None:
    sliced(run, [3.05e-6, 3.1e-6])
    assert made(run.root).plane == pytest.approx(3.1e-6)
    with Journal(run.journal) as journal:
        done(journal, "slice/0003/cut-1", "mill", {}, {"charge_c": 1e-9})
    assert made(run.root).plane == pytest.approx(3.1e-6 + THIN_M)


def test_a_run_killed_between_picture_and_plane_leaves_no_hole(run: RunFolder) -> None:
    sliced(run, [3.05e-6, None])
    assert made(run.root).plane == pytest.approx(3.05e-6 + 2 * THIN_M)


def test_a_block_adopted_twice_keeps_what_is_known_of_it(run: RunFolder, tmp_path: Path) -> None:
    sliced(run, [3.05e-6])
    recipe = second(run)
    assert recipe.starts == recipe.edge == pytest.approx(3.05e-6)
    folder = RunFolder.create(tmp_path / "TWO")
    folder.write_recipe(dump(recipe))
    with Journal.create(folder.journal, run_id="two") as journal:
        done(journal, "adopt/zero", "measure", {"run": str(run.root), "left_m": 3.05e-6}, ZERO_M)
        plane = {"z_m": 3.2e-6 + ZERO_M, "sigma_m": 20e-9, "by": "ruler"}
        done(journal, "adopt/plane", "measure", {"expected_m": 3.05e-6}, plane)
    known, before = made(folder.root), made(run.root)
    assert known.plane == pytest.approx(3.2e-6)  # as it was found, and nothing was cut
    assert (known.ruler_zero, known.worn) == pytest.approx((before.ruler_zero, before.worn))
    assert known.detectors == before.detectors


def test_how_much_looks_may_take_is_said_where_the_block_is_adopted(run: RunFolder) -> None:
    one = load(SMALL)
    assert one.fiducial is not None
    assert second(run).fiducial == one.fiducial
    for budget in (0.1e-6, 0.9e-6):
        said = second(run, f", fiducial: {{budget: {budget * 1e9:.0f} nm}}")
        assert said.fiducial is not None
        assert said.fiducial.budget == pytest.approx(budget)
        assert said.fiducial.size == one.fiducial.size
        again = load(dump(said)).fiducial
        assert again is not None
        assert again.budget == pytest.approx(budget)


def test_a_run_that_ended_under_a_film_is_not_adopted_before_its_clean_is_done(run: RunFolder) -> None:
    with Journal(run.journal) as journal:
        done(journal, "infiltrate/round-1/film", "deposit", {}, {"charge_c": 1e-6})
    with pytest.raises(RecipeProblem, match="platinum still on the face; `kintsugi resume"):
        second(run)
    with Journal(run.journal) as journal:
        plane = {"z_m": 3.1e-6 + ZERO_M, "sigma_m": 20e-9, "by": "ruler"}
        done(journal, "infiltrate/plane", "measure", {"expected_m": 3e-6}, plane)
        done(journal, "slice/warm-up-1", "mill", {}, {"charge_c": 1e-9})
    assert second(run).edge == pytest.approx(3.1e-6 + THIN_M)
    with Journal(run.journal) as journal:
        journal.intend("refill-01/round-1/film", "deposit", {})
    with pytest.raises(RecipeProblem, match="within a fill"):
        second(run)


def test_a_fill_without_pictures_of_its_plane_has_ended_where_the_run_says_so(run: RunFolder) -> None:
    with Journal(run.journal) as journal:
        done(journal, "infiltrate/round-1/film", "deposit", {}, {"charge_c": 1e-6})
        done(journal, "infiltrate/ended", "decide", {"rounds": 1}, {"ended": ["no film"]})
    assert second(run).edge == pytest.approx(3e-6)


def test_the_dose_that_cuts_were_found_to_need_is_carried_over(run: RunFolder) -> None:
    sliced(run, [3.05e-6, 3.1e-6])
    assert made(run.root).dose is None
    with Journal(run.journal) as journal:
        done(journal, "slice/0002/dose", "measure", {"plane_m": 3.1e-6}, {"from": 1.5, "to": 1.875})
    recipe = second(run)
    assert recipe.made is not None
    assert recipe.made.dose == 1.875


def test_a_journal_that_can_not_be_read_is_named_with_what_to_do(run: RunFolder) -> None:
    run.journal.write_bytes(b"no journal" * 100)
    with pytest.raises(RecipeProblem, match=r"adopt\.run: can't be adopted: .*damaged.*; restore a copy"):
        second(run)
    with pytest.raises(JournalTooNew):  # it is made, and can't be opened by its own maker any more
        Journal.create(run.root / "newer.sqlite", run_id="one", schema=999)
    (run.root / "newer.sqlite").replace(run.journal)
    with pytest.raises(RecipeProblem, match=r"adopt\.run: .*999.*; install the kintsugi that made it"):
        second(run)


def second(run: RunFolder, more: str = "") -> Recipe:
    text = SMALL.read_text(encoding="utf-8")
    slices = text[text.index("  - slice:") :].split("      eds:")[0] + "      until: {images: 3}\n"
    return load(
        f"kintsugi: 1\nname: Two\nsample: {{pretilt: 45 deg}}\nsteps:\n"
        f"  - adopt: {{site: edge-A, run: {run.root}{more}}}\n{slices}"
    )
