"""The instrument server: holds the one connection, does commands by id once, makes safe when its controller is gone.

    python -m instrument.server URL --state DIR

In DIR: server.json (where it listens), tokens of their own, ledger.jsonl, audit.log, spool/, and for the simulator its
saved state. It binds to the loopback; elsewhere only over two-way TLS (`--certificates`), or use `ssh -L`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instrument import durable, holding
from instrument.actions import Actions
from instrument.audit import Audit
from instrument.errors import (
    ConnectionLost,
    DeviceFault,
    InstrumentError,
    NotInControl,
    Refused,
    TimedOut,
    Unsafe,
    from_plain,
)
from instrument.guard import Guarded
from instrument.lease import Lease, check_seconds
from instrument.ledger import Ledger
from instrument.microscope import Microscope
from instrument.settings import Envelope, GasSetting
from instrument.spool import Spool
from instrument.tending import Tending
from instrument.tokens import token, token_file
from instrument.wire import Command, Wait, WritePattern, command_from_plain

if TYPE_CHECKING:
    from instrument.link import TokenDaemon

log = logging.getLogger(__name__)

LEASE_S, LINGER_S, START_S = 10.0, 600.0, 300.0
#: A server waits so long for the one before it to let go of its folder, s.
LOCK_S = 120.0
#: And so long for who only reads from its instrument (`kintsugi doctor`), s.
READ_S = 30.0
MOST_WAIT_S = 2.0
#: An instrument that complained while it was made safe (a stuck needle) is made safe again after so long, s.
AGAIN_S = 60.0
#: So often the server looks after what nobody asks it for, s.
LOOK_S = 0.5
#: Longest name of a run, and of an action.
_NAME = 200
#: Servers that this process started and that outlive it: the operating system wants their parent to collect them.
_STARTED: list[subprocess.Popen[bytes]] = []


class Server:
    """What clients call; every answer is {"ok": value} or {"error": plain error}.

    Parameters
    ----------
    microscope : the instrument itself; this object is the only one that speaks with it
    state : folder for ledger, audit log and spool
    lease_s : T, seconds without a heartbeat until it makes safe
    """

    def __init__(self, microscope: Microscope, state: Path, *, lease_s: float = LEASE_S) -> None:
        self._microscope = microscope
        self._audit = Audit(state / "audit.log")
        self._tell = self._audit.tell
        self.broken = threading.Event()
        self._silent = False  # it did not answer when it was made safe last
        self._again_at: float | None = None
        self._again: threading.Thread | None = None
        self._looked_at, self._by_hand = -AGAIN_S, False
        self._ledger = Ledger(state / "ledger.jsonl")
        self._spool = Spool(state / "spool")
        self._guarded = Guarded(microscope, charge=self._ledger.charge)
        ledger = self._ledger
        if ledger.damaged or ledger.lost:
            harm = {"lines": ledger.damaged, "copy": str(ledger.copy or ""), "lost": sorted(ledger.lost)}
            self._tell("ledger damaged", **harm, blind=ledger.blind)
        self._actions = Actions(self._guarded, self._ledger, self._spool, self._broke, self._failed)
        self._lease = Lease(lease_s, self._lapsed)
        self._tending = Tending(self._actions, self._lease, self._guarded.state, self._tell)
        if hasattr(microscope.clock, "live"):
            microscope.clock.live = lambda: self._lease.alive

    # -- control ------------------------------------------------------------------------------------------------------

    def claim(self, run: str, envelope: dict[str, Any] | None) -> dict[str, Any]:
        """Take control for a run, within an envelope; the same run takes over from its former self."""
        self._operators_only()
        if not isinstance(run, str) or not 0 < len(run) <= _NAME:
            msg = f"a run's name is a text of 1 to {_NAME} characters"
            raise ValueError(msg)
        wanted = None if envelope is None else Envelope.model_validate(envelope)
        epoch = self._lease.claim(run, lambda: self._ledger.claim(run))
        self._again_at = None  # it is theirs now, needle and all
        self._guarded.envelope = wanted
        self._actions.max_pattern_s = wanted.max_pattern_s if wanted is not None else 120.0
        self._tell("claim", run=run, epoch=epoch)
        return {"epoch": epoch, "lease_s": self._lease.seconds}

    def renew(self, epoch: int) -> None:
        """Heartbeat."""
        self._operators_only()
        self._lease.renew(epoch)

    def release(self, epoch: int) -> None:
        """Give control back: the instrument stays as it stands, but with nothing in hand, no beam and no gas on."""
        self._operators_only()
        self._lease.check(epoch)
        state = self._guarded.state()
        if self._actions.busy or state.patterning or any(gas.valve_open for gas in state.gases.values()):
            self._make_safe()
        self._lease.release(epoch)
        self._tell("release", epoch=epoch)

    # -- looking ------------------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Return the instrument's description."""
        return self._microscope.describe().model_dump(mode="json")

    def snapshot(self) -> dict[str, Any]:
        """Return the instrument's state, and who controls it."""
        return {"state": self._guarded.state().model_dump(mode="json"), "controlled": self._lease.alive}

    def events(self, since: int) -> list[dict[str, Any]]:
        """Return what happened after event number `since`."""
        return self._audit.since(since)

    # -- doing --------------------------------------------------------------------------------------------------------

    def submit(self, epoch: int, action_id: str, command: dict[str, Any]) -> dict[str, Any]:
        """Take a command under an id, once."""
        self._operators_only()
        self._lease.check(epoch)
        wanted = command_from_plain(command)
        if not action_id or len(action_id) > _NAME:
            msg = f"an action's id has 1 to {_NAME} characters"
            raise ValueError(msg)
        if not isinstance(wanted, Wait):
            self._tell("submit", id=action_id, command=_told(wanted))
        return self._actions.submit(action_id, wanted).to_plain()

    def wait(self, action_id: str, seconds: float) -> dict[str, Any] | None:
        """Wait for an action to end, two seconds at most; return what is known then, None for an unknown id."""
        record = self._actions.wait(action_id, min(MOST_WAIT_S, max(0.0, float(seconds))))
        return None if record is None else record.to_plain()

    def lookup(self, action_id: str) -> dict[str, Any] | None:
        """Return what is known about an action, None for an unknown id."""
        record = self._actions.find(action_id)
        return None if record is None else record.to_plain()

    def patterns(self, run: str) -> list[str]:
        """Return the ids of all patterns of a run that the ledger has, in order."""
        return self._ledger.patterns(str(run))

    def chunk(self, name: str, offset: int) -> bytes:
        """Return a frame's bytes from an offset on, 1 MiB at most, none at its end."""
        return self._spool.read(name, int(offset))

    def release_frame(self, epoch: int, name: str) -> None:
        """Delete a frame that was fetched."""
        self._operators_only()
        self._lease.check(epoch)
        self._spool.release(name)

    def stop(self) -> None:
        """End what is in hand, blanked; never queues behind it."""
        self._operators_only()
        try:
            self._actions.stop()
        finally:
            self._tell("stop")  # afterwards: a disk may be slow

    def make_safe(self) -> dict[str, Any]:
        """Make safe; never queues behind what is in hand."""
        self._operators_only()
        self._try(self._actions.stop)
        self._tell("make_safe")
        try:
            return self._guarded.make_safe().model_dump(mode="json")
        except DeviceFault:
            self._again_at = time.monotonic() + AGAIN_S  # once nobody controls it any more
            raise

    # -- life ---------------------------------------------------------------------------------------------------------

    @property
    def idle_s(self) -> float:
        """Seconds without a controller."""
        return self._lease.idle_s

    def close(self, *, cool: bool = False) -> None:
        """Let go of the instrument, made safe; `cool`: nobody has come back, and gases are not kept hot for them.

        What a run gave back is safe already, and a person may work there since: then nothing is stopped or moved.
        """
        self._lease.close()
        self._tending.close(LOCK_S)
        if self._again is not None:
            self._again.join(LOCK_S)
        given_back = self._lease.released and self._again_at is None and not self.broken.is_set()
        try:
            if given_back and self._actions.close():
                if cool:
                    self._try(partial(self._cool, beside_a_person=True))
            else:
                self._close_safe(cool=cool)
        finally:
            self._microscope.close()

    def _close_safe(self, *, cool: bool) -> None:
        hopeless = self._silent and not self._actions.busy  # it has just failed, and nothing was begun since
        if not hopeless:
            self._try(self._actions.stop)
        if not self._actions.close():
            log.critical("what was in hand has not ended")
        if not hopeless and self._tried_safe() is not None:
            self.broken.set()
        if cool and not self._silent:
            self._try(self._cool)

    def worked_by_hand(self) -> bool:
        """Whether somebody patterns at the screen since a run gave control back, as looked at in the last minute."""
        if self._lease.released and time.monotonic() > self._looked_at + AGAIN_S:
            self._looked_at = time.monotonic()
            try:
                self._by_hand = self._microscope.state().patterning
            except InstrumentError as error:
                log.warning("whether somebody works at the instrument is not known: %s", error.message)
                self._by_hand = False
        return self._lease.released and self._by_hand

    def _cool(self, *, beside_a_person: bool = False) -> None:
        """Switch heaters off; beside a person not under their pattern."""
        state = self._microscope.state()
        for gas, now in state.gases.items():
            if now.heater_on and not (beside_a_person and state.patterning):
                self._try(partial(self._microscope.set_gas, gas, GasSetting(heater_on=False)))

    def look(self) -> None:
        """Break where only a new process can connect to the instrument again; make safe again what complained.

        And look after the gas.
        """
        self._tending.look()
        if self._microscope.lost and not self.broken.is_set():
            self._broke("the connection to the instrument is lost")
        again_at = self._again_at
        if again_at is not None and time.monotonic() > again_at and not self._lease.alive:
            self._again_at = None
            self._again = threading.Thread(target=self._make_safe, name="safe again", daemon=True)
            self._again.start()

    def _broke(self, why: str) -> None:
        self._tell("broken", why=why)
        self._make_safe()
        self.broken.set()

    def _operators_only(self) -> None:
        from instrument.link import may_operate

        if not may_operate():
            msg = "this token may look, not operate"
            raise NotInControl(msg)

    def _lapsed(self, run: str) -> None:
        self._tell("lapsed", run=run, after_s=self._lease.seconds)
        log.warning("no heartbeat from run %s for %.1f s: making safe", run, self._lease.seconds)
        self._make_safe()

    def _make_safe(self) -> None:
        """Stop, then make safe, whatever the stop says.

        Where the instrument complains, it is tried again at a later look: a needle usually moves the second time. Where
        it does not answer, this server ends: the watchdog makes safe over a connection of its own.
        """
        try:
            self._try(self._actions.stop)
            failed = self._tried_safe()
        except BaseException:
            self.broken.set()  # a defect
            raise
        if isinstance(failed, DeviceFault):
            self._again_at = time.monotonic() + AGAIN_S
        elif failed is not None:
            self.broken.set()

    def _tried_safe(self) -> Exception | None:
        """Make safe; return what it failed with."""
        failed = self._try(self._guarded.make_safe)
        self._silent = isinstance(failed, Unsafe)
        return failed

    def _try(self, step: Callable[[], object]) -> Exception | None:
        """Do a step; return what it failed with."""
        try:
            step()
        except (InstrumentError, OSError) as error:
            self._tell("unsafe", why=str(error))
            log.critical("could not be made safe: %s", error)
            return error
        return None

    def call_failed(self, method: str, error: InstrumentError) -> None:
        """Write down a call that was refused: a second controller, an old epoch, no right, or no sense."""
        if isinstance(error, Refused | NotInControl):
            rule = str(error.evidence.get("rule", ""))
            self._audit.tell_rarely("refused", method=method, symptom=error.symptom, rule=rule, why=error.message)

    def rejected(self, who: str, why: str) -> None:
        """Write down a connection that was not let in."""
        self._audit.tell_rarely("rejected", who=who, why=why)

    def _failed(self, action_id: str, error: InstrumentError) -> None:
        rule = str(error.evidence.get("rule", ""))
        self._tell("failed", id=action_id, symptom=error.symptom, rule=rule, why=error.message)


