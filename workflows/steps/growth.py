"""How fast films grow here beside the model: the cap stands as a ruler of it on the face that was just cut.

Growth is known to a factor of 1.5 only (night.md 15). The cap's height, seen straight on, says what its dose came to;
films that are dosed `auto` are given what they need by it.
"""

from __future__ import annotations

from math import degrees
from typing import Any

from instrument.geometry import PoseName
from instrument.process import film_growth
from instrument.settings import Beam
from instrument.units import show
from workflows.acts import Held
from workflows.cap import cap_height
from workflows.handle import Handle
from workflows.limits import current_of_film, fills, film_area
from workflows.recipe import Protect, Slice
from workflows.recipe_fields import dose_times

#: Growth is told in steps of this, so that a picture's noise hardly ever makes it another one.
STEP = 0.05
#: Beyond these something else is wrong than the model: no gas, no cap, another scale.
LEAST, MOST = 0.5, 2.0


def measure(handle: Handle, protect: Protect, slicing: Slice, plane: float) -> None:
    """Look at the cap's height on the face at `plane` (z, m); films that come are dosed by it."""
    if all(fill.dose_factor != "auto" for _, fill in fills(handle.recipe)):
        return
    low, high = handle.description.stage.t
    tilt = handle.layout.pose(PoseName.FACE_ON).t
    if not low <= tilt <= high:
        handle.value("block/growth", "measure", {"tilt": f"{degrees(tilt):.1f} deg"}, lambda: {"growth": None})
        return
    handle.tell("the cap's height")
    ref = handle.strip("block/cap", slicing.image.model_copy(update={"pose": "face-on"}), plane, above=2 * MOST)
    planned = protect.thickness * dose_times(protect.dose_factor)
    current = current_of_film(protect.ion, film_area(handle.recipe, protect), handle.description)
    density = current / (protect.area[0] * protect.area[1])

    def compute() -> dict[str, Any]:
        frame = handle.load(ref)
        found = cap_height(frame.pixels[0], frame.meta.pixel_y_m, planned)
        if found is None:
            return {"growth": None}
        grown = film_growth(found.height_m / planned, Beam.ION, density, protect.ion.voltage)
        told = {"height_m": found.height_m, "sigma_m": found.sigma_m, "planned_m": planned}
        return told | {"growth": STEP * round(grown / STEP)}

    value = handle.value("block/growth", "measure", {"frame": ref.sha256, "planned_m": planned}, compute)
    growth = value["growth"]
    if growth is None:
        return
    if not LEAST <= growth <= MOST:
        high_m, asked = show(value["height_m"], "length", 2), show(planned, "length", 2)
        msg = (
            f"the cap is {high_m} high where {asked} were asked for; look at {ref.name} and at the gas. With "
            "`dose_factor: 1` in infiltrate and refill the run goes on by the model"
        )
        raise Held(msg, step="block", growth=growth)
    handle.growth = growth
