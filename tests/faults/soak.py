"""Soak: long runs one after another on other machines, with faults at the rates of physics.md 7, until so many hours.

    python -m tests.faults.soak --hours 1000 --seed 1 --json

Hours are the instrument's, some eighty a run. A run that fails is resumed, as its supervisor would; one that is held
wants a person, and is an intervention. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from simulator.saving import read
from tests.faults.trial import Ended, end_server
from workflows.terminal import DONE, FAILED, HELD

RECIPE = Path(__file__).parent / "soak.yaml"
#: Runs at a time; resumes of one that fails; longest that a run may take (s).
AT_ONCE, RESUMES, RUN_S = 3, 3, 1200.0
URL = "simulator:{seed}?coating=40um&voxel=400nm&layer=40nm&grain=120s"


@dataclass
class Soaked:
    """What became of one run."""

    seed: int
    code: int = -1
    hours: float = 0.0
    slices: int = 0
    lost: int = 0
    twice: int = 0
    unsafe: bool = False
    struck: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    why: str = ""


def soaked(seed: int, rate: float, root: Path) -> Soaked:
    """Run once on a machine of its own; see what is left."""
    found = Soaked(seed)
    command = [sys.executable, "-m", "workflows.cli"]
    begin = ["run", str(RECIPE), "--instrument", URL.format(seed=seed), "--faults", f"{rate:g}", "--out", str(root)]
    try:
        for arguments in (begin, *([["resume", str(root)]] * RESUMES)):
            ended = subprocess.run(
                [*command, *arguments, "--model", "none"], capture_output=True, text=True, timeout=RUN_S, check=False
            )
            found.code = ended.returncode
            if found.code != FAILED:
                break
            found.why = ended.stderr.strip().splitlines()[-1][:200] if ended.stderr.strip() else ""
    finally:
        end_server(root)
    if found.code == HELD:
        found.why = ended.stderr.strip().splitlines()[-1][:200]
    run = Ended(root)
    saved = read(root / "instrument")
    assert saved is not None
    condition = saved["condition"]
    found.hours = condition["time_s"] / 3600
    found.slices = len(run.slices)
    found.struck = [one["name"] for one in condition["struck"]]
    found.mended = run.mended
    found.unsafe = not condition["blanked"] or any(gas["valve_open"] for gas in condition["gases"].values())
    found.twice = run.fired_twice
    found.lost = run.cut_without_picture
    return found


def summary(runs: list[Soaked], seconds: float) -> dict[str, Any]:
    """Return the figures that count."""
    hours = sum(run.hours for run in runs)
    held = [run for run in runs if run.code != DONE]
    slices = sum(run.slices for run in runs)
    return {
        "runs": len(runs), "hours": round(hours, 1), "times_real_time": round(3600 * hours / seconds), "slices": slices,
        "slices_lost_per_1000": round(1000 * sum(run.lost for run in runs) / max(1, slices), 2),
        "acts_fired_twice": sum(run.twice for run in runs), "faults": sum(len(run.struck) for run in runs),
        "mended": sum(len(run.mended) for run in runs), "interventions_per_100_h": round(100 * len(held) / hours, 2),
        "false_stops": sum(1 for run in held if not run.struck), "unsafe": sum(1 for run in runs if run.unsafe),
        "seconds": round(seconds, 1),
    }  # fmt: skip


def main() -> int:
    """Soak and print; 1 where something was lost, fired twice, or left unsafe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=100.0, help="of the instrument")
    parser.add_argument("--rate", type=float, default=1.0, help="times the usual rates")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="the last line alone")
    asked = parser.parse_args()
    began = time.monotonic()
    runs: list[Soaked] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        seeds = count(asked.seed)
        begun: set[Future[Soaked]] = set()
        while begun or not runs:
            while len(begun) < AT_ONCE and sum(run.hours for run in runs) < asked.hours:
                seed = next(seeds)
                begun.add(pool.submit(soaked, seed, asked.rate, Path(folder) / f"RUN-{seed}"))
            ended, begun = wait(begun, return_when=FIRST_COMPLETED)
            for run in (one.result() for one in ended):
                runs.append(run)
                if not asked.json:
                    told = (
                        f"{run.seed:5d} code {run.code} {run.hours:.0f} h {run.slices} slices {run.struck} "
                        f"mended {run.mended} {run.why}"
                    )
                    print(told, file=sys.stderr, flush=True)
    found = summary(runs, time.monotonic() - began)
    print(json.dumps(found))
    return 1 if found["slices_lost_per_1000"] or found["acts_fired_twice"] or found["unsafe"] else 0


if __name__ == "__main__":
    sys.exit(main())
