"""A run's aligned greys and labels in the formats that Fiji, Avizo and Dragonfly open.

    tiff   greys-CBS/0001.tif ..., labels/0001.tif ...     numbered 8/16-bit TIFFs, voxel size in the tags
    fiji   hyperstack.tif, labels.tif                      ImageJ: greys as ZCYX, labels with their colours
    raw    greys-CBS.mhd + .raw, labels.mhd + .raw         MetaImage

and always voxels.txt (voxel size, planes, gaps) and phases.txt (the colour table). Slices are not resampled unless
asked; a plane without labels is all 0 (outside), and said so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from analysis.align import moved
from instrument import durable
from instrument.errors import BadData, Refused
from instrument.frame import Frame
from workflows.store import RunFolder

Format = Literal["tiff", "fiji", "raw"]
PHASES = {0: "outside", 1: "pore", 2: "CBD", 3: "active material", 4: "current collector"}
_GAP = 1.5


@dataclass(frozen=True)
class Plane:
    """A plane of the stack: its slice, z (m), and how far its picture is moved to lie over the first (y, x pixels)."""

    name: str
    z_m: float
    shift_px: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Stack:
    """What is exported: planes in order, spacing (m) along z, pixel (m) along y and x, channels, shape (y, x)."""

    folder: RunFolder
    planes: tuple[Plane, ...]
    spacing_m: float
    pixel_m: tuple[float, float]
    channels: tuple[str, ...]
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def grey(self, channel: str) -> Iterator[NDArray[Any]]:
        """Yield one channel's pictures (y, x), aligned, in order of z."""
        for plane in self.planes:
            frame = Frame.load(self.folder.frame_path("slices", plane.name))
            yield moved(np.asarray(frame.channel(channel)), plane.shift_px, self.shape)

    def labels(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the phases (y, x), uint8, aligned, in order of z; zeros where a slice has no labels."""
        import tifffile

        for plane in self.planes:
            path = self.folder.label_path(plane.name)
            found = tifffile.imread(path) if path.exists() else np.zeros(self.shape, np.uint8)
            yield moved(np.asarray(found, np.uint8), plane.shift_px, self.shape)

    @property
    def unlabelled(self) -> list[str]:
        """Names of the planes without labels."""
        labelled = set(self.folder.label_names())
        return [plane.name for plane in self.planes if plane.name not in labelled]


def stack_of(folder: RunFolder, *, even: bool = False) -> Stack:
    """Return the stack of a run: planes and shifts from summary.json, pixels and channels from the slices.

    `even` resamples to even spacing: each plane of the even grid takes its nearest slice.
    """
    names = folder.slice_names()
    if not names:
        msg = f"{folder.root} has no slices to export"
        raise Refused(msg, rule="slices to export", field="DIR", value=str(folder.root), remedy="run it first")
    known = {str(row.get("name")): row for row in folder.read_summary().get("slices", [])}
    first = Frame.load(folder.frame_path("slices", names[0]))
    planes = tuple(_plane(name, index, known.get(name, {})) for index, name in enumerate(names))
    steps = np.diff([plane.z_m for plane in planes])
    spacing = float(np.median(steps)) if len(steps) else float(known.get(names[0], {}).get("thickness_m", 0.0))
    if not spacing > 0:
        spacing = first.meta.pixel_x_m
        planes = tuple(Plane(plane.name, i * spacing, plane.shift_px) for i, plane in enumerate(planes))
    if even:
        planes = _even(planes, spacing)
    return Stack(
        folder,
        planes,
        spacing,
        (first.meta.pixel_y_m, first.meta.pixel_x_m),
        first.meta.channels,
        (first.pixels.shape[1], first.pixels.shape[2]),
        first.pixels.dtype,
    )


def _plane(name: str, index: int, row: Mapping[str, Any]) -> Plane:
    shift = row.get("shift_px") or (0, 0)
    z_m = float(row.get("z_m", math.nan))
    return Plane(name, z_m if math.isfinite(z_m) else float(index), (round(shift[0]), round(shift[1])))


def _even(planes: Sequence[Plane], spacing: float) -> tuple[Plane, ...]:
    start, end = planes[0].z_m, planes[-1].z_m
    grid = start + spacing * np.arange(round((end - start) / spacing) + 1)
    at = np.array([plane.z_m for plane in planes])
    nearest = [planes[int(np.argmin(np.abs(at - z)))] for z in grid]
    return tuple(Plane(plane.name, float(z), plane.shift_px) for plane, z in zip(nearest, grid, strict=True))


def gaps(planes: Sequence[Plane], spacing: float) -> list[str]:
    """Return one sentence for each place where more than one and a half spacings lie between two planes."""
    found = []
    for before, after in pairwise(planes):
        step = after.z_m - before.z_m
        if step > _GAP * spacing:
            lost = (step - spacing) * 1e9
            found.append(f"between {before.name} and {after.name}: {lost:.0f} nm more than one spacing are missing")
    return found


def export(
    folder: RunFolder,
    to: Format,
    out: Path,
    colours: Mapping[int, tuple[int, int, int]],
    *,
    even: bool = False,
) -> list[Path]:
    """Write a run's stack in a format; return the files and folders made.

    Parameters
    ----------
    folder : the run
    to : "tiff", "fiji" or "raw"
    out : folder for the files, made when missing; Refused when it has files
    colours : RGB by phase, for the colour table
    even : resample to even spacing

    Raises Refused, BadData (a slice that can't be read or has another size or type than the first).
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        msg = f"--out {out} is not empty; name a folder that doesn't exist yet"
        raise Refused(msg, rule="new folder", field="--out", value=str(out), remedy="name a new folder")
    stack = stack_of(folder, even=even)
    durable.make_dir(out)
    write: dict[str, Callable[[Stack, Path, Mapping[int, tuple[int, int, int]]], list[Path]]]
    write = {"tiff": _tiff, "fiji": _fiji, "raw": _raw}
    made = write[to](stack, out, colours)
    durable.atomic_write_bytes(out / "voxels.txt", _voxels(stack, even).encode("utf-8"))
    durable.atomic_write_bytes(out / "phases.txt", _phases(colours).encode("utf-8"))
    return [*made, out / "voxels.txt", out / "phases.txt"]


def _tags(stack: Stack) -> dict[str, Any]:
    y, x = stack.pixel_m
    return {"resolution": (0.01 / x, 0.01 / y), "resolutionunit": "CENTIMETER"}


def _tiff(stack: Stack, out: Path, colours: Mapping[int, tuple[int, int, int]]) -> list[Path]:
    import tifffile

    made = []
    note = json.dumps({"spacing_um": stack.spacing_m * 1e6, "pixel_um": [p * 1e6 for p in stack.pixel_m]})
    for channel in stack.channels:
        place = out / f"greys-{channel}"
        durable.make_dir(place)
        for number, grey in enumerate(stack.grey(channel), 1):
            tifffile.imwrite(place / f"{number:04d}.tif", _same(grey, stack), description=note, **_tags(stack))
        made.append(place)
    place = out / "labels"
    durable.make_dir(place)
    for number, labels in enumerate(stack.labels(), 1):
        tifffile.imwrite(
            place / f"{number:04d}.tif",
            labels,
            photometric="palette",
            colormap=_colormap(colours),
            description=note,
            **_tags(stack),
        )
    return [*made, place]


def _fiji(stack: Stack, out: Path, colours: Mapping[int, tuple[int, int, int]]) -> list[Path]:
    import tifffile

    y, x = stack.pixel_m
    common: dict[str, Any] = {"imagej": True, "resolution": (1e-6 / x, 1e-6 / y)}
    metadata: dict[str, Any] = {"spacing": stack.spacing_m * 1e6, "unit": "um", "axes": "ZCYX"}
    greys, labels = out / "hyperstack.tif", out / "labels.tif"
    count = len(stack.planes)

    def pages() -> Iterator[NDArray[Any]]:
        for pictures in zip(*(stack.grey(channel) for channel in stack.channels), strict=True):
            yield from (_same(picture, stack) for picture in pictures)

    tifffile.imwrite(
        greys,
        pages(),
        shape=(count, len(stack.channels), *stack.shape),
        dtype=stack.dtype,
        metadata={**metadata, "mode": "composite", "Labels": _labels(stack, stack.channels)},
        **common,
    )
    lut = (_colormap(colours) >> 8).astype(np.uint8)
    tifffile.imwrite(
        labels,
        stack.labels(),
        shape=(count, 1, *stack.shape),
        dtype=np.uint8,
        metadata={**metadata, "LUTs": [lut], "Labels": _labels(stack, ("phases",))},
        **common,
    )
    return [greys, labels]


def _raw(stack: Stack, out: Path, colours: Mapping[int, tuple[int, int, int]]) -> list[Path]:
    del colours  # MetaImage has no colours; phases.txt has them
    made: list[Path] = []
    for channel in stack.channels:
        made += _metaimage(out / f"greys-{channel}", (_same(grey, stack) for grey in stack.grey(channel)), stack)
    return made + _metaimage(out / "labels", stack.labels(), stack, np.dtype(np.uint8))


def _metaimage(
    stem: Path, pictures: Iterator[NDArray[Any]], stack: Stack, dtype: np.dtype[Any] | None = None
) -> list[Path]:
    kind = stack.dtype if dtype is None else dtype
    data, header = stem.with_suffix(".raw"), stem.with_suffix(".mhd")
    with data.open("wb") as file:
        for picture in pictures:
            file.write(np.ascontiguousarray(picture, kind.newbyteorder("<")).tobytes())
    y, x = stack.pixel_m
    lines = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "DimSize": f"{stack.shape[1]} {stack.shape[0]} {len(stack.planes)}",
        "ElementSpacing": f"{x * 1e3:.9g} {y * 1e3:.9g} {stack.spacing_m * 1e3:.9g}",
        "ElementType": "MET_UCHAR" if kind.itemsize == 1 else "MET_USHORT",
        "Comment": "ElementSpacing is in millimetres",
        "ElementDataFile": data.name,
    }
    text = "".join(f"{key} = {value}\n" for key, value in lines.items())
    durable.atomic_write_bytes(header, text.encode("ascii"))
    return [header, data]


def _same(picture: NDArray[Any], stack: Stack) -> NDArray[Any]:
    if picture.dtype != stack.dtype:
        msg = f"the slices are not all of one type: {picture.dtype} after {stack.dtype}"
        raise BadData(msg, expected=str(stack.dtype), found=str(picture.dtype))
    return picture


def _labels(stack: Stack, channels: Sequence[str]) -> list[str]:
    return [f"{plane.name} {channel} z={plane.z_m * 1e9:.0f} nm" for plane in stack.planes for channel in channels]


def _colormap(colours: Mapping[int, tuple[int, int, int]]) -> NDArray[np.uint16]:
    table = np.zeros((3, 256), np.uint16)
    for phase, colour in colours.items():
        table[:, phase] = np.asarray(colour, np.uint16) * 257
    return table


def _voxels(stack: Stack, even: bool) -> str:
    y, x = stack.pixel_m
    missing = gaps(stack.planes, stack.spacing_m)
    lines = [
        f"voxel (x, y, z): {x * 1e9:.3f} nm, {y * 1e9:.3f} nm, {stack.spacing_m * 1e9:.3f} nm",
        f"size (x, y, z): {stack.shape[1]}, {stack.shape[0]}, {len(stack.planes)}",
        "axes: x across the face, y down it, z into the block",
        f"planes: {'resampled to even spacing, each from its nearest slice' if even else 'as acquired, not resampled'}",
        f"without labels: {', '.join(stack.unlabelled) or 'none'}",
        "gaps: " + ("none" if not missing else "; ".join(missing)),
        "",
        "number  slice  z (nm)  moved by (y, x pixels)",
    ]
    for number, plane in enumerate(stack.planes, 1):
        lines.append(f"{number:04d}  {plane.name}  {plane.z_m * 1e9:.1f}  {plane.shift_px[0]}, {plane.shift_px[1]}")
    return "\n".join(lines) + "\n"


def _phases(colours: Mapping[int, tuple[int, int, int]]) -> str:
    lines = ["value  red  green  blue  phase"]
    for value, name in PHASES.items():
        red, green, blue = colours.get(value, (0, 0, 0))
        lines.append(f"{value}  {red}  {green}  {blue}  {name}")
    return "\n".join(lines) + "\n"
