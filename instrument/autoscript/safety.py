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
        sweep = _Sweep()
        self._stop(sweep)
        sweep.end()

    def make_safe(self) -> None:
        """Stop, shut the valves, take the needles out; idempotent. Heaters are left on. Raises what `stop` does."""
        sweep = _Sweep()
        self._stop(sweep)
        names = self._try(sweep, "find the gases", lambda scope: source_names(scope.gas)) or []
        for name in names:
            self._try(sweep, f"shut {name or 'the valves'}", partial(_shut, name))
        for name in names:
            self._try(sweep, f"retract {name or 'the needle'}", partial(_retract, name), NEEDLE_S)
        sweep.end()

    def close(self) -> None:
        """Let go of the connection; the microscope stays as it is."""
        with self._lock:
            self._closed = True
        try:
            self._line.close()
        except InstrumentError as error:  # it was made safe, or that it was not is told already
            log.warning("%s", error.message)

    # -- private ------------------------------------------------------------------------------------------------------

    def _stop(self, sweep: _Sweep) -> None:
        self._blank(sweep)
        self._try(sweep, "stop patterning", _stop_patterning)
        self._try(sweep, "stop scanning", lambda scope: scope.imaging.stop_acquisition())
        self._blank(sweep)  # again: what went on may have unblanked, or kept it from blanking

    def _blank(self, sweep: _Sweep) -> None:
        self._try(sweep, "blank the ion beam", lambda scope: scope.beams.ion_beam.blank(), BLANK_S)
        self._try(sweep, "blank the electron beam", lambda scope: scope.beams.electron_beam.blank(), BLANK_S)

    def _try(self, sweep: _Sweep, what: str, work: Callable[[Any], T], deadline_s: float = CALL_S) -> T | None:
        """Do a step; where it fails, say so in the sweep and return None."""
        try:
            line = self._connected(sweep)
            out = line.call(what, lambda: work(line.client), deadline_s)
        except InstrumentError as error:
            log.error("%s", error.message)
            sweep.failed[what] = error
            return None
        sweep.failed.pop(what, None)
        return out

    def _connected(self, sweep: _Sweep) -> Connection:
        """Return the line, a fresh one where it hangs; one that can't be had is asked for once in a sweep."""
        with self._lock:
            if (self._line.hangs or self._line.lost) and not self._closed:
                if sweep.away is not None:
                    raise sweep.away
                self._line.leave()
                try:
                    self._line = Connection(*self._place, "stops", within_s=BLANK_S)
                except InstrumentError as error:
                    sweep.away = error
                    raise
            return self._line


class _Sweep:
    """What failed while all steps of a stop, or of making safe, were tried; `away`: nothing answers at all."""

    def __init__(self) -> None:
        self.failed: dict[str, InstrumentError] = {}
        self.away: InstrumentError | None = None

    def end(self) -> None:
        """Raise what names all that failed, if any did."""
        if not self.failed:
            return
        names, why = list(self.failed), dict.fromkeys(error.message for error in self.failed.values())
        msg = f"the microscope did not {', '.join(names)}: {'; '.join(why)}"
        if all(isinstance(error, DeviceFault) for error in self.failed.values()):
            raise DeviceFault(msg, failed=names)
        msg += "; it does not answer, and a person is needed now"
        raise Unsafe(msg, failed=names)


def _stop_patterning(scope: Any) -> None:
    if str(scope.patterning.state) != "Idle":
        scope.patterning.stop()


def _shut(name: str | None, scope: Any) -> None:
    source(scope.gas, name).close()


def _retract(name: str | None, scope: Any) -> None:
    needle = source(scope.gas, name)
    if str(needle.state) != "Retracted":
        needle.retract()
