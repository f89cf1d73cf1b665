"""The segmentation core: detector images in; phases, confidence and numbers out."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from analysis.model import load
from analysis.phases import MEMBERS, NAMES, Fine, Phase
from analysis.precision import Precision, precision_on

if TYPE_CHECKING:
    from analysis.network import Channels

FILLABLE_M = 1.2e-6
#: An image with a novelty above this is so unlike what a network was trained on that its labels don't ask for a refill.
UNFAMILIAR = 0.6
#: Above this one a person is told, and the slice's confidence is at most the chance that it is such an image. Small
#: pieces of an electrode (0.1 MPix) may well lie between the two, whole faces don't.
DOUBTFUL = 0.35
_UNSURE = 0.25
ELECTRODE = (Phase.PORE, Phase.CBD, Phase.ACTIVE)
#: The sets of phases, a bit each, that hold both.
_PORE_OR_CBD = [may for may in range(1 << len(Phase)) if may >> Phase.PORE & may >> Phase.CBD & 1]
_LEAST_PORE_PX = 9
_LABEL_BITS = 3

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class SliceNumbers(BaseModel):
    """What the labels of one slice say; shares are 0..1, `None` where there is nothing to take a share of.

    Parameters
    ----------
    name : the slice, s0001
    frame_sha256, labels_sha256 : of the two files; the latter is empty where none was written
    model_id : the network, by name and hash of its weights
    precision : what it was computed in; labels of the two differ in about one pixel of a thousand
    pixel_m : the pixel's edge, metres
    phase_fractions : pore, cbd, active, collector of the area that is not outside; they add up to 1
    electrode_fractions : pore, cbd, active of the coating; they add up to 1
    film_fraction : pixels still under platinum film, of all below the cap
    fillable_area_m2, unfilled_area_m2 : pores narrower than `fillable_m`, and those of them that stand empty
    unfilled_share : the second over the first, 0 where there are no fillable pores
    confidence : mean probability of the label given, over what is not outside; where `novelty` is above DOUBTFUL it is
    at most 1 - novelty
    doubt : share of what is not outside where pore and CBD are both likely (each at least 0.25)
    electrode_intervals : for each of `electrode_fractions` what it is at least and at most, if every pixel of which a
    phase has a probability of 0.25 or more may be that phase: this is doubt about labels, not sampling error; pixels
    that are labelled collector or outside don't count
    beside : which of the slices `before` and `after` helped
    blank : detectors that showed nothing and were left out, as TLD or, of a slice beside this one, before TLD
    elsewhere : detectors that showed another place than CBS (or the first there is) and were left out, named likewise
    moved : detectors that lay off CBS (or the first there is) and were laid over it, named likewise, and by how many
    pixels (y, x) they lay off
    novelty : how likely the image is of nothing that the network was trained on, 0..1 (analysis.known)
    read_from : by channel, the file's name and, of a stack, which of its images; empty for a slice of a run
    seconds : wall time of the segmentation
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    name: str
    frame_sha256: str | None
    labels_sha256: str
    model_id: str
    precision: Precision = "float32"
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
    blank: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    moved: dict[str, tuple[int, int]] = Field(default_factory=dict)
    read_from: dict[str, str] = Field(default_factory=dict)
    seconds: float = Field(ge=0)


@dataclass(frozen=True)
class Labelled:
    """One slice, labelled and not yet measured: arrays uint8 (y, x) on the slice's own pixels.

    `labels` are phases, `fine` the finer classes of the same pixels, `confidence` the label's probability (0..255);
    `possible` has a bit for each phase with a probability of at least 0.25. `gist` is what the network's deepest level
    holds in the mean, (n,). `beside`, `blank`, `elsewhere` and `moved` are as in SliceNumbers; `seconds` is what
    it took.
    """

    labels: NDArray[np.uint8]
    fine: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    possible: NDArray[np.uint8]
    gist: NDArray[np.float32]
    pixel_m: float
    beside: tuple[str, ...]
    blank: tuple[str, ...]
    elsewhere: tuple[str, ...]
    moved: dict[str, tuple[int, int]]
    seconds: float

    @property
    def doubtful(self) -> NDArray[np.uint8]:
        """1 where another phase has a probability of at least 0.25, uint8 (y, x)."""
        doubtful: NDArray[np.uint8] = ((self.possible & (self.possible - np.uint8(1))) != 0).astype(np.uint8)
        return doubtful


