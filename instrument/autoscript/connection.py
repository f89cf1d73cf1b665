"""Calls the vendor's client: each connection in a thread of its own, each call with a deadline."""

from __future__ import annotations

import importlib
import queue
import re
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from instrument.errors import ConnectionLost, DeviceFault, InstrumentError, Refused, TimedOut

T = TypeVar("T")

PACKAGE = "autoscript_sdb_microscope_client"
#: The first version with Python 3.11.
OLDEST = (4, 13)
#: Calls that only read or set something, and connecting: seconds on the wall.
CALL_S, CONNECT_S = 60.0, 60.0


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

    A call that does not end by its deadline leaves the thread to itself: every further call fails at once, so that
    nothing queues behind what hangs.
    """

    def __init__(self, name: str) -> None:
        self._hung: str | None = None
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], _Answer] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name=f"autoscript {name}", daemon=True)
        self._thread.start()

    @property
    def hangs(self) -> bool:
        """Whether a call has never come back."""
        return self._hung is not None

    def call(self, what: str, function: Callable[[], T], deadline_s: float = CALL_S) -> T:
        """Call in the connection's thread and return what comes back.

        Raises
        ------
        TimedOut : it had not come back after `deadline_s` seconds on the wall: whether it was done is not known
        ConnectionLost : an earlier call hangs, or the client says that it is not connected
        DeviceFault : the client's own complaint
        """
        if self._hung is not None:
            msg = f"{what}: not asked, as an earlier call ({self._hung}) never came back; start the server anew"
            raise ConnectionLost(msg, hung=self._hung)
        answer = _Answer()
        self._work.put((function, answer))
        if not answer.there.wait(deadline_s):
            self._hung = what
            msg = f"{what}: the microscope has not answered for {deadline_s:.0f} s; whether it was done is not known"
            raise TimedOut(msg, call=what, waited_s=deadline_s)
        if answer.error is not None:
            raise told(what, answer.error) from answer.error
        return answer.value  # type: ignore[no-any-return]

    def end(self) -> None:
        """End the thread; one that hangs ends when what it waits for comes back, if ever."""
        self._work.put(None)
        if self._hung is None:
            self._thread.join(CALL_S)

    def _loop(self) -> None:
        while (item := self._work.get()) is not None:
            function, answer = item
            try:
                answer.value = function()
            except Exception as error:  # noqa: BLE001 - handed to the caller, who says what it means
                answer.error = error
            answer.there.set()


class Connection(Caller):
    """One connection to the microscope's server and the thread that speaks over it.

    `stop` and reading have connections of their own.

    Parameters
    ----------
    host, port : of the microscope's server
    name : of the thread
    """

    def __init__(self, host: str, port: int, name: str) -> None:
        super().__init__(name)
        self.client: Any = None
        try:
            self.client = self._connect(host, port)
        except BaseException:
            self.close()
            raise

    def _connect(self, host: str, port: int) -> Any:
        def work() -> Any:
            client = importlib.import_module(PACKAGE).SdbMicroscopeClient()
            client.connect(host, port)
            return client

        try:
            return self.call("connect", work, CONNECT_S)
        except (DeviceFault, TimedOut) as error:
            msg = f"no AutoScript server answers at {host}:{port}: {error.message}; start it on the microscope"
            raise ConnectionLost(msg, host=host, port=port) from error

    def close(self) -> None:
        """Disconnect, and end the thread."""

        def work() -> None:
            if self.client is not None:
                self.client.disconnect()

        try:
            if self._hung is None:
                self.call("disconnect", work, CALL_S)
        finally:
            self.end()


class _Answer:
    def __init__(self) -> None:
        self.there = threading.Event()
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
