"""The AutoScript backend on the emulation, in this process."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import simulator
from instrument.autoscript.microscope import AutoscriptMicroscope
from simulator.autoscript import client_path, console
from simulator.autoscript.profiles import profile

_PORTS = count(7600)
#: A microscope with next to nothing in it, for tests of the client itself; built once.
BARE = "simulator:3?width=6um&height=5um&depth=1um&coating=4um&above=1um&voxel=100nm&layer=100nm"
_BARE: list[console.Console] = []


def vendor_named() -> None:
    """Make `import autoscript_sdb_microscope_client` find the emulation, as PYTHONPATH does for a user."""
    if str(client_path()) not in sys.path:
        sys.path.insert(0, str(client_path()))


@contextmanager
def emulated(
    url: str, state: Path | None = None, kind: str = "hydra", place: tuple[str, int] | None = None
) -> Iterator[AutoscriptMicroscope]:
    """A virtual microscope, driven through the vendor's client as emulated, at a host and port (its own by default)."""
    vendor_named()
    host, port = place or ("contract", next(_PORTS))
    console.put(host, port, console.Console(simulator.open(url, state), profile(kind)))
    microscope = AutoscriptMicroscope(host, port)
    try:
        yield microscope
    finally:
        microscope.close()
        console.forget(host, port)


@contextmanager
def client(kind: str = "hydra", url: str | None = None) -> Iterator[Any]:
    """A connected client of a virtual microscope, as a script has it; without a URL all share one."""
    vendor_named()
    module = importlib.import_module("autoscript_sdb_microscope_client")
    port = next(_PORTS)
    if url is None and not _BARE:
        _BARE.append(console.Console(simulator.open(BARE), profile("hydra")))
    shared = (
        _BARE[0] if url is None and kind == "hydra" else console.Console(simulator.open(url or BARE), profile(kind))
    )
    console.put("localhost", port, shared)
    scope = module.SdbMicroscopeClient()
    scope.connect("localhost", port)
    try:
        yield scope
    finally:
        scope.disconnect()
