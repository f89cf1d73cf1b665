"""Field types that only recipes have: gases, places, times of day, the rule of a refill."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.functional_serializers import PlainSerializer
from pydantic_core.core_schema import FieldSerializationInfo

from instrument.units import Counted, Fraction, Of, UnitError, quantity, show

#: Current density (A/m2 = pA/um2) of a film when the recipe gives none (night.md 6).
DENSITY = 4.0
#: A dose may be this share of the model's, at the least and at the most.
DOSE_FACTORS = 0.5, 2.0

Thickness = Annotated[float, Of("length", above=0.0)]
Distance = Annotated[float, Of("length", low=0.0)]
Dwell = Annotated[float, Of("time", above=0.0)]
Cuts = Annotated[int, Counted("cut")]
Images = Annotated[int, Counted("image")]
Times = Annotated[int, Counted("time", low=0)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
#: An application file of the microscope, by its exact name; None: one is found by its name. Virtual ones have none.
Application = Name | None
#: (x0, y0, x1, y1) on the face, m, block frame.
Box = tuple[float, float, float, float]


def _gases(given: Any) -> Any:
    return {given: "100 %"} if isinstance(given, str) else given


def _pair_of_lengths(given: Any) -> Any:
    if isinstance(given, str):
        parts = re.split(r"\s*[x×]\s*", given.strip())
        if len(parts) != 2:
            msg = f"{given!r} is not a place; write two lengths, as in '0 um x 14 um'"
            raise ValueError(msg)
        try:
            return tuple(quantity(part, "length") for part in parts)
        except UnitError as error:
            msg = f"{error.problem}; {error.remedy}"
            raise ValueError(msg) from error
    return given


def nothing(given: Any) -> Any:
    """Return None for the word `none`."""
    return None if given in ("none", "None", False) else given


def _when(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    found = re.fullmatch(r"\s*unfilled pores\s*>\s*(\S.*?)\s*", given)
    if found is None:
        msg = f"{given!r} is no rule for a refill; write 'unfilled pores > 20 %'"
        raise ValueError(msg)
    return quantity(found[1], "fraction")


def _dose_factor(given: Any) -> Any:
    if given == "auto" or (isinstance(given, int | float) and DOSE_FACTORS[0] <= given <= DOSE_FACTORS[1]):
        return given
    low, high = DOSE_FACTORS
    msg = f"{given!r} is not what a dose can be multiplied by; write a number from {low:g} to {high:g}, or auto"
    raise ValueError(msg)


def _as_text(info: FieldSerializationInfo) -> bool:
    return isinstance(info.context, dict) and info.context.get("units") == "required"


def _write_when(value: float, info: FieldSerializationInfo) -> str | float:
    return f"unfilled pores > {show(value, 'fraction')}" if _as_text(info) else value


def _write_place(value: tuple[float, float] | None, info: FieldSerializationInfo) -> Any:
    return " x ".join(show(part, "length") for part in value) if value is not None and _as_text(info) else value


def _time_of_day(given: Any) -> Any:
    if isinstance(given, str) and not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", given):
        try:
            quantity(given, "time")
        except UnitError as error:
            msg = f"{given!r} is no time; write a time of day such as \"08:00\" or a duration such as '12 h'"
            raise ValueError(msg) from error
    return given


Gases = Annotated[dict[str, Fraction], BeforeValidator(_gases), Field(min_length=1)]
Place = Annotated[
    tuple[float, float] | None, BeforeValidator(_pair_of_lengths), PlainSerializer(_write_place, return_type=Any)
]
#: What a dose is multiplied by; auto: by what was measured, 1 before that.
DoseFactor = Annotated[float | Literal["auto"], BeforeValidator(_dose_factor)]
Share = Annotated[float, BeforeValidator(_when), Field(gt=0.0, lt=1.0), PlainSerializer(_write_when, return_type=Any)]
Time = Annotated[str, BeforeValidator(_time_of_day)]


def dose_times(factor: DoseFactor) -> float:
    """Return what a dose is multiplied by as far as a recipe says it: auto is 1."""
    return 1.0 if factor == "auto" else factor


def with_density(data: Any) -> Any:
    """Give raw data the usual density when neither density nor current stands in it."""
    if isinstance(data, dict) and data.get("density") is None and data.get("current") is None:
        return {**data, "density": show(DENSITY, "density")}
    return data


def one_density(density: float | None, current: float | None) -> None:
    """Refuse (ValueError) a density and a current at once."""
    if density is not None and current is not None:
        msg = "density and current are both given; write one of them"
        raise ValueError(msg)
