"""A core that has its work done elsewhere: orders go into labels/orders/, answers come from there (analysis.watch).

    python -m analysis.elsewhere --out-labels RUN/labels

It speaks as analysis.follow does. It waits for an answer as long as it takes; who started it knows how long to wait.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from analysis.files import write_whole
from analysis.follow import FINAL
from analysis.watch import ANSWER, ORDER, ORDERS

_POLL_S = 0.1


def relay(line: str, labels: Path, gone: threading.Event) -> dict[str, Any]:
    """Write one order for the other side and return its answer; paths are told relative to the run's folder.

    Once who asked is `gone` it is left to whoever asks next, and what is returned is nobody's.
    """
    order = json.loads(line)
    run = labels.resolve().parent
    for key in ("path", "before", "after"):
        if order.get(key):
            order[key] = Path(order[key]).resolve().relative_to(run).as_posix()
    name = f"{order['name']}-final" if order.get("final") else str(order["name"])
    folder = labels / ORDERS
    folder.mkdir(parents=True, exist_ok=True)
    written, told = folder / f"{name}{ORDER}", folder / f"{name}{ANSWER}"
    text = json.dumps(order)
    if not (written.exists() and written.read_text(encoding="utf-8") == text):  # else it stands since its asker died
        told.unlink(missing_ok=True)
        write_whole(written, text.encode("utf-8"))
    while not told.exists():
        if gone.wait(_POLL_S) and not told.exists():
            return {"name": order["name"], "labels": None, "numbers": None, "error": "nobody asks any more"}
    answer: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
    written.unlink(missing_ok=True)
    told.unlink(missing_ok=True)
    if answer["labels"]:
        place = labels / FINAL if order.get("final") else labels
        answer["labels"] = str(place / f"{order['name']}.tif")
    return answer


def serve(lines: Iterable[str], out: IO[str], labels: Path) -> None:
    """Say that it is ready, then relay each line until there are no more."""

    def say(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    waiting: queue.Queue[str | None] = queue.Queue()
    gone = threading.Event()

    def listen() -> None:
        for line in lines:
            waiting.put(line)
        gone.set()  # its input has ended: who started it is dead, or has no more to ask
        waiting.put(None)

    say({"ready": True, "model_id": "elsewhere"})
    threading.Thread(target=listen, name="orders", daemon=True).start()
    while (line := waiting.get()) is not None:
        if not line.strip():
            continue
        try:
            say(relay(line, labels, gone))
        except (OSError, ValueError) as error:
            name = json.loads(line).get("name") if line.startswith("{") else None
            say({"name": name, "labels": None, "numbers": None, "error": f"{type(error).__name__}: {error}"})


def main(arguments: list[str] | None = None) -> int:
    """Relay until the input ends."""
    parser = argparse.ArgumentParser(prog="python -m analysis.elsewhere", description="have slices labelled elsewhere")
    parser.add_argument("--out-labels", type=Path, required=True, help="folder for labels")
    labels: Path = parser.parse_args(arguments).out_labels
    labels.mkdir(parents=True, exist_ok=True)
    serve(sys.stdin, sys.stdout, labels)
    return 0


if __name__ == "__main__":
    sys.exit(main())
