"""Frame: the pixels of one scan and everything known about how they were taken; the one OME-TIFF writer and reader."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from instrument.errors import BadData
from instrument.settings import EdsScan, Model, Scan, State

if TYPE_CHECKING:
    import tifffile

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
STATE_NAMESPACE = "kintsugi/frame-meta/1"
#: What tifffile and the XML parser raise on bytes that are no frame: damage can look like anything.
_DAMAGE = (
    ValueError, LookupError, OSError, TypeError, AttributeError, ArithmeticError, AssertionError, RuntimeError,
    MemoryError, ElementTree.ParseError, struct.error,
)  # fmt: skip


class FrameMeta(Model):
    """How a frame was taken. `uid` is given by the backend; `state` is the instrument's at the end of the scan."""

    uid: str
    channels: tuple[str, ...]
    pixel_x_m: float
    pixel_y_m: float
    started_s: float
    seconds: float
    scan: Scan | EdsScan
    state: State
    virtual: bool = False
    notes: dict[str, str] = Field(default_factory=dict)


class Frame:
    """Pixels (channel, y, x), uint8 or uint16, and how they were taken."""

    def __init__(self, pixels: Pixels, meta: FrameMeta) -> None:
        if pixels.ndim != 3 or pixels.shape[0] != len(meta.channels):
            msg = f"a frame's pixels are (channel, y, x) with {len(meta.channels)} channels, not {pixels.shape}"
            raise BadData(msg, shape=list(pixels.shape), channels=list(meta.channels))
        if pixels.dtype not in (np.uint8, np.uint16):
            msg = f"a frame holds uint8 or uint16, not {pixels.dtype}"
            raise BadData(msg, dtype=str(pixels.dtype))
        self.pixels = pixels
        self.meta = meta

    def channel(self, name: str) -> Pixels:
        """Return one detector's picture, shape (y, x); KeyError names the channels there are."""
        if name not in self.meta.channels:
            msg = f"no channel {name!r}; this frame has {', '.join(self.meta.channels)}"
            raise KeyError(msg)
        picture: Pixels = self.pixels[self.meta.channels.index(name)]
        return picture

    def grey(self, name: str) -> NDArray[np.float32]:
        """Return one detector's picture scaled to 0..1, shape (y, x), whatever the bits."""
        scale = 255.0 if self.pixels.dtype == np.uint8 else 65535.0
        return (self.channel(name) / np.float32(scale)).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write the frame as OME-TIFF; not durable by itself (see `instrument.durable`)."""
        import tifffile

        meta = {
            "axes": "CYX",
            "Channel": {"Name": list(self.meta.channels)},
            "PhysicalSizeX": self.meta.pixel_x_m * 1e6,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": self.meta.pixel_y_m * 1e6,
            "PhysicalSizeYUnit": "µm",
            "MapAnnotation": {
                "Namespace": STATE_NAMESPACE,
                "meta": escape(json.dumps(plain_meta(self.meta)), {'"': "&quot;"}),  # ASCII: XML lacks some letters
            },
        }
        tifffile.imwrite(path, self.pixels, ome=True, photometric="minisblack", metadata=meta)

    @classmethod
    def load(cls, path: Path) -> Frame:
        """Read a frame written by `save`; BadData where the file is damaged or not ours."""
        import tifffile

        try:
            with tifffile.TiffFile(path) as tif:
                pixels = tif.asarray()
                meta = _meta_of(tif)
        except (tifffile.TiffFileError, *_DAMAGE) as error:
            msg = f"{path.name} cannot be read as one of our frames: {error}"
            raise BadData(msg, path=str(path)) from error
        return cls(pixels.reshape(len(meta.channels), *pixels.shape[-2:]), meta)


def _meta_of(tif: tifffile.TiffFile) -> FrameMeta:
    root = ElementTree.fromstring(tif.ome_metadata or "")  # noqa: S314 - expat, no entities are expanded
    for item in root.iter():
        if item.tag.endswith("}M") and item.get("K") == "meta":
            return FrameMeta.model_validate(json.loads(_unescape(item.text or "")))
    msg = "it holds no record of how it was taken"
    raise ValueError(msg)


def _unescape(text: str) -> str:
    from xml.sax.saxutils import unescape

    return unescape(text, {"&quot;": '"'})


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 as hexadecimal text, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


class FrameRef(Model):
    """A frame that lies in a file: its name there, its hash and what is needed without opening it."""

    name: str
    sha256: str
    size_bytes: int
    channels: tuple[str, ...]
    shape: tuple[int, int, int]
    uid: str
    started_s: float
    seconds: float


def reference(frame: Frame, path: Path) -> FrameRef:
    """Return the reference to a frame that was saved at `path`."""
    channels, height, width = frame.pixels.shape
    return FrameRef(
        name=path.name,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        channels=frame.meta.channels,
        shape=(channels, height, width),
        uid=frame.meta.uid,
        started_s=frame.meta.started_s,
        seconds=frame.meta.seconds,
    )


def plain_meta(meta: FrameMeta) -> dict[str, Any]:
    """Return a frame's record as plain values."""
    return meta.model_dump(mode="json")
