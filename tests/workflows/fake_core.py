"""A segmentation core that answers, sleeps, hangs or dies as its arguments say."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--deaf", action="store_true")
    parser.add_argument("--dies", action="store_true")
    parser.add_argument("--hang-once", type=Path)
    parser.add_argument("--keep", type=Path, help="file for what it is asked")
    options = parser.parse_args()
    if options.dies:
        sys.exit("dead before it began")
    say("a library prints a greeting")
    say(json.dumps({"ready": True, "model_id": "fake"}))
    if options.deaf:
        time.sleep(60)
    for line in sys.stdin:
        order = json.loads(line)
        if options.keep:
            with options.keep.open("a") as kept:
                kept.write(line)
        if options.hang_once and not options.hang_once.exists():
            options.hang_once.touch()
            time.sleep(60)
        if order["name"] == "poison":
            os._exit(9)
        time.sleep(options.slow)
        error = "cannot read it" if order["name"] == "bad" else None
        numbers = None if error else {"fillable_m": order["fillable_m"]}
        reply = {"name": order["name"], "labels": f"{order['name']}.tif", "numbers": numbers, "error": error}
        say(json.dumps(reply))


if __name__ == "__main__":
    main()
