"""`imaging`, `detector` and `auto_functions`: views, pictures, live scans, and how detectors are set."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from instrument.settings import Device, Tune
from simulator.autoscript.console import Console, Signal, View
from simulator.autoscript.images import AdornedImage, metadata_of
from simulator.autoscript.live import Live
from simulator.autoscript.profiles import DETECTORS
from simulator.autoscript.scans import dark, grab, scan_of
from simulator.autoscript.stage import position_of
from simulator.autoscript.structures import GetImageSettings, GrabFrameSettings, Limits
from simulator.autoscript.tree import Absent, ApplicationServerException, Node, Setting, held_setting, serving
from simulator.levels import levels

#: Devices that a view can show: both columns, the chamber's camera, the navigation camera.
_DEVICES = (1, 2, 3, 5)
#: Longest wait for a live frame, s on the wall.
_FRAME_S = 600.0


class Imaging(Node):
    """`imaging`."""

    def __init__(self, console: Console) -> None:
        path = "microscope.imaging"
        super().__init__(path)
        held = {"digital_brightness": 0.0, "digital_contrast": 1.0, "digital_gamma": 1.0}
        limits = {
            "digital_brightness": Limits(-2.0, 2.0), "digital_contrast": Limits(-10.0, 10.0),
            "digital_gamma": Limits(0.1, 10.0),
        }  # fmt: skip
        lut = Node(f"{path}.lut").with_members(
            **{name: held_setting(f"{path}.lut.{name}", held, name, limits[name]) for name in held}
        )
        scanning_filter = Node(f"{path}.scanning_filter").with_members(type=1, number_of_frames=1)
        self.with_members(_console=console, lut=lut, scanning_filter=scanning_filter)

    def set_active_view(self, quad: int) -> None:
        if int(quad) not in self._console.views:
            msg = f"there is no view {quad!r}; there are 1 to 4"
            raise ApplicationServerException(msg)
        self._console.active = int(quad)

    def get_active_view(self) -> int:
        return int(self._console.active)

    def set_active_device(self, device: int) -> None:
        if int(device) not in _DEVICES:
            msg = f"imaging device {int(device)} is not installed"
            raise ApplicationServerException(msg)
        view = self._console.view
        if view.device != int(device):
            view.device, view.live = int(device), None
            view.detector = next(iter(DETECTORS.get(int(device), {"None": ()})))

    def get_active_device(self) -> int:
        return int(self._console.view.device)

    # -- pictures -----------------------------------------------------------------------------------------------------

    def grab_frame(self, settings: GrabFrameSettings | None = None) -> AdornedImage:
        picture: AdornedImage = grab(self._console, [self._console.view], settings)[0]
        return picture

    def grab_multiple_frames(self, settings: GrabFrameSettings | None = None) -> list[AdornedImage]:
        """Grab all views that `settings.views` names, else all that show a column."""
        views = self._console.views
        named = getattr(settings, "views", None)
        wanted = [int(n) for n in named] if named else [n for n, view in views.items() if view.device in (1, 2)]
        return grab(self._console, [views[number] for number in wanted], settings)

    def grab_frame_to_disk(
        self, path: str | Path, file_format: Any = None, settings: GrabFrameSettings | None = None
    ) -> None:
        """Write a frame of any size straight to a file, with 8 bits."""
        picture = grab(self._console, [self._console.view], settings, free=True)[0]
        if str(file_format) == "Raw":
            Path(path).write_bytes(picture.data.tobytes())
        else:
            picture.save(path)

    def get_image(self, settings: GetImageSettings | None = None) -> AdornedImage:
        """Return what the active view shows; with `wait_for_frame`, its next complete live frame."""
        view: View = self._console.view
        if view.live is not None:
            if settings is not None and settings.wait_for_frame:
                self._wait_for_frame(view.live)
            return self._shown(view, view.live)
        if view.image is None:
            column = self._console.column_of(view)
            scan = scan_of(self._console, column, (view.detector,))
            metadata = metadata_of(
                scan, column, view.detector, self._console.state(), self._console.profile.model,
                position_of(self._console),
            )  # fmt: skip
            view.image = AdornedImage(dark(scan)[0], metadata)
        return view.image

    def start_acquisition(self) -> None:
        view = self._console.view
        self._console.column_of(view)
        self._end(view)
        view.live = Live(self._console, view, view.image.data if view.image is not None else None)

    def stop_acquisition(self) -> None:
        view = self._console.view
        if view.live is None:
            if self._console.grabbing:  # by another connection
                self._console.scope.stop()
            return
        self._end(view)

    @property
    def state(self) -> str:
        return "Idle" if self._console.view.live is None else "Acquiring"

    def _end(self, view: View) -> None:
        if view.live is not None:
            view.live.stop()
            self._shown(view, view.live)
            view.live = None

    def _shown(self, view: View, live: Live) -> AdornedImage:
        column = self._console.column_of(view)
        scan = scan_of(self._console, column, (view.detector,))
        metadata = metadata_of(
            scan, column, view.detector, self._console.state(), self._console.profile.model, position_of(self._console)
        )
        view.image = AdornedImage(live.picture(), metadata)
        return view.image

    def _wait_for_frame(self, live: Live) -> None:
        wanted = live.frames_done + 1
        deadline = time.monotonic() + _FRAME_S
        while live.frames_done < wanted:
            if time.monotonic() > deadline:
                msg = f"no live frame was complete within {_FRAME_S:g} s"
                raise ApplicationServerException(msg)
            self._console.scope.clock.wait(live.frame_s / 4)


class Detector(Node):
    """`detector`: always that of the active view."""

    def __init__(self, console: Console) -> None:
        path = "microscope.detector"
        super().__init__(path)
        unit = Limits(0.0, 1.0)

        def signal() -> Signal:
            view = console.view
            return console.column_of(view).signals[view.detector]

        def change(name: str) -> Any:
            def set_value(value: float) -> None:
                setattr(signal(), name, float(value))
                console.noted(console.view.device)

            return set_value

        def select(value: str) -> None:
            console.view.detector = str(value)
            console.noted(console.view.device)

        volts = {
            "converter_voltage": -1.0, "grid_voltage": 250.0, "mirror_voltage": -15.0,
            "scintillator_voltage": 10000.0, "suction_tube_voltage": 250.0,
        }  # fmt: skip
        settings = Node(f"{path}.custom_settings").with_members(
            **{name: held_setting(f"{path}.custom_settings.{name}", volts, name) for name in volts}
        )
        self.with_members(
            _console=console, custom_settings=settings, camera_settings=Absent(f"{path}.camera_settings"),
            type=Setting(
                f"{path}.type", lambda: console.view.detector, select,
                available=lambda: tuple(DETECTORS.get(console.view.device, ())),
            ),
            mode=Setting(
                f"{path}.mode", lambda: signal().mode, lambda value: setattr(signal(), "mode", str(value)),
                available=lambda: DETECTORS[console.column_of(console.view).index][console.view.detector],
            ),
            contrast=Setting(f"{path}.contrast", lambda: signal().contrast, change("contrast"), limits=unit),
            brightness=Setting(f"{path}.brightness", lambda: signal().brightness, change("brightness"), limits=unit),
        )  # fmt: skip

    @property
    def state(self) -> str:
        if self._console.view.detector != "CBS":
            return "Stationary"
        return "Inserted" if self._console.state().devices[Device.CBS] else "Retracted"

    def insert(self) -> None:
        self._retractable("inserted")
        with serving():
            self._console.scope.insert(Device.CBS)

    def retract(self) -> None:
        self._retractable("retracted")
        with serving():
            self._console.scope.retract(Device.CBS)

    def _retractable(self, what: str) -> None:
        if self._console.view.detector != "CBS":
            msg = f"detector {self._console.view.detector} is fixed and can't be {what}"
            raise ApplicationServerException(msg)


class AutoFunctions(Node):
    """`auto_functions`: on the active view and its detector, by really looking; an office installation leaves all."""

    def __init__(self, console: Console) -> None:
        super().__init__("microscope.auto_functions")
        self.with_members(_console=console)

    def run_auto_cb(self, settings: Any = None) -> None:
        del settings
        found = self._run(Tune.CONTRAST)
        if found is not None:
            view = self._console.view
            signal = self._console.column_of(view).signals[view.detector]
            signal.contrast, signal.brightness = levels(found.detectors[0])

    def run_auto_focus(self, settings: Any = None) -> None:
        self._run(Tune.FOCUS, settings)

    def run_auto_stigmator(self, settings: Any = None) -> None:
        self._run(Tune.STIGMATOR, settings)

    def run_auto_lens_alignment(self, settings: Any = None) -> None:
        """Do nothing: the lenses of this column are aligned."""

    def run_auto_source_tilt(self, settings: Any = None) -> None:
        """Do nothing: the source of this column stands straight."""

    def _run(self, routine: Tune, settings: Any = None) -> Any:
        if self._console.profile.inert:
            return None
        view = self._console.view
        area = getattr(settings, "reduced_area", None)
        frame = None if area is None else GrabFrameSettings(reduced_area=area)
        scan = scan_of(self._console, self._console.column_of(view), (view.detector,), frame)
        with serving():
            return self._console.scope.tune(routine, scan)
