"""What a slice shows: phases, confidence, numbers, report.

Arrays with a pixel size in, numbers out; knows nothing of microscopes.

`SegmentationCore` labels a slice, `segment_images` labels images that exist already, `train` makes a network from any
iterable of samples, `python -m analysis.follow` labels a run's slices while it goes on. `phase_fractions`,
`height_profile` and `refills` measure labelled slices, `eds.compare` holds element maps against them, `write_volume`
keeps them as OME-Zarr, `report.build` shows a run on one page. Importing this package imports neither torch nor scipy;
the functions that need them do.
"""

from analysis.core import Segmentation, SegmentationCore, SliceNumbers
from analysis.heights import HeightProfile, height_profile
from analysis.measure import Fractions, Spacing, changes, phase_fractions, spacing
from analysis.model import Card
from analysis.phases import COLOURS, MERGE, Fine, Phase, merged
from analysis.pores import refills
from analysis.register import ElementMap
from analysis.samples import Sample
from analysis.sampling import Estimate
from analysis.segment import Summary, segment_images
from analysis.train import train, train_on
from analysis.volume import VolumePlane, write_volume

__all__ = [
    "COLOURS",
    "MERGE",
    "Card",
    "ElementMap",
    "Estimate",
    "Fine",
    "Fractions",
    "HeightProfile",
    "Phase",
    "Sample",
    "Segmentation",
    "SegmentationCore",
    "SliceNumbers",
    "Spacing",
    "Summary",
    "VolumePlane",
    "changes",
    "height_profile",
    "merged",
    "phase_fractions",
    "refills",
    "segment_images",
    "spacing",
    "train",
    "train_on",
    "write_volume",
]
