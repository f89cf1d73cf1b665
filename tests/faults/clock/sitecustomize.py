"""Shifts this process's clock by the seconds that stand in the file KINTSUGI_CLOCK, whenever it is looked at.

What is measured with the monotonic clock stays right, as it does where somebody sets a computer's clock.
"""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path
from typing import Self

_PLACE = Path(os.environ["KINTSUGI_CLOCK"])
_TRUE_TIME = time.time


def _shifted() -> float:
    return _TRUE_TIME() + float(_PLACE.read_text(encoding="ascii"))


class _Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Self:
        return cls.fromtimestamp(_shifted(), tz)


time.time = _shifted
datetime.datetime = _Shifted  # type: ignore[misc]
