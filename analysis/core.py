"""The segmentation core: detector images in; phases, confidence and numbers out."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from analysis.model import load
from analysis.phases import MEMBERS, NAMES, Fine, Phase

if TYPE_CHECKING:
    from analysis.network import Channels

FILLABLE_M = 1.2e-6
#: An image with a novelty above this is so unlike what a network was trained on that its labels don't ask for a refill.
UNFAMILIAR = 0.6
_UNSURE = 0.25
ELECTRODE = (Phase.PORE, Phase.CBD, Phase.ACTIVE)
_PORE_OR_CBD = np.uint8(1 << Phase.PORE | 1 << Phase.CBD)
_LEAST_PORE_PX = 9
_LABEL_BITS = 3

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class SliceNumbers(BaseModel):
    """What the labels of one slice say; shares are 0..1, `None` where there is nothing to take a share of.

    Parameters
    ----------
    name : the slice, s0001
    frame_sha256, labels_sha256 : of the two files; of the label array's bytes where no file was written
    model_id : the network, by name and hash of its weights
    pixel_m : the pixel's edge, metres
    phase_fractions : pore, cbd, active, collector of the area that is not outside; they add up to 1
    electrode_fractions : pore, cbd, active of the coating; they add up to 1
    film_fraction : pixels still under platinum film, of all below the cap
    fillable_area_m2, unfilled_area_m2 : pores narrower than `fillable_m`, and those of them that stand empty
    unfilled_share : the second over the first, 0 where there are no fillable pores
    confidence : mean probability of the label given, over what is not outside
    doubt : share of what is not outside where pore and CBD are both likely (each at least 0.25)
    electrode_intervals : for each of `electrode_fractions` what it is at least and at most, if every pixel of which a
    phase has a probability of 0.25 or more may be that phase: this is doubt about labels, not sampling error; pixels
    that are labelled collector or outside don't count
    beside : which of the slices `before` and `after` helped
    novelty : how likely the image is of nothing that the network was trained on, 0..1 (analysis.known)
    seconds : wall time of the segmentation
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    name: str
    frame_sha256: str | None
    labels_sha256: str
    model_id: str
    pixel_m: float = Field(gt=0)
    phase_fractions: dict[str, Share]
    electrode_fractions: dict[str, Share]
    film_fraction: Share
    fillable_m: float = Field(gt=0)
    fillable_area_m2: float = Field(ge=0)
    unfilled_area_m2: float = Field(ge=0)
    unfilled_share: Share
    confidence: Share
    doubt: Share
    electrode_intervals: dict[str, tuple[Share, Share]] = Field(default_factory=dict)
    novelty: Share = 0.0
    beside: tuple[str, ...] = ()
    seconds: float = Field(ge=0)


@dataclass(frozen=True)
class Segmentation:
    """One slice, labelled: arrays uint8 (y, x) on the slice's own pixels.

    `labels` are phases, `fine` the finer classes of the same pixels, `confidence` the label's probability (0..255);
    `doubtful` is 1 where another phase has a probability of at least 0.25. `gist` is what the
    network's deepest level holds in the mean, (n,).
    """

    labels: NDArray[np.uint8]
    fine: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    doubtful: NDArray[np.uint8]
    gist: NDArray[np.float32]
    numbers: SliceNumbers


@dataclass(frozen=True)
class Fillable:
    """Areas in m2 of the pores that platinum could fill, and of those among them that it hasn't."""

    area_m2: float
    unfilled_m2: float

    @property
    def share(self) -> float:
        """Unfilled area over fillable area, 0 where there is none."""
        return self.unfilled_m2 / self.area_m2 if self.area_m2 > 0 else 0.0


