"""The plan: hours per activity, dose, gas, disk, the images that fit, every limit that the recipe would hit.

What repeats is rehearsed once (an image of each rocking order, a round of each kind of refill, an element map) and
multiplied, so that a night of hundreds of images is planned in a fraction of a second. Decisions take what the recipe
expects: a refill every `expected_every` images.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from pydantic import Field

from instrument.errors import InstrumentError, Refused
from instrument.settings import Description, Model
from instrument.units import quantity, show
from workflows.limits import (
    current_of_film,
    disk_problem,
    fills,
    film_area,
    instrument_problems,
    looked_off,
    mark_field,
)
from workflows.recipe import Recipe, Slice, without
from workflows.recipe_errors import Problem
from workflows.reckon import Reckoner
from workflows.rehearsal import Account, Rehearsal

#: Order in which activities are told.
ACTIVITIES = ("block", "films", "cleaning", "slicing", "imaging", "EDS", "moves", "gas")
#: When slicing begins where nothing else is said: the evening of a night.
EVENING = "20:00"
#: A run stays armed for its estimate and this share more (DESIGN.md 3).
ARMED = 1.25
#: Labels, pictures and journal beside each image, as a share of its bytes: labels have 8 bit where images have 16 on
#: two detectors.
_BESIDE = 0.3
_MOST_IMAGES = 100_000


class Option(Model):
    """What another choice would give: a sentence, seconds per image, images in the same time."""

    choice: str
    seconds_per_image: float
    images_fit: int | None = None


class Plan(Model):
    """What a recipe takes on an instrument. Seconds, coulombs, bytes; `problems` empty means that it can be run.

    `images` are those asked for, `images_fit` those that fit the time given for slicing (None: no time was given),
    and all sums are for the smaller of both. `prelude_s` is everything before slicing, `after_s` what comes after the
    last slice and is in `slicing_s` too.
    """

    name: str
    instrument: str
    images: int = 0
    images_fit: int | None = None
    refills: int = 0
    maps: int = 0
    seconds: dict[str, float] = Field(default_factory=dict)
    prelude_s: float = 0.0
    slicing_s: float = 0.0
    after_s: float = 0.0
    charge_c: dict[str, float] = Field(default_factory=dict)
    gas_s: dict[str, float] = Field(default_factory=dict)
    currents_a: dict[str, float] = Field(default_factory=dict)
    bytes: int = 0
    moves: int = 0
    longest_pattern_s: float = 0.0
    spent_until: str | None = None
    options: tuple[Option, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def total_s(self) -> float:
        """All the instrument's time."""
        return sum(self.seconds.values())

    @property
    def images_planned(self) -> int:
        """The images that the sums are for."""
        return self.images if self.images_fit is None else min(self.images, self.images_fit)

    @property
    def closing_s(self) -> float:
        """How long a stop after the slice in hand takes, with what comes after the last one."""
        return self.after_s + (self.slicing_s - self.after_s) / max(1, self.images_planned)

    @property
    def armed_s(self) -> float:
        """How long a run of this plan stays armed."""
        return ARMED * self.total_s


