"""Quantities as people write them: "54 nm", "60 nA", "3 deg", "200 um x 30 um" to SI floats and back, exactly.

One table of units and one regular expression. A number is finite, has a decimal point (a comma is refused with a hint)
and a unit of the dimension asked for. The pydantic types here take such a text, or an SI float; under
`context=WITH_UNITS` (a recipe written by a person) a bare number is refused, and under the same context of a dump they
give texts again. Inside everything is SI and radians.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from math import isfinite, pi
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, SerializationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

#: Context for validation (a bare number is refused) and for serialization (texts with units are written).
WITH_UNITS = {"units": "required"}

#: Units by dimension: name -> size in SI, in falling order. What multiplies by a power of ten is exact.
_UNITS: dict[str, dict[str, Decimal | float]] = {
    "length": {
        "m": Decimal(1), "cm": Decimal("1e-2"), "mm": Decimal("1e-3"),
        "um": Decimal("1e-6"), "nm": Decimal("1e-9"), "pm": Decimal("1e-12"),
    },
    "voltage": {"kV": Decimal("1e3"), "V": Decimal(1)},
    "current": {
        "A": Decimal(1), "mA": Decimal("1e-3"), "uA": Decimal("1e-6"), "nA": Decimal("1e-9"), "pA": Decimal("1e-12"),
    },
    "angle": {"rad": Decimal(1), "deg": pi / 180, "mrad": Decimal("1e-3")},
    "time": {
        "h": Decimal(3600), "min": Decimal(60), "s": Decimal(1),
        "ms": Decimal("1e-3"), "us": Decimal("1e-6"), "ns": Decimal("1e-9"),
    },
    "fraction": {"%": Decimal("1e-2")},
    "mass fraction": {"wt%": Decimal("1e-2")},
    "density": {"nA/um2": Decimal("1e3"), "pA/um2": Decimal(1), "A/m2": Decimal(1)},
    "rate": {
        "m/s": Decimal(1), "um/h": Decimal("1e-6") / 3600, "nm/s": Decimal("1e-9"), "nm/min": Decimal("1e-9") / 60,
    },
    "areal mass": {"mg/cm2": Decimal("1e-2"), "kg/m2": Decimal(1), "g/m2": Decimal("1e-3")},
    "temperature": {"degC": Decimal(1), "K": Decimal(1)},
}  # fmt: skip

#: The unit that `show` prefers whatever the size of the number.
_FAVOURITE = {
    "angle": "deg", "fraction": "%", "mass fraction": "wt%",
    "density": "pA/um2", "rate": "nm/min", "areal mass": "mg/cm2", "temperature": "degC",
}  # fmt: skip
#: What `show` never picks because nobody in the field writes it.
_UNUSUAL = {"cm", "mrad", "um/h"}
_SPELLINGS = {
    "µ": "u",
    "μ": "u",
    "²": "2",
    "^2": "2",
    "°C": "degC",
    "°": "deg",
    "hours": "h",
    "hour": "h",
    "minutes": "min",
}
_ZERO_CELSIUS_K = Decimal("273.15")
_NUMBER = re.compile(r"\s*(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>.*?)\s*", re.DOTALL)
_TIMES = re.compile(r"\s*[x×]\s*")
_COMMA = re.compile(r"\d,\d")


class UnitError(ValueError):
    """A text that is no quantity of its dimension; `remedy` says what to write."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message}: {remedy}")
        self.problem = message
        self.remedy = remedy


