"""What a virtual microscope is asked to be: the options of a URL such as `simulator:11?coating=19um&pace=200`."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from instrument.errors import Refused
from instrument.units import UnitError, lengths, quantity
from simulator.electrode import PRESETS, Electrode, Preset
from simulator.faults import BY_NAME
from simulator.slab import BEHIND_M, REACH_M, STRIDE_M

#: What is held of a specimen has at most so many voxels unless its voxel is given.
MOST_VOXELS = 150e6
_AxisOffset = Annotated[float, Field(ge=-1e-3, le=1e-3)]


class Options(BaseModel):
    """A virtual microscope and its specimen. Lengths in metres, angles in radians.

    preset .. layer : see `simulator.electrode.Electrode`; voxel and layer None: 40 and 50 nm (porous carbon: 20 nm),
    coarser for big blocks
    pretilt : of the stub; pace : seconds per second on the wall, None: stepped; jump : error of the position after a
    move of tilt or rotation (standard deviation); site : of the block's place on the holder; aim : of the ion beam's
    own offsets (the electron beam's are 0.4 of it; with none the ion beam is in focus at every current, too);
    turned : how far the block is turned on its holder; axis : where the stage's rotation axis stands (x, y) when its
    raw X and Y read 0, a length for x alone or two as 150um x -80um
    rates : how far true rates lie from the nominal ones, at most (films 1.25 of it); ragged : depth of the uneven
    front; drift : of position, focus and currents, 1 as usual, 0 none; steady : a picture of the same thing has the
    same noise whenever it is taken, so that two runs can be compared
    fault : names and times (s) of faults that strike, as plasma-loss@03:10; faults : others at random, at this many
    times their usual rates (`simulator.faults`); grain : a pattern's dose is given, and saved, for so much time at once
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=1, ge=0)
    preset: Preset = "nmc-cathode"
    file: Path | None = None
    file_voxel: float | None = Field(default=None, gt=0, le=1e-5)
    coating: float = Field(default=19e-6, gt=1e-6, le=2e-4)
    foil: float | None = Field(default=None, gt=0, le=1e-4)
    width: float = Field(default=36e-6, ge=4e-6, le=3e-4)
    height: float = Field(default=28e-6, ge=4e-6, le=3e-4)
    depth: float = Field(default=10e-6, ge=1e-6, le=1e-4)
    above: float = Field(default=4e-6, ge=0.5e-6, le=2e-5)
    voxel: float | None = Field(default=None, ge=5e-9, le=5e-7)
    layer: float | None = Field(default=None, ge=5e-9, le=5e-7)
    cracks: float | None = Field(default=None, ge=0, le=3)
    pretilt: float = Field(default=0.7853981633974483, ge=0, le=1.2)
    pace: float | None = Field(default=None, gt=0, le=1e6)
    jump: float = Field(default=1.0e-6, ge=0, le=1e-5)
    site: float = Field(default=2e-6, ge=0, le=2e-5)
    turned: float = Field(default=0.0, ge=-0.2, le=0.2)
    axis: tuple[_AxisOffset, _AxisOffset] = (0.0, 0.0)
    aim: float = Field(default=1.0e-6, ge=0, le=2e-5)
    rates: float = Field(default=0.2, ge=0, le=0.5)
    ragged: float = Field(default=1.5e-6, ge=0, le=1e-5)
    drift: float = Field(default=1.0, ge=0, le=10)
    steady: bool = False
    fault: tuple[tuple[str, float], ...] = ()
    faults: float = Field(default=0.0, ge=0, le=1e4)
    grain: float = Field(default=60.0, ge=1, le=600)

    def electrode(self) -> Electrode:
        """Return what the specimen is built from."""
        finest = PRESETS[self.preset].get("voxel_m")
        voxel, layer = self.voxel or finest or 40e-9, self.layer or finest or 50e-9
        held = min(self.depth, REACH_M + BEHIND_M + STRIDE_M)
        voxels = self.width * (self.height + self.above) * held / (voxel**2 * layer)
        if self.voxel is None and voxels > MOST_VOXELS:
            coarser = (voxels / MOST_VOXELS) ** (1 / 3)
            voxel, layer = voxel * coarser, layer * coarser if self.layer is None else layer
        given = {} if self.foil is None else {"foil_m": self.foil}
        if self.cracks is not None:
            given["cracks"] = self.cracks
        return Electrode(
            seed=self.seed,
            preset=self.preset,
            file=self.file,
            file_voxel_m=self.file_voxel,
            width_m=self.width,
            height_m=self.height,
            depth_m=self.depth,
            above_m=self.above,
            coating_m=self.coating,
            voxel_m=voxel,
            layer_m=layer,
            **given,
        )

    @model_validator(mode="after")
    def _electrode_can_be_made(self) -> Self:
        try:
            self.electrode()
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
        return self


