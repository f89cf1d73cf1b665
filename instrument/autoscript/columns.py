"""A column through the client: read, set in the order in which one thing decides about the next, and read again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from instrument.autoscript import values
from instrument.autoscript.connection import enumeration, structure
from instrument.autoscript.refusing import no_such_current
from instrument.errors import NotReached
from instrument.settings import Beam, BeamSettings, Lens

#: Read back otherwise by more than this, a value did not stick: voltage, current (shares), working distance, shift (m),
#: scan rotation (rad).
VOLTAGE_ROOM, CURRENT_ROOM, DISTANCE_ROOM_M, SHIFT_ROOM_M, TURN_ROOM_RAD = 0.01, 0.05, 0.5e-6, 2e-9, 1e-6

#: The species of a column without a plasma.
GALLIUM = "Gallium"


def settings_of(column: Any, beam: Beam) -> BeamSettings:
    """Return how a column stands."""
    x, y = values.shift_from_client(column.beam_shift.value)
    stigmator = column.stigmator.value
    electron = beam is Beam.ELECTRON
    immersed = electron and str(column.optical_mode.value) == enumeration("OpticalMode").IMMERSION
    return BeamSettings(
        voltage_v=float(column.high_voltage.value), current_a=float(column.beam_current.value),
        species=None if electron else species_of(column), hfw_m=float(column.horizontal_field_width.value),
        working_distance_m=float(column.working_distance.value), shift_x_m=x, shift_y_m=y,
        scan_rotation_rad=float(column.scanning.rotation.value), stigmator_x=float(stigmator.x),
        stigmator_y=float(stigmator.y), source_on=bool(column.is_on),
        lens=(Lens.IMMERSION if immersed else Lens.FIELD_FREE) if electron else None,
    )  # fmt: skip


def plasma_of(column: Any) -> Any:
    """Return the setting of the plasma's gas, None on a column without one (gallium)."""
    source = getattr(column, "source", None)
    return getattr(source, "plasma_gas", None)


def species_of(column: Any) -> str:
    """Return the species of the ion column."""
    plasma = plasma_of(column)
    return GALLIUM if plasma is None else str(plasma.value)


def put(
    column: Any, beam: Beam, now: BeamSettings, asked: BeamSettings, currents: Callable[[Any], tuple[float, ...]]
) -> None:
    """Set what is given, in the order in which one thing decides about the next.

    `currents` returns the column's list (A) where it stands. Refused where a current is not in it.
    """
    point = structure("Point")
    if asked.source_on is not None and asked.source_on != bool(column.is_on):
        column.turn_on() if asked.source_on else column.turn_off()
    if asked.species is not None and asked.species != now.species:
        column.source.plasma_gas.value = asked.species
    if asked.voltage_v is not None and asked.voltage_v != now.voltage_v:
        column.high_voltage.value = asked.voltage_v
    if asked.current_a is not None:
        wanted, known = asked.current_a, currents(column)
        nearest = min(known, key=lambda one: abs(one - wanted), default=0.0)
        if not abs(nearest - wanted) <= CURRENT_ROOM * nearest:
            raise no_such_current(beam, wanted, float(column.high_voltage.value), known)
        if float(column.beam_current.value) != nearest:
            column.beam_current.value = nearest
    if asked.lens is not None and beam is Beam.ELECTRON:
        mode = enumeration("OpticalMode")
        column.optical_mode.value = mode.IMMERSION if asked.lens is Lens.IMMERSION else mode.FIELD_FREE
    if asked.scan_rotation_rad is not None:
        column.scanning.rotation.value = asked.scan_rotation_rad
    if asked.hfw_m is not None:
        column.horizontal_field_width.value = asked.hfw_m
    if asked.working_distance_m is not None:
        column.working_distance.value = asked.working_distance_m
    if asked.stigmator_x is not None or asked.stigmator_y is not None:
        old = column.stigmator.value
        x = float(old.x) if asked.stigmator_x is None else asked.stigmator_x
        column.stigmator.value = point(x, float(old.y) if asked.stigmator_y is None else asked.stigmator_y)
    if asked.shift_x_m is not None or asked.shift_y_m is not None:
        x, y = values.shift_from_client(column.beam_shift.value)
        column.beam_shift.value = values.shift_to_client(
            x if asked.shift_x_m is None else asked.shift_x_m, y if asked.shift_y_m is None else asked.shift_y_m
        )


def put_back(column: Any, beam: Beam, before: BeamSettings, asked: BeamSettings) -> None:
    """Set the given fields back as they were before they were asked for; NotReached where one is not taken.

    Voltage and species take the current along, so it is looked at whenever they are put back. A source is left as it
    is: lighting one takes half an hour, and is never done by itself.
    """
    fields = set(asked.model_dump(exclude_none=True)) - {"source_on"}
    fields |= {"current_a"} if fields & {"voltage_v", "species"} else set()
    now = settings_of(column, beam)
    # whether the current is as before is seen once the voltage is back only: `put` looks then
    wrong = {one for one in fields if one == "current_a" or getattr(now, one) != getattr(before, one)}
    back = BeamSettings(**{one: getattr(before, one) for one in wrong})
    put(column, beam, now, back, lambda _column: (back.current_a or 0.0,))
    taken(beam, back, settings_of(column, beam))


def taken(beam: Beam, asked: BeamSettings, reached: BeamSettings) -> None:
    """Raise NotReached where a value was not taken."""
    rooms = {
        "voltage_v": VOLTAGE_ROOM * (asked.voltage_v or 0.0), "current_a": CURRENT_ROOM * (asked.current_a or 0.0),
        "working_distance_m": DISTANCE_ROOM_M, "shift_x_m": SHIFT_ROOM_M, "shift_y_m": SHIFT_ROOM_M,
        "scan_rotation_rad": TURN_ROOM_RAD, "stigmator_x": 1e-4, "stigmator_y": 1e-4, "hfw_m": 1e-9,
    }  # fmt: skip
    for name, room in rooms.items():
        wanted, got = getattr(asked, name), getattr(reached, name)
        if wanted is not None and not abs(wanted - got) <= room:
            msg = f"the {beam} beam's {name} reads {got:.6g} instead of {wanted:.6g}: it was not taken"
            raise NotReached(msg, beam=str(beam), field=name, wanted=wanted, reached=got)
    for name in ("species", "lens", "source_on"):
        wanted, got = getattr(asked, name), getattr(reached, name)
        if wanted is not None and wanted != got and not (name == "lens" and beam is Beam.ION):
            msg = f"the {beam} beam's {name} reads {got} instead of {wanted}: it was not taken"
            raise NotReached(msg, beam=str(beam), field=name, wanted=str(wanted), reached=str(got))