def quantity(text: str, dimension: str) -> float:
    """Return the SI value of a text such as "54 nm", "1.6 nA", "20 %".

    `dimension` is length, voltage, current, angle, time, fraction, mass fraction, density, rate, areal mass or
    temperature; the result is in m, V, A, rad, s, 1, 1, A/m2, m/s, kg/m2 or K.

    Raises
    ------
    UnitError
        When the text has no finite number with a decimal point, or no unit of this dimension.
    """
    units = _UNITS[dimension]
    found = _NUMBER.fullmatch(text)
    if _COMMA.search(text):
        raise UnitError(f"{text!r} has a comma", f"write a decimal point, as in {text.replace(',', '.').strip()!r}")
    if found is None:
        raise UnitError(f"{text!r} is not {_a(dimension)}", f"write a number and a unit, as in {_example(dimension)!r}")
    number, unit = found["number"], _spelled(found["unit"])
    if not unit:
        remedy = f"write '{number} {_usual(dimension)}'" if dimension != "fraction" else _percent(number)
        raise UnitError(f"{text!r} has no unit", remedy)
    if unit not in units:
        raise UnitError(*_unknown(text, number, unit, dimension))
    try:
        value = _to_si(Decimal(number), unit, units[unit])
    except (InvalidOperation, OverflowError) as error:
        raise UnitError(f"{text!r} is too large", "write a number that fits the instrument") from error
    if not isfinite(value):
        raise UnitError(f"{text!r} is too large", "write a number that fits the instrument")
    return value


def lengths(text: str, count: int) -> tuple[float, ...]:
    """Return the metres in "60 um x 45 um" (or "60 x 45 um", one unit for all).

    Raises
    ------
    UnitError
        When there are not `count` lengths.
    """
    example = " x ".join(("60 um", "45 um", "2 um")[:count])
    parts = _TIMES.split(text.strip())
    if len(parts) != count:
        raise UnitError(f"{text!r} has {len(parts)} length{'s' * (len(parts) != 1)}, not {count}", f"write {example!r}")
    last = _NUMBER.fullmatch(parts[-1])
    unit = last["unit"] if last is not None else ""
    bare = [_NUMBER.fullmatch(part) for part in parts[:-1]]
    if all(found is not None and not found["unit"] for found in bare):
        parts = [f"{part} {unit}" for part in parts[:-1]] + [parts[-1]]
    return tuple(quantity(part, "length") for part in parts)


def show(value: float, dimension: str, digits: int | None = None) -> str:
    """Return a value with a fitting unit: 54e-9, "length" -> "54 nm". `quantity` gives exactly `value` back.

    With `digits` the number is rounded to so many significant ones, for people to read.
    """
    if not isfinite(value):
        return str(value)
    units = _UNITS[dimension]
    base = next((name for name, size in units.items() if size == 1), next(iter(units)))
    favourite = _FAVOURITE.get(dimension)
    unit = favourite if favourite is not None else _fitting(value, dimension, base)
    if digits is not None:
        return f"{_plain(_from_si(value, unit, units[unit]), digits)} {unit}"
    for name in dict.fromkeys((unit, base)):
        number = _from_si(value, name, units[name])
        for precision in range(1, 18):
            text = f"{_plain(number, precision)} {name}"
            if quantity(text, dimension) == value:
                return text
    return f"{value!r} {base}"


def show_lengths(values: tuple[float, ...], digits: int | None = None) -> str:
    """Return lengths (m) as "60 um x 45 um"; `lengths` gives exactly the values back."""
    return " x ".join(show(value, "length", digits) for value in values)


