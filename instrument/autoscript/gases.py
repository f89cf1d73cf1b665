"""Gases through the client: one MultiChem with several gases, or a port with a needle each.

The client tells temperatures, not valves nor duty: what was opened here is remembered here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from instrument.errors import Refused
from instrument.settings import GasState

#: A crucible warmer than this is heated (K); in use once it has not warmed by more than this for so long (K, s).
HOT_K, STEADY_K, STEADY_S = 303.0, 0.5, 30.0
#: Heating is given up after so many times its usual length.
PATIENCE = 3.0


@dataclass
class Book:
    """What is remembered of one gas: heater, readiness, duty, valve, seconds open."""

    heater_on: bool = False
    ready: bool = False
    duty: float = 1.0
    valve_open: bool = False
    open_s: float = 0.0
    opened_at: float | None = None


@dataclass
class Gases:
    """The gases of a microscope, by their names; every method is called in the connection's thread.

    Parameters
    ----------
    gas : the client's `gas`
    """

    gas: Any
    books: dict[str, Book] = field(default_factory=dict)
    _ports: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.multichem = self.gas.get_multichem() if list(self.gas.list_all_multichem_ports()) else None
        if self.multichem is not None:
            names = [str(one) for one in self.gas.list_all_multichem_ports()]
        else:
            self._ports = {str(one).removesuffix(" dep").strip(): str(one) for one in self.gas.list_all_gis_ports()}
            names = list(self._ports)
        self.books = {name: Book() for name in names}
        for name, book in self.books.items():
            if self.kelvin(name) > HOT_K:  # somebody has heated it before
                book.heater_on = book.ready = True

    @property
    def names(self) -> tuple[str, ...]:
        """The gases there are."""
        return tuple(self.books)

    def book(self, name: str) -> Book:
        """Return what is remembered of a gas; Refused for one that there isn't."""
        if name not in self.books:
            known = ", ".join(self.books) or "none"
            msg = f"there is no gas {name!r} on this microscope; it has {known}"
            raise Refused(msg, rule="gas-lacking", field="gas", value=name, limit=known, remedy="use one of these")
        return self.books[name]

    def states(self, now_s: float, *, needle_in: bool) -> dict[str, GasState]:
        """Return all gases as remembered at a time (s); with all needles out nothing flows, whoever shut it."""
        return {
            name: GasState(
                heater_on=one.heater_on, ready=one.ready, duty=one.duty, valve_open=one.valve_open and needle_in,
                open_s=one.open_s + (now_s - one.opened_at if one.opened_at is not None else 0.0),
            )
            for name, one in self.books.items()
        }  # fmt: skip

    # -- needles ------------------------------------------------------------------------------------------------------

    def insert(self, position: str | None, now_s: float) -> None:
        """Insert the MultiChem's needle; a port's comes in when its valve is to open.

        Whoever took it out has shut its valve, whatever is remembered.
        """
        for needle in sources(self.gas)[:1]:
            if str(needle.state) != "Inserted":
                self.all_shut(now_s)
                needle.insert(position) if position is not None else needle.insert()

    def retract(self) -> None:
        """Retract whatever is inserted."""
        for needle in sources(self.gas):
            if str(needle.state) != "Retracted":
                needle.retract()

    # -- heat and valves ----------------------------------------------------------------------------------------------

    def kelvin(self, name: str) -> float:
        """Return a crucible's temperature, K."""
        if self.multichem is not None:
            return float(self.multichem.get_temperature(name))
        return float(self._port(name).get_temperature())

    def heat(self, name: str, *, on: bool) -> None:
        """Switch a heater."""
        book = self.book(name)
        if self.multichem is not None:
            self.multichem.turn_heater_on(name) if on else self.multichem.turn_heater_off(name)
        else:
            self._port(name).turn_heater_on() if on else self._port(name).turn_heater_off()
        book.heater_on = on
        book.ready = book.ready and on

    def valve(self, name: str, now_s: float, *, open_it: bool) -> None:
        """Open or shut a gas's valve. A MultiChem shuts all at once: when the last of ours is to be shut."""
        book = self.book(name)
        source = self.multichem if self.multichem is not None else self._port(name)
        if open_it:
            if self.multichem is not None:
                self.multichem.turn_heater_on(name)  # the gas that was named last is the one that opens
            elif str(source.state) != "Inserted":
                source.insert()
            source.open()
        elif self.multichem is None or not [n for n, one in self.books.items() if one.valve_open and n != name]:
            source.close()
        self._booked(book, now_s, open_it=open_it)

    def shut(self, now_s: float) -> None:
        """Shut all valves, whatever is remembered."""
        for source in sources(self.gas):
            source.close()
        self.all_shut(now_s)

    def all_shut(self, now_s: float) -> None:
        """Remember that all valves are shut."""
        for book in self.books.values():
            self._booked(book, now_s, open_it=False)

    def _port(self, name: str) -> Any:
        return self.gas.get_gis_port(self._ports[name])

    @staticmethod
    def _booked(book: Book, now_s: float, *, open_it: bool) -> None:
        if open_it and book.opened_at is None:
            book.opened_at = now_s
        if not open_it and book.opened_at is not None:
            book.open_s += now_s - book.opened_at
            book.opened_at = None
        book.valve_open = open_it


def source_names(gas: Any) -> list[str | None]:
    """Return the names of what gases come from, of the client's `gas`: all of its ports, or None for its MultiChem."""
    return [None] if list(gas.list_all_multichem_ports()) else [str(one) for one in gas.list_all_gis_ports()]


def source(gas: Any, name: str | None) -> Any:
    """Return what a gas comes from, by one of `source_names`."""
    return gas.get_multichem() if name is None else gas.get_gis_port(name)


def sources(gas: Any) -> list[Any]:
    """Return what gases come from, of the client's `gas`: its MultiChem, or all of its ports."""
    return [source(gas, name) for name in source_names(gas)]


def needle_is_in(gas: Any) -> bool:
    """Tell whether any needle is inserted, of the client's `gas`."""
    return any(str(one.state) == "Inserted" for one in sources(gas))


__all__ = [
    "HOT_K", "PATIENCE", "STEADY_K", "STEADY_S", "Book", "Gases", "needle_is_in", "source", "source_names", "sources",
]  # fmt: skip
