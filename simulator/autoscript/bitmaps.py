"""Reads the 24-bit BMP files that bitmap patterns are drawn in."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def read_bmp(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return blue and green, shape (rows, columns); ValueError where it is no uncompressed 24-bit BMP."""
    data = path.read_bytes()
    if data[:2] != b"BM" or len(data) < 54:
        msg = f"{path.name} is no BMP file"
        raise ValueError(msg)
    start, _, width, height, _, bits, packing = struct.unpack_from("<IIiiHHI", data, 10)
    if bits != 24 or packing != 0 or width <= 0:
        msg = f"{path.name} has {bits} bits a pixel, packing {packing}; a bitmap pattern needs 24 bits, unpacked"
        raise ValueError(msg)
    stride, rows = (3 * width + 3) // 4 * 4, abs(height)
    if len(data) < start + stride * rows:
        msg = f"{path.name} is cut off: {len(data)} bytes, {start + stride * rows} expected"
        raise ValueError(msg)
    raw = np.frombuffer(data, np.uint8, stride * rows, start).reshape(rows, stride)[:, : 3 * width]
    pixels = raw.reshape(rows, width, 3)
    if height > 0:  # from the lowest row up
        pixels = pixels[::-1]
    return pixels[..., 0], pixels[..., 1]
