"""A bounded, seeded share of the kill-everywhere sweep, and its own tools."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from tests.faults.kill_everywhere import drawn, summary, swept
from tests.faults.strike import VICTIMS, lose_what_was_not_synced, synced
from tests.faults.trial import Strike

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="/proc and POSIX signals"), pytest.mark.timeout(600)]

TRIALS, SEED = 6, 3
#: How far a clean goes on between two looks (nm), and what re-measuring alone may change.
LOOK_NM, NOISE_NM, SAME_NM = 100.0, 25.0, 1.0


@pytest.mark.slow
def test_nothing_is_lost_doubled_or_left_on(tmp_path: Path) -> None:
    results = swept(TRIALS, SEED, tmp_path)
    found = summary(results, 0.0)
    assert found["crashes"] >= TRIALS - 1, results
    assert found["resumed"] == found["crashes"], results
    assert found["held_for_a_person"] == 0
    for none in ("slices_lost", "slices_doubled", "acts_fired_twice", "unsafe_seconds", "doses_wrong"):
        assert found[none] == 0, (none, results)
    assert found["face_off_nm_between"] <= SAME_NM, results
    assert found["face_off_nm_retaken"] <= LOOK_NM + NOISE_NM, results
    assert found["face_off_nm_otherwise"] <= LOOK_NM + NOISE_NM, results
    assert found["planes_off_by_more_than_2_sigma"] == 0, results


def test_half_of_the_strikes_are_at_named_points_and_everybody_dies_in_turn() -> None:
    points = [f"slice/000{k}/cut-1@{where}" for k in range(1, 5) for where in ("intended", "done", "40%")]
    strikes = drawn(60, 1, points, 10.0)
    assert sum(1 for one in strikes if one.point) == 30
    assert {one.victim for one in strikes} == set(VICTIMS)
    assert {one.point.rpartition("@")[2] for one in strikes if one.point} == {"intended", "done", "40%"}
    assert all(0.9 < one.at_s < 16 for one in strikes if not one.point)
    assert drawn(60, 1, points, 10.0) == strikes
    assert drawn(60, 2, points, 10.0) != strikes
    assert str(Strike("run", "a@done")) == "run a@done"


def test_a_power_cut_takes_what_was_not_synced(tmp_path: Path) -> None:
    root = tmp_path / "RUN"
    (root / "instrument").mkdir(parents=True)
    kept, torn, gone, specimen = (root / name for name in ("kept", "torn", "gone", "instrument/state-000000007.json"))
    for path, text in ((kept, "1234"), (torn, "12345678"), (gone, "12345678"), (specimen, "1234")):
        path.write_text(text)
    synced(root).write_text(f"{kept.stat().st_ino} 4\n{torn.stat().st_ino} 2\n{torn.stat().st_ino} 4\n")
    assert lose_what_was_not_synced(root, random.Random(1)) == 2
    assert kept.read_text() == specimen.read_text() == "1234"
    assert torn.read_text() in {"12345678"[:n] for n in range(4, 9)}
    assert gone.read_text() in {"12345678"[:n] for n in range(9)}