class _Parts:
    """Accounts of everything that a recipe does once or again and again."""

    def __init__(self, recipe: Recipe, description: Description) -> None:
        self.rehearsal = Rehearsal(description)
        reckoner, slicing = Reckoner(recipe, self.rehearsal), recipe.slicing
        self.prelude, self.after = Account(), Account()
        self.image, self.refill, self.map = Account(), Account(), Account()
        self._do(self.prelude, reckoner.site)
        for step in recipe.steps:
            if step.protect is not None:
                protect = step.protect
                self._do(self.prelude, partial(reckoner.protect, protect))
            elif step.adopt is not None:
                self._do(self.prelude, partial(reckoner.adopt, slicing))
            elif step.block is not None:
                block = step.block
                self._do(self.prelude, partial(reckoner.block, block))
            elif step.infiltrate is not None and slicing is not None:
                fill = step.infiltrate
                once = Account()
                self._do(once, partial(reckoner.round, fill, slicing))
                self.prelude.add(once, fill.rounds)
            elif step.eds is not None:
                wanted = step.eds
                self._do(self.prelude, partial(reckoner.element_map, wanted, slicing))
            elif step.slice is not None:
                self._slicing(reckoner, step.slice)
        self._do(self.after, reckoner.finish)

    def _slicing(self, reckoner: Reckoner, slicing: Slice) -> None:
        warm = Account()
        self._do(warm, partial(reckoner.cut, slicing, 0, "electrode"))
        self.prelude.add(warm, slicing.cut.warm_up)
        self._do(Account(), partial(reckoner.image, slicing))
        self._do(self.image, partial(reckoner.image, slicing))
        if slicing.eds is not None:
            wanted = slicing.eds
            self._do(self.map, partial(reckoner.element_map, wanted, slicing))
        if slicing.refill is not None:
            refill = slicing.refill
            once = Account()
            self._do(once, partial(reckoner.round, refill, slicing))
            self.refill.add(once, refill.rounds)

    def _do(self, into: Account, activity: Callable[[], None]) -> None:
        with self.rehearsal.measured() as account:
            activity()
        into.add(account)

    def slicing_s(self, slicing: Slice, images: int) -> float:
        """Seconds from the first slice to the end, for so many images."""
        return (
            images * self.image.total_s
            + refills(slicing, images) * self.refill.total_s
            + maps(slicing, images) * self.map.total_s
            + self.after.total_s
        )

    def fitting(self, slicing: Slice, seconds: float) -> int:
        """Images that fit into so many seconds, refills and maps among them."""
        low, high = 0, _MOST_IMAGES
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.slicing_s(slicing, middle) <= seconds else (low, middle - 1)
        return low


def plan(
    recipe: Recipe,
    description: Description,
    *,
    start: datetime | None = None,
    finish_by: str | None = None,
    free_bytes: int | None = None,
    options: bool = True,
) -> Plan:
    """Plan a recipe on an instrument.

    Parameters
    ----------
    recipe, description : what is to be done, on what
    start : when slicing begins, for an end given as a time of day; None: 20:00
    finish_by : a time of day ("08:00") or a duration of slicing ("12 h"); None: as the recipe's `until` says
    free_bytes : what the disk has free; None: not checked
    options : whether to reckon other choices as well

    Raises
    ------
    ValueError
        When `finish_by` is no time. What is wrong with the recipe is in `Plan.problems`.
    """
    problems = instrument_problems(recipe, description)
    model = f"{description.model}{' (virtual)' if description.virtual else ''}"
    if problems:
        return Plan(name=recipe.name, instrument=model, problems=tuple(str(problem) for problem in problems))
    try:
        parts = _Parts(recipe, description)
    except (InstrumentError, ValueError) as error:
        return Plan(name=recipe.name, instrument=model, problems=(_sentence(error),))
    slicing = recipe.slicing
    latest = finish_by or (slicing.until.latest if slicing is not None else None)
    budget = None if latest is None else seconds_until(latest, start)
    fit = None if budget is None or slicing is None else parts.fitting(slicing, budget)
    asked = slicing.images if slicing is not None else 0
    images = asked if fit is None else min(asked, fit)
    total = _sum(parts, slicing, images)
    room = None if free_bytes is None else disk_problem(total.bytes, free_bytes)
    problems = [] if room is None else [room]
    if (worn := _worn_out(recipe, total)) is not None:
        problems.append(worn)
    if slicing is not None and images < 1:
        problems.append(_no_time(slicing, latest or "", parts))
    return Plan(
        name=recipe.name,
        instrument=model,
        images=asked,
        images_fit=fit,
        refills=0 if slicing is None else refills(slicing, images),
        maps=0 if slicing is None else maps(slicing, images),
        seconds={name: total.seconds[name] for name in ACTIVITIES if total.seconds.get(name)},
        prelude_s=parts.prelude.total_s,
        slicing_s=total.total_s - parts.prelude.total_s,
        after_s=parts.after.total_s,
        charge_c=dict(total.charge_c),
        gas_s=dict(total.gas_s),
        currents_a=film_currents(recipe, description),
        bytes=round(total.bytes),
        moves=round(total.counts.get("moves", 0)),
        longest_pattern_s=total.longest_s,
        spent_until=latest,
        options=_options(recipe, description, budget) if options and slicing is not None else (),
        problems=tuple(str(problem) for problem in problems),
    )


