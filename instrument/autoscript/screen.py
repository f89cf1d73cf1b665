"""The microscope's screen through the client: views, detectors, frames. Called in the connection's thread."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from instrument.autoscript.connection import enumeration, structure, told
from instrument.autoscript.refusing import refused
from instrument.autoscript.scans import Framing
from instrument.errors import DeviceFault, NotReached
from instrument.settings import Beam, DetectorSettings, Scan, Tune

#: Views in which the electron column's detectors are shown at once, and the ion column's.
ELECTRON_VIEWS, ION_VIEWS = (1, 3, 4), (2,)
#: Contrast or brightness that reads otherwise by more was not taken.
LEVEL_ROOM = 0.005


def of(scope: Any, beam: Beam) -> Any:
    """Return a column."""
    return scope.beams.electron_beam if beam is Beam.ELECTRON else scope.beams.ion_beam


def raw(scope: Any) -> Any:
    """Return where the stage stands, in Raw coordinates."""
    scope.specimen.stage.set_default_coordinate_system(enumeration("CoordinateSystem").RAW)
    return scope.specimen.stage.current_position


def device(beam: Beam) -> int:
    """Return the imaging device that a column is."""
    return int(
        enumeration("ImagingDevice").ELECTRON_BEAM if beam is Beam.ELECTRON else (enumeration("ImagingDevice").ION_BEAM)
    )


def detectors(scope: Any, beam: Beam) -> tuple[str, ...]:
    """Return the detectors that a column has."""
    with restored(scope, beam):
        scope.imaging.set_active_view(1 if beam is Beam.ELECTRON else 2)
        scope.imaging.set_active_device(device(beam))
        return tuple(str(one) for one in scope.detector.type.available_values)


def cbs_is_in(scope: Any) -> bool:
    """Tell whether CBS is inserted; its view shows it for a moment."""
    with restored(scope, Beam.ELECTRON):
        scope.imaging.set_active_view(1)
        scope.imaging.set_active_device(device(Beam.ELECTRON))
        before = scope.detector.type.value
        try:
            scope.detector.type.value = "CBS"
            return str(scope.detector.state) == "Inserted"
        finally:
            scope.detector.type.value = before


def move_cbs(scope: Any, *, inwards: bool) -> None:
    """Insert or retract CBS; harmless where it is so already."""
    with restored(scope, Beam.ELECTRON):
        scope.imaging.set_active_view(1)
        scope.imaging.set_active_device(device(Beam.ELECTRON))
        before = scope.detector.type.value
        try:
            scope.detector.type.value = "CBS"
            if (str(scope.detector.state) == "Inserted") is not inwards:
                scope.detector.insert() if inwards else scope.detector.retract()
        finally:
            scope.detector.type.value = before


def first_view(beam: Beam) -> int:
    """Return the view in which a column's patterns are drawn."""
    return (ELECTRON_VIEWS if beam is Beam.ELECTRON else ION_VIEWS)[0]


@contextmanager
def restored(scope: Any, beam: Beam) -> Iterator[None]:
    """Bring views, their devices and the scan mode back as they were, whatever happens."""
    view, devices = scope.imaging.get_active_view(), {}
    for one in ELECTRON_VIEWS if beam is Beam.ELECTRON else ION_VIEWS:
        scope.imaging.set_active_view(one)
        devices[one] = scope.imaging.get_active_device()
    try:
        yield
    finally:
        of(scope, beam).scanning.mode.set_full_frame()
        for one, device in devices.items():
            scope.imaging.set_active_view(one)
            if scope.imaging.get_active_device() != device:
                scope.imaging.set_active_device(device)
        scope.imaging.set_active_view(view)


class Shown(NamedTuple):
    """What the screen shows: its active view, and a column's own first view, the device there and the field (m)."""

    active: int
    view: int
    device: int
    field_m: float


def shown(scope: Any, beam: Beam) -> Shown:
    """Return what the screen shows of a column."""
    active, view = scope.imaging.get_active_view(), first_view(beam)
    scope.imaging.set_active_view(view)
    device = scope.imaging.get_active_device()
    scope.imaging.set_active_view(active)
    return Shown(active, view, device, float(of(scope, beam).horizontal_field_width.value))


