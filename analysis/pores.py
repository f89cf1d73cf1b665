"""Pores that platinum could fill and hasn't: how many, what a fill does to them, how fast they open again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from analysis.core import FILLABLE_M, pores_in
from analysis.phases import Fine
from analysis.sampling import slope

Labels = NDArray[np.uint8]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Emptiness(_Model):
    """Pores of one face, areas in m2: those platinum could fill, those of them that stand empty, and the wide ones.

    `wide_open_m2` is the dark core of the wide ones: no number of films fills it, and it never asks for a fill.
    """

    fillable_m2: float
    unfilled_m2: float
    wide_m2: float
    wide_open_m2: float
    pores: int
    unfilled_pores: int

    @property
    def share(self) -> float:
        """Unfilled over fillable area, 0 where nothing is fillable."""
        return self.unfilled_m2 / self.fillable_m2 if self.fillable_m2 > 0 else 0.0


def emptiness(fine: Labels, pixel_m: float, fillable_m: float = FILLABLE_M) -> Emptiness:
    """Measure the pores of one face from its fine classes, uint8 (y, x); lengths in metres."""
    pores = pores_in(fine, pixel_m, fillable_m)
    area = pixel_m**2
    core = pores.wide[pores.components] & (fine == Fine.OPEN_PORE)
    return Emptiness(
        fillable_m2=float(pores.area_px[pores.fillable].sum()) * area,
        unfilled_m2=float(pores.area_px[pores.unfilled].sum()) * area,
        wide_m2=float(pores.area_px[pores.wide].sum()) * area,
        wide_open_m2=float(core.sum()) * area,
        pores=int(pores.fillable.sum()),
        unfilled_pores=int(pores.unfilled.sum()),
    )


class Filling(_Model):
    """What a fill did to the pores that stood empty before it: numbers of pores and areas in m2.

    A pore counts as filled when at least half of its area shows platinum afterwards, as gone when less than half of it
    is pore any more (the clean took it away), and as still empty otherwise.
    """

    empty_before: int
    filled: int
    still_empty: int
    gone: int
    empty_before_m2: float
    filled_m2: float
    still_empty_m2: float


def filling(before: Labels, after: Labels, pixel_m: float, fillable_m: float = FILLABLE_M) -> Filling:
    """Follow the empty fillable pores of a face through a fill.

    Parameters
    ----------
    before, after : fine classes of the same plane, uint8 (y, x), registered
    pixel_m, fillable_m : the pixel's edge, and the width below which a pore counts as fillable, metres

    Raises
    ------
    ValueError : shapes that differ
    """
    if before.shape != after.shape:
        msg = f"the two labellings of a plane have one shape, not {before.shape} and {after.shape}"
        raise ValueError(msg)
    pores = pores_in(before, pixel_m, fillable_m)
    count = len(pores.area_px)
    flat = pores.components.ravel()
    platinum = np.bincount(flat[(after == Fine.PT_PORE).ravel()], minlength=count)
    opened = np.bincount(flat[(after == Fine.OPEN_PORE).ravel()], minlength=count)
    filled = pores.unfilled & (2 * platinum >= pores.area_px)
    gone = pores.unfilled & ~filled & (2 * (platinum + opened) < pores.area_px)
    still = pores.unfilled & ~filled & ~gone

    def area(which: NDArray[np.bool_]) -> float:
        return float(pores.area_px[which].sum()) * pixel_m**2

    return Filling(
        empty_before=int(pores.unfilled.sum()),
        filled=int(filled.sum()),
        still_empty=int(still.sum()),
        gone=int(gone.sum()),
        empty_before_m2=area(pores.unfilled),
        filled_m2=area(filled),
        still_empty_m2=area(still),
    )


class Refill(_Model):
    """One fill as the curve of empty pores shows it; shares 0..1.

    Parameters
    ----------
    slice : index of the first slice after the fill
    before, after : share of empty fillable pores in the slices on both sides of it
    opening_per_m : how fast the share grew after it, per metre of depth, up to the next fill; None below three slices
    opening_sigma_per_m : its standard error
    """

    slice: int
    before: float
    after: float
    opening_per_m: float | None
    opening_sigma_per_m: float | None

    @property
    def lowered_by(self) -> float:
        """The part of the share that the fill took away; 0 where there was none."""
        return (self.before - self.after) / self.before if self.before > 0 else 0.0


def refills(z_m: Sequence[float], share: Sequence[float], fill_before: Sequence[bool]) -> list[Refill]:
    """Return what each fill between two slices did to the share of empty fillable pores.

    Parameters
    ----------
    z_m : depth of the slices, metres, ascending
    share : unfilled over fillable pore area in each
    fill_before : whether a fill came between the slice before and this one

    Raises
    ------
    ValueError : lengths that differ
    """
    if not len(z_m) == len(share) == len(fill_before):
        msg = f"one z, one share, one mark a slice; there are {len(z_m)}, {len(share)}, {len(fill_before)}"
        raise ValueError(msg)
    marks = [index for index, filled in enumerate(fill_before) if filled and index > 0]
    found = []
    for number, index in enumerate(marks):
        end = marks[number + 1] if number + 1 < len(marks) else len(z_m)
        growth = slope(z_m[index:end], share[index:end])
        found.append(
            Refill(
                slice=index,
                before=share[index - 1],
                after=share[index],
                opening_per_m=growth[0] if growth else None,
                opening_sigma_per_m=growth[1] if growth else None,
            )
        )
    return found
