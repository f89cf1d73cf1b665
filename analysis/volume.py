"""Aligned greys and labels as OME-Zarr (NGFF), for napari, Fiji, Dask, and whatever reads a chunked array.

    volume.ome.zarr/
      0, 1, ...        greys (c, z, y, x), halved along y and x from level to level
      labels/phases/   0, 1, ...   phases (z, y, x), uint8

Slices go in one after another: memory holds a few of them, whatever their number. Nothing is resampled: a plane of the
array is a slice, the scale along z is the median step, and the measured positions stand in the attributes (`kintsugi`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from analysis.align import moved
from analysis.phases import COLOURS, NAMES, Phase

Version = Literal["0.4", "0.5"]
"""0.4 lies in Zarr format 2 and is what most programs read; 0.5 in Zarr format 3."""

_CHUNK = 512
_LEAST_EDGE = 512
_MOST_LEVELS = 5
_SLAB_BYTES = 128 * 2**20
_SLAB = 16


@dataclass(frozen=True)
class VolumePlane:
    """One slice of the volume.

    name : s0001
    z_m, z_sigma_m : its depth and that depth's standard error (None where unknown), metres
    greys : pixels (c, y, x), uint8 or uint16, as acquired
    labels : phases (y, x), uint8, None where there are none
    shift_px : whole pixels (y, x) by which the picture is moved to lie over the first
    """

    name: str
    z_m: float
    greys: NDArray[Any]
    labels: NDArray[np.uint8] | None = None
    shift_px: tuple[int, int] = (0, 0)
    z_sigma_m: float | None = None


def write_volume(
    out: Path,
    planes: Iterable[VolumePlane],
    count: int,
    *,
    channels: Sequence[str],
    pixel_m: tuple[float, float],
    spacing_m: float,
    name: str = "kintsugi",
    virtual: bool = False,
    version: Version = "0.4",
) -> Path:
    """Write a volume; an older one at `out` is replaced once the new one is whole.

    Parameters
    ----------
    out : folder, usually volume.ome.zarr
    planes : slices in order of z, all of one shape and type; they may be made one at a time
    count : how many there are
    channels : names of the greys' channels
    pixel_m : pixel edge along y and x, metres
    spacing_m : distance between planes, metres
    name : of the image
    virtual : whether a simulator made the pictures
    version : of OME-NGFF

    Returns
    -------
    `out`

    Raises
    ------
    ValueError : no planes, more or fewer than `count`, planes that differ in shape or type, a scale that isn't positive
    OSError : the disk refuses
    """
    if count < 1 or min(*pixel_m, spacing_m) <= 0:
        msg = f"a volume has planes ({count}) and positive distances ({pixel_m}, {spacing_m} m)"
        raise ValueError(msg)
    draft = out.with_name(f".{out.name}.writing")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        _write(draft, planes, count, tuple(channels), pixel_m, spacing_m, name, virtual, version)
        if out.exists():
            shutil.rmtree(out)
        draft.rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return out


def _write(
    root: Path,
    planes: Iterable[VolumePlane],
    count: int,
    channels: tuple[str, ...],
    pixel_m: tuple[float, float],
    spacing_m: float,
    name: str,
    virtual: bool,
    version: Version,
) -> None:
    store: _Store | None = None
    rows: list[dict[str, Any]] = []
    for plane in _checked(planes, len(channels)):
        if store is None:
            store = _Store(root, count, len(channels), plane.greys.shape[1:], plane.greys.dtype, version)
        if len(rows) == count:
            msg = f"there are more than the {count} planes that were announced"
            raise ValueError(msg)
        store.add(plane)
        rows.append(
            {
                "name": plane.name,
                "z_m": plane.z_m,
                "z_sigma_m": plane.z_sigma_m,
                "shift_px": list(plane.shift_px),
                "labelled": plane.labels is not None,
            }
        )
    if store is None or len(rows) != count:
        msg = f"{count} planes were announced and {len(rows)} came"
        raise ValueError(msg)
    store.flush()
    store.describe(channels, pixel_m, spacing_m, name, {"virtual": virtual, "slices": rows})


def _checked(planes: Iterable[VolumePlane], channels: int) -> Iterator[VolumePlane]:
    first: VolumePlane | None = None
    for plane in planes:
        if plane.greys.ndim != 3 or plane.greys.shape[0] != channels or plane.greys.dtype not in (np.uint8, np.uint16):
            msg = (
                f"{plane.name}: greys are 8 or 16 bit (c, y, x) with {channels} channels, not {plane.greys.dtype} "
                f"{plane.greys.shape}"
            )
            raise ValueError(msg)
        if plane.labels is not None and plane.labels.shape != plane.greys.shape[1:]:
            msg = f"{plane.name}: labels {plane.labels.shape} and greys {plane.greys.shape[1:]} differ in shape"
            raise ValueError(msg)
        first = first or plane
        if (plane.greys.shape, plane.greys.dtype) != (first.greys.shape, first.greys.dtype):
            msg = f"{plane.name} is {plane.greys.dtype} {plane.greys.shape}, {first.name} before it was not"
            raise ValueError(msg)
        yield plane


def halved(greys: NDArray[Any]) -> NDArray[Any]:
    """Return means over 2 x 2 pixels of (..., y, x), rounded, same type; an odd last row or column is dropped."""
    height, width = (n // 2 * 2 for n in greys.shape[-2:])
    blocks = greys[..., :height, :width].astype(np.uint32)
    total = blocks[..., ::2, ::2] + blocks[..., 1::2, ::2] + blocks[..., ::2, 1::2] + blocks[..., 1::2, 1::2]
    result: NDArray[Any] = ((total + 2) // 4).astype(greys.dtype)
    return result


class _Store:
    """The arrays of a volume, filled slab by slab."""

    def __init__(
        self, root: Path, count: int, channels: int, shape: tuple[int, ...], dtype: np.dtype[Any], version: Version
    ) -> None:
        import zarr

        self.version = version
        self.group = zarr.open_group(root, mode="w", zarr_format=2 if version == "0.4" else 3)
        self.labels = self.group.create_group("labels")
        self.phases = self.labels.create_group("phases")
        height, width = int(shape[0]), int(shape[1])
        self.levels = 1
        while min(height, width) >> self.levels >= _LEAST_EDGE and self.levels < _MOST_LEVELS:
            self.levels += 1
        per_slice = channels * height * width * dtype.itemsize
        self.slab = max(1, min(_SLAB, count, _SLAB_BYTES // max(1, per_slice)))
        self.greys: list[Any] = []
        self.phase: list[Any] = []
        for level in range(self.levels):
            size = (count, height >> level, width >> level)
            self.greys.append(self._array(self.group, level, (channels, *size), dtype))
            self.phase.append(self._array(self.phases, level, size, np.dtype(np.uint8)))
        self.pending: list[VolumePlane] = []
        self.done = 0

    def _array(self, group: Any, level: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        depth, height, width = shape[-3:]
        chunks = (*(1,) * (len(shape) - 3), min(self.slab, depth), min(_CHUNK, height), min(_CHUNK, width))
        options: dict[str, Any]
        if self.version == "0.4":
            options = {
                "compressors": {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 1, "blocksize": 0},
                "chunk_key_encoding": {"name": "v2", "separator": "/"},
            }
        else:
            from zarr.codecs import BloscCodec

            options = {
                "compressors": BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
                "dimension_names": ("c", "z", "y", "x")[-len(shape) :],
            }
        return group.create_array(str(level), shape=shape, chunks=chunks, dtype=dtype, fill_value=0, **options)

    def add(self, plane: VolumePlane) -> None:
        self.pending.append(plane)
        if len(self.pending) == self.slab:
            self.flush()

    def flush(self) -> None:
        """Write the planes that wait, at every level."""
        if not self.pending:
            return
        greys = np.stack([moved(plane.greys, plane.shift_px) for plane in self.pending], axis=1)
        blank = np.zeros(greys.shape[2:], np.uint8)
        labels = np.stack(
            [moved(blank if plane.labels is None else plane.labels, plane.shift_px) for plane in self.pending]
        )
        at = slice(self.done, self.done + len(self.pending))
        for level in range(self.levels):
            if level:
                greys = halved(greys)
                # labels keep their values: every second pixel, never a mean
                labels = labels[:, : labels.shape[1] // 2 * 2 : 2, : labels.shape[2] // 2 * 2 : 2]
            self.greys[level][:, at] = greys
            self.phase[level][at] = labels
        self.done += len(self.pending)
        self.pending = []

    def describe(
        self,
        channels: tuple[str, ...],
        pixel_m: tuple[float, float],
        spacing_m: float,
        name: str,
        own: dict[str, Any],
    ) -> None:
        """Write the attributes by which programs know axes, scale, channels and colours."""
        steps = [round(length * 1e6, 9) for length in (spacing_m, *pixel_m)]
        top = {8: 255, 16: 65535}[self.greys[0].dtype.itemsize * 8]
        omero = {
            "name": name,
            "channels": [
                {
                    "label": channel,
                    "color": "FFFFFF",
                    "active": number == 0,
                    "window": {"min": 0, "max": top, "start": 0, "end": top},
                }
                for number, channel in enumerate(channels)
            ],
            "rdefs": {"model": "greyscale"},
        }
        colours = [{"label-value": int(phase), "rgba": [*COLOURS[phase], 255 if phase else 0]} for phase in Phase]
        label: dict[str, Any] = {
            "colors": colours,
            "properties": [{"label-value": int(phase), "phase": NAMES[phase]} for phase in Phase],
            "source": {"image": "../../"},
        }
        image: dict[str, Any] = {"multiscales": [self._multiscales(name, steps, channel=True)], "omero": omero}
        phases: dict[str, Any] = {
            "multiscales": [self._multiscales("phases", steps, channel=False)],
            "image-label": label,
        }
        if self.version == "0.4":
            image["multiscales"][0]["version"] = phases["multiscales"][0]["version"] = "0.4"
            label["version"] = "0.4"
            self.group.attrs.update({**image, "kintsugi": own})
            self.labels.attrs.update({"labels": ["phases"]})
            self.phases.attrs.update(phases)
        else:
            self.group.attrs.update({"ome": {"version": "0.5", **image}, "kintsugi": own})
            self.labels.attrs.update({"ome": {"version": "0.5", "labels": ["phases"]}})
            self.phases.attrs.update({"ome": {"version": "0.5", **phases}})

    def _multiscales(self, name: str, steps: list[float], *, channel: bool) -> dict[str, Any]:
        first: list[float] = [1.0] if channel else []
        zero: list[float] = [0.0] if channel else []
        datasets = []
        for level in range(self.levels):
            factor = 2**level
            transforms: list[dict[str, Any]] = [
                {"type": "scale", "scale": [*first, steps[0], steps[1] * factor, steps[2] * factor]}
            ]
            if level and channel:  # a mean over pixels lies in their middle; every second label lies where it was
                off = [(factor - 1) / 2 * step for step in steps[1:]]
                transforms.append({"type": "translation", "translation": [*zero, 0.0, *off]})
            datasets.append({"path": str(level), "coordinateTransformations": transforms})
        axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
        return {
            "name": name,
            "axes": [{"name": "c", "type": "channel"}, *axes] if channel else axes,
            "datasets": datasets,
            "type": "mean over 2 x 2" if channel else "every second pixel",
        }
