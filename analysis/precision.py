"""Which precision a network is computed in here: half of it where the processor multiplies bfloat16 itself.

Convolutions take half the time then, and labels differ in about one pixel of a thousand.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

Precision = Literal["float32", "bfloat16"]
_PROCESSOR = Path("/proc/cpuinfo")
_INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}


@cache
def half_precision() -> bool:
    """Say whether this processor multiplies bfloat16 in hardware; False where it doesn't say."""
    return _PROCESSOR.is_file() and bool(_INSTRUCTIONS & set(_PROCESSOR.read_text("ascii", "replace").split()))


def precision_on(device: str) -> Precision:
    """Return the precision of inference on a device of torch, such as cpu or cuda."""
    return "bfloat16" if device == "cpu" and half_precision() else "float32"
