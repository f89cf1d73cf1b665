"""Rounds of a Pt film on the face and its green clean, until no film is left or the plane has passed the old one.

A round = deposit, coarse clean to just above the old plane, fine clean in rocking cuts with a picture now and then
(night.md 7). The same plane before and after is the run's own truth (night.md 16).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from instrument.frame import FrameRef
from instrument.geometry import PoseName
from workflows.acts import Held
from workflows.evidence import unfamiliar
from workflows.handle import Handle, Plane
from workflows.layout import Layout
from workflows.limits import current_of_film, film_area
from workflows.planes import Planes
from workflows.recipe import Cut, Infiltrate, Slice
from workflows.settling import left_out
from workflows.steps.currents import align_again
from workflows.store import frame_name

#: Less of the face than this under film counts as none: a pixel or two of noise is not a film.
NO_FILM = 0.01
#: More of the face than this under film is no doubt about a pixel: the clean goes on. A fresh film covers more of it
#: (0.8 and more in pictures of virtual ones, 0.0 without).
COVERED = 0.3
#: Binder and collector under a veil of some 20 to 50 nm are labelled active material: this much more of the face being
#: it than before the fill (measured: 0.16 to 0.27 more, and 0.03 less without) is film that the labels don't tell.
VEILED = 0.1
#: A film may be this much thicker than asked (night.md 7: growth is uncertain by a factor of 1.5 to 2).
FILM_UNCERTAINTY = 1.6
#: A clean may take this times the cuts that it should; then a person looks.
_MOST_CUTS = 3.0


@dataclass(frozen=True)
class Filled:
    """What a fill did: the pair of pictures, the plane after it, electrode lost (m), how each clean ended."""

    before: FrameRef | None
    after: FrameRef | None
    plane: Plane
    lost_m: float
    ended: tuple[str, ...]


def run(handle: Handle, name: str, settings: Infiltrate) -> None:
    """Fill before slicing."""
    slicing = handle.recipe.slicing
    if slicing is None:
        msg = f"{name} needs a slice step in the recipe: it says how the face is cut and looked at"
        raise Held(msg, step=name)
    fill(handle, name, settings, slicing, strip=name == "infiltrate")


def fill(
    handle: Handle,
    key: str,
    settings: Infiltrate,
    slicing: Slice,
    *,
    before: FrameRef | None = None,
    strip: bool = False,
) -> Filled:
    """Lay films and clean them off, round by round; `strip` keeps pictures of the first round's stages."""
    planes = handle.planes
    if planes is None:
        msg = f"{key}: there is no face yet"
        raise Held(msg, step=key)
    align_again(handle)
    image, old, label = slicing.image, planes.target, key.replace("/", "-")
    if settings.pair and before is None:
        handle.tell("the plane before the fill")
        before = handle.picture(f"{key}/before", "pairs", f"{label}-before", image, old)
    known = None if before is None else frame_name(before.name)
    if before is not None and before.name.startswith("pairs/"):
        handle.evidence.submit(f"{label}-before", before)
    ended = []
    for number in range(1, settings.rounds + 1):
        round_key = f"{key}/round-{number}"
        _film(handle, round_key, settings, old, number)
        if strip and number == 1:
            ref = handle.picture(f"{round_key}/film-picture", "overviews", "film", image, old)
            _see_that_it_lies(handle, f"{round_key}/film-picture", f"{label}-film", ref)
        ended.append(_clean(handle, round_key, settings, slicing, old, known, strip=strip and number == 1))
        if not handle.detectors:
            _lock_contrast(handle, slicing, old)
        handle.boundary("cut")
    after = None
    plane = Plane(old, 0.0, "line")
    if settings.pair:
        handle.tell("the plane after the fill")
        after = handle.picture(f"{key}/after", "pairs", f"{label}-after", image, old)
        handle.evidence.submit(f"{label}-after", after)
        plane = handle.measure(f"{key}/plane", after, (handle.planes or planes).target)
        handle.planes = planes.restart(plane.z_m)
    handle.value(f"{key}/ended", "decide", {"rounds": settings.rounds}, lambda: {"ended": ended})
    handle.boundary("fill")
    return Filled(before, after, plane, max(0.0, plane.z_m - old), tuple(ended))