# -- types for pydantic models ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Of:
    """Marks a float field as a quantity: `Annotated[float, Of("length", above=0)]`.

    Limits are in SI; `low` and `high` themselves are allowed.
    """

    dimension: str
    above: float | None = None
    low: float | None = None
    high: float | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Give pydantic the validator and the serializer."""
        return _schema(self._parse, self._write)

    def _parse(self, given: Any, info: core_schema.ValidationInfo) -> float:
        if isinstance(given, str):
            value: float = _caught(quantity, given, self.dimension)
        else:
            value = _bare(given, info, self.dimension)
        self._within(value)
        return value

    def _within(self, value: float) -> None:
        for limit, wrong, words in (
            (self.above, self.above is not None and value <= self.above, "more than"),
            (self.low, self.low is not None and value < self.low, "at least"),
            (self.high, self.high is not None and value > self.high, "at most"),
        ):
            if wrong and limit is not None:
                bound = f"{words} {_limit(limit, self.dimension)}"
                raise _error("out_of_range", f"must be {bound}", f"write {_a(self.dimension)} of {bound}", bound)

    def _write(self, value: float, info: SerializationInfo) -> str | float:
        return show(value, self.dimension) if _texts(info) else value


@dataclass(frozen=True)
class Extent:
    """Marks a tuple of floats as sizes: "60 um x 45 um"; all more than 0."""

    count: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Give pydantic the validator and the serializer."""
        return _schema(self._parse, self._write)

    def _parse(self, given: Any, info: core_schema.ValidationInfo) -> tuple[float, ...]:
        example = " x ".join(("60 um", "45 um", "2 um")[: self.count])
        if isinstance(given, str):
            values: tuple[float, ...] = _caught(lengths, given, self.count)
        elif isinstance(given, list | tuple) and len(given) == self.count:
            values = tuple(_bare(part, info, "length") for part in given)
        else:
            raise _error("extent", "is not a size", f"write {example!r}")
        if any(value <= 0 for value in values):
            raise _error(
                "out_of_range",
                "must be more than 0 m on every side",
                f"write sizes such as {example!r}",
                "more than 0 m",
            )
        return values

    def _write(self, value: tuple[float, ...], info: SerializationInfo) -> str | tuple[float, ...]:
        return show_lengths(value) if _texts(info) else value