def _told(command: Command) -> dict[str, Any]:
    """Return what the audit log says of a command: all of it, but of a pattern not its shapes."""
    if isinstance(command, WritePattern):
        return command.model_dump(mode="json", exclude_none=True, exclude={"job": {"patterns"}})
    return command.model_dump(mode="json", exclude_none=True)


EXPOSED = (
    "claim", "renew", "release", "describe", "snapshot", "events", "submit", "wait", "lookup", "patterns", "chunk",
    "release_frame", "stop", "make_safe",
)  # fmt: skip


def listen(state: Path, *, port: int = 0, host: str = "", certificates: Path | None = None) -> TokenDaemon:
    """Bind to a port, before the instrument is connected to: nobody is answered yet.

    Elsewhere than on the loopback only over two-way TLS, with a folder of certificates. Refused for an address, a port
    or certificates that can't be used.
    """
    from instrument import link

    link.check_host(host, certificates)
    if certificates is not None and not (certificates / "server-key.pem").is_file():
        remedy = "kintsugi serve --make-certificates"
        msg = f"--certificates {certificates} has no server-key.pem: make it with {remedy}"
        raise Refused(msg, rule="certificates", field="--certificates", value=str(certificates), remedy=remedy)
    link.configure(certificates)
    durable.make_dir(state)
    tokens = {role: token(state, role) for role in ("operate", "observe")}
    try:
        return link.TokenDaemon(tokens, port, host or link.LOOPBACK)
    except (OSError, OverflowError) as error:
        remedy = "name another one, or 0 for any that is free"
        msg = f"--port {port} can't be listened on at {host or link.LOOPBACK}: {error}; {remedy}"
        raise Refused(
            msg, rule="port", field="--port", value=port, limit="a free port, 0..65535", remedy=remedy
        ) from error


