"""The seam to the X-ray system: AutoScript has none, so element maps come from elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from instrument.autoscript import element_files as files
from instrument.autoscript.xray import EXPORT_S, XrayProgram
from instrument.errors import BadData, DeviceFault, TimedOut
from instrument.process import eds_seconds
from instrument.settings import EdsScan, MapStarter

#: A file is complete when it has not grown for so long (s).
_STILL_S = 5.0


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
    folder : where its maps appear: one .h5oina file; one TIFF per element, its symbol last in its name (map_Ni.tif); or
        one TIFF whose pages or OME channels are named by element. Frames are summed
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
        exports = Exports(self.folder)
        self.program.start(scan)
        return collected(exports, scan, eds_seconds(scan) + EXPORT_S)


def collected(exports: Exports, scan: EdsScan, within_s: float) -> NDArray[np.uint16]:
    """Wait for the export of a map and return its counts (element, y, x); of several the newest.

    Raises
    ------
    TimedOut : none came within so many seconds
    BadData : it can't be read, is not as asked for, or is a stack of which nobody can tell what its pages are
    """
    deadline, pause = time.monotonic() + within_s, Event()
    while time.monotonic() < deadline:
        counts = _counts_in(exports.ready(), scan.elements)
        if counts is not None:
            return _fitted(counts, scan)
        pause.wait(1.0)
    msg = f"no export of {', '.join(scan.elements)} appeared in {exports.folder}; look at the X-ray program"
    raise TimedOut(msg, folder=str(exports.folder))


def _counts_in(new: list[Path], elements: tuple[str, ...]) -> NDArray[np.float64] | None:
    """Return the counts (element, y, x) of the newest export among files, newest last; None: it is not all there."""
    single = [path for path in new if files.of_one_element(path, elements)]
    by_element = {files.element_of(path): path for path in single}
    all_there = all(element in by_element for element in elements)
    pages = {path: files.pages_of(path) for path in new if path not in single and not files.is_oina(path)}
    stacks = [path for path, names in pages.items() if len(names) > 1]
    whole = [path for path in new if files.is_oina(path) or (path in stacks and set(pages[path]) & set(elements))]
    if whole and not (all_there and new[-1] not in whole):
        read = files.read_oina if files.is_oina(whole[-1]) else files.read_pages
        return read(whole[-1], elements)
    if all_there:
        return files.read_tiffs([by_element[one] for one in elements])
    if stacks:
        msg = f"{stacks[-1].name} is a stack of {len(pages[stacks[-1]])} pages that no element names; {files.ACCEPTED}"
        raise BadData(msg, file=stacks[-1].name)
    return None


class Exports:
    """The maps that appear in a folder, under new names or old ones, from now on or since `before`: stamps by name.

    Another computer writes them, whose clock may be off: that a file has changed is seen by its size and date, and that
    it rests by our own clock.
    """

    def __init__(self, folder: Path, before: Mapping[str, Stamp] | None = None) -> None:
        self.folder = folder
        self.before = dict(before) if before is not None else {path.name: at for path, at in self._stamps().items()}
        self._seen: dict[Path, tuple[Stamp, float]] = {}

    def ready(self) -> list[Path]:
        """Return the files that have come since and not changed for a while, newest last; to be asked again and again.

        Which one is newest their own dates say: one computer writes them all.
        """
        now, found = time.monotonic(), []
        for path, stamp in self._stamps().items():
            if stamp == self.before.get(path.name) or stamp.size == 0:
                continue
            if path not in self._seen or self._seen[path][0] != stamp:
                self._seen[path] = stamp, now
            if now - self._seen[path][1] >= _STILL_S:
                found.append(path)
        return sorted(found, key=lambda path: (self._seen[path][0].changed_ns, path.name))

    def _stamps(self) -> dict[Path, Stamp]:
        found = {}
        try:
            for path in self.folder.iterdir():
                if path.suffix.lower() in files.KINDS:
                    with suppress(FileNotFoundError):  # renamed meanwhile
                        about = path.stat()
                        found[path] = Stamp(about.st_size, about.st_mtime_ns)
        except OSError as error:
            msg = f"the folder of element maps can't be read: {error}"
            raise DeviceFault(msg, device="EDS", folder=str(self.folder)) from error
        return found


class Stamp(NamedTuple):
    """A file's size (bytes) and when it was changed, by the clock of the computer that wrote it (ns)."""

    size: int
    changed_ns: int


def _fitted(maps: NDArray[np.float64], scan: EdsScan) -> NDArray[np.uint16]:
    wanted = (len(scan.elements), scan.height_px, scan.width_px)
    if maps.shape != wanted:
        msg = f"element maps are {maps.shape} (element, y, x), not {wanted} as asked"
        raise BadData(msg, shape=list(maps.shape), wanted=list(wanted))
    if maps.min() < 0 or maps.max() > 65535:
        msg = f"element maps reach from {maps.min():g} to {maps.max():g}, which are no counts of 16 bit"
        raise BadData(msg)
    return maps.astype(np.uint16)