class SegmentationCore:
    """Labels slices with one network, loaded once.

    Parameters
    ----------
    model_dir : folder with weights.safetensors and card.json; None is the model that comes with the package
    device : of torch, such as cpu, cuda, mps

    Raises
    ------
    ValueError : the folder holds no model, or weights that are not the card's
    RuntimeError : torch has no such device here
    """

    def __init__(self, model_dir: Path | None = None, device: str = "cpu") -> None:
        model = load(model_dir)
        self.card, self._network, self._known = model.card, model.network.to(device), model.known

    @property
    def model_id(self) -> str:
        """The network's name and hash."""
        return self.card.model_id

    def segment(
        self,
        channels: Channels,
        pixel_m: float,
        fillable_m: float = FILLABLE_M,
        y_top_m: float | None = None,
        *,
        before: Channels | None = None,
        after: Channels | None = None,
        name: str = "",
        frame_sha256: str | None = None,
    ) -> Segmentation:
        """Label one slice.

        Parameters
        ----------
        channels : greys 0..1, float32 (y, x), by detector name; CBS and TLD are known, one of them is enough
        pixel_m : the pixel's edge, metres
        fillable_m : width (m) below which a pore counts as one that platinum could fill
        y_top_m : how far below the image's first row the electrode begins, metres; all above it is outside. None where
            the network alone shall tell
        before, after : the slices beside this one, moved onto its pixels
        name, frame_sha256 : kept in the numbers

        Raises
        ------
        ValueError : no known detector, shapes that differ, an impossible pixel size
        """
        from analysis.network import by_detector, predict

        began = time.perf_counter()
        shape = next(iter(by_detector(channels).values())).shape
        labels = np.zeros(shape, np.uint8)
        fine = np.zeros(shape, np.uint8)
        confidence = np.zeros(shape, np.uint8)
        possible = np.zeros(shape, np.uint8)
        gist, weight = np.zeros(1, np.float32), np.float32(0)
        for part in predict(
            self._network, channels, pixel_m, before=before, after=after, temperature=self.card.temperature
        ):
            height, width = part.probabilities.shape[1:]
            at = (slice(part.top, part.top + height), slice(part.left, part.left + width))
            labels[at], fine[at], confidence[at], possible[at] = _decided(part.probabilities)
            size = np.float32(height * width)
            gist, weight = gist + size * part.gist, weight + size
        gist = gist / weight
        if y_top_m is not None:
            above = slice(0, max(0, round(y_top_m / pixel_m)))
            for image, value in ((labels, Phase.OUTSIDE), (fine, Fine.OUTSIDE), (confidence, 255), (possible, 0)):
                image[above] = value
        inside = labels != Phase.OUTSIDE
        counted = int(inside.sum())
        fillable = fillable_pores(fine, pixel_m, fillable_m)
        numbers = SliceNumbers(
            name=name,
            frame_sha256=frame_sha256,
            labels_sha256=hashlib.sha256(labels.tobytes()).hexdigest(),
            model_id=self.model_id,
            pixel_m=pixel_m,
            phase_fractions=fractions(labels, (Phase.PORE, Phase.CBD, Phase.ACTIVE, Phase.COLLECTOR)),
            electrode_fractions=fractions(labels, ELECTRODE),
            film_fraction=film_fraction(fine),
            fillable_m=fillable_m,
            fillable_area_m2=fillable.area_m2,
            unfilled_area_m2=fillable.unfilled_m2,
            unfilled_share=fillable.share,
            confidence=float(confidence[inside].mean() / 255.0) if counted else 0.0,
            doubt=int(((possible & _PORE_OR_CBD) == _PORE_OR_CBD)[inside].sum()) / counted if counted else 0.0,
            electrode_intervals=intervals(labels, possible),
            beside=tuple(name for name, one in (("before", before), ("after", after)) if one is not None),
            novelty=self._known.novelty(gist),
            seconds=time.perf_counter() - began,
        )
        doubtful = ((possible & (possible - 1)) != 0).astype(np.uint8)
        return Segmentation(labels, fine, confidence, doubtful, gist, numbers)

    def probabilities(
        self, channels: Channels, pixel_m: float, *, temperature: float | None = None
    ) -> NDArray[np.float32]:
        """Return the probabilities of the fine classes of one slice, (7, y, x); as `segment` for its parameters."""
        from analysis.network import CLASSES, by_detector, predict

        found = np.zeros((CLASSES, *next(iter(by_detector(channels).values())).shape), np.float32)
        hot = self.card.temperature if temperature is None else temperature
        for part in predict(self._network, channels, pixel_m, temperature=hot):
            height, width = part.probabilities.shape[1:]
            found[:, part.top : part.top + height, part.left : part.left + width] = part.probabilities
        return found


