"""What a microscope says of itself through the client, as our Description; only reads."""

from __future__ import annotations

from math import pi
from typing import Any

from instrument.autoscript.columns import GALLIUM, plasma_of, species_of
from instrument.autoscript.elements import ElementMapper
from instrument.hydra import hydra
from instrument.settings import Description, Device, StageLimits


def describe(
    scope: Any, version: str, *, gases: tuple[str, ...], elements: ElementMapper | None, virtual: bool
) -> Description:
    """Return what the microscope is and can do.

    Voltages are the usual ones within its limits. The list of ion currents is its own for the voltage and gas that it
    stands at; for the others it is assumed: that of a usual Hydra, else its own in proportion to the voltage.
    """
    usual = hydra()
    electron, ion = scope.beams.electron_beam, scope.beams.ion_beam
    species = _species(ion)
    ion_voltages = _within(usual.ion_voltages_v, ion.high_voltage.limits)
    voltage, gas = float(ion.high_voltage.value), species_of(ion)
    own = currents_of(ion)
    assumed = {key: listed for key, listed in usual.ion_currents_a.items() if key.split("@")[0] in species}
    for one in ion_voltages:
        assumed.setdefault(f"{gas}@{one:.0f}", tuple(round(current * one / voltage, 15) for current in own))
    standing = f"{gas}@{voltage:.0f}"
    assumed.pop(standing, None)
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
        ion_voltages_v=ion_voltages,
        electron_voltages_v=_within(usual.electron_voltages_v, electron.high_voltage.limits),
        ion_currents_a={**assumed, standing: own}, assumed_currents=tuple(assumed),
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


def currents_of(ion: Any) -> tuple[float, ...]:
    """Return the ion column's own list of currents (A), as it stands."""
    return tuple(float(one) for one in ion.beam_current.available_values)


def _species(ion: Any) -> tuple[str, ...]:
    """Return the gases of a plasma source; of a column without one, gallium."""
    plasma = plasma_of(ion)
    return (GALLIUM,) if plasma is None else tuple(str(one) for one in plasma.available_values)


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
