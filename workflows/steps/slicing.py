"""Cuts, images, element maps, and the loop: labels of what was cut decide when to fill again."""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import datetime
from typing import Any

from instrument.errors import BadData
from instrument.frame import FrameRef
from instrument.process import frame_bytes
from workflows.acts import Held
from workflows.amendments import Asked, amended
from workflows.evidence import unfamiliar
from workflows.handle import Handle, Plane
from workflows.health import Sharpness, gate, judge, ways_come
from workflows.plan import seconds_until
from workflows.planes import Planes
from workflows.recipe import Refill, Slice
from workflows.refill import Fill, decide, last_made
from workflows.steps.currents import align_again
from workflows.steps.infiltrate import fill
from workflows.tracking import detail

log = logging.getLogger(__name__)


def run(handle: Handle, settings: Slice, planned: int) -> None:
    """Slice until all images are taken, the time is over, or somebody asks for a stop.

    `planned` : the images that the plan has time for. A real instrument goes on as long as there is time, and a virtual
    one for so many.
    """
    if handle.planes is None:
        msg = "slice: there is no face yet"
        raise Held(msg, step="slice")
    cut = settings.cut
    learnt = None if handle.recipe.made is None else handle.recipe.made.dose
    handle.planes = Planes.after(handle.planes.target, cut.current, cut.voltage, cut.dose_factor, learnt)
    # on a virtual microscope the plan's number of images stands for the time
    began = None if handle.description.virtual else handle.value("slice/began", "measure", {}, _wall)
    images = planned if began is None or settings.until.latest is None else settings.images
    handle.telling.slice_n = planned
    handle.value("slice/focus", "measure", {}, handle.aligner.focus_anew)  # hours may have gone by since the block
    for number in range(cut.warm_up):
        handle.tell(f"warm-up cut {number + 1}")
        _cut(handle, f"slice/warm-up-{number + 1}", settings, number)
    fills = [Fill(0)] if any(step.infiltrate is not None for step in handle.recipe.steps) else []
    before: FrameRef | None = None
    seen: list[tuple[float, float]] = []
    sharpness = Sharpness()
    taken, skip = Asked(), False
    k = 0
    while k < images:
        k += 1
        handle.telling.slice_n = max(k, handle.telling.slice_n)
        if not _in_time(handle, settings, k, began):
            break
        align_again(handle)
        _ready(handle, settings, k, max(k, min(images, planned)))
        refilled = last_made(fills) == k - 1
        before = _slice(handle, settings, k, before, seen, refilled=refilled)
        _in_focus(handle, f"slice/{k:04d}", before, sharpness)
        taken = _asked(handle, k, taken.upto)
        if taken.amended:
            before_that, handle.recipe = settings, amended(handle.recipe, taken.amended)
            settings = handle.recipe.slicing or settings
            if settings.image != before_that.image:
                sharpness = Sharpness()  # noise is in a picture's detail
            if settings.until != before_that.until:
                images = planned = max(k, settings.images)
                handle.telling.slice_n = images
        _wishes(handle, settings, k, taken, before, fills)
        if k < images:
            handle.boundary("before a fill")
        skip = _refill(handle, settings, k, images, before, fills, skip=skip or "skip" in taken.do)
        handle.tell(done=f"s{k:04d}", slice_k=k)
        handle.boundary("slice" if k < images else "last slice")


def _slice(
    handle: Handle,
    settings: Slice,
    k: int,
    before: FrameRef | None,
    seen: list[tuple[float, float]],
    *,
    refilled: bool,
) -> FrameRef:
    """Cut, picture, plane, labels asked for, health, element map: one imaged slice.

    `before` is the slice before; where the pores were `refilled` since, it shows others and is no help to label this.
    `seen` are the planes (target, z) that the ruler has told so far; this one is added.
    """
    key, name = f"slice/{k:04d}", f"s{k:04d}"
    for number in range(settings.image.every):
        handle.tell(f"cut {number + 1}", slice_k=k)
        _cut(handle, f"{key}/cut-{number + 1}", settings, number)
        handle.boundary("cut")
    planes = _planes(handle)
    handle.tell("image", slice_k=k)
    ref = handle.picture(f"{key}/image", "slices", name, settings.image, planes.target)
    handle.evidence.submit(name, ref, None if refilled else before)
    plane = handle.measure(f"{key}/plane", ref, planes.target)
    handle.planes = planes.seen(plane.z_m if plane.by == "ruler" else None)
    if handle.planes.dose > planes.dose:
        risen = {"from": planes.dose, "to": handle.planes.dose}
        handle.value(f"{key}/dose", "measure", {"plane_m": plane.z_m}, lambda: risen)
    _healthy(handle, key, ref, before, plane, planes.target, seen)
    if plane.by == "ruler":
        seen.append((planes.target, plane.z_m))
    if settings.eds is not None and settings.eds.due(k):
        handle.tell("element map", slice_k=k)
        handle.element_map(f"{key}/eds", name, settings.eds, settings.image, planes.target)
    return ref


