"""Calls the vendor's client: each connection in a thread of its own, each call with a deadline."""

from __future__ import annotations

import importlib
import logging
import queue
import re
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from instrument.autoscript.printing import on_stderr
from instrument.errors import ConnectionLost, DeviceFault, InstrumentError, Refused, TimedOut

T = TypeVar("T")

log = logging.getLogger(__name__)

PACKAGE = "autoscript_sdb_microscope_client"
#: The first version with Python 3.11.
OLDEST = (4, 13)
#: Calls that only read or set something, and connecting: seconds on the wall.
CALL_S, CONNECT_S = 60.0, 60.0
#: A wait for something that should take `s` seconds ends after PATIENT * s + CALL_S, on the wall.
PATIENT = 3.0
#: A call that is not back so long after its deadline (s on the wall) counts as one that never comes back.
LATE_S = 30.0


def client_version() -> str:
    """Return the installed client's version; Refused where it is missing or older than 4.13."""
    try:
        information = importlib.import_module(f"{PACKAGE}.build_information")
    except ImportError as error:
        msg = (
            f"the AutoScript client ({PACKAGE}) can't be imported here: {error}; it comes with the microscope: install "
            "its wheels into this environment, or dry-run on the emulation (`kintsugi autoscript --path`)"
        )
        raise Refused(
            msg, rule="autoscript-installed", field="instrument", value=PACKAGE, limit="4.13 or newer",
            remedy="install the vendor's wheels",
        ) from error  # fmt: skip
    version = str(information.INFO_VERSIONSHORT)
    numbers = tuple(int(one) for one in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST:
        msg = f"the AutoScript client is {version}; 4.13 or newer is needed, the first for Python 3.11"
        raise Refused(
            msg, rule="autoscript-version", field="instrument", value=version, limit="4.13", remedy="update AutoScript"
        )
    return version


def enumeration(name: str) -> Any:
    """Return one of the client's enumerations."""
    return getattr(importlib.import_module(f"{PACKAGE}.enumerations"), name)


def structure(name: str) -> Any:
    """Return one of the client's structures."""
    return getattr(importlib.import_module(f"{PACKAGE}.structures"), name)


class Caller:
    """A thread that calls what does not promise to come back.

    A call that does not end by its deadline is given up. Should it come back late, the thread goes on to the next one;
    until then nothing else is done, and after LATE_S it counts as lost: every further call fails at once.

    Parameters
    ----------
    name : of the thread
    late : called in the thread when a call came back after it was given up, before any further one
    """

    def __init__(self, name: str, late: Callable[[], None] = lambda: None) -> None:
        self._late = late
        self._given_up: _Call | None = None
        self._dropped = self._ended = False
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name=f"autoscript {name}", daemon=True)
        self._thread.start()

    @property
    def hangs(self) -> bool:
        """Whether a call that was given up has not come back yet."""
        return self._given_up is not None and not self._given_up.there.is_set()

    @property
    def lost(self) -> bool:
        """Whether it is of no more use: it is closed, a call never came back, or the client has lost its connection."""
        return self._ended or self._dropped or (self.hangs and self._patience_s() <= 0)

    def call(self, what: str, function: Callable[[], T], deadline_s: float = CALL_S) -> T:
        """Call in the connection's thread and return what comes back.

        Raises
        ------
        TimedOut : it had not come back after `deadline_s` seconds on the wall: whether it was done is not known
        ConnectionLost : an earlier call never came back, or the client says that it is not connected
        DeviceFault : the client's own complaint
        """
        self._not_ended(what)
        self.settle()
        call = _Call(what, function)
        self._work.put(call)
        if not call.there.wait(deadline_s):
            self._give_up(call, deadline_s)
        if call.error is not None:
            known = told(what, call.error)
            self._dropped = self._dropped or isinstance(known, ConnectionLost)
            raise known from call.error
        return call.value  # type: ignore[no-any-return]

    def settle(self) -> None:
        """Wait for a call that is late; ConnectionLost where it never comes back."""
        late = self._given_up
        if late is not None and not late.there.wait(max(0.0, self._patience_s())):
            msg = f"{late.what}: it never came back, and nothing more is asked here; start the server anew"
            raise ConnectionLost(msg, hung=late.what)

    def end(self) -> None:
        """End the thread; one that hangs ends when what it waits for comes back, if ever."""
        self._ended = True
        self._work.put(None)
        if not self.hangs:
            self._thread.join(CALL_S)

    def _not_ended(self, what: str) -> None:
        if self._ended:
            msg = f"{what}: not asked, as this connection is closed"
            raise ConnectionLost(msg, call=what)

    def _patience_s(self) -> float:
        late = self._given_up
        return LATE_S if late is None else late.given_up_at + LATE_S - time.monotonic()

    def _give_up(self, call: _Call, deadline_s: float) -> None:
        """Raise TimedOut, unless it came back this very moment."""
        with self._lock:
            if call.there.is_set():
                return
            earlier = self._given_up
            behind = earlier is not None and not earlier.there.is_set()
            call.given_up_at = earlier.given_up_at if earlier is not None and behind else time.monotonic()
            call.given_up, self._given_up = True, call
        msg = f"{call.what}: the microscope has not answered for {deadline_s:.0f} s; whether it was done is not known"
        raise TimedOut(msg, call=call.what, waited_s=deadline_s)

    def _loop(self) -> None:
        while (call := self._work.get()) is not None:
            if not call.given_up:  # else nobody waits for it any more, and it was not begun
                try:
                    call.value = call.function()
                except Exception as error:  # noqa: BLE001 - handed to the caller, who says what it means
                    call.error = error
                with self._lock:
                    if not call.given_up:
                        call.there.set()
                        continue
                log.warning("%s came back late", call.what)
                try:
                    self._late()
                except InstrumentError as error:
                    log.critical("what came back late could not be stopped: %s", error.message)
                    return  # stays hung, and so is lost
            call.there.set()


