"""Kill a small recipe everywhere, resume it, and count what was lost, doubled, or left on.

    python -m tests.faults.kill_everywhere --trials 30 --seed 1 --json

Half of the trials strike at named points (any act, any place in its life), half at random instants; the run dies, or
the server, or both with all that was not yet on the disk. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.faults import strike
from tests.faults.trial import DEADMAN_S, Ended, Result, Strike, points_of, tried, undisturbed

#: Runs at a time.
AT_ONCE = 2
#: A random instant lies within this share of the undisturbed run's time, slower as two run at once.
_FIRST, _LAST = 0.1, 1.3
#: Faces that differ by less are the same, m; a plane may lie so many of its stated uncertainties off.
SAME_M, MOST_SIGMA = 1e-9, 2.0


def drawn(trials: int, seed: int, points: Sequence[str], seconds: float) -> list[Strike]:
    """Return what is tried: half at named points, the places of an act's life in turn, half at random instants."""
    draw = random.Random(seed)
    by_place: dict[str, list[str]] = {}
    for point in points:
        by_place.setdefault(point.rpartition("@")[2], []).append(point)
    places = sorted(by_place)
    draw.shuffle(places)
    strikes = []
    for number in range(trials):
        victim = strike.VICTIMS[(number // 2) % len(strike.VICTIMS)]
        if number % 2:
            strikes.append(Strike(victim, at_s=draw.uniform(_FIRST, _LAST) * seconds))
        else:
            place = places[(number // 2) % len(places)]
            strikes.append(Strike(victim, draw.choice(by_place[place])))
    return strikes


def summary(results: Sequence[Result], seconds: float) -> dict[str, Any]:
    """Return the figures that count."""
    crashed = [one for one in results if one.crashed]
    done = [one for one in crashed if one.ended == "done"]
    inside, between = [one for one in done if one.inside], [one for one in done if not one.inside]
    # a picture taken once more is another measurement, newly focused: what is placed by it lies otherwise by its error
    retaken, between = [one for one in between if one.retaken], [one for one in between if not one.retaken]
    alike, otherwise = ([one for one in between if bool(one.decided_otherwise) is other] for other in (False, True))
    off = [share for one in done for share in one.misplaced]
    return {
        "trials": len(results),
        "crashes": len(crashed),
        "resumed": len(done),
        "held_for_a_person": sum(1 for one in crashed if one.ended == "held"),
        "failed": sum(1 for one in crashed if one.ended == "failed"),
        "slices_lost": sum(one.slices_lost for one in done),
        "slices_doubled": sum(one.slices_doubled for one in done),
        "acts_fired_twice": sum(one.fired_twice for one in done),
        "doses_wrong": sum(len(one.doses_wrong) for one in done),
        "unsafe_seconds": round(sum(one.unsafe_s for one in crashed), 3),
        "deadman_limit_s": DEADMAN_S,
        "kills_between_patterns": len(between),
        "faces_the_same_between": sum(1 for one in alike if one.face_off_m <= SAME_M),
        "face_off_nm_between": round(1e9 * max((one.face_off_m for one in alike), default=0.0), 2),
        # pictures taken anew are noisy: contrast is found a little otherwise by them, with all greys that follow, and a
        # clean that lies at its limit goes on for a look more, or less
        "decided_otherwise": len(otherwise),
        "face_off_nm_otherwise": round(1e9 * max((one.face_off_m for one in otherwise), default=0.0), 2),
        "kills_inside_pictures": len(retaken),
        "face_off_nm_retaken": round(1e9 * max((one.face_off_m for one in retaken), default=0.0), 2),
        "kills_inside_patterns": len(inside),
        "face_off_nm_inside": round(1e9 * max((one.face_off_m for one in inside), default=0.0), 1),
        "planes": len(off),
        "plane_off_sigma": round(max(off, default=0.0), 2),
        "planes_off_by_more_than_2_sigma": sum(1 for share in off if share > MOST_SIGMA),
        "seconds": round(seconds, 1),
    }


def swept(trials: int, seed: int, folder: Path, *, told: bool = True, keep: bool = False) -> list[Result]:
    """Do the trials in a folder; runs are deleted as they end unless they are to be looked at."""
    began = time.monotonic()
    undisturbed(folder / "oracle")
    seconds = time.monotonic() - began
    oracle = Ended(folder / "oracle")
    _ = oracle.face
    strikes = drawn(trials, seed, points_of(oracle), seconds)

    def one(number: int) -> Result:
        root = folder / f"RUN-{number:03d}"
        result = tried(strikes[number], root, oracle, random.Random(f"{seed}/{number}"))
        if told:
            print(_line(number, result), file=sys.stderr, flush=True)
        if not keep:
            shutil.rmtree(root, ignore_errors=True)
        return result

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, range(trials)))


def _line(number: int, result: Result) -> str:
    what = f"{number:4d} {result.strike!s:48} {result.ended:7} codes {result.codes}"
    if not result.crashed:
        return f"{what} not struck"
    worst = max(result.misplaced, default=0.0)
    told = f"{what} face {1e9 * result.face_off_m:6.2f} nm off, planes {worst:.1f} sigma"
    told += "".join(f"; {key} taken again" for key in result.retaken)
    if result.decided_otherwise:
        told += f"; decided otherwise: {', '.join(result.decided_otherwise)}"
    told += "".join(
        f"; {one['key']} {one['at_least']:.2f}..{one['at_most']:.2f} -> {one['fraction']:.2f}" for one in result.settled
    )
    if result.fired_twice or result.doses_wrong or result.slices_lost or result.slices_doubled or result.unsafe_s:
        told += (
            f"; TWICE {result.fired_twice}, WRONG DOSE {result.doses_wrong}, LOST {result.slices_lost}, DOUBLED "
            f"{result.slices_doubled}, UNSAFE {result.unsafe_s:.1f} s"
        )
    return told if result.ended == "done" else f"{told}\n{result.output[-600:]}"


def main() -> int:
    """Sweep and print; 1 where anything was lost, doubled, left on, or not resumed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="the last line alone")
    parser.add_argument("--keep", type=Path, help="folder for the runs, left as it is")
    asked = parser.parse_args()
    began = time.monotonic()
    if asked.keep is not None:
        asked.keep.mkdir(parents=True)
        results = swept(asked.trials, asked.seed, asked.keep, told=not asked.json, keep=True)
    else:
        with tempfile.TemporaryDirectory() as folder:
            results = swept(asked.trials, asked.seed, Path(folder), told=not asked.json)
    found = summary(results, time.monotonic() - began)
    print(json.dumps(found))
    bad = ("slices_lost", "slices_doubled", "acts_fired_twice", "unsafe_seconds", "failed", "doses_wrong")
    return 1 if any(found[key] for key in bad) else 0


if __name__ == "__main__":
    sys.exit(main())
