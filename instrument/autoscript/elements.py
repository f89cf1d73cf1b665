"""The seam to the X-ray system: AutoScript has none, so element maps come from elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from instrument.autoscript.xray import EXPORT_S, XrayProgram
from instrument.errors import BadData, DeviceFault, TimedOut
from instrument.process import eds_seconds
from instrument.settings import EdsScan, MapStarter

#: A file is complete when it has not grown for so long (s).
_STILL_S = 5.0
_KINDS = (".h5oina", ".tif", ".tiff")


@runtime_checkable
class ElementMapper(Protocol):
    """An X-ray system beside the microscope."""

    @property
    def maps_by(self) -> MapStarter | None:
        """Who starts its maps, None where it does so itself."""

    def is_in(self) -> bool:
        """Tell whether its detector is inserted."""

    def insert(self) -> None:
        """Insert its detector and wait for it."""

    def retract(self) -> None:
        """Retract its detector and wait for it."""

    def map(self, scan: EdsScan) -> NDArray[np.uint16]:
        """Take maps over the field that the electron column is set to; return counts (element, y, x)."""


@dataclass
class FolderMapper:
    """An X-ray program that exports into a folder.

    Parameters
    ----------
    folder : where its maps appear: one .h5oina file, or one TIFF per element, its symbol last in its name (map_Ni.tif)
    program : moves the detector and starts maps
    """

    folder: Path
    program: XrayProgram

    @property
    def maps_by(self) -> MapStarter:
        """Who starts its maps."""
        return self.program.kind

    def is_in(self) -> bool:
        """Tell whether its detector is inserted."""
        return self.program.is_in()

    def insert(self) -> None:
        """Insert its detector."""
        self.program.insert()

    def retract(self) -> None:
        """Retract its detector."""
        self.program.retract()

    def map(self, scan: EdsScan) -> NDArray[np.uint16]:
        """Start a map, wait for its export, and read it."""
        before = set(self._exports())
        self.program.start(scan)
        deadline = time.monotonic() + eds_seconds(scan) + EXPORT_S
        pause = Event()
        while time.monotonic() < deadline:
            new = [path for path in self._exports() if path not in before and _is_still(path)]
            whole = [path for path in new if path.suffix == ".h5oina"]
            if whole:
                return _fitted(_read_oina(whole[0], scan.elements), scan)
            by_element = {path.stem.rpartition("_")[2]: path for path in new}
            if all(element in by_element for element in scan.elements):
                return _fitted(_read_tiffs([by_element[one] for one in scan.elements]), scan)
            pause.wait(1.0)
        msg = f"no export of {', '.join(scan.elements)} appeared in {self.folder}; look at the X-ray program"
        raise TimedOut(msg, folder=str(self.folder))

    def _exports(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.suffix.lower() in _KINDS)


def _is_still(path: Path) -> bool:
    """Tell whether a file has not been written to for a while, by the file system's own time."""
    return path.stat().st_size > 0 and time.time() - path.stat().st_mtime >= _STILL_S


def _read_tiffs(paths: list[Path]) -> NDArray[Any]:
    import tifffile

    try:
        return np.stack([np.asarray(tifffile.imread(path)) for path in paths])
    except (ValueError, OSError, tifffile.TiffFileError) as error:
        msg = f"an exported map can't be read: {error}"
        raise BadData(msg, files=[path.name for path in paths]) from error


def _read_oina(path: Path, elements: tuple[str, ...]) -> NDArray[Any]:
    """Read window integrals of elements from an .h5oina file: groups by element below .../Window Integral."""
    try:
        import h5py
    except ImportError as error:
        msg = f"{path.name} needs the package h5py to be read; install it, or export TIFF files"
        raise DeviceFault(msg, package="h5py") from error
    try:
        with h5py.File(path, "r") as file:
            windows = file["1/EDS/Data/Window Integral"]
            header = file["1/EDS/Header"]
            size = (int(np.ravel(header["Y Cells"])[0]), int(np.ravel(header["X Cells"])[0]))
            found = {name.split()[0]: np.asarray(windows[name]).reshape(size) for name in windows}
    except (OSError, KeyError, ValueError) as error:
        msg = f"{path.name} can't be read as an export of element maps: {error}"
        raise BadData(msg, file=path.name) from error
    lacking = [one for one in elements if one not in found]
    if lacking:
        msg = f"{path.name} has no map of {', '.join(lacking)}; it has {', '.join(found)}"
        raise BadData(msg, file=path.name)
    return np.stack([found[one] for one in elements])


def _fitted(maps: NDArray[Any], scan: EdsScan) -> NDArray[np.uint16]:
    wanted = (len(scan.elements), scan.height_px, scan.width_px)
    if maps.shape != wanted:
        msg = f"element maps are {maps.shape} (element, y, x), not {wanted} as asked"
        raise BadData(msg, shape=list(maps.shape), wanted=list(wanted))
    if maps.min() < 0 or maps.max() > 65535:
        msg = f"element maps reach from {maps.min():g} to {maps.max():g}, which are no counts of 16 bit"
        raise BadData(msg)
    return maps.astype(np.uint16)
