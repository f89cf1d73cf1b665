"""Element maps that a person takes, while the microscope is in their hands."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instrument import durable
from instrument.autoscript.elements import Exports, Stamp, collected
from instrument.autoscript.refusing import refused
from instrument.errors import NotReached, TimedOut
from instrument.settings import EdsScan, MapStarter

#: An export that a person has said to be there is seen and at rest within so long (s).
SHARED_S = 120.0


@dataclass
class PersonMapper:
    """An X-ray program that nothing but a person works, and the folder that they export into.

    Nobody can tell where its detector is: it counts as in from when the microscope is handed over, by `insert`, until
    the map is collected, which is done on the person's word that the detector is out; `retract` is refused before. What
    comes into the folder in between is the map.

    Parameters
    ----------
    folder : where maps appear, as `FolderMapper` takes them
    state : where it is kept what the folder held before, as a map outlasts a server; None: in memory only
    """

    folder: Path
    state: Path | None = None
    maps_by: MapStarter = field(default="person", init=False)
    _before: dict[str, Stamp] | None = field(default=None, init=False)
    _collected: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if self.state is not None and self._note.exists():
            noted = json.loads(self._note.read_text(encoding="utf-8"))
            self._before = {name: Stamp(*stamp) for name, stamp in noted.items()}

    def is_in(self) -> bool:
        """Tell whether the microscope is handed over, so that the detector may be in."""
        return self._before is not None

    def insert(self) -> None:
        """Hand over: what the folder holds now is no part of the map."""
        if self._before is not None:
            return
        self._before, self._collected = Exports(self.folder).before, False
        if self.state is not None:
            durable.atomic_write_bytes(self._note, json.dumps(self._before).encode())

    def retract(self) -> None:
        """Take back what was collected; NotReached while a person has the microscope in hand."""
        if self._before is not None and not self._collected:
            forget = "" if self.state is None else f"remove {self._note} and "
            msg = (
                "the X-ray detector may be in: a map was asked of a person, and is not collected; answer and resume "
                f"the run that asked, or with the detector out {forget}restart the instrument's server"
            )
            raise NotReached(msg, device="EDS")
        self._before = None
        if self.state is not None:
            self._note.unlink(missing_ok=True)

    def map(self, scan: EdsScan) -> NDArray[np.uint16]:
        """Return what the person has exported since the microscope was handed over.

        Raises
        ------
        Refused : it was not handed over
        NotReached : nothing has come for all elements
        BadData : it is not as asked for
        """
        if self._before is None:
            raise refused("handed-over", "eds", "no map was asked for", "handed over", "insert EDS, then ask a person")
        try:
            counts = collected(Exports(self.folder, self._before), scan, SHARED_S)
        except TimedOut as error:
            msg = f"{error.message}; export the map there, then resume"
            raise NotReached(msg, device="EDS", folder=str(self.folder)) from error
        self._collected = True
        return counts

    @property
    def _note(self) -> Path:
        return (self.state or self.folder) / "map-by-hand.json"
