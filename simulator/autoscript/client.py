"""SdbMicroscopeClient: connects to a place, and has the whole tree below it."""

from __future__ import annotations

from typing import Any

from instrument.settings import Recovery
from simulator.autoscript import console as consoles
from simulator.autoscript.beams import Beams
from simulator.autoscript.console import Console
from simulator.autoscript.elements import VirtualElements
from simulator.autoscript.gas import Gas
from simulator.autoscript.imaging import AutoFunctions, Detector, Imaging
from simulator.autoscript.patterning import Patterning
from simulator.autoscript.stage import Specimen
from simulator.autoscript.structures import Limits, meant
from simulator.autoscript.tree import Node, Setting, serving

#: What it says it is: the first version with Python 3.11.
VERSION = "4.13.1"
HOST, PORT = "localhost", 7520
#: What a client holds beside the tree.
_OWN = ("server_host", "server_port")


class SdbMicroscopeClient:
    """The client. Before `connect` it has no microscope; several clients of one place share one."""

    def __init__(self) -> None:
        self._console: Console | None = None
        self._tree: dict[str, Node] = {}
        self.server_host: str | None = None
        self.server_port: int | None = None

    def connect(self, host: str = HOST, port: int | str = PORT) -> None:
        """Connect to a microscope; the first connection to a place opens it."""
        number = int(port) if str(port).strip() else PORT
        print(f"Client connecting to [{host}:{number}]...")  # noqa: T201 - the client's own words, on stdout
        with serving():
            self._console = consoles.console(host, number)
        console = self._console
        if console.patterning is None:
            console.patterning = Patterning(console)
        self._tree = {
            "beams": Beams(console), "specimen": Specimen(console), "imaging": Imaging(console),
            "detector": Detector(console), "patterning": console.patterning, "gas": Gas(console),
            "auto_functions": AutoFunctions(console), "vacuum": _Vacuum(console), "state": _State(console),
            "service": _service(console),
        }  # fmt: skip
        self.server_host, self.server_port = host, number
        print(f"Client connected to [{host}:{number}]")  # noqa: T201 - the client's own words, on stdout

    def disconnect(self) -> None:
        """Let go of the microscope, which stays as it is."""
        self._console, self._tree = None, {}
        self.server_host = self.server_port = None
        print("Client disconnected")  # noqa: T201 - the client's own words, on stdout

    @property
    def virtual_clock(self) -> Any:
        """The virtual microscope's clock: what tells a client that it does not speak with a real one."""
        return None if self._console is None else self._console.scope.clock

    @property
    def virtual_elements(self) -> Any:
        """The virtual X-ray system, which no real client brings along."""
        return None if self._console is None else VirtualElements(self._console)

    def __getattr__(self, name: str) -> Any:
        tree = self.__dict__.get("_tree", {})
        if name in tree:
            return tree[name]
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__dict__.get("_console") is None:
            msg = f"microscope.{name}: the client is not connected; call connect() first"
        else:
            near = meant(name, (*tree, *dir(type(self))))
            msg = f"microscope.{name} is not there: this microscope lacks it, or the emulation does{near}"
        raise AttributeError(msg)

    def __setattr__(self, name: str, value: Any) -> None:
        kind = type(self)  # a subclass may have attributes of its own
        if kind is SdbMicroscopeClient and not name.startswith("_") and name not in _OWN and not hasattr(kind, name):
            near = meant(name, (*_OWN, *self._tree))
            msg = f"microscope.{name} is not there and can't be set to {value!r}{near}"
            raise AttributeError(msg)
        object.__setattr__(self, name, value)


class _Vacuum(Node):
    """`vacuum`."""

    def __init__(self, console: Console) -> None:
        super().__init__("microscope.vacuum")
        self.with_members(
            _console=console,
            chamber_pressure=Setting(
                "microscope.vacuum.chamber_pressure",
                lambda: 1e5 if console.vented else console.state().pressure_pa, limits=Limits(0.0, 10.0),
            ),
        )  # fmt: skip

    @property
    def chamber_state(self) -> str:
        return "Vented" if self._console.vented else "Pumped"

    def pump(self, settings: Any = None) -> None:
        del settings
        with serving():
            self._console.scope.recover(Recovery.PUMP)
        self._console.vented = False

    def vent(self) -> None:
        for index in (1, 2):
            self._console.set_beam(index, source_on=False)
        self._console.vented = True


class _State(Node):
    """`state`."""

    def __init__(self, console: Console) -> None:
        super().__init__("microscope.state")
        current = Setting("microscope.state.specimen_current", lambda: self._specimen_current(), is_valid=True)
        pressure = Setting("microscope.state.chamber_pressure", lambda: console.state().pressure_pa)
        self.with_members(_console=console, specimen_current=current, chamber_pressure=pressure)

    def _specimen_current(self) -> float:
        """Return the share of the scanning beam's current that stays in the sample, A; 0 while nothing scans."""
        for view in self._console.views.values():
            if view.live is not None:
                return 0.8 * float(self._console.beam(view.device).measured_current_a)
        return 0.0


def _service(console: Console) -> Node:
    path = "microscope.service"
    system, autoscript = Node(f"{path}.system"), Node(f"{path}.autoscript")
    system.with_members(
        name=console.profile.model, serial_number=f"VIRTUAL-{console.described.serial}", version="30.1 (virtual)"
    )
    client, server = Node(f"{path}.autoscript.client"), Node(f"{path}.autoscript.server")
    client.with_members(version=VERSION)
    server.with_members(version=VERSION)
    autoscript.with_members(client=client, server=server)
    node = Node(path)
    node.with_members(system=system, autoscript=autoscript)
    return node