def _cut(handle: Handle, key: str, settings: Slice, number: int) -> None:
    """One rocking cut; the last one before an image comes always from the same side (night.md 8)."""
    cut, before = settings.cut, _planes(handle)
    handle.planes, start, end = before.cut(cut.thickness)
    side = -1 if (settings.image.every - number) % 2 else 1
    settle = handle.settle_on_ruler(key, before.target, handle.planes.target)
    handle.cut(
        key, start, end, voltage=cut.voltage, current=cut.current, side=side, dose=before.dose,
        application=cut.application, settle=settle,
    )  # fmt: skip


def _planes(handle: Handle) -> Planes:
    if handle.planes is None:
        msg = "slice: there is no face yet"
        raise Held(msg, step="slice")
    return handle.planes


def _ready(handle: Handle, settings: Slice, k: int, images: int) -> None:
    """Look before a slice is cut whether its picture could be kept, and whether the stage knows where it is."""

    def compute() -> list[dict[str, Any]]:
        _, scan = handle.image_scan(settings.image, _planes(handle).target)
        needed = (images - k + 1) * frame_bytes(scan)
        found = gate(handle.aligner.state(), free_bytes=handle.free_bytes(), needed_bytes=needed)
        if found:
            first = found[0]
            msg = f"slice {k} is not cut: {first.what}; {first.remedy}"
            raise Held(msg, image=k, symptom=first.symptom)
        return []

    handle.value(f"slice/{k:04d}/ready", "measure", {"image": k}, compute)


def _healthy(
    handle: Handle,
    key: str,
    ref: FrameRef,
    before: FrameRef | None,
    plane: Plane,
    target: float,
    seen: list[tuple[float, float]],
) -> None:
    """Judge the newest frame against the one before; what can't be lived with holds the run, once: a person looks."""
    judged = False

    def compute() -> list[dict[str, Any]]:
        nonlocal judged
        judged = True
        try:
            earlier = None if before is None else handle.load(before)
        except BadData:
            earlier = None  # damaged since, and set aside
        come = ways_come(seen, target, plane.z_m, plane.sigma_m)
        found = judge(handle.load(ref), earlier, off_m=plane.z_m - target, spacing_m=spacing, come=come)
        return [asdict(one) for one in found]

    slicing = handle.recipe.slicing
    spacing = slicing.spacing if slicing is not None else 100e-9
    for one in handle.value(f"{key}/health", "measure", {"frame": ref.sha256}, compute):
        if one["action"] == "hold" and judged:
            msg = f"{ref.name}: {one['what']}; {one['remedy']}"
            raise Held(msg, key=key, symptom=one["symptom"])


def _in_focus(handle: Handle, key: str, ref: FrameRef, sharpness: Sharpness) -> None:
    """See whether a picture is as sharp as those before; where it is not, the beam is focused before the next."""

    def compute() -> dict[str, Any]:
        try:
            seen = detail(handle.load(ref).pixels[0])
        except BadData:
            return {"detail": None, "blurred": False}  # damaged since, and set aside
        blurred = sharpness.blurred(seen)
        if blurred:
            log.warning("%s is blurred: the beam is focused anew", ref.name)
            handle.aligner.focus_anew()
        return {"detail": seen, "blurred": blurred}

    found = handle.value(f"{key}/detail", "measure", {"frame": ref.sha256}, compute)["detail"]
    if found is not None:
        sharpness.take(found)


