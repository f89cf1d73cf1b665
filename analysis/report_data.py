"""What a report is made of. Whoever has a run fills in what there is; what is None or empty is left out, and said so.

Pictures are paths (PNG, JPEG, TIFF, OME-TIFF) or arrays. Lengths in metres, times in seconds, shares 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.composition import Balance
from analysis.eds import EdsResult
from analysis.heights import HeightProfile
from analysis.measure import Fractions, Spacing
from analysis.pairs import OpenPores
from analysis.register import ElementMap
from analysis.reliability import Reliability

COOPER_2022 = (
    "S. J. Cooper, S. A. Roberts, Z. Liu, B. Winiarski, Kintsugi Imaging of Battery Electrodes: Distinguishing Pores "
    "from the Carbon Binder Domain using Pt Deposition, J. Electrochem. Soc. 169 (2022) 070512, "
    "doi 10.1149/1945-7111/ac7a68, CC BY 4.0; cropped"
)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A grey picture, with labels where there are any.

    Parameters
    ----------
    image : path, or greys (y, x) (unsigned integers, or floats 0..1), or colours uint8 (y, x, 3)
    caption : what it shows
    pixel_m : the pixel's edge, for the scale bar; an OME-TIFF says it itself
    channel : of an OME-TIFF
    labels : phases of the same pixels, uint8 (y, x), or a path to them
    virtual : whether a simulator made it; None is as the whole report
    stretch : whether greys are stretched to the picture's own range; never for pictures that are compared
    """

    image: Path | NDArray[Any]
    caption: str = ""
    pixel_m: float | None = None
    channel: str = "CBS"
    labels: Path | NDArray[np.uint8] | None = None
    virtual: bool | None = None
    stretch: bool = False


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage of the preparation, as in figure 1 of the paper: letter b to f, name, picture (None: not taken)."""

    letter: str
    name: str
    picture: Picture | None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One plane before and after a fill.

    before, after : pictures with labels
    before_fractions, after_fractions : pore, cbd, active of the coating
    truth_fractions : the same of the virtual electrode, None on a real one
    gap_m : distance of the two planes
    """

    name: str
    before: Picture
    after: Picture
    before_fractions: Mapping[str, float]
    after_fractions: Mapping[str, float]
    truth_fractions: Mapping[str, float] | None = None
    gap_m: float | None = None


@dataclass(frozen=True, kw_only=True)
class SliceRow:
    """One slice: plane, fractions of the coating (pore, cbd, active), and what else its numbers say.

    `intervals` are the fractions at least and at most, as far as labels are in doubt.
    """

    name: str
    z_m: float
    fractions: Mapping[str, float]
    unfilled_share: float = math.nan
    z_sigma_m: float | None = None
    thickness_m: float | None = None
    fill_before: bool = False
    fill_age_m: float | None = None
    film_fraction: float | None = None
    confidence: float | None = None
    doubt: float | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    truth_fractions: Mapping[str, float] | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Empty fillable pores of another run (same seed, refills off): label, depths (m), shares."""

    label: str
    z_m: Sequence[float]
    unfilled_share: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A refill decided: the slice after which, the slice whose labels were the evidence, value, threshold, outcome."""

    slice: str
    evidence: str | None
    value: float | None
    threshold: float | None
    outcome: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Activity:
    """A stretch of the run in instrument time (s): kind is block, films, cleaning, slicing, imaging..."""

    kind: str
    start_s: float
    seconds: float
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class RealMicrograph:
    """A real picture, labelled by the run's own network.

    picture : greys and labels
    scores : figure by name (mean IoU, IoU pore, ...), of agreement with `reference`
    others : the same mean figure by other means (multi-Otsu, ...), for comparison
    reference : what the scores are against
    """

    picture: Picture
    scores: Mapping[str, float]
    others: Mapping[str, float] = field(default_factory=dict)
    reference: str = "the authors' own segmentation, which is not independent truth"
    citation: str = COOPER_2022


@dataclass(frozen=True, kw_only=True)
class Eds:
    """An element map held against the labels: result, and the map for pictures; `slice` is where it was taken."""

    result: EdsResult
    element_map: ElementMap | None = None
    slice: str = ""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A line of health or interlocks: what, its value and limit in words, whether it was kept (None: only told)."""

    name: str
    value: str
    limit: str = ""
    kept: bool | None = None


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything a report shows.

    Parameters
    ----------
    title : of the run
    virtual : whether a simulator made it; then every simulated picture and number is marked
    instrument, sample, started, finished : in words
    recipe : the recipe's text
    stages : the strip b to f
    pairs : planes before and after fills
    rows : slices in order of z
    refill_threshold : share of empty fillable pores above which a fill is asked for
    comparison : the same run with refills off
    decisions : what was decided about refills
    real : a real micrograph, labelled by the same weights
    activities : the run's time line
    wall_s : how long the run took on the clock on the wall
    hydra_s : what the plan says this recipe takes on a real Hydra, seconds by kind
    gallery : labelled slices
    fractions : of all slices, with sampling errors
    profile : fractions against height above the collector
    spacing : of the slices; reckoned from the rows when None
    particle_m : diameter of a typical particle
    eds : element map against labels
    balance : weights against volumes
    checks : health and interlocks
    model_id, model_figures : the network, and the figures of its card
    open_pores : how right labels are about open pores, by the planes before and after fills
    reliability : how right labels are by how sure they are, where the truth is known
    notes : sentences that a reader must know
    versions : of programs, by name
    """

    title: str
    virtual: bool
    instrument: str = ""
    sample: str = ""
    started: str = ""
    finished: str = ""
    recipe: str = ""
    stages: Sequence[Stage] = ()
    pairs: Sequence[Pair] = ()
    rows: Sequence[SliceRow] = ()
    refill_threshold: float | None = None
    comparison: Comparison | None = None
    decisions: Sequence[Decision] = ()
    real: RealMicrograph | None = None
    activities: Sequence[Activity] = ()
    wall_s: float | None = None
    hydra_s: Mapping[str, float] = field(default_factory=dict)
    gallery: Sequence[Picture] = ()
    fractions: Fractions | None = None
    profile: HeightProfile | None = None
    spacing: Spacing | None = None
    particle_m: float | None = None
    eds: Eds | None = None
    balance: Balance | None = None
    checks: Sequence[Check] = ()
    model_id: str = ""
    model_figures: Mapping[str, float] = field(default_factory=dict)
    open_pores: OpenPores | None = None
    reliability: Sequence[Reliability] = ()
    notes: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
