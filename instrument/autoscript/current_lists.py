"""The ion column's own lists of currents: it tells one only where it stands, so those that were seen are kept.

One that was seen by an earlier process is a good guess, not more: apertures are changed at a service.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from instrument import durable
from instrument.settings import Description

log = logging.getLogger(__name__)

FILE = "currents.json"


class CurrentLists:
    """The lists that were read from one microscope, A, by the names of `Description.ion_currents_a`.

    Parameters
    ----------
    folder : where they last; None: in memory only
    serial : of the microscope; another one's lists are not taken
    """

    def __init__(self, folder: Path | None, serial: str) -> None:
        self._path = None if folder is None else folder / FILE
        self._serial = serial
        self._before, self._seen = self._kept(), dict[str, tuple[float, ...]]()

    def learn(self, name: str, listed: tuple[float, ...]) -> bool:
        """Keep a list that isn't empty; tell whether it was news."""
        if not listed or self._seen.get(name) == listed:
            return False
        self._seen[name] = listed
        if self._path is not None:
            try:
                kept = {"serial": self._serial, "ion_currents_a": self._before | self._seen}
                durable.atomic_write_json(self._path, kept)
            except OSError as error:
                log.warning("%s can't be written, so that lists of currents are assumed anew: %s", self._path, error)
        return True

    def put_into(self, described: Description) -> Description:
        """Return a description with these lists; those that this process has not read stay assumed."""
        return described.replace(
            ion_currents_a={**described.ion_currents_a, **self._before, **self._seen},
            assumed_currents=tuple(one for one in described.assumed_currents if one not in self._seen),
        )

    def _kept(self) -> dict[str, tuple[float, ...]]:
        """Return the lists of sessions before; none where their file is damaged: they are read again."""
        if self._path is None or not self._path.is_file():
            return {}
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            if kept["serial"] != self._serial:
                return {}
            return {str(name): tuple(float(one) for one in listed) for name, listed in kept["ion_currents_a"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("%s can't be read, so that lists of currents are assumed anew: %s", self._path, error)
            return {}
