"""A virtual plasma FIB-SEM with a virtual electrode in it.

`open` gives the machine (an entry point of `instrument.connect`); `simulator.dataset` gives training samples.

What it does: milling by dose, material, species, voltage and current, with edge creep, tails, taper, rocking, curtains,
redeposition, foot lag and thickness errors; films by current density, gas and needle; pores filled by throat width and
angle, halos on the marks; CBS, TLD and ETD pictures with pore backs, blur, charging, contamination and counting noise;
ion pictures; element maps; stage jumps, backlash, drift, offsets and wandering of the beams, rates that the client
doesn't know; 29 faults of a night (`simulator.faults`); a state and patterns that outlive its process.
`python -m simulator.acceptance` holds it against what was published, `python -m simulator.likeness` puts its faces
beside real ones.

What it doesn't: secondary and side walls of the trenches seen by the beams other than as dark; damage, heating and
shrinking of binder; ion pictures of the face out of focus; picture distortion other than drift; charging that moves
the beam other than in flares; a network of nanopores inside binder; the detector's shadow on anything but X-rays and
ion pictures.
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