def show_again(scope: Any, beam: Beam, before: Shown) -> None:
    """Show what was shown before."""
    scope.imaging.set_active_view(before.view)
    if scope.imaging.get_active_device() != before.device:
        scope.imaging.set_active_device(before.device)
    scope.imaging.set_active_view(before.active)
    width = of(scope, beam).horizontal_field_width
    if float(width.value) != before.field_m:
        width.value = before.field_m


def modes(scope: Any, beam: Beam) -> dict[str, tuple[str, ...]]:
    """Return the modes of each detector of a column; its view shows each for a moment."""
    found = {}
    with restored(scope, beam):
        scope.imaging.set_active_view(1 if beam is Beam.ELECTRON else 2)
        scope.imaging.set_active_device(device(beam))
        before, mode = scope.detector.type.value, _mode_of(scope.detector, "value")
        try:
            for name in [str(one) for one in scope.detector.type.available_values]:
                scope.detector.type.value = name
                found[name] = tuple(str(one) for one in _mode_of(scope.detector, "available_values") or ())
        finally:
            scope.detector.type.value = before
            if mode is not None and scope.detector.mode.value != mode:
                scope.detector.mode.value = mode
    return found


def select(
    scope: Any, beam: Beam, detectors: tuple[DetectorSettings, ...]
) -> tuple[tuple[int, ...], tuple[DetectorSettings, ...]]:
    """Show each detector in a view of its own, set as asked; return the views, and how each detector stands."""
    views = (ELECTRON_VIEWS if beam is Beam.ELECTRON else ION_VIEWS)[: len(detectors)]
    stand = []
    for view, one in zip(views, detectors, strict=True):
        scope.imaging.set_active_view(view)
        scope.imaging.set_active_device(device(beam))
        scope.detector.type.value = one.name
        if str(scope.detector.type.value) != one.name:
            msg = f"detector {one.name} is not taken; view {view} shows {scope.detector.type.value}"
            raise NotReached(msg, wanted=one.name)
        mode = _put_mode(scope.detector, one)
        levels = {name: _put_level(scope.detector, name, one) for name in ("contrast", "brightness")}
        stand.append(one.replace(mode=mode, **levels))
    return views, tuple(stand)


def _mode_of(detector: Any, what: str) -> Any:
    """Return the value, or what else is asked, of the shown detector's mode; None for a detector without."""
    try:
        return getattr(detector.mode, what)
    except Exception as error:
        if isinstance(told("mode", error), DeviceFault):
            return None
        raise


def _put_level(detector: Any, name: str, asked: DetectorSettings) -> float:
    """Set contrast or brightness, where it is asked for, and return how it stands."""
    setting, wanted = getattr(detector, name), getattr(asked, name)
    if wanted is not None:
        setting.value = wanted
    reached = float(setting.value)
    if wanted is not None and not abs(reached - wanted) <= LEVEL_ROOM:
        msg = f"{asked.name}'s {name} reads {reached:.3f} instead of {wanted:.3f}"
        raise NotReached(msg, detector=asked.name, wanted=wanted)
    return min(1.0, max(0.0, reached))  # what it reads is rounded


def _put_mode(detector: Any, asked: DetectorSettings) -> str | None:
    """Set a detector's mode and return how it stands; None where it has none.

    TLD can give secondary electrons too, which show no phases: it is set to backscattered ones unless another is asked.
    """
    if asked.mode is None and asked.name != "TLD":
        mode = _mode_of(detector, "value")
        return None if mode is None else str(mode)
    listed = [str(one) for one in detector.mode.available_values]
    wanted = asked.mode or next((one for one in listed if "backscat" in one.lower()), None)
    if wanted is None:
        return str(detector.mode.value)
    if wanted not in listed:
        shown = ", ".join(listed)
        raise refused("detector-mode-listed", f"{asked.name}.mode", wanted, shown, "use one of these")
    if str(detector.mode.value) != wanted:
        detector.mode.value = wanted
    if (reached := str(detector.mode.value)) != wanted:
        msg = f"{asked.name}'s mode reads {reached} instead of {wanted}"
        raise NotReached(msg, detector=asked.name, wanted=wanted)
    return reached


