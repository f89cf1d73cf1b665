"""What a microscope says of itself through the client, as our Description; only reads."""

from __future__ import annotations

from math import pi
from typing import Any

from instrument.autoscript.elements import ElementMapper
from instrument.hydra import hydra
from instrument.settings import Description, Device, StageLimits


def describe(
    scope: Any, version: str, *, gases: tuple[str, ...], elements: ElementMapper | None, virtual: bool
) -> Description:
    """Return what the microscope is and can do.

    Voltages are the usual ones within its limits. Current lists are its own for the voltage and gas that it stands at;
    for the others those of a usual Hydra, until it stands there: `set_beam` reads the list before it sets a current.
    """
    usual = hydra()
    electron, ion = scope.beams.electron_beam, scope.beams.ion_beam
    species = _species(ion)
    voltage, gas = float(ion.high_voltage.value), species[0] if len(species) == 1 else str(ion.source.plasma_gas.value)
    ion_currents = {key: listed for key, listed in usual.ion_currents_a.items() if key.split("@")[0] in species}
    ion_currents[f"{gas}@{voltage:.0f}"] = tuple(float(one) for one in ion.beam_current.available_values)
    shift = ion.beam_shift.limits
    low, high = float(electron.beam_current.limits.min), float(electron.beam_current.limits.max)
    detectors = _detectors(scope)
    devices = [Device.NEEDLE] if gases else []
    devices += [Device.CBS] if "CBS" in detectors else []
    devices += [Device.EDS] if elements is not None else []
    system = scope.service.system
    return Description(
        model=str(system.name), serial=str(system.serial_number), virtual=virtual, species=species,
        detectors=detectors, gases=gases, devices=tuple(one for one in Device if one in devices),
        elements=elements is not None, maps_by=None if elements is None else elements.maps_by,
        ion_voltages_v=_within(usual.ion_voltages_v, ion.high_voltage.limits),
        electron_voltages_v=_within(usual.electron_voltages_v, electron.high_voltage.limits),
        ion_currents_a=ion_currents,
        electron_currents_a=tuple(one for one in usual.electron_currents_a if low <= one <= high),
        ion_field_max_m=float(ion.horizontal_field_width.limits.max),
        electron_field_max_m=float(electron.horizontal_field_width.limits.max),
        beam_shift_max_m=min(abs(float(one)) for one in (
            shift.limits_x.min, shift.limits_x.max, shift.limits_y.min, shift.limits_y.max
        )),
        stage=_travel(scope.specimen.stage), column_angle_rad=usual.column_angle_rad,
        working_distance_m=usual.working_distance_m, sixteen_bit_sizes=usual.sixteen_bit_sizes,
        software=f"AutoScript {version}, microscope {system.version}",
    )  # fmt: skip


def _species(ion: Any) -> tuple[str, ...]:
    """Return the gases of a plasma source; of a column without one, gallium."""
    plasma = getattr(getattr(ion, "source", None), "plasma_gas", None)
    return ("Gallium",) if plasma is None else tuple(str(one) for one in plasma.available_values)


def _detectors(scope: Any) -> tuple[str, ...]:
    view = scope.imaging.get_active_view()
    found: list[str] = []
    try:
        for number in (1, 2):
            scope.imaging.set_active_view(number)
            if int(scope.imaging.get_active_device()) != number:
                continue  # somebody looks at something else there: left alone
            found += [str(one) for one in scope.detector.type.available_values if str(one) not in found]
    finally:
        scope.imaging.set_active_view(view)
    order = ("ETD", "TLD", "CBS", "ICE")
    return tuple(sorted(found, key=lambda one: (order.index(one) if one in order else len(order), one)))


def _within(usual: tuple[float, ...], limits: Any) -> tuple[float, ...]:
    return tuple(one for one in usual if float(limits.min) <= one <= float(limits.max))


def _travel(stage: Any) -> StageLimits:
    """Return the ends of travel in our axes: X and Y are the other way round."""
    ends = {}
    for axis in ("x", "y", "z", "t"):
        limits = stage.get_axis_limits(axis)
        low, high = float(limits.min), float(limits.max)
        ends[axis] = (-high, -low) if axis in "xy" else (low, min(high, 2 * pi))
    return StageLimits(**ends)