class Connection(Caller):
    """One connection to the microscope's server and the thread that speaks over it.

    `stop` and reading have connections of their own.

    Parameters
    ----------
    host, port : of the microscope's server
    name : of the thread
    late : called when a call came back after it was given up
    within_s : connecting takes no longer (s on the wall)
    """

    def __init__(
        self, host: str, port: int, name: str, late: Callable[[], None] = lambda: None, within_s: float = CONNECT_S
    ) -> None:
        super().__init__(name, late)
        self.client: Any = None
        try:
            self.client = self._connect(host, port, within_s)
        except BaseException:
            self.close()
            raise

    def _connect(self, host: str, port: int, within_s: float) -> Any:
        def work() -> Any:
            with on_stderr():
                client = importlib.import_module(PACKAGE).SdbMicroscopeClient()
                client.connect(host, port)
            return client

        try:
            return self.call("connect", work, within_s)
        except (DeviceFault, TimedOut) as error:
            msg = f"no AutoScript server answers at {host}:{port}: {error.message}; start it on the microscope"
            raise ConnectionLost(msg, host=host, port=port) from error

    def close(self) -> None:
        """Disconnect, and end the thread; what hangs is left to itself."""
        if self.hangs:
            self.leave()
        elif not self._ended:
            try:
                self.call("disconnect", self._disconnect, CALL_S)
            finally:
                self.end()

    def leave(self) -> None:
        """Disconnect and end once what is in hand has come back, if ever; nobody waits for it."""
        if not self._ended:
            self._ended = True
            self._work.put(_Call("disconnect", self._disconnect))
            self._work.put(None)

    def _disconnect(self) -> None:
        if self.client is not None:
            with on_stderr():
                self.client.disconnect()


class _Call:
    """What is to be called, and what came of it."""

    def __init__(self, what: str, function: Callable[[], Any]) -> None:
        self.what, self.function = what, function
        self.there = threading.Event()
        self.given_up = False
        self.given_up_at = 0.0
        self.value: Any = None
        self.error: Exception | None = None


def told(what: str, error: Exception) -> InstrumentError:
    """Return the error of ours that an exception of the client's is.

    What the server complains about (ApplicationServerException, whatever its base) is a DeviceFault.
    """
    if isinstance(error, InstrumentError):
        return error
    if isinstance(error, ConnectionError | EOFError):
        return ConnectionLost(f"{what}: the connection to the microscope is lost: {error}", call=what)
    return DeviceFault(f"{what}: {error}", call=what, kind=type(error).__name__)