@dataclass(frozen=True)
class Segmentation(Labelled):
    """One slice, labelled and measured."""

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
        self.precision: Precision = precision_on(device)
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
        mirrored: bool = False,
        name: str = "",
        frame_sha256: str | None = None,
    ) -> Segmentation:
        """Label one slice and measure it: `label` and `numbers_of`, for whose parameters and errors see there."""
        found = self.label(channels, pixel_m, y_top_m, before=before, after=after, mirrored=mirrored)
        return Segmentation(**vars(found), numbers=self.numbers_of(found, fillable_m, name, frame_sha256))

    def label(
        self,
        channels: Channels,
        pixel_m: float,
        y_top_m: float | None = None,
        *,
        before: Channels | None = None,
        after: Channels | None = None,
        mirrored: bool = False,
    ) -> Labelled:
        """Label one slice.

        Parameters
        ----------
        channels : greys 0..1, float32 (y, x), by detector name; CBS and TLD are known, one of them is enough
        pixel_m : the pixel's edge, metres
        y_top_m : how far below the image's first row the electrode begins, metres; all above it is outside. None where
            the network alone shall tell
        before, after : the slices beside this one, moved onto its pixels
        mirrored : ask the network twice, of the image and of its mirror image: a little better, in twice the time

        Raises
        ------
        ValueError : no known detector, none that shows anything, shapes that differ, an impossible pixel size
        """
        from analysis.network import predict

        began = time.perf_counter()
        own = _seen(channels)
        seen, blank, elsewhere, moved = own.images, own.blank, own.elsewhere, own.moved
        sides: dict[str, Channels] = {}
        for side, beside in (("before", before), ("after", after)):
            if beside is None:
                continue
            shown = _shown(beside)
            blank += tuple(f"{side} {name}" for name in shown.blank)
            elsewhere += tuple(f"{side} {name}" for name in shown.elsewhere)
            moved = moved | {f"{side} {name}": shift for name, shift in shown.moved.items()}
            sides |= {side: shown.images} if shown.images else {}
        shape = next(iter(seen.values())).shape
        labels = np.zeros(shape, np.uint8)
        fine = np.zeros(shape, np.uint8)
        confidence = np.zeros(shape, np.uint8)
        possible = np.zeros(shape, np.uint8)
        gist, weight = np.zeros(1, np.float32), np.float32(0)
        hot = self.card.temperature
        for part in predict(self._network, seen, pixel_m, temperature=hot, mirrored=mirrored, **sides):
            height, width = part.probabilities.shape[1:]
            at = (slice(part.top, part.top + height), slice(part.left, part.left + width))
            labels[at], fine[at], confidence[at], possible[at] = _decided(part.probabilities)
            size = np.float32(height * width)
            gist, weight = gist + size * part.gist, weight + size
        if y_top_m is not None:
            above = slice(0, max(0, round(y_top_m / pixel_m)))
            for image, value in ((labels, Phase.OUTSIDE), (fine, Fine.OUTSIDE), (confidence, 255), (possible, 0)):
                image[above] = value
        seconds = time.perf_counter() - began
        mean = gist / weight
        return Labelled(
            labels, fine, confidence, possible, mean, pixel_m, tuple(sides), blank, elsewhere, moved, seconds
        )

    def numbers_of(
        self,
        found: Labelled,
        fillable_m: float = FILLABLE_M,
        name: str = "",
        frame_sha256: str | None = None,
    ) -> SliceNumbers:
        """Measure a labelled slice; `name` and the hashes are kept in the numbers.

        Parameters
        ----------
        fillable_m : width (m) below which a pore counts as one that platinum could fill
        """
        began = time.perf_counter()
        counts = joint(found.labels, found.possible)
        every = counts.sum(axis=0)
        counted = int(every.sum() - every[Phase.OUTSIDE])
        fillable = fillable_pores(found.fine, found.pixel_m, fillable_m)
        novelty = self._known.novelty(found.gist)
        return SliceNumbers(
            name=name,
            frame_sha256=frame_sha256,
            labels_sha256="",
            model_id=self.model_id,
            precision=self.precision,
            pixel_m=found.pixel_m,
            phase_fractions=_shares(every, (Phase.PORE, Phase.CBD, Phase.ACTIVE, Phase.COLLECTOR)),
            electrode_fractions=_shares(every, ELECTRODE),
            film_fraction=film_fraction(found.fine),
            fillable_m=fillable_m,
            fillable_area_m2=fillable.area_m2,
            unfilled_area_m2=fillable.unfilled_m2,
            unfilled_share=fillable.share,
            confidence=min(_mean_confidence(found.confidence, found.labels), 1.0 - novelty * (novelty > DOUBTFUL)),
            doubt=int(counts[_PORE_OR_CBD, Phase.OUTSIDE + 1 :].sum()) / counted if counted else 0.0,
            electrode_intervals=intervals(counts),
            beside=found.beside,
            blank=found.blank,
            elsewhere=found.elsewhere,
            moved=found.moved,
            novelty=novelty,
            seconds=found.seconds + time.perf_counter() - began,
        )

    def probabilities(
        self, channels: Channels, pixel_m: float, *, temperature: float | None = None
    ) -> NDArray[np.float32]:
        """Return the probabilities of the fine classes of one slice, (7, y, x); as `segment` for its parameters."""
        from analysis.network import CLASSES, predict

        seen = _seen(channels).images
        found = np.zeros((CLASSES, *next(iter(seen.values())).shape), np.float32)
        hot = self.card.temperature if temperature is None else temperature
        for part in predict(self._network, seen, pixel_m, temperature=hot):
            height, width = part.probabilities.shape[1:]
            found[:, part.top : part.top + height, part.left : part.left + width] = part.probabilities
        return found


