"""Labels a run's slices from another machine that sees its folder: a workstation with a GPU, over a shared folder.

The run writes an order into labels/orders/ (analysis.elsewhere), this side answers it there. Nothing is lost when one
of them dies: an order stands until it is answered. Slices that nobody ordered, of a run without a core, are labelled
too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from analysis.core import SegmentationCore
from analysis.files import write_whole
from analysis.follow import answer

log = logging.getLogger(__name__)

ORDERS = "orders"
ORDER, ANSWER = ".order.json", ".answer.json"
_SLICE = ".ome.tif"


def orders(run: Path) -> list[Path]:
    """Return the orders of a run that have no answer yet, oldest first."""
    folder = run / "labels" / ORDERS
    waiting = [path for path in folder.glob(f"*{ORDER}") if not answered(path).exists()]
    return sorted(waiting, key=lambda path: (_age(path), path.name))


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0  # taken back in this very moment


def answered(order: Path) -> Path:
    """Return the file that answers an order."""
    return order.with_name(order.name.removesuffix(ORDER) + ANSWER)


def pending(run: Path) -> list[str]:
    """Return the names of slices that have no labels and no order, in order."""
    labels = run / "labels"
    ordered = {path.name.removesuffix(ORDER) for path in (labels / ORDERS).glob(f"*{ORDER}")}
    names = sorted(path.name.removesuffix(_SLICE) for path in (run / "slices").glob(f"s[0-9]*{_SLICE}"))
    return [name for name in names if name not in ordered and not (labels / f"{name}.json").exists()]


def order_for(name: str, fillable_m: float) -> dict[str, Any]:
    """Return the order for a slice that nobody ordered; a pore narrower than `fillable_m` (m) counts as fillable."""
    return {"name": name, "path": f"slices/{name}{_SLICE}", "fillable_m": fillable_m}


def frames_of(order: Mapping[str, Any]) -> dict[str, str]:
    """Return the frames that an order names, by what they are to it: paths in the run's folder."""
    return {key: str(order[key]) for key in ("path", "before", "after") if order.get(key)}


def done(core: SegmentationCore, run: Path, order: Mapping[str, Any]) -> dict[str, Any]:
    """Do an order on the frames in a run's folder; return its answer once its labels are there."""
    here = {key: str(run / name) for key, name in frames_of(order).items()}
    return answer(core, json.dumps({**order, **here}), run / "labels")


def work(
    core: SegmentationCore, run: Path, failed: set[str], *, fillable_m: float, ordering: bool = False
) -> Iterator[dict[str, Any]]:
    """Answer every order there is, then label what nobody ordered; yield each answer once it is on the disk.

    Parameters
    ----------
    failed : names of slices that can't be labelled, not tried again; those that turn out so are added
    fillable_m : width (m) below which a pore counts as fillable, for slices that nobody ordered
    ordering : the run goes on and orders its slices itself

    Raises
    ------
    OSError : the folder is away
    """
    (run / "labels").mkdir(parents=True, exist_ok=True)
    for path in orders(run):
        try:
            order = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            log.warning("%s can't be read yet", path.name)
            continue
        told = done(core, run, order)
        write_whole(answered(path), json.dumps(told).encode("utf-8"))
        yield told
    while names := [] if ordering else [name for name in pending(run) if name not in failed]:
        if orders(run):
            return  # a run that waits comes first
        told = done(core, run, order_for(names[0], fillable_m))
        if told["error"]:
            failed.add(names[0])
        yield told
