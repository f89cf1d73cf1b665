"""What the emulated installations can do: limits, lists and names that the virtual microscope itself doesn't need."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, radians
from typing import Literal

from simulator.autoscript.structures import Limits, Limits2d

#: Scan resolutions that the vendor's software offers.
RESOLUTIONS = (
    "512x442", "1024x884", "2048x1768", "4096x3536", "768x512", "1536x1024", "3072x2048", "6144x4096",
)  # fmt: skip
#: Pixels along a side that a frame written straight to disk may have.
DISK_PIXELS = (12, 65536)


@dataclass(frozen=True)
class Profile:
    """One kind of installation.

    name, model : as asked for; as its software says
    gas : how gases come in: through one MultiChem, or through a needle each
    inert : an office installation: automatic routines leave everything as it was, and heights, tilts, voltages and
        currents read as they were asked for, whatever the virtual microscope makes of them
    axes : limits of the stage in Raw coordinates (m, rad); None: the virtual microscope's own
    electron_voltage, ion_voltage : limits, V
    """

    name: str
    model: str
    gas: Literal["multichem", "gis"]
    inert: bool
    axes: dict[str, Limits] | None
    electron_voltage: Limits
    ion_voltage: Limits


PROFILES = {
    one.name: one
    for one in (
        Profile(
            "hydra", "Helios 5 Hydra DualBeam (virtual)", "multichem", inert=False, axes=None,
            electron_voltage=Limits(350.0, 30000.0), ion_voltage=Limits(500.0, 30000.0),
        ),
        Profile(
            "hydra-gis", "Helios 5 Hydra DualBeam (virtual)", "gis", inert=False, axes=None,
            electron_voltage=Limits(350.0, 30000.0), ion_voltage=Limits(500.0, 30000.0),
        ),
        Profile(
            "offline", "Helios DualBeam offline (virtual)", "gis", inert=True,
            axes={
                "x": Limits(-0.055, 0.055), "y": Limits(-0.055, 0.055), "z": Limits(0.0, 0.02),
                "t": Limits(0.0, 2 * pi),
            },
            electron_voltage=Limits(0.0, 30000.0), ion_voltage=Limits(0.0, 30000.0),
        ),
    )
}  # fmt: skip

#: Field widths, m: smallest of both columns; dwell times, s (recorded from a real instrument).
HFW_MIN, DWELL = {1: 7.0e-8, 2: 1.0e-7}, Limits(2.5e-8, 0.026208)
#: Working distance, m; stigmators; scan rotation, rad; by column (recorded from a real instrument).
WORKING_DISTANCE = {1: Limits(0.0005, 0.04), 2: Limits(0.004, 0.05)}
STIGMATOR = {1: Limits2d(Limits(-1.0, 1.0), Limits(-1.0, 1.0)), 2: Limits2d(Limits(-3.0, 3.0), Limits(-3.0, 3.0))}
ROTATION = {1: Limits(-6.29, 6.29), 2: Limits(-6.3, 6.3)}
#: Lens alignment (recorded of the electron column; the ion column's are taken to be the same).
LENS_ALIGNMENT = Limits2d(Limits(-0.001, 0.001), Limits(-0.001, 0.001))
#: Angles of tilt correction and of the sample's own tilt, rad.
CORRECTION_ANGLE, PRETILT = Limits(-1.5, 1.5), Limits(-radians(90), radians(90))
#: Detectors of each column and their modes.
DETECTORS = {
    1: {"ETD": ("SecondaryElectrons", "BackscatterElectrons"), "TLD": ("BackscatterElectrons", "SecondaryElectrons"),
        "CBS": ("All", "Angular", "Topography")},
    2: {"ICE": ("SecondaryElectrons", "SecondaryIons"), "ETD": ("SecondaryElectrons",)},
}  # fmt: skip
#: Application files: the shapes that each takes (none named: all), and the gas that it works with.
SHAPES_OF = {"Si-ccs": ("CleaningCrossSection",), "Si-multipass": ("RegularCrossSection",)}
APPLICATIONS: dict[str, tuple[str, ...]] = {
    "None": (), "Si": (), "Si-ccs": (), "Si-multipass": (), "Si new": (), "Al": (), "Au": (), "GaAs": (), "InP": (),
    "C": (),
    "Pt dep": ("Pt",), "C dep": ("C",), "W dep": ("W",), "Pt-C dep": ("Pt", "C"), "Pt e-dep surface": ("Pt",),
}  # fmt: skip


def profile(name: str) -> Profile:
    """Return a profile by name; ValueError names those that there are."""
    if name not in PROFILES:
        msg = f"there is no AutoScript profile {name!r}; use one of {', '.join(PROFILES)}"
        raise ValueError(msg)
    return PROFILES[name]
