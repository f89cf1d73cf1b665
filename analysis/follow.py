"""The segmentation core's process: told each slice's name the moment it is durable, it labels it and reports back.

    python -m analysis.follow --model package --out-labels RUN/labels

One JSON object a line. First line out: {"ready": true, "model_id": "..."}. Then for each line in,
{"name": "s0001", "path": ".../s0001.ome.tif", "fillable_m": 1.2e-6}, one line out:
{"name": "s0001", "labels": path, "numbers": {...}, "error": null}. A slice that fails is answered with its error and
the process goes on; the end of its input ends it, so it never outlives its parent. It has no state to lose.

It writes labels/NAME.tif (phases), NAME-confidence.tif (0..255), NAME-doubt.tif (1 where another phase may be) and,
last, NAME.json (SliceNumbers), each whole or not at all; final labels go to labels/final/. An order may name the slices
`before` and `after`: what can't be laid over the slice is left out. It runs below normal priority, on one thread: the
run that feeds it comes first.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from analysis.core import FILLABLE_M, SegmentationCore, SliceNumbers
from analysis.files import sha256_of
from analysis.label_files import write_labelled
from analysis.memory import keep_freed_memory
from analysis.neighbours import laid_over
from analysis.ometiff import Slice, read_slice

if TYPE_CHECKING:
    from analysis.network import Channels

log = logging.getLogger(__name__)

PACKAGE_MODEL = "package"
#: Folder of the labels that a second pass makes, beside those given live.
FINAL = "final"
_BELOW_NORMAL_PRIORITY_CLASS = 0x4000  # winbase.h


class Order(BaseModel):
    """One line of input: which slice to label; `y_top_m` (m below the first row) is where the electrode begins.

    `before` and `after` are the slices beside it, where they shall help; `final` labels don't replace those given live.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    path: Path
    fillable_m: float = Field(default=FILLABLE_M, gt=0)
    y_top_m: float | None = None
    before: Path | None = None
    after: Path | None = None
    final: bool = False


def model_folder(model: str) -> Path | None:
    """Return the folder that `--model` means; None for the model that comes with the package."""
    return None if model in ("", PACKAGE_MODEL) else Path(model)


def label_slice(core: SegmentationCore, order: Order, folder: Path) -> tuple[Path, SliceNumbers]:
    """Label one slice and write its three files into `folder`; return the label file and the numbers.

    OSError when a file cannot be read or written, ValueError when it is no slice that can be labelled.
    """
    frame_sha256 = sha256_of(order.path)
    plane = read_slice(order.path)
    found = core.label(
        plane.channels, plane.pixel_m, order.y_top_m,
        before=_beside(plane, order.before), after=_beside(plane, order.after),
    )  # fmt: skip
    if found.blank:
        log.warning("%s: %s show nothing and are left out", order.name, ", ".join(found.blank))
    if found.elsewhere:
        log.warning("%s: %s show another place and are left out", order.name, ", ".join(found.elsewhere))
    if found.moved:
        log.info("%s: laid over the first detector, which they lay off by (y, x) pixels: %s", order.name, found.moved)
    if order.final:
        folder = folder / FINAL
        folder.mkdir(exist_ok=True)
    numbers = write_labelled(core, found, folder, order.name, order.fillable_m, frame_sha256=frame_sha256)
    return folder / f"{order.name}.tif", numbers


def _beside(plane: Slice, path: Path | None) -> Channels | None:
    """Return a neighbour's greys on the pixels of `plane`; None where there is none that fits."""
    if path is None:
        return None
    try:
        found = laid_over(plane, read_slice(path))
    except (OSError, ValueError):
        log.warning("%s can't be read and doesn't help its neighbour", path.name, exc_info=True)
        return None
    if found is None:
        log.warning("%s can't be laid over its neighbour and doesn't help it", path.name)
    return found


def answer(core: SegmentationCore, line: str, folder: Path) -> dict[str, Any]:
    """Return the answer to one line of input; whatever is wrong with the line or its slice is in its `error`."""
    name: str | None = None
    try:
        asked = json.loads(line)
        if isinstance(asked, dict) and isinstance(asked.get("name"), str):
            name = asked["name"]
        order = Order.model_validate(asked)
        path, numbers = label_slice(core, order, folder)
    except (ValidationError, ValueError, OSError, RuntimeError, MemoryError) as error:
        log.warning("no labels for %s", name, exc_info=True)
        return {"name": name, "labels": None, "numbers": None, "error": f"{type(error).__name__}: {error}"}
    return {"name": order.name, "labels": str(path), "numbers": numbers.model_dump(mode="json"), "error": None}


def serve(core: SegmentationCore, lines: Iterable[str], out: IO[str], folder: Path) -> None:
    """Say that the core is ready, then answer each line until there are no more."""

    def say(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    say({"ready": True, "model_id": core.model_id})
    for line in lines:
        if line.strip():
            say(answer(core, line, folder))


def step_back() -> None:
    """Lower this process's priority where the operating system lets it."""
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.windll.kernel32
        kernel.SetPriorityClass(kernel.GetCurrentProcess(), _BELOW_NORMAL_PRIORITY_CLASS)
    else:
        os.nice(5)


def main(arguments: list[str] | None = None) -> int:
    """Follow a run until the input ends; returns the exit code, 2 when there is no usable model."""
    parser = argparse.ArgumentParser(prog="python -m analysis.follow", description="label slices as they come")
    parser.add_argument("--model", default=PACKAGE_MODEL, help="model folder, or 'package'")
    parser.add_argument("--out-labels", type=Path, required=True, help="folder for labels")
    parser.add_argument("--threads", type=int, default=1, help="threads of the network")
    options = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    out, sys.stdout = sys.stdout, sys.stderr  # a library that greets must not break the protocol
    step_back()
    keep_freed_memory()
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    import torch

    torch.set_num_threads(max(1, options.threads))
    options.out_labels.mkdir(parents=True, exist_ok=True)
    try:
        core = SegmentationCore(model_folder(options.model))
    except (ValueError, OSError) as error:
        log.error("no model: %s", error)
        return 2
    try:
        serve(core, sys.stdin, out, options.out_labels)
    except BrokenPipeError:
        log.info("nobody listens any more")
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())  # else closing it fails once more at exit
    return 0


if __name__ == "__main__":
    sys.exit(main())