def _refill(
    handle: Handle, settings: Slice, k: int, images: int, newest: FrameRef, fills: list[Fill], *, skip: bool
) -> bool:
    """Decide on the labels so far, and fill; never after the last image. Returns whether a fill is still to `skip`."""
    rule = settings.refill
    if rule is None:
        return skip

    def compute() -> dict[str, Any]:
        last = last_made(fills)
        shares: dict[int, float | None] = {}
        labels: dict[str, str] = {}
        strange: list[str] = []
        for image in range(last + 1, k - rule.decide_on + 1):
            numbers = handle.evidence.numbers(f"s{image:04d}", wait=image == k - rule.decide_on)
            shares[image] = None
            if numbers is None:
                continue
            labels[f"s{image:04d}"] = str(numbers["labels_sha256"])
            if unfamiliar(numbers):
                strange.append(f"s{image:04d}")
            else:
                shares[image] = float(numbers["unfilled_share"])
        decision = decide(k, shares, fills, rule)
        if decision.outcome == "no evidence" and rule.no_evidence == "hold":
            name = f"s{k - rule.decide_on:04d}"
            why = "is unlike anything the network knows, or of two places" if name in strange else "got no labels"
            msg = f"{name} {why}, and the recipe says to hold without evidence; see run.log"
            raise Held(msg, image=k)
        found = {**asdict(decision), "shares": list(shares.values()), "labels": labels, "unfamiliar": strange}
        if skip and decision.fill:
            found |= {"fill": False, "skipped": True, "outcome": f"skipped, as somebody asked: {decision.outcome}"}
        return found

    handle.tell("decision", slice_k=k)
    args = {"image": k, "when": rule.when, "fills": [one.after_image for one in fills]} | ({"skip": 1} if skip else {})
    decided = handle.value(f"slice/{k:04d}/decide", "decide", args, compute)
    if decided["fill"] and k < images:
        _fill(handle, settings, rule, Fill(k, decided["value"]), newest, fills)
    if decided.get("skipped"):
        fills.append(Fill(k, decided["value"], made=False))
        return False
    return skip


def _asked(handle: Handle, k: int, since: int) -> Asked:
    """Take up what people have asked for since the slice before."""
    value = handle.value(f"slice/{k:04d}/asked", "asked", {"since": since}, lambda: handle.asked(since).model_dump())
    return Asked.model_validate(value)


def _wishes(handle: Handle, settings: Slice, k: int, taken: Asked, newest: FrameRef, fills: list[Fill]) -> None:
    """Do what was asked for now: a picture, an element map, a fill."""
    name, plane = f"asked-{k:04d}", _planes(handle).target
    if "image" in taken.do:
        handle.picture(f"slice/{k:04d}/asked-image", "pairs", name, settings.image, plane)
    if "eds" in taken.do and settings.eds is not None:
        handle.element_map(f"slice/{k:04d}/asked-eds", name, settings.eds, settings.image, plane)
    if "infiltrate" in taken.do and settings.refill is not None:
        _fill(handle, settings, settings.refill, Fill(k), newest, fills)


def _fill(handle: Handle, settings: Slice, rule: Refill, made: Fill, newest: FrameRef, fills: list[Fill]) -> None:
    """Fill, as one of the run's numbered refills."""
    number = len([one for one in fills if one.after_image > 0 and one.made]) + 1
    fills.append(made)
    fill(handle, f"refill-{number:02d}", rule, settings, before=newest)


def _in_time(handle: Handle, settings: Slice, k: int, began: str | None) -> bool:
    """Tell whether another slice may begin, by when slicing `began`; None: there is time."""
    latest = settings.until.latest
    if latest is None or began is None:
        return True

    def compute() -> dict[str, Any]:
        now = _wall()
        return {"go_on": not over(latest, datetime.fromisoformat(began), datetime.fromisoformat(now)), "at": now}

    return bool(handle.value(f"slice/{k:04d}/time", "decide", {"latest": latest}, compute)["go_on"])


def _wall() -> str:
    """Return the wall clock's time in the zone that times of day are meant in."""
    return datetime.now().astimezone().isoformat()


def over(latest: str, began: datetime, now: datetime) -> bool:
    """Tell whether the time is up: a duration since slicing `began`, or a time of day.

    One that lies less than six hours back is over, not tomorrow's.
    """
    if ":" not in latest:
        return (now - began).total_seconds() >= seconds_until(latest)
    return seconds_until(latest, now) > 18 * 3600.0