def _decided(
    probabilities: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Return labels, fine classes, confidence and what is possible (a bit a phase) of fine probabilities (7, y, x).

    Classes are merged first and decided then, so that a pore which is half sure to be filled and half sure to be open
    is a sure pore.
    """
    shape = probabilities.shape[1:]
    labels, fine = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    best = np.full(shape, -1.0, np.float32)
    possible = np.zeros(shape, np.uint8)
    for phase in Phase:
        members = MEMBERS[phase]
        winner = np.full(shape, members[0], np.uint8)
        highest = total = probabilities[members[0]]
        for code in members[1:]:
            winner[probabilities[code] > highest] = code
            highest = np.maximum(highest, probabilities[code])
            total = total + probabilities[code]
        better = total > best
        labels[better] = phase
        np.copyto(fine, winner, where=better)
        np.maximum(best, total, out=best)
        possible |= (total > _UNSURE) * np.uint8(1 << phase)
    return labels, fine, np.rint(255.0 * best.clip(0.0, 1.0)).astype(np.uint8), possible


def intervals(labels: NDArray[np.uint8], possible: NDArray[np.uint8]) -> dict[str, tuple[float, float]]:
    """Return what pore, CBD and active material make up of the electrode at least and at most, by name.

    `possible` has a bit for each phase that a pixel may be: it is one surely where no other is possible.
    """
    counts = np.bincount((possible << _LABEL_BITS | labels).ravel(), minlength=1 << 8).reshape(-1, 1 << _LABEL_BITS)
    total = int(counts[:, list(ELECTRODE)].sum())
    others = np.arange(len(counts))
    found: dict[str, tuple[float, float]] = {}
    for phase in ELECTRODE:
        bit = 1 << phase
        surely = int(counts[others & ~bit == 0, phase].sum())
        may = int(counts[:, phase].sum())
        may += sum(int(counts[others & bit != 0, other].sum()) for other in ELECTRODE if other != phase)
        found[NAMES[phase]] = (surely / total, may / total) if total else (0.0, 0.0)
    return found


def fractions(labels: NDArray[np.uint8], phases: tuple[Phase, ...]) -> dict[str, float]:
    """Return the area shares of `phases` among themselves, by name; all 0 where there are none of them."""
    every = np.bincount(labels.ravel(), minlength=len(Phase))
    counts = {phase: int(every[phase]) for phase in phases}
    total = sum(counts.values())
    return {NAMES[phase]: count / total if total else 0.0 for phase, count in counts.items()}


def film_fraction(fine: NDArray[np.uint8]) -> float:
    """Return the share of the face (what is not outside) that platinum film still covers, 0 without a face."""
    face = int((fine != Fine.OUTSIDE).sum())
    return int((fine == Fine.FILM).sum()) / face if face else 0.0


def fillable_pores(fine: NDArray[np.uint8], pixel_m: float, fillable_m: float = FILLABLE_M) -> Fillable:
    """Return the area of the pores that platinum could fill, and of those among them that stand empty.

    Parameters
    ----------
    fine : fine classes, uint8 (y, x)
    pixel_m : the pixel's edge, metres
    fillable_m : width below which a pore counts as fillable, metres
    """
    pores = pores_in(fine, pixel_m, fillable_m)
    return Fillable(
        float(pores.area_px[pores.fillable].sum()) * pixel_m**2, float(pores.area_px[pores.unfilled].sum()) * pixel_m**2
    )


@dataclass(frozen=True)
class Pores:
    """The pores of one face: components int (y, x), 0 where there is none; the rest by component, (count + 1,).

    area_px are the pixels; `wide` pores are too wide somewhere to be filled; `unfilled` are those among `fillable` that
    stand empty.
    """

    components: NDArray[np.int32]
    area_px: NDArray[np.int64]
    wide: NDArray[np.bool_]
    fillable: NDArray[np.bool_]
    unfilled: NDArray[np.bool_]


def pores_in(fine: NDArray[np.uint8], pixel_m: float, fillable_m: float = FILLABLE_M) -> Pores:
    """Find the pores of a face, those that platinum could fill, and those of them that stand empty.

    A pore is a connected component of both pore classes. It can be filled when it is narrower everywhere than
    `fillable_m` (m; twice the largest distance to its edge). It is unfilled when no more than half of its outline has
    platinum, nor half of its area: the grey of an edge pixel is a mixture, so the outline alone can mislead. Wider
    pores keep a dark core after any number of films and never count; neither do specks below 9 px.

    Parameters
    ----------
    fine : fine classes, uint8 (y, x)
    pixel_m : the pixel's edge, metres
    """
    from scipy import ndimage

    pore = (fine == Fine.PT_PORE) | (fine == Fine.OPEN_PORE)
    components, count = ndimage.label(pore)
    flat = components.ravel()
    area = np.bincount(flat, minlength=count + 1)
    area[0] = 0
    none = np.zeros(count + 1, np.bool_)
    if count == 0:
        return Pores(components, area, none, none, none)
    wide = _wide(components, pore, area, fillable_m / pixel_m)
    outline = pore & ~_surrounded(pore)
    rim = np.bincount(flat[outline.ravel()], minlength=count + 1)
    platinum = (outline & (fine == Fine.PT_PORE)).ravel()
    filled_rim = np.bincount(flat[platinum], minlength=count + 1)
    fillable = ~wide & (area >= _LEAST_PORE_PX)
    filled = np.bincount(flat[(fine == Fine.PT_PORE).ravel()], minlength=count + 1)
    unfilled = fillable & (2 * filled_rim <= rim) & (2 * filled <= area)
    return Pores(components, area, wide, fillable, unfilled)


def _surrounded(pore: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where all four neighbours are pore too, or lie beyond the image."""
    inner = np.ones_like(pore)
    inner[1:] &= pore[:-1]
    inner[:-1] &= pore[1:]
    inner[:, 1:] &= pore[:, :-1]
    inner[:, :-1] &= pore[:, 1:]
    return inner


def _wide(
    components: NDArray[np.int32], pore: NDArray[np.bool_], area: NDArray[np.int64], width_px: float
) -> NDArray[np.bool_]:
    """Say which components are `width_px` wide or wider somewhere, by twice the distance to the nearest solid pixel.

    An edge pixel's centre is one pixel from the nearest solid centre and half a pixel from the edge. Distances take
    long, so only components are looked at that have room for a quarter of a disk of this width: a pore that the image's
    edges cut is at least that wide.
    """
    from scipy import ndimage

    wide = np.zeros(len(area), np.bool_)
    radius = max(0.0, width_px - 1.0) / 2.0
    room = area >= np.pi / 4 * radius**2
    for code, box in enumerate(ndimage.find_objects(components), start=1):
        if room[code] and min(side.stop - side.start for side in box) >= radius:
            around = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
            distance = ndimage.distance_transform_edt(pore[around])
            wide[code] = 2.0 * float(distance[components[around] == code].max()) - 1.0 >= width_px
    return wide
