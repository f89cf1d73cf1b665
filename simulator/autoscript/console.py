"""The emulated microscope's user interface: views, scan settings, detectors; and the virtual microscope behind it."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instrument.settings import Beam, BeamSettings, BeamState, State
from simulator.autoscript.profiles import DETECTORS, Profile, profile
from simulator.autoscript.tree import ApplicationServerException, Switch

if TYPE_CHECKING:
    from simulator.autoscript.images import AdornedImage
    from simulator.autoscript.live import Live
    from simulator.microscope import SimulatedMicroscope

#: So long after a change of voltage (s) its current is part of it.
_MEANWHILE_S = 1.0
BEAMS = {1: Beam.ELECTRON, 2: Beam.ION}


@dataclass
class Signal:
    """How one detector is set."""

    contrast: float = 0.5
    brightness: float = 0.5
    mode: str = ""


@dataclass
class ScanMode:
    """What is scanned, and how: the whole field and a part of it each keep dwell (s) and resolution of their own."""

    mode: int = 1
    area: tuple[float, float, float, float] = (0.25, 0.25, 0.5, 0.5)
    spot: tuple[float, float] = (0.5, 0.5)
    dwell_s: dict[int, float] = field(default_factory=lambda: {1: 1e-6, 4: 1e-6})
    resolution: dict[int, str] = field(default_factory=lambda: {1: "1536x1024", 4: "1536x1024"})

    @property
    def kept(self) -> int:
        """The mode whose settings are in force."""
        return 4 if self.mode == 4 else 1


@dataclass
class Column:
    """What is set of one column beside what the virtual microscope keeps."""

    index: int
    scan: ScanMode = field(default_factory=ScanMode)
    bit_depth: int = 8
    blanked: bool = False
    angular_mode: str = "Manual"
    angle: float = 0.0
    pretilt: float = 0.0
    tilt_correction: Switch = field(default_factory=lambda: Switch("tilt_correction"))
    dynamic_focus: Switch = field(default_factory=lambda: Switch("dynamic_focus"))
    signals: dict[str, Signal] = field(default_factory=dict)
    lens_alignment: tuple[float, float] = (0.0, 0.0)
    source_tilt: tuple[float, float] = (0.0, 0.0)
    optical_mode: str = "FieldFree"
    #: voltage (V) and current (A) as asked for, in an office installation
    asked: dict[str, float] = field(default_factory=dict)

    @property
    def beam(self) -> Beam:
        return BEAMS[self.index]


@dataclass
class View:
    """One quarter of the screen: whose pictures it shows, by which detector, the last one, and the live scan."""

    device: int
    detector: str = "ETD"
    image: AdornedImage | None = None
    live: Live | None = None


class Console:
    """One emulated microscope. Clients that connect to the same place share it; any thread may use it."""

    def __init__(self, scope: SimulatedMicroscope, kind: Profile) -> None:
        self.scope, self.profile = scope, kind
        self.described = scope.describe()
        self.columns = {index: Column(index) for index in BEAMS}
        for index, column in self.columns.items():
            column.signals = {name: Signal(mode=modes[0]) for name, modes in DETECTORS[index].items()}
        self.views = {1: View(1), 2: View(2, "ICE"), 3: View(5), 4: View(3)}
        self.active = 1
        self.coordinates = "Specimen"  # as recorded, and as FIBSEM_Maestro takes it to be
        self.linked = False
        self.vented = False
        #: height and tilt of the stage (m, rad) as asked for, in an office installation
        self.asked: dict[str, float] = {}
        self._settled_s: dict[int, float] = {}
        #: the client's `patterning`, one for all connections: patterns are the microscope's
        self.patterning: Any = None
        #: whether a frame is being grabbed
        self.grabbing = False

    # -- what is selected ---------------------------------------------------------------------------------------------

    @property
    def view(self) -> View:
        """The active view."""
        return self.views[self.active]

    def column_of(self, view: View) -> Column:
        """Return the column whose pictures a view shows; raises for a camera."""
        if view.device not in self.columns:
            msg = f"imaging device {view.device} has no column: select the electron or the ion beam in this view"
            raise ApplicationServerException(msg)
        return self.columns[view.device]

    # -- the virtual microscope ---------------------------------------------------------------------------------------

    def state(self) -> State:
        """Return the virtual microscope's state."""
        return self.scope.state()

    def beam(self, index: int) -> BeamState:
        """Return a column as it stands."""
        return self.state().beam(BEAMS[index])

    def set_beam(self, index: int, **settings: Any) -> None:
        """Set a column; a live scan on it goes on with the new settings from this line on.

        A current that is set right after a voltage takes no time of its own: the aperture has moved meanwhile.
        """
        settled = self.scope.clock.now() - self._settled_s.get(index, -1e9) < _MEANWHILE_S
        self.scope.set_beam(BEAMS[index], BeamSettings(**settings), settled=settled and "current_a" in settings)
        if "voltage_v" in settings or "species" in settings:
            self._settled_s[index] = self.scope.clock.now()
        self.noted(index)

    def noted(self, index: int) -> None:
        """Tell live scans of a column that something about it has changed."""
        for view in self.views.values():
            if view.live is not None and view.device == index:
                view.live.note()

    def correction(self, column: Column) -> float:
        """Return the angle (rad) by which scans of a column are corrected for tilt, 0 for none."""
        if not column.tilt_correction.is_on and not column.dynamic_focus.is_on:
            return 0.0
        if column.angular_mode == "Automatic":
            return (self.state().stage.t or 0.0) + column.pretilt
        return column.angle


_SHARED: dict[tuple[str, int], Console] = {}
_LOCK = threading.Lock()


def console(host: str, port: int) -> Console:
    """Return the microscope of a place, opened when first asked for (see `simulator.autoscript` for how)."""
    with _LOCK:
        if (host, port) not in _SHARED:
            _SHARED[(host, port)] = _opened()
        return _SHARED[(host, port)]


def at_hand() -> Console:
    """Return the microscope that was opened last: the one that programs beside the client see."""
    with _LOCK:
        if not _SHARED:
            msg = "no microscope is open; connect a client first"
            raise ApplicationServerException(msg)
        return next(reversed(_SHARED.values()))


def put(host: str, port: int, shared: Console) -> None:
    """Let clients of a place find this microscope there."""
    with _LOCK:
        _SHARED[(host, port)] = shared


def forget(host: str, port: int) -> None:
    """Save and close the microscope of a place, if there is one."""
    with _LOCK:
        found = _SHARED.pop((host, port), None)
    if found is not None:
        found.scope.close()


def _opened() -> Console:
    import simulator

    url = os.environ.get("KINTSUGI_AUTOSCRIPT_SIMULATOR", "simulator")
    state = os.environ.get("KINTSUGI_AUTOSCRIPT_STATE")
    kind = profile(os.environ.get("KINTSUGI_AUTOSCRIPT_PROFILE", "hydra"))
    stepped = os.environ.get("KINTSUGI_AUTOSCRIPT_CLOCK") == "stepped"
    if not stepped and "pace=" not in url:  # clients sleep on the wall's time
        url += ("&" if "?" in url else "?") + "pace=1"
    return Console(simulator.open(url, Path(state) if state else None), kind)