def serve(
    microscope: Microscope, state: Path, *, url: str = "", lease_s: float = LEASE_S, linger_s: float = LINGER_S,
    stopping: threading.Event | None = None, daemon: TokenDaemon | None = None,
) -> None:  # fmt: skip
    """Serve a microscope until nobody has controlled it for `linger_s` (0: for ever), or `stopping` is set.

    On a free port of the loopback, unless `daemon` listens elsewhere already.
    """
    from instrument import link

    daemon = daemon or listen(state)
    server = Server(microscope, state, lease_s=lease_s)
    daemon.door.rejected = server.rejected
    daemon.publish(link.published(server, EXPOSED, server.call_failed))
    stop = stopping or threading.Event()
    where = {
        "host": daemon.host, "port": daemon.sock.getsockname()[1], "pid": os.getpid(), "url": url,
        "lease_s": lease_s, "tokens": {role: token_file(state, role).name for role in ("operate", "observe")},
    }  # fmt: skip
    durable.atomic_write_json(state / "server.json", where)

    def left() -> bool:
        return 0 < linger_s < server.idle_s and not server.worked_by_hand()

    over = threading.Event()
    looking = threading.Thread(target=_look_after, args=(server, over, left), name="looking", daemon=True)
    looking.start()
    try:
        daemon.requestLoop(lambda: not (over.is_set() or stop.is_set() or server.broken.is_set()))
    finally:
        over.set()
        (state / "server.json").unlink(missing_ok=True)
        daemon.close()
        looking.join(LOCK_S)
        server.close(cool=left() and not stop.is_set())
    if server.broken.is_set():
        msg = f"the server ended by a defect, or without its instrument safe; see {state / 'audit.log'}"
        raise Unsafe(msg)


