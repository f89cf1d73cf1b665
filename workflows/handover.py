"""The microscope handed to a person and taken back: what stands otherwise than the run left it, adopted or restored.

What an act needs is ensured just before it fires, whoever moved it. What is compared here is what acts leave alone and
a person sets by eye: stigmators, focus, the beams' shifts, and beyond these what shows that a hand was there at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import remainder, tau
from typing import Any, Literal

from instrument.guard_rules import SAME_PLACE_M, STILL_RAD, apart
from instrument.microscope import Microscope
from instrument.settings import Beam, BeamSettings, Setup, State
from instrument.units import show

Choice = Literal["adopt", "restore"]

#: What a person sets by eye: kept when it is adopted, set back when it is restored.
BY_EYE = ("stigmator_x", "stigmator_y", "working_distance_m", "shift_x_m", "shift_y_m")
#: A run moves the electron beam's shift by less between two pictures; more is a hand's doing, m.
HAND_M = 1.5e-6
_BEAM_FIELDS: dict[str, str] = {
    "voltage_v": "voltage", "current_a": "current", "working_distance_m": "length", "shift_x_m": "length",
    "shift_y_m": "length", "scan_rotation_rad": "angle", "stigmator_x": "", "stigmator_y": "", "species": "",
    "lens": "",
}  # fmt: skip
_AXES = {"x": "length", "y": "length", "z": "length", "r": "angle", "t": "angle"}
#: Values that are one differ by less than this share.
_SAME = 1e-6
_SHARES = ("voltage_v", "current_a")
#: A stage that stands within this of where a picture was taken is in its pose (rad).
SAME_POSE_RAD = 1e-2
#: The change that says that a person has lit the ion source.
SOURCE_LIT = "ion source: off -> on"
#: By whom a focus was found that no session's end outdates.
BY_HAND = "a person"


@dataclass(frozen=True)
class Change:
    """Something that stands otherwise than it was left: its name, how it was left, how it is now, as people read it."""

    name: str
    left: str
    now: str

    def __str__(self) -> str:
        return f"{self.name}: {self.left} -> {self.now}"


def a_hand(left: State, now: State) -> list[Change]:
    """Return what tells of a hand even where `left` is the state of an old picture: acts don't set it, or by less."""
    found = [one for one in changes(left, now) if "stigmator" in one.name]
    one, other = left.electron.settings, now.electron.settings
    moved = ((one.shift_x_m or 0.0) - (other.shift_x_m or 0.0), (one.shift_y_m or 0.0) - (other.shift_y_m or 0.0))
    if max(map(abs, moved)) > HAND_M:
        found += [one for one in changes(left, now) if one.name.startswith("electron beam, shift")]
    return found


def changes(left: State, now: State, wobble: Mapping[str, float] | None = None) -> list[Change]:
    """Return what differs between the state that a run has left and the one it finds.

    Blanking, valves and needles don't count: whoever left made safe. `wobble` says by how much a column's values may
    differ, by their fields: shares of voltage and current.
    """
    found: list[Change] = []
    for axis, kind in _AXES.items():
        one, other = getattr(left.stage, axis), getattr(now.stage, axis)
        if one is None or other is None:
            continue
        if apart(one, other) > STILL_RAD if kind == "angle" else abs(one - other) > SAME_PLACE_M:
            found.append(Change(f"stage {axis}", show(one, kind, 6), show(other, kind, 6)))
    for beam in Beam:
        before, after = left.beam(beam), now.beam(beam)
        for field, kind in _BEAM_FIELDS.items():
            one, other = getattr(before.settings, field), getattr(after.settings, field)
            if not (_same(one, other) or _wobbles(one, other, field, wobble or {})):
                found.append(Change(f"{beam} beam, {_words(field)}", _shown(one, kind), _shown(other, kind)))
        if before.source_on != after.source_on:
            found.append(Change(f"{beam} source", _on(before.source_on), _on(after.source_on)))
    found += [
        Change(str(device), _in(was), _in(now.devices.get(device, False)))
        for device, was in left.devices.items()
        if str(device) != "needle" and was != now.devices.get(device, False)
    ]
    return found


def ion_focus_by_hand(left: State, now: State) -> BeamSettings | None:
    """Return the ion beam's working point and working distance where a person has set the latter, else None."""
    before, after = left.ion.settings, now.ion.settings
    if _same(before.working_distance_m, after.working_distance_m):
        return None
    return BeamSettings(
        voltage_v=after.voltage_v, current_a=after.current_a, working_distance_m=after.working_distance_m
    )


def focus_by_hand(left: State, now: State, looking: Setup) -> dict[str, Any] | None:
    """Return where a person has focused the electron beam, as automatic focus is kept; None where nobody did.

    `looking` : the set-up of the newest picture of the face: in another pose a working distance says nothing of it.
    """
    before, after = left.electron.settings, now.electron.settings
    stage = looking.stage
    if _same(before.working_distance_m, after.working_distance_m) or stage is None:
        return None
    ways = ((stage.r or 0.0) - (now.stage.r or 0.0), (stage.t or 0.0) - (now.stage.t or 0.0))
    if max(abs(remainder(way, tau)) for way in ways) > SAME_POSE_RAD:
        return None
    return {
        "pose": looking.pose, "voltage_v": after.voltage_v, "current_a": after.current_a,
        "working_distance_m": after.working_distance_m, "plane_m": looking.focus_z_m, "by": BY_HAND,
    }  # fmt: skip


def restore(instrument: Microscope, left: State) -> None:
    """Set back what people set by eye and acts leave alone; all else is ensured before it is needed."""
    now = instrument.state()
    for beam in Beam:
        before, after = left.beam(beam).settings, now.beam(beam).settings
        back = {
            field: getattr(before, field)
            for field in BY_EYE
            if getattr(before, field) is not None and not _same(getattr(before, field), getattr(after, field))
        }
        if back:
            instrument.set_beam(beam, BeamSettings(**back))


# -- private ----------------------------------------------------------------------------------------------------------


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float | int) and isinstance(other, float | int) and not isinstance(one, bool):
        return abs(one - other) <= max(1e-12, _SAME * max(abs(one), abs(other)))
    return bool(one == other)


def _wobbles(one: Any, other: Any, field: str, wobble: Mapping[str, float]) -> bool:
    if one is None or other is None or field not in wobble:
        return False
    return bool(abs(one - other) <= wobble[field] * (abs(one) if field in _SHARES else 1.0))


def _shown(value: Any, kind: str) -> str:
    if value is None:
        return "-"
    return show(value, kind, 5) if kind and isinstance(value, float | int) else str(value)


def _words(field: str) -> str:
    return field.rsplit("_", 1)[0].replace("_", " ") if field.rsplit("_", 1)[-1] in ("v", "a", "m", "rad") else (
        field.replace("_", " ")
    )  # fmt: skip


def _on(on: bool) -> str:
    return "on" if on else "off"


def _in(inserted: bool) -> str:
    return "in" if inserted else "out"
