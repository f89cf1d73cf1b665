"""A virtual plasma FIB-SEM with a virtual electrode in it.

`open` gives the machine (an entry point of `instrument.connect`); `simulator.dataset` gives training samples.

What it does: milling by dose with edge creep, rocking, curtains, foot lag and thickness errors; films by current
density and pores filled by throat width; CBS, TLD and ETD pictures with pore backs, blur and counting noise; ion
pictures of the top; element maps; stage jumps, drift, beam offsets, true rates that the client doesn't know; a state
that outlives it. What it doesn't yet: natural taper, redeposition, platinum on the fiducial, fluorine fading under the
beam, shadows of the trench on X-rays, drift along z, astigmatism, and the faults of a night.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.microscope import SimulatedMicroscope

__all__ = ["open"]


def open(url: str = "simulator", state: Path | None = None) -> SimulatedMicroscope:
    """Open the virtual microscope of a URL such as `simulator:11?coating=19um`; a state folder makes it last.

    Raises
    ------
    Refused : an option that there isn't, or a value that is not possible; a folder of another virtual microscope
    BadData : a damaged state folder
    """
    from simulator.microscope import SimulatedMicroscope
    from simulator.options import impossible, parse

    options = parse(url)
    try:
        return SimulatedMicroscope(options, state)
    except ValueError as error:
        if options.file is None:
            raise
        raise impossible(str(error), file=str(options.file)) from error