def _film(handle: Handle, key: str, settings: Infiltrate, plane: float, number: int) -> None:
    """Deposit a film on the face; ion beam square on it, or in the imaging pose."""
    layout: Layout = handle.layout
    pose = PoseName.DEPOSIT if settings.pose == "ion-normal" else PoseName.FACE_ON
    box = layout.film(settings.film_box(layout.image))
    pattern = layout.on_face(handle.view(pose, settings.beam), box, plane, settings.thickness)
    area = film_area(handle.recipe, settings)
    current = current_of_film(settings, area, handle.description)
    handle.tell(f"film {number}, {settings.thickness * 1e6:g} um")
    handle.film(
        f"{key}/film", pattern, settings.thickness, pose=pose, beam=settings.beam, gases=dict(settings.gas),
        voltage=settings.voltage, current=current, area="face", dose_factor=settings.dose_factor,
        application=settings.application,
    )  # fmt: skip


def _see_that_it_lies(handle: Handle, key: str, name: str, ref: FrameRef) -> None:
    """Hold the run for a person where the picture of a fresh film shows none: a clean would take the face off instead.

    Labels that don't come, or of a picture that is unlike what the network knows, tell nothing.
    """
    handle.evidence.submit(name, ref)

    def compute() -> dict[str, Any]:
        numbers = handle.evidence.numbers(name)
        if numbers is None or unfamiliar(numbers):
            return {"film": None, "why": "no evidence" if numbers is None else "unfamiliar"}
        return {"film": numbers["film_fraction"], "labels": numbers["labels_sha256"], "model": numbers["model_id"]}

    seen = handle.value(f"{key}/film", "decide", {"frame": ref.sha256, "film from": COVERED}, compute)["film"]
    if seen is None or seen >= COVERED:
        return
    handle.ask(
        f"{key}/film", {"frame": ref.sha256},
        f"{key}: the film isn't on the face: {100 * seen:.0f} % of it is under film after depositing, at least "
        f"{100 * COVERED:.0f} % expected; look at {ref.name}: did the gas flow, does the face stand under the ion beam "
        "after half a turn? Then `kintsugi answer DIR yes` and resume to clean it as it is, or stop the run",
    )  # fmt: skip


def _clean(
    handle: Handle, key: str, settings: Infiltrate, slicing: Slice, old: float, known: str | None, *, strip: bool
) -> str:
    """Take the film off; returns how it ended: "no film", "plane passed" or "by hand".

    `known` names the picture of this plane before the fill, whose labels say how much of it is active material.
    """
    clean, cut, image = settings.clean, slicing.cut, slicing.image
    fine_from = settings.thickness if clean.coarse is None else clean.fine_from
    if clean.coarse is not None:
        handle.tell("coarse clean")
        coarse = Planes.after(old - settings.thickness, clean.coarse, cut.voltage)
        _, _, end = coarse.cut(settings.thickness - clean.fine_from)
        handle.cut(
            f"{key}/coarse", old - FILM_UNCERTAINTY * settings.thickness, end, voltage=cut.voltage,
            current=clean.coarse, material="film", removed=FILM_UNCERTAINTY * settings.thickness - clean.fine_from,
            application=clean.application, settle=left_out,
        )  # fmt: skip
        if strip:
            handle.picture(f"{key}/coarse-picture", "overviews", "half-clean", image, old)
    planes = Planes.after(old - fine_from, cut.current, cut.voltage)
    per_picture = max(1, round(clean.image_every / cut.thickness))
    expected = (fine_from + clean.over) / cut.thickness
    label, most = key.replace("/", "-"), round(_MOST_CUTS * expected)
    for number in range(1, most + 1):
        handle.tell(f"fine clean, cut {number}")
        planes = _fine(handle, f"{key}/fine-{number:02d}", cut, planes, number)
        handle.boundary("cut")
        # a picture shows something only from where film may be gone
        if number % per_picture or planes.target < old - 0.5 * fine_from:
            continue
        ref = handle.picture(f"{key}/look-{number:02d}", "looks", f"{label}-{number:02d}", image, old)
        seen = _seen(handle, f"{key}/look-{number:02d}/film", f"{label}-{number:02d}", ref, known)
        plane = handle.measure(f"{key}/look-{number:02d}/plane", ref, planes.target)
        if seen is not None and seen <= NO_FILM:
            _unseen(handle, key, slicing, planes, clean.over)
            return "no film"
        # the ruler lies in the cap, which no film covers: it passes the plane while film still stands on the face
        late = number >= 2 * expected
        told = seen is None or (plane.by == "ruler" and seen < COVERED)
        if plane.z_m >= old + clean.over and (told or late):
            return "plane passed"
    handle.ask(
        f"{key}/film", {"cuts": most},
        f"{key}: film is still on the face after {most} fine cuts, three times what it should take; look at looks/, "
        "clean the face by hand, then `kintsugi answer DIR yes` and resume",
    )  # fmt: skip
    ref = handle.picture(f"{key}/by-hand", "looks", f"{label}-by-hand", image, old)
    plane = handle.measure(f"{key}/by-hand/plane", ref, planes.target)
    if handle.planes is not None:
        handle.planes = handle.planes.restart(plane.z_m)
    return "by hand"