def _number(text: str) -> float:
    return float(text)


def _as(dimension: str) -> Callable[[str], float]:
    return lambda text: quantity(text, dimension)


def _across(text: str) -> tuple[float, ...]:
    """Return x and y (m) of "150um x -80um"; of one length, x alone."""
    return lengths(text, 2) if "x" in text else (quantity(text, "length"), 0.0)


def _switch(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(text)
    return text == "yes"


_READ: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(
        ("coating", "foil", "width", "height", "depth", "above", "voxel", "layer", "jump", "site", "aim", "ragged"),
        _as("length"),
    ),
    "grain": _as("time"),
    "pretilt": _as("angle"),
    "turned": _as("angle"),
    "axis": _across,
    "rates": _as("fraction"),
    "preset": str,
    "file": lambda text: Path(text).absolute(),
    "file_voxel": _as("length"),
    **dict.fromkeys(("pace", "drift", "cracks", "faults"), _number),
    "steady": _switch,
}


_NUMBER = ("a plain number", "write a number such as 200")


def parse(url: str) -> Options:
    """Return the options of `simulator[:SEED][?option=value&...]`; Refused names field, value, limit and remedy."""
    head, _, query = url.partition("?")
    name, _, seed = head.partition(":")
    if name.strip().lower() != "simulator":
        raise _refused("url", url, "simulator[:SEED][?option=value]", "write it so")
    values: dict[str, Any] = {}
    if seed:
        if not seed.isdecimal():
            raise _refused("seed", seed, "a whole number from 0", "write it so, as in simulator:11")
        values["seed"] = int(seed)
    for field, text in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):
        if field == "fault":
            values["fault"] = (*values.get("fault", ()), *(scheduled(one) for one in text.split(",")))
            continue
        if field not in _READ:
            raise _refused("option", field, f"one of {', '.join((*_READ, 'fault'))}", "use one of these options")
        try:
            values[field] = _READ[field](text)
        except UnitError as error:
            raise _refused(field, text, error.problem, error.remedy) from error
        except ValueError as error:
            limit, remedy = ("yes, no", "write steady=yes") if _READ[field] is _switch else _NUMBER
            raise _refused(field, text, limit, remedy) from error
    try:
        options = Options.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # what the preset can't do: the sentence says all
            raise impossible(first["msg"].removeprefix("Value error, "), options=values) from error
        field = str(first["loc"][0])
        raise _refused(field, values.get(field), first["msg"], "choose a value within the limit") from error
    return options


def scheduled(text: str) -> tuple[str, float]:
    """Return name and time (s) of a fault written as plasma-loss@03:10, or @40min; Refused names what is wrong."""
    name, _, at = text.partition("@")
    name, at = name.strip(), at.strip()
    if name not in BY_NAME:
        near = get_close_matches(name, BY_NAME, 1)
        remedy = f"did you mean {near[0]}?" if near else "use one of these"
        raise _refused("fault", name, ", ".join(BY_NAME), remedy)
    hours, colon, minutes = at.partition(":")
    if colon and hours.isdecimal() and minutes.isdecimal() and int(minutes) < 60:
        return name, 3600.0 * int(hours) + 60.0 * int(minutes)
    try:
        seconds = quantity(at, "time")
        if seconds > 0:
            return name, seconds
        raise UnitError(text, "give a time after the start")
    except UnitError as error:
        problem = "hours and minutes after the start as 03:10, or a time as 40 min"
        raise _refused("fault", text, problem, f"write {name}@03:10") from error


def impossible(problem: str, **evidence: Any) -> Refused:
    """Return the refusal of a specimen that can't be made, from a sentence with limit and remedy."""
    msg = f"simulator: {problem}"
    return Refused(
        msg, rule="simulator-options", field="preset", value=str(evidence), limit="what the preset can do",
        remedy="see the message",
    )  # fmt: skip


def _refused(field: str, value: Any, limit: str, remedy: str) -> Refused:
    msg = f"simulator: {field} {value!r} is not possible; allowed: {limit}; {remedy}"
    return Refused(msg, rule="simulator-options", field=field, value=value, limit=limit, remedy=remedy)