def _look_after(server: Server, over: threading.Event, left: Callable[[], bool]) -> None:
    """Look twice a second, whatever clients do at the port, until it is `over`; sets that once all have `left`."""
    try:
        while not over.wait(LOOK_S):
            server.look()
            if left():
                over.set()
    except BaseException:
        server.broken.set()  # a defect
        raise


def start(url: str, state: Path, *, lease_s: float = LEASE_S, timeout_s: float = START_S) -> Path:
    """Start a server of its own, detached; return its server.json once it answers.

    One that works in this folder already and answers is joined. Raises the error that kept it from starting,
    NotInControl where another holds the folder and doesn't answer, or TimedOut.
    """
    durable.make_dir(state)
    place, failed = state / "server.json", state / "server-error.json"
    if is_alive(place):
        return place
    failed.unlink(missing_ok=True)
    stale = _bytes_of(place)
    command = [sys.executable, "-m", "instrument.server", url, "--state", str(state), "--lease", str(lease_s)]
    with (state / "server.log").open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **detached()
        )  # fmt: skip
    _STARTED.append(process)
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while time.monotonic() < deadline:
        if failed.exists():
            raise from_plain(json.loads(failed.read_text(encoding="utf-8")))
        if process.poll() is not None:
            msg = f"the instrument server ended at once (code {process.returncode}); see {state / 'server.log'}"
            raise ConnectionLost(msg, url=url)
        if _bytes_of(place) not in (b"", stale):
            return place
        pause.wait(0.05)
    msg = f"the instrument server was not ready after {timeout_s:.0f} s; see {state / 'server.log'}"
    raise TimedOut(msg, url=url)


