"""Keeps memory that a process has freed for what it needs next.

A network's tensors are tens of megabytes each; the C library gives such memory back to the operating system at once and
asks for it again, zeroed page by page, for the next tensor: a third of the time that a slice takes.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h of the GNU C library
_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep what it has freed; False where the C library is none that can be told so."""
    if not sys.platform.startswith("linux"):
        return False
    tell = getattr(ctypes.CDLL(None), "mallopt", None)
    return tell is not None and bool(tell(_MMAP_MAX, 0) and tell(_TRIM_THRESHOLD, _MOST))
