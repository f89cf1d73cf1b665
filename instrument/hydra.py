"""What a Helios 5 Hydra usually is and can do: what a recipe is planned against while no instrument can be asked."""

from __future__ import annotations

from math import radians

from instrument.geometry import COLUMN_ANGLE
from instrument.settings import Description, Device, StageLimits

#: Nominal Xe currents at 30 kV and at 12 kV, A (physics.md 1.1).
XENON_30_KV = (
    1e-12, 3e-12, 10e-12, 30e-12, 100e-12, 300e-12, 1e-9, 4e-9, 15e-9, 60e-9, 200e-9, 500e-9, 1000e-9, 2500e-9,
)  # fmt: skip
XENON_12_KV = (1.0e-9, 2.5e-9, 8e-9, 20e-9, 70e-9, 120e-9, 360e-9)
#: The other species, A (physics.md 1.1: argon at 30 kV, all at 12 kV).
OTHER_SPECIES = {
    "Argon@30000": (1e-12, 6e-12, 20e-12, 60e-12, 0.2e-9, 0.74e-9, 2e-9, 7.4e-9, 28e-9, 120e-9),
    "Argon@12000": (1.2e-9, 3.2e-9, 5.8e-9, 14e-9, 50e-9, 150e-9, 250e-9, 700e-9),
    "Oxygen@12000": (1.5e-9, 2.8e-9, 13e-9, 64e-9, 200e-9, 710e-9),
    "Nitrogen@12000": (1.2e-9, 6.9e-9, 38e-9, 120e-9, 450e-9),
}
#: Electron currents double from step to step, A (physics.md 1.1).
ELECTRON = (
    6.3e-12, 13e-12, 25e-12, 50e-12, 100e-12, 200e-12, 400e-12, 800e-12,
    1.6e-9, 3.2e-9, 6.4e-9, 13e-9, 26e-9, 51e-9, 100e-9,
)  # fmt: skip


def hydra() -> Description:
    """Return the description of a usual instrument (physics.md 1.1-1.5).

    Of the voltages between, no current lists are published: 2, 5, 8 and 16 kV take the apertures of 12 kV with currents
    in proportion to the voltage, which is an assumption; a connected instrument's own lists replace it.
    """
    ion: dict[str, tuple[float, ...]] = {"Xenon@30000": XENON_30_KV, "Xenon@12000": XENON_12_KV, **OTHER_SPECIES}
    for voltage in (2000, 5000, 8000, 16000):
        ion[f"Xenon@{voltage}"] = tuple(round(current * voltage / 12000, 13) for current in XENON_12_KV)
    return Description(
        model="Helios 5 Hydra (usual values)",
        serial="none",
        virtual=False,
        species=("Xenon", "Argon", "Oxygen", "Nitrogen"),
        detectors=("ETD", "TLD", "CBS", "ICE"),
        gases=("Pt", "C", "W"),
        devices=(Device.CBS, Device.EDS, Device.NEEDLE),
        elements=True,
        ion_voltages_v=(2e3, 5e3, 8e3, 12e3, 16e3, 30e3),
        electron_voltages_v=(1e3, 2e3, 3e3, 5e3, 10e3, 20e3, 30e3),
        ion_currents_a=ion,
        electron_currents_a=ELECTRON,
        ion_field_max_m=0.9e-3,
        electron_field_max_m=2.3e-3,
        beam_shift_max_m=15e-6,
        stage=StageLimits(
            x=(-55e-3, 55e-3), y=(-55e-3, 55e-3), z=(0.0, 65e-3), t=(radians(-38.0), radians(60.0))
        ),
        column_angle_rad=COLUMN_ANGLE,
        working_distance_m=4e-3,
        sixteen_bit_sizes=(
            (512, 442), (768, 512), (1024, 884), (1536, 1024), (2048, 1768), (3072, 2048), (4096, 3536), (6144, 4096),
        ),
        software="none",
    )  # fmt: skip