def _unseen(handle: Handle, key: str, slicing: Slice, planes: Planes, over: float) -> None:
    """Cut on by `over` (m): a film of some 20 to 50 nm hardly shows, and makes binder look like active material."""
    for number in range(1, max(1, round(over / slicing.cut.thickness)) + 1):
        handle.tell(f"last of the film, cut {number}")
        planes = _fine(handle, f"{key}/last-{number}", slicing.cut, planes, number)


def _fine(handle: Handle, key: str, cut: Cut, planes: Planes, number: int) -> Planes:
    """Take one fine, rocking cut off the film; returns the planes after it."""
    planes, start, end = planes.cut(cut.thickness)
    side = 1 if number % 2 else -1
    handle.cut(
        key, start, end, voltage=cut.voltage, current=cut.current, side=side, material="film",
        application=cut.application, settle=left_out,
    )  # fmt: skip
    return planes


def _seen(handle: Handle, key: str, name: str, ref: FrameRef, known: str | None) -> float | None:
    """Return the share of the face that is under film (0..1) by the labels, None where they don't come.

    A veil that the labels don't tell covers all of it.
    """
    handle.evidence.submit(name, ref)

    def compute() -> dict[str, Any]:
        numbers = handle.evidence.numbers(name)
        if numbers is None:
            return {"film": None, "why": "no evidence"}
        told = {"film": numbers["film_fraction"], "labels": numbers["labels_sha256"], "model": numbers["model_id"]}
        before = None if known is None else handle.evidence.numbers(known)
        more = 0.0 if before is None else _active(numbers) - _active(before)
        if more > VEILED:
            told |= {"film": 1.0, "why": f"{100 * more:.0f} % more of the face looks like active material than before"}
        return told

    value = handle.value(key, "decide", {"frame": ref.sha256, "film below": NO_FILM}, compute)["film"]
    return None if value is None else float(value)


def _active(numbers: Mapping[str, Any]) -> float:
    """Return the share of a picture that is labelled active material."""
    return float(numbers["phase_fractions"]["active"])


def _lock_contrast(handle: Handle, slicing: Slice, plane: float) -> None:
    """Set contrast and brightness once, on the first kintsugi face, for the whole run (night.md 18)."""
    setup, scan = handle.image_scan(slicing.image, plane)

    def compute() -> list[dict[str, Any]]:
        return [one.model_dump(mode="json") for one in handle.aligner.contrast(setup, scan)]

    found = handle.value("contrast", "measure", {"detectors": [one.name for one in scan.detectors]}, compute)
    handle.detectors = tuple(type(scan.detectors[0]).model_validate(one) for one in found)
