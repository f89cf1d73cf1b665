"""Numbers from labelled slices: fractions with their sampling error, pixels that changed phase, thickness of slices.

What a volume is too thin for is not measured; `tortuosity_note` says why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from analysis.core import Share
from analysis.heights import COATING, completed
from analysis.phases import NAMES, Phase
from analysis.sampling import Estimate, binned, estimate, ratio_variance

Labels = NDArray[np.uint8]
Floats = NDArray[np.float64]

_GRID = 512
_GAP = 1.5
_LEAST_DIAMETERS = 2.0


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Fractions(_Model):
    """Area shares of phases among themselves, over all slices.

    Parameters
    ----------
    phases : estimate by phase name; they add up to 1
    planes : slices counted
    area_m2 : area counted in one slice, on average, metres squared
    by_plane : the shares in each slice, in order
    """

    phases: dict[str, Estimate]
    planes: int
    area_m2: float
    by_plane: tuple[dict[str, Share], ...]


def phase_fractions(planes: Iterable[Labels], pixel_m: float, phases: Sequence[Phase] = COATING) -> Fractions:
    """Return the shares of `phases` among themselves with their sampling error; pixels of other phases don't count.

    Slices are taken one at a time. What they have in common (they show the same particles) is kept: their counts are
    added pixel by pixel first, and the error comes from the sum's two-point covariance.

    Parameters
    ----------
    planes : phases, uint8 (y, x), all of one shape, aligned to within a feature's size
    pixel_m : the pixel's edge, metres
    phases : what shares are taken of, by default pore, cbd, active: the coating

    Raises
    ------
    ValueError : no slices, shapes that differ, no pixel of these phases
    """
    names = [NAMES[phase] for phase in phases]
    parts: NDArray[np.float64] | None = None
    by_plane: list[dict[str, float]] = []
    factor = 1
    shape: tuple[int, ...] = ()
    for labels in planes:
        if parts is None:
            shape = labels.shape
            factor = max(1, -(-max(shape) // _GRID))
        if labels.shape != shape or labels.ndim != 2:
            msg = f"slices are (y, x) and of one shape; {labels.shape} came after {shape}"
            raise ValueError(msg)
        counts = np.stack([binned((labels == phase).astype(np.float64), factor) for phase in phases])
        parts = counts if parts is None else parts + counts
        sums = counts.sum(axis=(1, 2))
        total = float(sums.sum())
        by_plane.append({name: float(value) / total if total else 0.0 for name, value in zip(names, sums, strict=True)})
    if parts is None or parts.sum() == 0:
        msg = f"there is nothing labelled {', '.join(names)} to take shares of"
        raise ValueError(msg)
    whole = parts.sum(axis=0)
    found = {
        name: estimate(float(part.sum() / whole.sum()), ratio_variance(part, whole, factor * pixel_m))
        for name, part in zip(names, parts, strict=True)
    }
    area = float(whole.sum()) / len(by_plane) * pixel_m**2
    return Fractions(phases=completed(found), planes=len(by_plane), area_m2=area, by_plane=tuple(by_plane))


class Change(_Model):
    """What became of pixels between two labellings of one plane: share (0..1) by (phase before, phase after).

    `shares` are of all pixels that are coating or collector in both; only pairs of two phases that differ are listed,
    the largest first. `changed` is their sum, `pixels` what was compared.
    """

    shares: dict[str, Share]
    changed: Share
    pixels: int


def changes(before: Labels, after: Labels) -> Change:
    """Compare two labellings (uint8 phases (y, x), registered) of the same plane; keys are such as "cbd -> pore".

    ValueError when the shapes differ.
    """
    if before.shape != after.shape:
        msg = f"the two labellings of a plane have one shape, not {before.shape} and {after.shape}"
        raise ValueError(msg)
    known = [phase for phase in Phase if phase is not Phase.OUTSIDE]
    both = np.isin(before, known) & np.isin(after, known)
    total = int(both.sum())
    size = len(Phase)
    index = before[both].astype(np.int64) * size + after[both]
    counts = np.bincount(index, minlength=size * size).reshape(size, size)
    shares = {
        f"{NAMES[a]} -> {NAMES[b]}": int(counts[a, b]) / total
        for a in known
        for b in known
        if a is not b and counts[a, b]
    }
    ordered = dict(sorted(shares.items(), key=lambda item: -item[1]))
    return Change(shares=ordered, changed=min(1.0, sum(ordered.values())), pixels=total)


# -- where the slices are ----------------------------------------------------------------------------------------------


class Spacing(_Model):
    """Thickness and position of slices, metres.

    Parameters
    ----------
    slices, depth_m : their number, and from the first plane to the last
    thickness_m, median_m, sd_m, least_m, most_m : of the steps between neighbours; None below two slices
    true_sd_m : the scatter that is left when the measurements' own is taken off; None where that isn't known
    z_sigma_m : median standard error of a slice's position; None where it isn't known
    gaps : sentences, one for each step of more than one and a half medians
    """

    slices: int
    depth_m: float
    thickness_m: float | None
    median_m: float | None
    sd_m: float | None
    least_m: float | None
    most_m: float | None
    true_sd_m: float | None
    z_sigma_m: float | None
    gaps: tuple[str, ...]


def spacing(
    z_m: Sequence[float], z_sigma_m: Sequence[float | None] | None = None, names: Sequence[str] = ()
) -> Spacing:
    """Return thickness statistics of slices at measured depths.

    Parameters
    ----------
    z_m : depth of each slice, metres
    z_sigma_m : its standard error, metres, where known
    names : of the slices, for the sentences about gaps
    """
    z = np.asarray(z_m, float)
    known = [value for value in z_sigma_m or () if value is not None and math.isfinite(value)]
    sigma = float(np.median(known)) if known else None
    if len(z) < 2:
        return Spacing(
            slices=len(z),
            depth_m=0.0,
            thickness_m=None,
            median_m=None,
            sd_m=None,
            least_m=None,
            most_m=None,
            true_sd_m=None,
            z_sigma_m=sigma,
            gaps=(),
        )
    steps = np.diff(z)
    median, sd = float(np.median(steps)), float(steps.std(ddof=1)) if len(steps) > 1 else 0.0
    label = list(names) if len(names) == len(z) else [f"slice {index + 1}" for index in range(len(z))]
    gaps = tuple(
        f"between {label[i]} and {label[i + 1]} lie {step * 1e9:.0f} nm, {(step - median) * 1e9:.0f} nm more than usual"
        for i, step in enumerate(steps)
        if step > _GAP * median
    )
    own = None if sigma is None else math.sqrt(max(0.0, sd**2 - 2 * sigma**2))
    return Spacing(
        slices=len(z),
        depth_m=float(z[-1] - z[0]),
        thickness_m=float(steps.mean()),
        median_m=median,
        sd_m=sd,
        least_m=float(steps.min()),
        most_m=float(steps.max()),
        true_sd_m=own,
        z_sigma_m=sigma,
        gaps=gaps,
    )


# -- what a volume is too thin for -------------------------------------------------------------------------------------


def particle_diameter(labels: Labels, pixel_m: float) -> float | None:
    """Return the area-weighted mean diameter (m) of the largest circles that fit into the active material's sections.

    Sections through spheres are smaller than the spheres, so this is a lower bound; None without active material.

    Parameters
    ----------
    labels : phases, uint8 (y, x)
    pixel_m : the pixel's edge, metres
    """
    from scipy import ndimage

    step = max(1, -(-max(labels.shape) // 1024))
    active = labels[::step, ::step] == Phase.ACTIVE
    if not active.any():
        return None
    # thin cracks and grain boundaries would cut particles into crumbs
    reach = max(1, round(0.15e-6 / (pixel_m * step)))
    solid = ndimage.binary_closing(np.pad(active, reach), iterations=reach)[reach:-reach, reach:-reach]
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(solid), 1.0)
    window = 2 * max(1, round(0.5e-6 / (pixel_m * step))) + 1
    peaks = (distance == ndimage.maximum_filter(distance, window)) & solid
    diameter = 2.0 * distance[peaks] * pixel_m * step
    return float((diameter**3).sum() / (diameter**2).sum())


def tortuosity_note(depth_m: float, particle_m: float | None) -> str:
    """Return the sentence that stands where a tortuosity would: why a volume of this depth (m) has none.

    `particle_m` is the diameter (m) of a typical particle, None where it isn't known.
    """
    deep = f"{depth_m * 1e6:.1f} µm"
    if particle_m is None:
        return f"No tortuosity is given: the volume is {deep} deep and the size of its particles isn't known."
    size = f"{particle_m * 1e6:.1f} µm"
    if depth_m < _LEAST_DIAMETERS * particle_m:
        return (
            f"No tortuosity is given: the volume is {deep} deep and its particles measure about {size}. Less than two "
            "particle diameters is one layer of particles, through which no path winds as it does in the electrode."
        )
    return (
        f"The volume is {deep} deep, {depth_m / particle_m:.1f} particle diameters of {size}. No tortuosity is given: "
        "this version doesn't solve for it; `volume.ome.zarr` opens in programs that do, such as TauFactor."
    )
