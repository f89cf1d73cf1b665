"""The small part of drawing that a live picture needs, with nothing but numpy and zlib: PNG, lines, letters."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

# Letters of 3 x 5 pixels, row by row, one octal digit a row.
_FONT = {
    "0": "75557", "1": "26227", "2": "71747", "3": "71717", "4": "55711", "5": "74717", "6": "74757", "7": "71122",
    "8": "75757", "9": "75717", "A": "25755", "B": "65656", "C": "34443", "D": "65556", "E": "74647", "F": "74644",
    "G": "34553", "H": "55755", "I": "72227", "J": "11152", "K": "55655", "L": "44447", "M": "57755", "N": "65555",
    "O": "25552", "P": "65644", "Q": "25563", "R": "65655", "S": "34216", "T": "72222", "U": "55557", "V": "55552",
    "W": "55775", "X": "55255", "Y": "55222", "Z": "71247", ".": "00002", ",": "00024", ":": "02020", "%": "51245",
    "-": "00700", "+": "02720", "/": "11244", ">": "42124", "<": "12421", "=": "07070", "(": "24442", ")": "21112",
}  # fmt: skip


def encode(picture: Picture) -> bytes:
    """Return a PNG file of a grey (y, x) or RGB (y, x, 3) uint8 picture."""
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3):
        msg = f"a PNG is made of uint8 (y, x) or (y, x, 3), not {picture.dtype} {picture.shape}"
        raise ValueError(msg)
    height, width = picture.shape[:2]
    colour_type = 0 if picture.ndim == 2 else 2
    rows = np.zeros((height, 1 + width * (1 if picture.ndim == 2 else 3)), np.uint8)
    rows[:, 1:] = picture.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    body = zlib.compress(rows.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def stretched(grey: NDArray[Any]) -> Picture:
    """Return greys stretched so that all but half a per cent at each end fill 0..255."""
    low, high = (float(value) for value in np.percentile(grey, (0.5, 99.5)))
    span = high - low if high > low else 1.0
    shown: Picture = np.clip((grey.astype(np.float32) - low) * (255.0 / span), 0, 255).astype(np.uint8)
    return shown


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def blank(height: int, width: int, colour: Colour) -> Picture:
    """Return an RGB picture (y, x, 3) of one colour."""
    return np.full((height, width, 3), colour, np.uint8)


def write(picture: Picture, x: int, y: int, text: str, colour: Colour, scale: int = 2) -> int:
    """Write capital letters and digits into an RGB picture, upper left corner at (x, y); return the x behind them.

    What falls outside is left out; a letter that the small font lacks is a space.
    """
    for letter in text.upper():
        rows = _FONT.get(letter)
        if rows is not None:
            bits = np.array([[int(row, 8) >> 2 & 1, int(row, 8) >> 1 & 1, int(row, 8) & 1] for row in rows], bool)
            glyph = np.kron(bits, np.ones((scale, scale), bool))
            part = picture[y : y + glyph.shape[0], x : x + glyph.shape[1]]
            part[glyph[: part.shape[0], : part.shape[1]]] = colour
        x += 4 * scale
    return x


def line(picture: Picture, x0: float, y0: float, x1: float, y1: float, colour: Colour, thick: int = 1) -> None:
    """Draw a straight line between two points (pixels) into an RGB picture; what falls outside is left out."""
    steps = int(max(abs(x1 - x0), abs(y1 - y0))) + 1
    xs = np.rint(np.linspace(x0, x1, steps)).astype(int)
    ys = np.rint(np.linspace(y0, y1, steps)).astype(int)
    for dy in range(thick):
        for dx in range(thick):
            inside = (xs + dx >= 0) & (xs + dx < picture.shape[1]) & (ys + dy >= 0) & (ys + dy < picture.shape[0])
            picture[ys[inside] + dy, xs[inside] + dx] = colour