def is_alive(place: Path) -> bool:
    """Tell whether the server that wrote this server.json answers."""
    from instrument import link

    try:
        where = json.loads(place.read_text(encoding="utf-8"))
        token = (place.parent / where["tokens"]["observe"]).read_text(encoding="ascii")
        line = link.Line(where["host"], int(where["port"]), token, timeout_s=5.0)
        line.call("events", 0)
    except (InstrumentError, OSError, ValueError, KeyError):
        return False
    line.close()
    return True


def main(arguments: list[str] | None = None) -> int:
    """Run a server in this process, with a watchdog above it; returns the exit code."""
    from instrument import link

    parser = argparse.ArgumentParser(prog="python -m instrument.server", description="hold an instrument for runs")
    parser.add_argument("url", help="the instrument, such as simulator:3")
    parser.add_argument("--state", type=Path, required=True, help="folder for ledger, tokens, spool, saved state")
    parser.add_argument("--port", type=int, default=0, help="on the loopback; 0 takes a free one")
    parser.add_argument("--lease", type=float, default=LEASE_S, help="seconds without a heartbeat until it makes safe")
    parser.add_argument(
        "--linger", type=float, default=LINGER_S, help="seconds without a lease until it ends; 0: never"
    )
    parser.add_argument("--host", default="", help="address to listen on; elsewhere than the loopback with TLS only")
    parser.add_argument("--certificates", type=Path, help="folder of certificates: two-way TLS")
    parser.add_argument("--watched", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    durable.make_dir(options.state)
    logging.getLogger("Pyro5.protocol").setLevel(logging.CRITICAL)  # what strangers send is in the audit log, rarely
    try:
        check_seconds(options.lease, "--lease")
        link.check_host(options.host, options.certificates)
    except Refused as error:
        return _failed(options.state, error)
    if not options.watched:
        from instrument.watchdog import watch

        return watch(arguments if arguments is not None else sys.argv[1:], options.url, options.state)
    return _child(options)


def _child(options: argparse.Namespace) -> int:
    from instrument.watchdog import beat

    stopping = threading.Event()
    beat(stopping)
    try:
        lock = take_folder(options.state, LOCK_S, stopping)
    except NotInControl as error:
        return _failed(options.state, error)
    try:
        with holding.held(options.url, "an instrument server", seconds=READ_S, stopping=stopping):
            return _serving(options, stopping)
    except Refused as error:
        return _failed(options.state, error)
    finally:
        lock.release()


def take_folder(state: Path, seconds: float, stopping: threading.Event) -> durable.FileLock:
    """Take a state folder for a server; wait up to `seconds` for the one before to let go of it, else NotInControl."""
    try:
        return holding.take(durable.FileLock(state / "server.lock"), seconds, stopping)
    except durable.AlreadyLocked as error:
        msg = f"{error}: another server works there"
        raise NotInControl(msg, owner=error.owner) from error


def _serving(options: argparse.Namespace, stopping: threading.Event) -> int:
    from instrument import connect

    daemon = None
    try:
        daemon = listen(options.state, port=options.port, host=options.host, certificates=options.certificates)
        microscope = connect(options.url, options.state)
    except InstrumentError as error:
        if daemon is not None:
            daemon.close()
        return _failed(options.state, error)
    try:
        serve(
            microscope, options.state, url=options.url, lease_s=options.lease, linger_s=options.linger,
            stopping=stopping, daemon=daemon,
        )  # fmt: skip
    except InstrumentError as error:
        log.critical("%s", error.message)
        return 1
    return 0


def _failed(state: Path, error: InstrumentError) -> int:
    """Leave the error that kept the server from starting for whoever waits for it."""
    durable.atomic_write_json(state / "server-error.json", error.to_plain())
    log.error("%s", error.message)
    return 2


def _bytes_of(place: Path) -> bytes:
    try:
        return place.read_bytes()
    except FileNotFoundError:
        return b""


def detached() -> dict[str, Any]:
    """Return what `subprocess.Popen` needs for a process that outlives this one and gets none of its Ctrl-C."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS}
    return {"start_new_session": True}


if __name__ == "__main__":
    sys.exit(main())
