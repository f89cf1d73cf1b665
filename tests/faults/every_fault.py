"""Strike a tiny run with each fault of physics.md 7 in turn, and say what became of it.

    python -m tests.faults.every_fault --json
    python -m tests.faults.every_fault --only plasma-loss

A fault strikes while slices are cut, or at the next thing that it hangs on. The last line is one JSON object: by fault
how the run ended (done, held, failed), its slices, what was mended, and why it was held.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from simulator.faults import FAULTS
from simulator.saving import read
from tests.faults.trial import RECIPE, RUN_S, end_server
from workflows.journal import Journal
from workflows.store import RunFolder
from workflows.terminal import DONE, HELD

#: When it strikes, s: slices are cut then; a fault that hangs on films, needle or valves waits for the refill.
AT_S = 6950
AT_ONCE = 2


def struck(name: str, root: Path) -> dict[str, Any]:
    """Run with one fault; return what became of it."""
    command = [
        sys.executable, "-m", "workflows.cli", "run", str(RECIPE), "--model", "none", "--out", str(root),
        "--fault", f"{name}@{AT_S}s",
    ]  # fmt: skip
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False)
    finally:
        end_server(root)
    folder = RunFolder.open(root)
    saved = read(folder.instrument)
    assert saved is not None
    condition = saved["condition"]
    with Journal(folder.journal, read_only=True) as journal:
        mended = [event.data["symptom"] for event in journal.events(kind="mended")]
    return {
        "ended": {DONE: "done", HELD: "held"}.get(ended.returncode, f"failed ({ended.returncode})"),
        "struck": any(one["name"] == name for one in condition["struck"]),
        "slices": len(folder.slice_names()),
        "mended": mended,
        "safe": condition["blanked"] and not any(gas["valve_open"] for gas in condition["gases"].values()),
        "why": "" if ended.returncode == DONE else ended.stderr.strip().splitlines()[-1][:300],
    }


def main() -> int:
    """Strike with all faults and print; 1 where a run failed or was left unsafe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[fault.name for fault in FAULTS], action="append")
    parser.add_argument("--json", action="store_true", help="the last line alone")
    parser.add_argument("--keep", type=Path, help="folder for the runs, left as it is")
    asked = parser.parse_args()
    names = asked.only or [fault.name for fault in FAULTS]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)

        def one(name: str) -> dict[str, Any]:
            found = struck(name, folder / name)
            if not asked.json:
                told = (
                    f"{name:18} {found['ended']:10} {found['slices']} slices  mended {found['mended']}  {found['why']}"
                )
                print(told + ("" if found["struck"] else "  NOT STRUCK"), file=sys.stderr, flush=True)
            return found

        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = dict(zip(names, pool.map(one, names), strict=True))
    ends = [one["ended"] for one in found.values()]
    total = {end: ends.count(end) for end in sorted(set(ends))}
    print(json.dumps({**total, "seconds": round(time.monotonic() - began, 1), "faults": found}))
    return 1 if any(not one["safe"] or one["ended"].startswith("failed") for one in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
