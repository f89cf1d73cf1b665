"""How fast films grow here beside the model: the cap stands as a ruler of it on the face that was just cut.

Growth is known to a factor of 1.5 only (night.md 15). The cap's height, seen straight on, says what its dose came to;
films of the ion beam that are dosed `auto` are given what they need by it.
"""

from __future__ import annotations

from math import degrees
from typing import Any

from instrument.geometry import PoseName
from instrument.process import film_growth, film_yield
from instrument.settings import Beam
from instrument.units import show
from workflows.cap import cap_height
from workflows.handle import Handle
from workflows.limits import current_of_film, fills, film_area
from workflows.recipe import Infiltrate, Protect, Slice
from workflows.recipe_fields import dose_times

#: The cap's height over the model's is told in steps of this: a picture's noise hardly ever makes it another one.
STEP = 0.05
#: Beyond these something else is wrong than the model: no gas, no cap, another scale. No film gets more than the last
#: of these times the dose that was planned for it.
LEAST, MOST, MOST_TIMES = 0.5, 2.0, 2.5


def measure(handle: Handle, protect: Protect, slicing: Slice, plane: float) -> None:
    """Look at the cap's height on the face at `plane` (z, m); films that come are dosed by it.

    A height that can't be believed is a person's to judge: Held until there is a yes to going on by the model.
    """
    told = [fill for _, fill in fills(handle.recipe) if fill.dose_factor == "auto" and fill.beam is Beam.ION]
    if not told:
        return
    low, high = handle.description.stage.t
    tilt = handle.layout.pose(PoseName.FACE_ON).t
    if not low <= tilt <= high:
        handle.value("block/growth", "measure", {"tilt": f"{degrees(tilt):.1f} deg"}, lambda: {"growth": None})
        return
    handle.tell("the cap's height")
    ref = handle.strip("block/cap", slicing.image.model_copy(update={"pose": "face-on"}), plane, above=2 * MOST)
    planned = protect.thickness * dose_times(protect.dose_factor)
    density, densities = _density(handle, protect), [_density(handle, fill) for fill in told]

    def compute() -> dict[str, Any]:
        frame = handle.load(ref)
        found = cap_height(frame.pixels[0], frame.meta.pixel_y_m, planned)
        if found is None:
            return {"growth": None}
        share = STEP * round(found.height_m / planned / STEP)
        growth = film_growth(share, Beam.ION, density, protect.ion.voltage)
        believed = LEAST <= share <= MOST and all(
            film_yield(Beam.ION, one, fill.voltage) <= MOST_TIMES * film_yield(Beam.ION, one, fill.voltage, growth)
            for one, fill in zip(densities, told, strict=True)
        )
        return {
            "growth": growth if believed else None, "share": share, "height_m": found.height_m,
            "sigma_m": found.sigma_m, "planned_m": planned, "dose_factor": dose_times(protect.dose_factor) / share,
        }  # fmt: skip

    value = handle.value("block/growth", "measure", {"frame": ref.sha256, "planned_m": planned}, compute)
    if value["growth"] is not None:
        handle.growth = value["growth"]
    elif "height_m" in value:
        found, asked = show(value["height_m"], "length", 2), show(planned, "length", 2)
        handle.ask(
            "cap", {"height_m": value["height_m"]},
            f"the cap is {found} high and the model has {asked}: look at {ref.name} and at the gas. After "
            "`kintsugi answer DIR yes` films get the model's dose",
        )  # fmt: skip


def _density(handle: Handle, film: Protect | Infiltrate) -> float:
    """Return the density (A/m2) at which a film is laid here."""
    area = film_area(handle.recipe, film)
    return current_of_film(film.ion if isinstance(film, Protect) else film, area, handle.description) / area
