"""The X-ray program beside the emulated microscope, as the vendor's `Laser.PythonControl` asks it.

What it maps is set up in it beforehand, as in a real one: here by KINTSUGI_AUTOSCRIPT_MAP (see `simulator.autoscript`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from instrument.errors import InstrumentError
from instrument.settings import EdsScan
from instrument.units import quantity
from simulator.autoscript import console as consoles
from simulator.autoscript.elements import VirtualElements
from simulator.autoscript.tree import ApplicationServerException, serving

_VARIABLE = "KINTSUGI_AUTOSCRIPT_MAP"
_EXAMPLE = "FOLDER?elements=C,O,Ni&size=256x192&dwell=1 ms&frames=2"


def set_up(text: str, hfw_m: float, tilt_rad: float) -> tuple[Path, EdsScan]:
    """Return the folder of exports and the map that are set up by such a text as `_EXAMPLE`.

    It is of the middle of the field, over all its width `hfw_m`, with `tilt_rad` corrected.

    Raises
    ------
    ApplicationServerException : the text can't be read, or its folder is not there
    """
    name, _, query = text.partition("?")
    try:
        given = dict(parse_qsl(query, strict_parsing=True))
        wide, high = (int(one) for one in given["size"].split("x"))
        scan = EdsScan(
            elements=tuple(given["elements"].split(",")), width_px=wide, height_px=high, pixel_m=hfw_m / wide,
            dwell_s=quantity(given["dwell"], "time"), frames=int(given["frames"]), tilt_correction_rad=tilt_rad,
        )  # fmt: skip
    except (ArithmeticError, KeyError, ValueError) as error:
        msg = f"the virtual X-ray program can't read {_VARIABLE}={text!r} ({error}); write it as {_EXAMPLE!r}"
        raise ApplicationServerException(msg) from error
    if not (folder := Path(name)).is_dir():
        msg = f"the virtual X-ray program exports into {name!r} ({_VARIABLE}), which is no folder; make it first"
        raise ApplicationServerException(msg)
    return folder, scan


class XrayControl:
    """Detector and maps of the microscope that was opened last in this process."""

    def __init__(self) -> None:
        self._mapping: Thread | None = None
        self._failed = False
        self._seen = True

    def test_connection(self) -> None:
        """Say that it answers, in the vendor's words."""
        print("Connection test successful.")  # noqa: T201 - the vendor's own words, on stdout

    def camera_status(self) -> str:
        return "Inserted" if VirtualElements(consoles.at_hand()).is_in() else "Retracted"

    def insert_camera(self) -> None:
        with serving():
            VirtualElements(consoles.at_hand()).insert()

    def retract_camera(self) -> None:
        with serving():
            VirtualElements(consoles.at_hand()).retract()

    def mapping_status(self) -> str:
        """Active, Idle or Error. A start is seen as Active once at least, however short the map."""
        if not self._seen or (self._mapping is not None and self._mapping.is_alive()):
            self._seen = True
            return "Active"
        return "Error" if self._failed else "Idle"

    def start_map(self) -> None:
        """Start the map that is set up; what goes wrong with it later is told by the status, and on stderr."""
        if self._mapping is not None and self._mapping.is_alive():
            msg = "an element map is being taken already; wait for its end"
            raise ApplicationServerException(msg)
        console = consoles.at_hand()
        column = console.columns[1]
        tilt = console.correction(column) if column.tilt_correction.is_on else 0.0
        with serving():
            hfw = console.beam(1).settings.hfw_m or 0.0
        folder, scan = set_up(os.environ.get(_VARIABLE, ""), hfw, tilt)
        self._failed, self._seen = False, False
        self._mapping = Thread(target=self._map, args=(console, scan, folder), name="element map", daemon=True)
        self._mapping.start()

    def _map(self, console: consoles.Console, scan: EdsScan, folder: Path) -> None:
        try:
            _export(VirtualElements(console).map(scan), scan.elements, folder)
        except (InstrumentError, OSError) as error:
            self._failed = True
            sys.stderr.write(f"virtual X-ray program: {error}\n")


def _export(counts: NDArray[Any], elements: tuple[str, ...], folder: Path) -> None:
    """Write counts (element, y, x) as one TIFF per element under the next free number: map003_Ni.tif."""
    import tifffile

    number = len(list(folder.glob(f"map*_{elements[0]}.tif"))) + 1
    for element, of_it in zip(elements, counts, strict=True):
        tifffile.imwrite(folder / f"map{number:03d}_{element}.tif", np.asarray(of_it), photometric="minisblack")


#: The one program of this process.
control = XrayControl()
