"""`python -m simulator.acceptance`: the table of published and simulated figures; exit code 1 where one is off."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict

from simulator.acceptance.finding import Finding
from simulator.acceptance.running import NAMES, acceptance


def table(found: list[Finding]) -> str:
    """Return the findings as lines of text."""
    rows = [("", "published", "simulated", "allowed", "", "", "source")]
    for one in found:
        verdict = "ok" if one.passed else "OFF"
        rows.append((one.name, one.published, f"{one.simulated:.3g}", one.tolerance, one.unit, verdict, one.source))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; return 0 where all is right, 1 where something is off."""
    parser = argparse.ArgumentParser(prog="python -m simulator.acceptance", description=__doc__)
    parser.add_argument("--only", metavar="CHECK", choices=NAMES, action="append", help="one check; may be repeated")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args(arguments)
    began = time.perf_counter()
    found = acceptance(tuple(asked.only) if asked.only else NAMES)
    off = [one for one in found if not one.passed]
    if asked.json:
        rows = [{**asdict(one), "tolerance": one.tolerance, "passed": one.passed} for one in found]
        sys.stdout.write(json.dumps({"findings": rows, "passed": not off}) + "\n")
    else:
        took = time.perf_counter() - began
        sys.stdout.write(f"{table(found)}\n{len(found) - len(off)} of {len(found)} are right; {took:.0f} s\n")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
