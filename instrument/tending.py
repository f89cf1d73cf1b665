"""What a server does of itself while nothing is in hand: shuts a valve that stands open, cools a gas nobody needs.

A run may live and hang with its valve open: its heartbeat is a thread of its own. A run that is held may not come back
before morning: its gas stays hot for half an hour. Both are commands in the same queue as a run's, so that they never
meet a pattern. Time is this machine's monotonic clock, never the instrument's, which may jump.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Protocol

from instrument.actions import Actions
from instrument.errors import InstrumentError
from instrument.settings import GasSetting, State
from instrument.wire import SetGas

log = logging.getLogger(__name__)

#: With nothing in hand for so long, a run doesn't use the valve that it has opened (night.md 11), s.
OPEN_S = 30.0
#: So long after the last lease gases are kept hot for the next one, s.
HOT_S = 1800.0
#: What could not be done, or was done, is looked at again after so long, s.
AGAIN_S = 60.0
#: Looks farther apart than this: this process was not running, and the run's next command may be on its way, s.
_DEAF_S = 10.0


class Control(Protocol):
    """The lease, as far as it is looked at here."""

    @property
    def alive(self) -> bool:
        """Whether somebody controls the instrument."""

    @property
    def idle_s(self) -> float:
        """Seconds since the last lease ended, 0 while one lives."""


class Tending:
    """See the module.

    Parameters
    ----------
    actions, lease : what is in hand, and for whom
    state : reads the instrument
    tell : writes to the audit log
    now : this machine's monotonic clock (s)
    """

    def __init__(
        self,
        actions: Actions,
        lease: Control,
        state: Callable[[], State],
        tell: Callable[..., None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._actions, self._lease, self._state, self._tell, self._now = actions, lease, state, tell, now
        self._taken = -1
        self._looked = now()
        self._shut_at = math.inf
        self._cool_after_s = HOT_S
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Begin what is due, in a thread of its own: whoever looks never waits for the instrument."""
        now = self._now()
        taken = self._actions.taken
        if taken != self._taken or self._actions.busy or now - self._looked > _DEAF_S:
            self._taken, self._shut_at = taken, now + OPEN_S
        self._looked = now
        idle_s = self._lease.idle_s
        if idle_s <= HOT_S:
            self._cool_after_s = HOT_S
        if self._thread is not None and self._thread.is_alive():
            return
        if self._lease.alive and now > self._shut_at:
            self._shut_at = math.inf  # nothing opens a valve but a command
            self._begin(self._shut)
        elif idle_s > self._cool_after_s:
            self._cool_after_s = idle_s + AGAIN_S
            self._begin(self._cool)

    def close(self, seconds: float) -> None:
        """Wait for what was begun, `seconds` at most."""
        if self._thread is not None:
            self._thread.join(seconds)

    # -- private ------------------------------------------------------------------------------------------------------

    def _begin(self, work: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=self._tried, args=(work,), name="tending", daemon=True)
        self._thread.start()

    def _tried(self, work: Callable[[], None]) -> None:
        try:
            work()
        except InstrumentError as error:
            log.warning("the gas could not be looked after: %s", error.message)
            self._shut_at = self._now() + AGAIN_S

    def _shut(self) -> None:
        """Shut what stands open; what does not shut is tried again, as after any command."""
        for gas, now in self._state().gases.items():
            if now.valve_open:
                log.warning("%s stood open for %.0f s with nothing in hand: it is shut", gas, OPEN_S)
                self._do("shut", gas, GasSetting(valve_open=False), after_s=OPEN_S)

    def _cool(self) -> None:
        """Cool what is hot, unless a person works at the screen meanwhile; done once nothing is hot."""
        now = self._state()
        hot = [gas for gas, one in now.gases.items() if one.heater_on]
        if not hot:
            self._cool_after_s = math.inf
        if now.patterning or self._lease.alive:
            return
        for gas in hot:
            self._do("cool", gas, GasSetting(heater_on=False), after_s=self._lease.idle_s)

    def _do(self, what: str, gas: str, setting: GasSetting, *, after_s: float) -> None:
        self._tell(what, gas=gas, after_s=after_s)
        self._actions.submit(f"server/{what}/{gas}/{self._actions.taken}", SetGas(gas=gas, setting=setting))