def frame_up(scope: Any, scan: Scan, hfw_m: float) -> None:
    """Set field and tilt correction for a scan; NotReached where they are not taken."""
    column = of(scope, scan.beam)
    column.scanning.mode.set_full_frame()
    column.horizontal_field_width.value = hfw_m
    if not abs(float(column.horizontal_field_width.value) - hfw_m) <= 1e-9:
        msg = f"the field is {float(column.horizontal_field_width.value):.6g} m wide instead of {hfw_m:.6g} m"
        raise NotReached(msg, wanted=hfw_m)
    if scan.beam is Beam.ELECTRON:
        correct_tilt(scope, scan.tilt_correction_rad, dynamic_focus=scan.dynamic_focus)


def correct_tilt(scope: Any, angle: float, *, dynamic_focus: bool) -> None:
    """Set tilt correction (rad, 0 switches it off) and dynamic focus; NotReached where they do not switch."""
    correction = scope.beams.electron_beam.angular_correction
    correction.mode = enumeration("AngularCorrectionMode").MANUAL
    correction.angle.value = angle
    for switch, wanted in ((correction.tilt_correction, angle != 0), (correction.dynamic_focus, dynamic_focus)):
        if bool(switch.is_on) is not wanted:
            switch.turn_on() if wanted else switch.turn_off()
        if bool(switch.is_on) is not wanted:
            msg = f"tilt correction or dynamic focus does not switch {'on' if wanted else 'off'}"
            raise NotReached(msg, wanted=wanted)


def grabbed(scope: Any, views: tuple[int, ...], scan: Scan, framed: Framing) -> list[Any]:
    """Grab what views show, at once; return the client's pictures."""
    settings = structure("GrabFrameSettings")(
        resolution=framed.text, dwell_time=scan.dwell_s, bit_depth=scan.bits,
        line_integration=scan.line_integrations if scan.line_integrations > 1 else None,
        frame_integration=scan.frame_integrations if scan.frame_integrations > 1 else None,
        reduced_area=None if framed.area is None else structure("Rectangle")(*framed.area),
    )  # fmt: skip
    scope.imaging.set_active_view(views[0])
    if framed.to_disk:
        return [by_file(scope, settings)]
    if len(views) == 1:
        return [scope.imaging.grab_frame(settings)]
    settings.views = list(views)
    images = list(scope.imaging.grab_multiple_frames(settings))
    if len(images) != len(views):
        msg = f"{len(images)} pictures came of {len(views)} views"
        raise DeviceFault(msg, views=list(views))
    return images


def by_file(scope: Any, settings: Any) -> Any:
    """Grab a frame of a size that goes over a file only."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.tif"
        scope.imaging.grab_frame_to_disk(str(path), enumeration("ImageFileFormat").TIFF, settings)
        return structure("AdornedImage").load(str(path))


def cropped(picture: Any, scan: Scan) -> Any:
    """Return a picture of exactly the size asked for: a part may come a pixel larger; a smaller one is no answer."""
    height, width = picture.shape[:2]
    if picture.ndim != 2 or height < scan.height_px or width < scan.width_px:
        msg = f"a picture of {picture.shape} came where {scan.height_px} x {scan.width_px} was asked for"
        raise DeviceFault(msg, shape=list(picture.shape))
    return picture[: scan.height_px, : scan.width_px]


def tuned(
    scope: Any, routine: Tune, views: tuple[int, ...], stand: tuple[DetectorSettings, ...]
) -> list[DetectorSettings]:
    """Run a routine on the views, whose detectors stand so; return their settings where it is contrast."""
    found = []
    for view, one in zip(views, stand, strict=True):
        scope.imaging.set_active_view(view)
        if routine is Tune.FOCUS:
            scope.auto_functions.run_auto_focus()
            return []
        if routine is Tune.STIGMATOR:
            scope.auto_functions.run_auto_stigmator()
            return []
        scope.auto_functions.run_auto_cb()
        contrast, brightness = float(scope.detector.contrast.value), float(scope.detector.brightness.value)
        found.append(one.replace(contrast=contrast, brightness=brightness))
    return found
