"""Who is let in at a server's port, and how many: nobody without a token keeps out, or holds up, who has one.

A stranger has one deadline for the whole handshake; where there are many, the one that has been there longest goes.
Observers have places of their own, operators the rest. Who finds no place is hung up on without being read.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from Pyro5.svr_threads import NoFreeWorkersError, Pool

OPERATE, OBSERVE = "operate", "observe"
#: Connections that have shown no token yet, and those of each role.
MOST_STRANGERS = 16
MOST = {OBSERVE: 16, OPERATE: 32}
#: Workers for all of them, and for strangers that are on their way out.
WORKERS = MOST_STRANGERS + sum(MOST.values()) + 16
#: A connection whose other end has vanished is found dead after about a minute and a half (s, s, times).
_KEEPALIVE = {"TCP_KEEPIDLE": 45, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}


class Door:
    """Who stands at the door and who is inside; any thread may call.

    Parameters
    ----------
    handshake_s : what a stranger has to show its token
    rejected : told of each one that is sent away, and why
    """

    def __init__(self, handshake_s: float, rejected: Callable[[str, str], None]) -> None:
        self._handshake_s = handshake_s
        self.rejected = rejected
        self._lock = threading.Lock()
        self._strangers: dict[socket.socket, float] = {}
        self._inside: dict[socket.socket, str] = {}

    def arrive(self, who: socket.socket) -> None:
        """Let a stranger stand at the door; of many the one that has been there longest is hung up on."""
        with self._lock:
            self._strangers[who] = time.monotonic() + self._handshake_s
            over = list(self._strangers)[:-MOST_STRANGERS]
            for one in over:
                self._hang_up(one)

    def enter(self, who: socket.socket, role: str) -> None:
        """Let a stranger in who has shown a token; PermissionError where its role has no place left."""
        with self._lock:
            if self._strangers.pop(who, None) is None:
                msg = "too late: the connection was given up"
                raise PermissionError(msg)
            if list(self._inside.values()).count(role) >= MOST[role]:
                msg = f"full: {MOST[role]} connections that may {role} are open; close one"
                raise PermissionError(msg)
            self._inside[who] = role
        who.settimeout(None)  # may be silent from now on: a run that waits for a person is
        who.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            if hasattr(socket, option):
                who.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def leave(self, who: socket.socket) -> None:
        """Forget one that is gone."""
        with self._lock:
            self._strangers.pop(who, None)
            self._inside.pop(who, None)

    def look(self) -> None:
        """Hang up on strangers whose time is over, whatever they still send."""
        with self._lock:
            for one, deadline in list(self._strangers.items()):
                if time.monotonic() > deadline:
                    self._hang_up(one)

    def _hang_up(self, who: socket.socket) -> None:
        del self._strangers[who]
        with suppress(OSError):  # it has hung up itself
            socket.socket.shutdown(who, socket.SHUT_RDWR)  # TLS or not: whoever reads from it wakes


class Workers(Pool):
    """Pyro's threads, one for a connection: whom none is left for is hung up on, unread, by the loop that accepts."""

    def __init__(self, door: Door) -> None:
        start: Any = super().__init__  # Pyro5 has no types
        start()
        self._door = door

    def process(self, job: Any) -> None:
        """Give a connection to a worker."""
        who = job.csock.sock
        job.handleConnection = partial(self._shaken, job.csock, job.daemon, str(job.caddr))
        self._door.arrive(who)
        try:
            process: Any = super().process
            process(partial(self._served, job, who))
        except NoFreeWorkersError:
            self._door.leave(who)
            job.csock.close()
            self._door.rejected(str(job.caddr), "no worker is free")

    def _served(self, job: Callable[[], None], who: socket.socket) -> None:
        try:
            job()
        finally:
            self._door.leave(who)

    def _shaken(self, connection: Any, daemon: Any, address: str) -> bool:
        """Do the handshake; tell whether it is good."""
        why = "no handshake"
        try:
            if daemon._handshake(connection):  # noqa: SLF001 - Pyro's own interface
                return True
            why = getattr(connection, "kintsugi_refused", why)
        except Exception as error:  # noqa: BLE001 - what a stranger sends may break the decoder in any way
            why = f"no handshake: {type(error).__name__}: {error}"
        connection.close()
        self._door.rejected(address, why)
        return False
