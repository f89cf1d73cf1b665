"""Pictures as clients get them: pixels, metadata, and the TIFF files with the microscope's header."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from instrument.settings import Scan, State
from simulator.autoscript.structures import Named, Point, StagePosition

if TYPE_CHECKING:
    from simulator.autoscript.console import Column

#: TIFF tag of the header's text, and of the metadata as XML.
HEADER_TAG, XML_TAG = 34682, 34683


class Branch:
    """Metadata under a name: its members as attributes."""

    def __init__(self, **members: Any) -> None:
        self.__dict__.update(members)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __repr__(self) -> str:
        return f"Branch({', '.join(self.__dict__)})"


class AdornedImage(Named):
    """A picture: `data`, shape (rows, columns), uint8 or uint16, and how it was taken."""

    _names = ("data", "metadata")

    def __init__(self, data: NDArray[Any] | None = None, metadata: Any = None) -> None:
        self.data: Any = np.zeros((0, 0), np.uint8) if data is None else data
        self.metadata = metadata

    @property
    def width(self) -> int:
        return int(self.data.shape[1])

    @property
    def height(self) -> int:
        return int(self.data.shape[0])

    @property
    def bit_depth(self) -> int:
        return int(self.data.dtype.itemsize * 8)

    @property
    def checksum(self) -> int:
        return int(self.data.astype(np.uint64).sum())

    def save(self, path: str | Path) -> None:
        """Write a TIFF with the microscope's header."""
        import tifffile

        path = Path(path)
        if path.suffix.lower() not in (".tif", ".tiff"):
            path = path.with_name(path.name + ".tif")
        extra = []
        if self.metadata is not None:
            text, xml = self.metadata.header, self.metadata.metadata_as_xml
            for tag, value in ((HEADER_TAG, text), (XML_TAG, xml)):
                extra.append((tag, 2, len(value.encode()) + 1, value, True))
        tifffile.imwrite(path, self.data, photometric="minisblack", extratags=extra)

    @staticmethod
    def load(path: str | Path) -> AdornedImage:
        """Read a TIFF; how large its pixels are comes from its header, where it has one."""
        import tifffile

        with tifffile.TiffFile(path) as tif:
            data = tif.asarray()
            header = tif.fei_metadata if tif.is_fei else None
        metadata = None
        if header:
            scan = header.get("Scan", {})
            pixel = Point(scan.get("PixelWidth"), scan.get("PixelHeight"))
            metadata = Branch(
                binary_result=Branch(pixel_size=pixel),
                scan_settings=Branch(dwell_time=scan.get("Dwelltime")),
                header="", metadata_as_xml="",
            )  # fmt: skip
        return AdornedImage(data=data, metadata=metadata)

    def __repr__(self) -> str:
        return f"AdornedImage(width={self.width}, height={self.height}, bit_depth={self.bit_depth})"


def metadata_of(scan: Scan, column: Column, detector: str, state: State, model: str, stage: StagePosition) -> Branch:
    """Return what is known about a picture.

    Parameters
    ----------
    scan, column, detector : how it was taken
    state : of the virtual microscope when it ended; stage : as clients see it
    """
    from simulator.autoscript.console import BEAMS

    beam = state.beam(BEAMS[column.index]).settings
    width, height = scan.width_px * scan.pixel_m, scan.height_px * scan.pixel_m
    name = "Electron" if column.index == 1 else "Ion"
    header = _header(scan, column, detector, state, model, stage)
    return Branch(
        binary_result=Branch(pixel_size=Point(scan.pixel_m, scan.pixel_m), detector=detector),
        scan_settings=Branch(dwell_time=scan.dwell_s, line_integration=scan.line_integrations),
        acquisition=Branch(acquisition_datetime=time.time(), beam_type=name),  # of the wall's calendar: a file's date
        stage_settings=Branch(stage_position=stage),
        optics=Branch(
            scan_field_of_view=Branch(width=width, height=height),
            full_scan_field_of_view=Branch(width=beam.hfw_m or width, height=(beam.hfw_m or width) * height / width),
            working_distance=beam.working_distance_m, accelerating_voltage=beam.voltage_v, beam_current=beam.current_a,
        ),
        header=header, metadata_as_xml=f"<Metadata><Header>{escape(header)}</Header></Metadata>",
    )  # fmt: skip


def _header(scan: Scan, column: Column, detector: str, state: State, model: str, stage: StagePosition) -> str:
    from simulator.autoscript.console import BEAMS

    beam = state.beam(BEAMS[column.index]).settings
    letter, signal = ("EBeam", column.signals.get(detector)) if column.index == 1 else ("IBeam", None)
    now = time.localtime()
    wide, high = scan.width_px * scan.pixel_m, scan.height_px * scan.pixel_m
    turned, shift = beam.scan_rotation_rad or 0.0, (-(beam.shift_x_m or 0.0), beam.shift_y_m or 0.0)
    sections: dict[str, dict[str, Any]] = {
        "User": {
            "Date": time.strftime("%m/%d/%Y", now), "Time": time.strftime("%I:%M:%S %p", now), "User": "virtual",
            "UserText": "VIRTUAL: a simulated microscope",
        },
        "System": {"Type": "DualBeam", "Dnumber": "0", "Software": "kintsugi simulator", "SystemType": model},
        "Beam": {"HV": beam.voltage_v, "Beam": letter, "Scan": f"{letter[0]}Scan", "ScanRotation": turned,
                 "BeamShiftX": shift[0], "BeamShiftY": shift[1],
                 "StigmatorX": beam.stigmator_x, "StigmatorY": beam.stigmator_y},
        letter: {"HV": beam.voltage_v, "HFW": wide, "VFW": high, "WD": beam.working_distance_m,
                 "BeamCurrent": beam.current_a, "ScanRotation": turned, "StageX": stage.x, "StageY": stage.y,
                 "StageZ": stage.z, "StageR": stage.r, "StageTa": stage.t,
                 "TiltCorrectionIsOn": "yes" if scan.tilt_correction_rad else "no",
                 "TiltCorrectionAngle": scan.tilt_correction_rad,
                 "DynamicFocusIsOn": "yes" if scan.dynamic_focus else "no"},
        "Scan": {"InternalScan": "true", "Dwelltime": scan.dwell_s, "PixelWidth": scan.pixel_m,
                 "PixelHeight": scan.pixel_m, "HorFieldsize": wide, "VerFieldsize": high,
                 "Average": 1, "Integrate": scan.frame_integrations, "LineIntegration": scan.line_integrations},
        "Stage": {"StageX": stage.x, "StageY": stage.y, "StageZ": stage.z, "StageR": stage.r, "StageT": stage.t,
                  "WorkingDistance": beam.working_distance_m},
        "Image": {"ResolutionX": scan.width_px, "ResolutionY": scan.height_px},
        "Vacuum": {"ChPressure": state.pressure_pa, "UserMode": "High vacuum"},
        "Detectors": {"Number": 1, "Name": detector, "Mode": signal.mode if signal else ""},
        detector: {"Contrast": 100 * signal.contrast if signal else "",
                   "Brightness": 100 * signal.brightness if signal else ""},
        "PrivateFei": {"DatabarHeight": 0, "TimeOfCreation": time.strftime("%d.%m.%Y %H:%M:%S", now)},
    }  # fmt: skip
    lines = []
    for section, entries in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{key}={value}" for key, value in entries.items()]
        lines.append("")
    return "\r\n".join(lines)