@dataclass(frozen=True)
class Counted:
    """Marks an int field as a number of things: "2 cuts", "1 image", or 2."""

    thing: str
    low: int = 1

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Give pydantic the validator and the serializer."""
        return _schema(self._parse, self._write)

    def _parse(self, given: Any, info: core_schema.ValidationInfo) -> int:
        example = f"write '{max(2, self.low)} {self.thing}s'"
        if isinstance(given, str):
            found = re.fullmatch(rf"\s*(-?\d+)\s*(?:{self.thing}s?)?\s*", given)
            if found is None:
                raise _error("count", f"is not a number of {self.thing}s", example)
            value = int(found[1])
        elif isinstance(given, int) and not isinstance(given, bool):
            value = given
        else:
            raise _error("count", f"is not a number of {self.thing}s", example)
        if value < self.low:
            raise _error("out_of_range", f"must be at least {self.low}", example, f"at least {self.low}")
        return value

    def _write(self, value: int, info: SerializationInfo) -> str | int:
        return f"{value} {self.thing}{'s' * (value != 1)}" if _texts(info) else value


Length = Annotated[float, Of("length")]
Voltage = Annotated[float, Of("voltage", above=0.0)]
Current = Annotated[float, Of("current", above=0.0)]
Angle = Annotated[float, Of("angle")]
Duration = Annotated[float, Of("time", low=0.0)]
Fraction = Annotated[float, Of("fraction", low=0.0, high=1.0)]
MassFraction = Annotated[float, Of("mass fraction", low=0.0, high=1.0)]
CurrentDensity = Annotated[float, Of("density", above=0.0)]
ArealMass = Annotated[float, Of("areal mass", above=0.0)]
Rate = Annotated[float, Of("rate", above=0.0)]
Temperature = Annotated[float, Of("temperature", above=0.0)]
Extent2 = Annotated[tuple[float, float], Extent(2)]
Extent3 = Annotated[tuple[float, float, float], Extent(3)]


# -- private ----------------------------------------------------------------------------------------------------------


def _schema(parse: Any, write: Any) -> CoreSchema:
    return core_schema.with_info_plain_validator_function(
        parse, serialization=core_schema.plain_serializer_function_ser_schema(write, info_arg=True)
    )


def _texts(info: SerializationInfo) -> bool:
    return isinstance(info.context, dict) and info.context.get("units") == "required"


def _error(kind: str, problem: str, remedy: str, limit: str = "") -> PydanticCustomError:
    # braces would be read as placeholders
    plain = f"{problem}: {remedy}".replace("{", "(").replace("}", ")")
    return PydanticCustomError(kind, plain, {"problem": problem, "limit": limit, "remedy": remedy})


def _caught(function: Any, *args: Any) -> Any:
    try:
        return function(*args)
    except UnitError as error:
        raise _error("unit", error.problem, error.remedy) from error


def _bare(given: Any, info: core_schema.ValidationInfo, dimension: str) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise _error("unit", f"is not {_a(dimension)}", f"write a number and a unit, as in {_example(dimension)!r}")
    if isinstance(info.context, dict) and info.context.get("units") == "required":
        number = f"{given:g}"
        remedy = _percent(number) if dimension == "fraction" else f"write '{number} {_usual(dimension)}'"
        raise _error("unit", f"is a bare number, not {_a(dimension)}", remedy)
    if not isfinite(given):
        raise _error("unit", "is not finite", f"write a number and a unit, as in {_example(dimension)!r}")
    return float(given)


def _to_si(number: Decimal, unit: str, size: Decimal | float) -> float:
    if unit == "degC":
        return float(number + _ZERO_CELSIUS_K)
    return float(number) * size if isinstance(size, float) else float(number * size)


def _from_si(value: float, unit: str, size: Decimal | float) -> Decimal:
    exact = Decimal(repr(float(value)))
    if unit == "degC":
        return exact - _ZERO_CELSIUS_K
    return Decimal(repr(value / size)) if isinstance(size, float) else exact / size


def _plain(number: Decimal, digits: int) -> str:
    """Return a number rounded to significant digits, without an exponent where it is short."""
    if number == 0:
        return "0"
    rounded = Decimal(f"{number:.{digits - 1}e}")
    text = f"{rounded:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text if len(text) <= 20 else f"{number:.{digits - 1}e}"


def _fitting(value: float, dimension: str, base: str) -> str:
    """Return the largest usual unit in which the number is at least 1; currents up to 9999 nA stay in nA."""
    if value == 0:
        return {"length": "um", "current": "nA"}.get(dimension, base)
    units = _UNITS[dimension]
    names = [name for name in units if name not in _UNUSUAL]
    for name in names:
        size = float(units[name])
        least = 10 * size if name in ("uA", "m", "A") else size
        if abs(value) >= least * (1 - 1e-12):
            return name
    return names[-1]


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _limit(value: float, dimension: str) -> str:
    return "0" if value == 0 else show(value, dimension)


def _spelled(unit: str) -> str:
    for other, ours in _SPELLINGS.items():
        unit = (
            unit.replace(other, ours)
            if other not in ("hours", "hour", "minutes")
            else (ours if unit == other else unit)
        )
    return unit


def _usual(dimension: str) -> str:
    return {"length": "um", "voltage": "kV", "current": "nA", "time": "s"}.get(dimension) or _FAVOURITE[dimension]


def _example(dimension: str) -> str:
    number = {
        "length": "54", "voltage": "30", "current": "60", "angle": "3", "time": "3", "fraction": "20",
        "mass fraction": "96", "density": "4", "rate": "10", "areal mass": "20",
        "temperature": "45",
    }[dimension]  # fmt: skip
    return f"{number} {_usual(dimension) if dimension != 'length' else 'nm'}"


def _percent(number: str) -> str:
    value = float(number)
    return f"write '{value * 100:g} %'" if 0 <= value <= 1 else f"write '{number} %'"


def _unknown(text: str, number: str, unit: str, dimension: str) -> tuple[str, str]:
    """Return what is wrong with a unit and what to write instead."""
    units = list(_UNITS[dimension])
    for other, names in _UNITS.items():
        if unit in names:
            return (
                f"{text!r} is {_a(other)}, not {_a(dimension)}",
                f"write {_a(dimension)}, as in {_example(dimension)!r}",
            )
    near = [name for name in units if name.lower() == unit.lower()] or get_close_matches(unit, units, n=1, cutoff=0.5)
    if near:
        return f"{text!r} has the unknown unit {unit!r}", f"did you mean '{number} {near[0]}'?"
    return f"{text!r} has the unknown unit {unit!r}", f"units of {dimension} are {', '.join(units)}"