@dataclass(frozen=True)
class _Shown:
    """What there is to see of a slice; detectors that show nothing, that show another place, that lay off (y, x)."""

    images: Channels
    blank: tuple[str, ...]
    elsewhere: tuple[str, ...]
    moved: dict[str, tuple[int, int]]


def _seen(channels: Channels) -> _Shown:
    """Return what `_shown` does of the slice that is to be labelled; ValueError when nothing shows anything."""
    shown = _shown(channels)
    if not shown.images:
        dark = " and ".join(shown.blank)
        msg = f"{dark} shows nothing: one grey, or white nearly everywhere; see detector and contrast"
        raise ValueError(msg)
    return shown


def _shown(channels: Channels) -> _Shown:
    from analysis.network import DETECTORS, showing
    from analysis.sameplace import agreeing, laid_over

    shown, blank = showing(channels)
    laid, moved = laid_over({name: shown[name] for name in DETECTORS if name in shown})
    images, elsewhere = agreeing(laid)
    return _Shown(images, blank, elsewhere, {name: shift for name, shift in moved.items() if name in images})


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


def _histogram(codes: NDArray[np.uint8], where: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Return how often each of the 256 values is in an image (y, x), or in a part of it; much faster than bincount."""
    from PIL import Image

    mask = None if where is None else Image.fromarray(where.view(np.uint8))
    return np.array(Image.fromarray(codes).histogram(mask), np.int64)


def joint(labels: NDArray[np.uint8], possible: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how many pixels have each label and each set of phases that they may be, (sets, labels)."""
    codes: NDArray[np.uint8] = possible << np.uint8(_LABEL_BITS) | labels
    return _histogram(codes).reshape(-1, 1 << _LABEL_BITS)


def intervals(counts: NDArray[np.int64]) -> dict[str, tuple[float, float]]:
    """Return what pore, CBD and active material make up of the electrode at least and at most, by name.

    `counts` are `joint` ones; a pixel is a phase surely where no other is possible.
    """
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
    return _shares(_histogram(labels), phases)


def _shares(every: NDArray[np.int64], phases: tuple[Phase, ...]) -> dict[str, float]:
    """Return what `fractions` does, of how many pixels there are of every phase."""
    counts = {phase: int(every[phase]) for phase in phases}
    total = sum(counts.values())
    return {NAMES[phase]: count / total if total else 0.0 for phase, count in counts.items()}


def film_fraction(fine: NDArray[np.uint8]) -> float:
    """Return the share of the face (what is not outside) that platinum film still covers, 0 without a face."""
    counts = _histogram(fine)
    face = int(counts.sum() - counts[Fine.OUTSIDE])
    return int(counts[Fine.FILM]) / face if face else 0.0


def _mean_confidence(confidence: NDArray[np.uint8], labels: NDArray[np.uint8]) -> float:
    """Return the mean of what is not outside, 0..1; 0 where there is nothing."""
    counts = _histogram(confidence, labels != Phase.OUTSIDE)
    total = int(counts.sum())
    return int(counts @ np.arange(len(counts))) / total / 255.0 if total else 0.0


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
    none = np.zeros(count + 1, np.bool_)
    if count == 0:
        return Pores(components, np.zeros(1, np.int64), none, none, none)
    at = np.flatnonzero(pore)
    code = components.ravel()[at]
    platinum = fine.ravel()[at] == Fine.PT_PORE
    outline = (pore & ~_surrounded(pore)).ravel()[at]
    area, filled, rim, filled_rim = (
        np.bincount(codes, minlength=count + 1)
        for codes in (code, code[platinum], code[outline], code[outline & platinum])
    )
    wide = _wide(components, pore, area, fillable_m / pixel_m)
    fillable = ~wide & (area >= _LEAST_PORE_PX)
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
            wide[code] = _widest(pore[around], components[around] == code, width_px)
    return wide


def _widest(pore: NDArray[np.bool_], own: NDArray[np.bool_], width_px: float) -> bool:
    """Say whether a component, `own`, of `pore` is `width_px` wide or wider somewhere.

    The distance in steps to any of eight neighbours is quick to tell, and the true one is between it and its diagonal;
    the true one is asked for where that does not decide.
    """
    from scipy import ndimage

    steps = int(ndimage.distance_transform_cdt(pore, "chessboard")[own].max())
    if steps > 0:  # else there is nothing solid about
        if 2.0 * steps - 1.0 >= width_px:
            return True
        if 2.0 * math.sqrt(2.0) * steps - 1.0 < width_px - 1e-6:
            return False
    distance = ndimage.distance_transform_edt(pore)
    return 2.0 * float(distance[own].max()) - 1.0 >= width_px
