"""Stops and makes safe over a connection of its own: every step is tried, whatever became of the others."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from instrument.autoscript.connection import CALL_S, Connection
from instrument.autoscript.gases import source, source_names
from instrument.errors import DeviceFault, InstrumentError, Unsafe

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Blanking or connecting anew, and a needle's way out, end within so long (s on the wall).
BLANK_S, NEEDLE_S = 20.0, 3 * CALL_S


class Safety:
    """What stops a microscope and makes it safe, from any thread, and asks nothing else of it.

    A connection on which a call hangs is left to itself: the next step has a fresh one.

    Parameters
    ----------
    host, port : of the microscope's server

    Raises
    ------
    ConnectionLost : nothing answers there
    """

    def __init__(self, host: str, port: int) -> None:
        self._place = (host, port)
        self._lock = threading.Lock()
        self._closed = False
        self._line = Connection(host, port, "stops")

    def stop(self) -> None:
        """Blank, end the pattern and the scan in hand.

        Once all was tried, raises what names all that failed: DeviceFault where the microscope complained only, Unsafe
        where it does not answer.
        """
        failed: dict[str, InstrumentError] = {}
        self._stop(failed)
        _raise(failed)

    def make_safe(self) -> None:
        """Stop, shut the valves, take the needles out; idempotent. Heaters are left on. Raises what `stop` does."""
        failed: dict[str, InstrumentError] = {}
        self._stop(failed)
        names = self._try(failed, "find the gases", lambda scope: source_names(scope.gas)) or []
        for name in names:
            self._try(failed, f"shut {name or 'the valves'}", partial(_shut, name))
        for name in names:
            self._try(failed, f"retract {name or 'the needle'}", partial(_retract, name), NEEDLE_S)
        _raise(failed)

    def close(self) -> None:
        """Let go of the connection; the microscope stays as it is."""
        with self._lock:
            self._closed = True
        self._line.close()

    # -- private ------------------------------------------------------------------------------------------------------

    def _stop(self, failed: dict[str, InstrumentError]) -> None:
        self._blank(failed)
        self._try(failed, "stop patterning", _stop_patterning)
        self._try(failed, "stop scanning", lambda scope: scope.imaging.stop_acquisition())
        self._blank(failed)  # again: what went on may have unblanked, or kept it from blanking

    def _blank(self, failed: dict[str, InstrumentError]) -> None:
        self._try(failed, "blank the ion beam", lambda scope: scope.beams.ion_beam.blank(), BLANK_S)
        self._try(failed, "blank the electron beam", lambda scope: scope.beams.electron_beam.blank(), BLANK_S)

    def _try(
        self, failed: dict[str, InstrumentError], what: str, work: Callable[[Any], T], deadline_s: float = CALL_S
    ) -> T | None:
        """Do a step; where it fails, say so in `failed` and return None."""
        try:
            line = self._connected()
            out = line.call(what, lambda: work(line.client), deadline_s)
        except InstrumentError as error:
            log.error("%s", error.message)
            failed[what] = error
            return None
        failed.pop(what, None)
        return out

    def _connected(self) -> Connection:
        with self._lock:
            if (self._line.hangs or self._line.lost) and not self._closed:
                self._line.leave()
                self._line = Connection(*self._place, "stops", within_s=BLANK_S)
            return self._line


def _stop_patterning(scope: Any) -> None:
    if str(scope.patterning.state) != "Idle":
        scope.patterning.stop()


def _shut(name: str | None, scope: Any) -> None:
    source(scope.gas, name).close()


def _retract(name: str | None, scope: Any) -> None:
    needle = source(scope.gas, name)
    if str(needle.state) != "Retracted":
        needle.retract()


def _raise(failed: dict[str, InstrumentError]) -> None:
    if not failed:
        return
    names = list(failed)
    msg = f"the microscope did not {', '.join(names)}: {'; '.join(error.message for error in failed.values())}"
    if all(isinstance(error, DeviceFault) for error in failed.values()):
        raise DeviceFault(msg, failed=names)
    msg += "; it does not answer, and a person is needed now"
    raise Unsafe(msg, failed=names)
