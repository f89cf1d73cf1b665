"""Drives a Thermo Fisher dual beam through its AutoScript Python client, 4.13 or newer.

The client's package comes with the microscope and is imported when a URL such as `autoscript://localhost` asks for it.
What is known of it here comes from how open clients use it. `connection.py` calls it with deadlines, `values.py` knows
its axes and signs; `columns.py`, `screen.py`, `scans.py`, `writing.py` and `gases.py` say in its words what our verbs
ask; `applications.py` finds application files, `current_lists.py` keeps lists of currents, `following.py` follows what
is written; `elements.py` is the seam to the X-ray system, `element_files.py` reads what it exports, `xray.py` asks its
program; `undoing.py` undoes what failed, `printing.py` keeps the client's own words off standard output;
`microscope.py` has the verbs, `safety.py` stops and makes safe, and `opening.py` opens it by its URL.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instrument.autoscript.microscope import AutoscriptMicroscope
    from instrument.autoscript.safety import Safety

__all__ = ["name_of", "open", "open_for_safety"]


def open(url: str, state: Path | None = None) -> AutoscriptMicroscope:
    """Open the microscope of `autoscript://HOST[:PORT][?elements=FOLDER]`.

    `elements` is the folder into which the X-ray program exports its maps; without it there are no element maps.

    Raises
    ------
    Refused : a URL that can't be read, the client missing or too old
    ConnectionLost : nothing answers there
    """
    from instrument.autoscript.opening import open_url

    return open_url(url, state)


def open_for_safety(url: str) -> Safety:
    """Open the microscope to stop and make safe only: its server takes several connections at once."""
    from instrument.autoscript.opening import open_for_safety as opened

    return opened(url)


def name_of(url: str) -> str:
    """Return the one name of the microscope of a URL, as autoscript-localhost-7520."""
    from instrument.autoscript.opening import name_of as named

    return named(url)
