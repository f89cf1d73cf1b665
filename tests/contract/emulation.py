"""The AutoScript backend on the emulation, in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import simulator
from instrument.autoscript.microscope import AutoscriptMicroscope
from simulator.autoscript import client_path, console
from simulator.autoscript.profiles import profile

_PORTS = count(7600)


def vendor_named() -> None:
    """Make `import autoscript_sdb_microscope_client` find the emulation, as PYTHONPATH does for a user."""
    if str(client_path()) not in sys.path:
        sys.path.insert(0, str(client_path()))


@contextmanager
def emulated(url: str, state: Path | None = None, kind: str = "hydra") -> Iterator[AutoscriptMicroscope]:
    """A virtual microscope, driven through the vendor's client as emulated."""
    vendor_named()
    port = next(_PORTS)
    console.put("contract", port, console.Console(simulator.open(url, state), profile(kind)))
    microscope = AutoscriptMicroscope("contract", port)
    try:
        yield microscope
    finally:
        microscope.close()
        console.forget("contract", port)
