"""`gas`: a MultiChem with several gases and one needle, or a port with a needle each."""

from __future__ import annotations

from typing import Any

from instrument.process import HEAT_S
from instrument.settings import Device, GasSetting
from simulator.autoscript.console import Console
from simulator.autoscript.tree import ApplicationServerException, Node, serving

#: Temperature of the room and of a crucible in use (physics.md 1.5: platinum 38-50 C), K.
_ROOM_K, _HOT_K = 295.0, 318.0
#: A crucible's wall is hot after this share of the time that its content takes, and lukewarm (K) within this time (s):
#: open clients wait 15 s for 300 K.
_WALL, _LUKEWARM_K, _SOON_S = 0.94, 301.0, 8.0


class Gas(Node):
    """`gas`."""

    def __init__(self, console: Console) -> None:
        super().__init__("microscope.gas")
        names = console.described.gases
        multichem = console.profile.gas == "multichem"
        self.with_members(
            _console=console, is_multichem_pid_enabled=False, _multichem=_MultiChem(console) if multichem else None,
            _ports={} if multichem else {f"{name} dep": _Port(console, name) for name in names},
        )  # fmt: skip

    def list_all_gis_ports(self) -> list[str]:
        return list(self._ports)

    def list_all_multichem_ports(self) -> list[str]:
        return list(self._console.described.gases) if self._multichem is not None else []

    def get_gis_port(self, name: str) -> _Port:
        if name not in self._ports:
            msg = f"there is no GIS port {name!r}; there are: {', '.join(self._ports) or 'none'}"
            raise ApplicationServerException(msg)
        port: _Port = self._ports[name]
        return port

    def get_multichem(self) -> _MultiChem:
        if self._multichem is None:
            msg = "no MultiChem is installed on this microscope"
            raise ApplicationServerException(msg)
        multichem: _MultiChem = self._multichem
        return multichem


class _Needle(Node):
    """What both kinds have: one needle, and heaters that take their time without anybody waiting."""

    def __init__(self, console: Console, path: str) -> None:
        super().__init__(path)
        self.with_members(_console=console)

    @property
    def state(self) -> str:
        return "Inserted" if self._console.state().devices[Device.NEEDLE] else "Retracted"

    def insert(self, position: Any = None) -> None:
        del position
        with serving():
            self._console.scope.insert(Device.NEEDLE)

    def retract(self) -> None:
        with serving():
            self._console.scope.retract(Device.NEEDLE)

    def _heat(self, name: str) -> None:
        with serving():
            self._console.scope.warm(name)

    def _cool(self, name: str) -> None:
        with serving():
            self._console.scope.set_gas(name, GasSetting(heater_on=False))

    def _kelvin(self, name: str) -> float:
        held = self._console.state().gases[name]
        if held.ready:
            return _HOT_K
        if not held.heater_on:
            return _ROOM_K
        share = float(self._console.scope.warm_share(name))
        soon = (_LUKEWARM_K - _ROOM_K) * min(1.0, share * HEAT_S / _SOON_S)
        return _ROOM_K + max(soon, (_HOT_K - _ROOM_K) * min(1.0, share / _WALL))

    def _valve(self, name: str, *, open_it: bool) -> None:
        with serving():
            self._console.scope.set_gas(name, GasSetting(valve_open=open_it))


class _MultiChem(_Needle):
    """One needle; gases by name. `open` is for the gas whose heater was turned on last, `close` for all."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, "microscope.gas.get_multichem()")
        self.with_members(_heated=None)

    def list_all_gases(self) -> list[str]:
        return list(self._console.described.gases)

    def turn_heater_on(self, gas_name: str) -> None:
        self._known(gas_name)
        self.__dict__["_heated"] = str(gas_name)
        self._heat(str(gas_name))

    def turn_heater_off(self, gas_name: str | None = None) -> None:
        name = gas_name or self._heated
        if name is not None:
            self._known(name)
            self._cool(str(name))

    def get_temperature(self, gas_name: str) -> float:
        self._known(gas_name)
        return self._kelvin(str(gas_name))

    def open(self) -> None:
        name = self._heated
        if name is None:
            msg = "the MultiChem has no gas to open: turn a heater on first"
            raise ApplicationServerException(msg)
        if not self._console.state().gases[name].valve_open:
            self._valve(name, open_it=True)

    def close(self) -> None:
        for name, held in self._console.state().gases.items():
            if held.valve_open:
                self._valve(name, open_it=False)

    def _known(self, name: str) -> None:
        if name not in self._console.described.gases:
            msg = f"the MultiChem has no gas {name!r}; it has {', '.join(self._console.described.gases)}"
            raise ApplicationServerException(msg)


class _Port(_Needle):
    """One gas with its own needle (all move together here: the virtual microscope has one)."""

    def __init__(self, console: Console, name: str) -> None:
        super().__init__(console, f"microscope.gas.get_gis_port({name + ' dep'!r})")
        self.with_members(_name=name)

    def turn_heater_on(self, target: float | None = None, timeout: float | None = None) -> None:
        del target, timeout
        self._heat(self._name)

    def turn_heater_off(self) -> None:
        self._cool(self._name)

    def get_temperature(self) -> float:
        return self._kelvin(self._name)

    def open(self) -> None:
        self._valve(self._name, open_it=True)

    def close(self) -> None:
        if self._console.state().gases[self._name].valve_open:
            self._valve(self._name, open_it=False)