def refills(slicing: Slice, images: int) -> int:
    """Return how many refills a plan reckons with for so many images; none after the last one."""
    refill = slicing.refill
    if refill is None or images < 1:
        return 0
    every = max(refill.expected_every, refill.not_within)
    if refill.at_least_every is not None:
        every = min(every, refill.at_least_every)
    return min(refill.at_most, (images - 1) // every)


def maps(slicing: Slice, images: int) -> int:
    """Return how many element maps come within so many images."""
    eds = slicing.eds
    if eds is None:
        return 0
    if eds.at is not None:
        return sum(1 for image in eds.at if image <= images)
    return images // eds.every if eds.every is not None else 0


def seconds_until(latest: str, start: datetime | None = None) -> float:
    """Return the seconds of slicing until a time of day, from `start` (None: 20:00), or of a duration ("12 h").

    Raises
    ------
    ValueError
        When `latest` is neither.
    """
    found = re.fullmatch(r"(\d{2}):(\d{2})", latest)
    if found is None:
        return quantity(latest, "time")
    hour, minute = (int(part) for part in EVENING.split(":"))
    begin = start if start is not None else datetime(2000, 1, 1, hour, minute)  # noqa: DTZ001 - a time of day only
    end = begin.replace(hour=int(found[1]), minute=int(found[2]), second=0, microsecond=0)
    if end <= begin:
        end += timedelta(days=1)
    return (end - begin).total_seconds()


def film_currents(recipe: Recipe, description: Description) -> dict[str, float]:
    """Return the current (A) that each film takes from the list for its density."""
    chosen: dict[str, float] = {}
    protect = next((step.protect for step in recipe.steps if step.protect is not None), None)
    if protect is not None and protect.ion.density is not None:
        chosen["protect"] = current_of_film(protect.ion, film_area(recipe, protect), description)
    for name, fill in fills(recipe):
        if fill.density is not None:
            chosen[name] = current_of_film(fill, film_area(recipe, fill), description)
    return chosen


def lines(plan: Plan) -> list[str]:
    """Return the plan as sentences for a terminal."""
    if plan.problems:
        return list(plan.problems)
    told = [f"{plan.name}: {_hours(plan.total_s)} on {plan.instrument}, {_hours(plan.prelude_s)} of it before slicing"]
    told += [f"  {name:9} {_hours(plan.seconds[name]):>12}" for name in ACTIVITIES if name in plan.seconds]
    if plan.images:
        fit = f", {plan.images_fit} fit until {plan.spent_until}" if plan.images_fit is not None else ""
        per = f", {plan.slicing_s / max(1, plan.images_planned):.0f} s each with all that belongs to them"
        told.append(f"images: {plan.images} asked for{fit}{per}; {plan.refills} refills, {plan.maps} element maps")
    for name, current in plan.currents_a.items():
        told.append(f"film of {name}: {show(current, 'current', 3)}")
    gas = ", ".join(f"{name} {_hours(seconds)}" for name, seconds in plan.gas_s.items())
    told.append(f"gas: {gas or 'none'}; data: {plan.bytes / 1e9:.2f} GB; stage moves: {plan.moves}")
    dose = ", ".join(f"{name} {charge * 1e3:.3g} mC" for name, charge in plan.charge_c.items())
    told.append(f"ion dose: {dose or 'none'}; longest pattern {_hours(plan.longest_pattern_s)}, in pieces")
    for option in plan.options:
        more = f", {option.images_fit} images in the same time" if option.images_fit is not None else ""
        told.append(f"option: {option.choice}: {option.seconds_per_image:.0f} s an image{more}")
    return told


# -- private ----------------------------------------------------------------------------------------------------------


def _worn_out(recipe: Recipe, total: Account) -> Problem | None:
    """Return what is wrong where looks will take more off the mark than they may (night.md 9), None for nothing."""
    mark, made = recipe.fiducial, recipe.made
    if mark is None:
        return None
    worn = looked_off(total.looked_c, mark_field(mark.size)) + (made.worn if made is not None else 0.0)
    if worn <= mark.budget:
        return None
    taken, allowed = (show(one, "length", 2) for one in (worn, mark.budget))
    before = f", {show(made.worn, 'length', 2)} of it gone before," if made is not None and made.worn > 0 else ""
    return Problem(
        f"{'block' if recipe.adopt is None else 'adopt'}.fiducial.budget",
        f"{total.counts['looks']:.0f} looks will take about {taken} off the mark{before} and {allowed} are allowed",
        value=allowed, limit=taken,
        remedy="make it deeper and raise the budget, make it larger, or take fewer images or cuts",
    )  # fmt: skip


def _sum(parts: _Parts, slicing: Slice | None, images: int) -> Account:
    total = Account()
    total.add(parts.prelude)
    if slicing is not None:
        total.add(parts.image, images)
        total.add(parts.refill, refills(slicing, images))
        total.add(parts.map, maps(slicing, images))
        total.bytes *= 1.0 + _BESIDE
    total.add(parts.after)
    return total


def _options(recipe: Recipe, description: Description, budget: float | None) -> tuple[Option, ...]:
    slicing = recipe.slicing
    if slicing is None:
        return ()
    image = slicing.image
    other = "classic" if image.pose == "face-on" else "face-on"
    changed: list[tuple[str, Slice]] = [("as it stands", slicing)]
    changed.append((f"pose: {other}", slicing.replace(image=image.replace(pose=other))))
    if image.every > 1:
        thick = slicing.cut.replace(thickness=slicing.spacing)
        changed.append(("one cut per image", slicing.replace(cut=thick, image=image.replace(every=1))))
    if slicing.cut.rocking > 0:
        changed.append(("no rocking", slicing.replace(cut=slicing.cut.replace(rocking=0.0))))
    found = []
    for choice, one in changed:
        steps = tuple(step.replace(slice=one) if step.slice is not None else step for step in recipe.steps)
        found.append(_option(choice, recipe.replace(steps=steps), description, budget))
    if slicing.refill is not None:
        found.append(_option("no refill", without(recipe, "refill"), description, budget))
    return tuple(option for option in found if option is not None)


def _option(choice: str, recipe: Recipe, description: Description, budget: float | None) -> Option | None:
    slicing = recipe.slicing
    if slicing is None or instrument_problems(recipe, description):
        return None
    parts = _Parts(recipe, description)
    count = max(1, slicing.images)
    per = parts.slicing_s(slicing, count) / count
    fit = None if budget is None else parts.fitting(slicing, budget)
    return Option(choice=choice, seconds_per_image=per, images_fit=fit)


def _no_time(slicing: Slice, latest: str, parts: _Parts) -> Problem:
    need = parts.slicing_s(slicing, 1)
    return Problem(
        "slice.until.or", f"not one image fits until {latest}: one takes {_hours(need)}", latest,
        f"at least {_hours(need)}", "give a later end",
    )  # fmt: skip


def _sentence(error: Exception) -> str:
    return error.message if isinstance(error, Refused) else str(error)


def _hours(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
