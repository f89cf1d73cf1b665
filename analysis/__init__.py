"""What a slice shows: phases, confidence, numbers, report.

Arrays with a pixel size in, numbers out; knows nothing of microscopes.

`SegmentationCore` labels a slice, `segment_images` labels images that exist already, `train` makes a network from any
iterable of samples, `python -m analysis.follow` labels a run's slices while it goes on. Importing this package imports
neither torch nor scipy; the functions that need them do.
"""

from analysis.core import Card, Segmentation, SegmentationCore, SliceNumbers
from analysis.phases import COLOURS, MERGE, Fine, Phase, merged
from analysis.segment import Summary, segment_images
from analysis.train import Sample, train, train_on

__all__ = [
    "COLOURS",
    "MERGE",
    "Card",
    "Fine",
    "Phase",
    "Sample",
    "Segmentation",
    "SegmentationCore",
    "SliceNumbers",
    "Summary",
    "merged",
    "segment_images",
    "train",
    "train_on",
]
