"""What is freed is kept, where the C library can be told so."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_PROBE = """
import sys
import numpy as np
from analysis.memory import keep_freed_memory
told = keep_freed_memory() if sys.argv[1] == "keep" else False
def resident():
    return int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0])
before = resident()
taken = np.ones(60_000_000)
del taken
print(told, resident() - before > 400_000)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library can be told to keep memory")
@pytest.mark.parametrize(("how", "said"), [("keep", "True True"), ("leave", "False False")])
def test_freed_memory_stays_with_the_process(how: str, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", _PROBE, how], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == said
