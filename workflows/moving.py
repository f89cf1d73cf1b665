"""How the stage is moved while a person watches: field-free, each part confirmed, lowered for a far turn."""

from __future__ import annotations

from collections.abc import Callable
from math import radians

from instrument.guard_rules import apart
from instrument.microscope import Microscope
from instrument.settings import Beam, BeamSettings, Lens, StagePosition

#: A turn of the stage by more than this (rad) is made with the sample lowered by so much (m), as far as Z goes: 4 mm
#: under the pole piece a stub that stands off the axes would come too near (night.md 3).
FREE_TURN_RAD, LOWERED_M = radians(5.0), 5e-3
#: Nobody is asked about less of Z than this, m.
SAME_Z_M = 1e-6


def field_free(microscope: Microscope) -> None:
    """Switch the immersion lens off where it is on: in its field no stage turns and no ion beam is seen straight."""
    if microscope.state().electron.settings.lens is Lens.IMMERSION:
        microscope.set_beam(Beam.ELECTRON, BeamSettings(lens=Lens.FIELD_FREE))


def move_low(
    microscope: Microscope, to: StagePosition, question: str, confirm: Callable[[str], bool]
) -> StagePosition | None:
    """Move where a person says yes; a far turn is made between lowering Z and raising it, each of them asked for.

    Returns where the stage then stands, None where the person said no: the stage stays where it is by then.
    """
    now = microscope.state().stage
    here = now.z or 0.0
    up = here if to.z is None else to.z
    if max(apart(to.r, now.r), apart(to.t, now.t)) <= FREE_TURN_RAD:
        return microscope.move_stage(to) if confirm(question) else None
    low = min(here, max(microscope.describe().stage.z[0], min(here, up) - LOWERED_M))
    steps = [(to.replace(z=None), question)]
    if here - low > SAME_Z_M:
        steps.insert(0, (StagePosition(z=low), f"lower Z by {(here - low) * 1e3:.2f} mm first?"))
    if up - low > SAME_Z_M:
        steps.append((StagePosition(z=up), f"raise Z by {(up - low) * 1e3:.2f} mm again?"))
    stood = now
    for step, asked in steps:
        if not confirm(asked):
            return None
        stood = microscope.move_stage(step)
    return stood
