"""The virtual X-ray system beside the emulated microscope: an `ElementMapper` of `instrument.autoscript.elements`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from instrument.settings import Device, EdsScan
from simulator.autoscript.console import Console
from simulator.autoscript.images import Branch


class VirtualElements:
    """It is called directly, as an X-ray program would be: AutoScript has no part in it, and nobody starts its maps."""

    maps_by = None

    def __init__(self, console: Console) -> None:
        self._scope = console.scope
        #: what is known of the last map
        self.last: Branch | None = None

    def is_in(self) -> bool:
        """Tell whether its detector is inserted."""
        return self._scope.state().devices[Device.EDS]

    def insert(self) -> None:
        """Insert its detector."""
        self._scope.insert(Device.EDS)

    def retract(self) -> None:
        """Retract its detector."""
        self._scope.retract(Device.EDS)

    def map(self, scan: EdsScan) -> NDArray[np.uint16]:
        """Take maps; return counts (element, y, x)."""
        frame = self._scope.acquire_eds(scan)
        self.last = Branch(metadata=Branch(acquisition=Branch(uid=frame.meta.uid)))
        return np.asarray(frame.pixels)
