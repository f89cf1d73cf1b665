"""The server's durable memory of what was fired: start before a beam, progress after each piece, the outcome after.

One JSON object a line, each on the disk before the next thing happens. A second request with the same id never fires
again: it finds its action here.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from instrument import durable
from instrument.errors import ConnectionLost, InstrumentError, Refused, from_plain
from instrument.settings import Done, PatternJob
from instrument.wire import Command, Result, WritePattern, command_to_plain

RecordState = Literal["running", "done", "cut", "failed"]


@dataclass(frozen=True)
class Record:
    """What is known about an action: how far it came (0..1, None unknown), what it gave or why not."""

    state: RecordState
    fraction: float | None = None
    result: Result | None = None
    error: InstrumentError | None = None

    def to_plain(self) -> dict[str, Any]:
        """Return the record as plain values; `record_from_plain` is the inverse."""
        return {
            "state": self.state,
            "fraction": self.fraction,
            "result": None if self.result is None else self.result.model_dump(mode="json", exclude_none=True),
            "error": None if self.error is None else self.error.to_plain(),
        }


def record_from_plain(plain: dict[str, Any]) -> Record:
    """Return the record that `Record.to_plain` made."""
    result, error = plain.get("result"), plain.get("error")
    return Record(
        state=plain["state"],
        fraction=plain.get("fraction"),
        result=None if result is None else Result.model_validate(result),
        error=None if error is None else from_plain(error),
    )


def digest_of(command: Command) -> str:
    """Return a hash of all that a command says: one id stands for one command."""
    return hashlib.sha256(json.dumps(command_to_plain(command), sort_keys=True).encode("utf-8")).hexdigest()


def same_command(action_id: str, known: str, command: Command) -> None:
    """Refuse a command whose id stood for another one before, whose digest is `known`."""
    if known and digest_of(command) != known:
        msg = f"action {action_id} was another command before: an id is used for one command only"
        raise Refused(msg, rule="one-id-one-command", field="id", value=action_id, remedy="use a new id")


@dataclass
class _Account:
    """What a line of the ledger began: its record so far and, for a pattern, its charge.

    `given_c` is what surely was given; `piece_c` the charge of the piece in hand, which goes up to `to`.
    """

    digest: str
    run: str
    record: Record
    job: PatternJob | None = None
    given_c: float = 0.0
    piece_c: float = 0.0
    to: float = 1.0


class Ledger:
    """The actions of one server's state folder; any thread may call.

    An action that a server's death left without an end is `cut`. How much of a pattern was given is known then only
    where nothing was in hand; else the fraction is None and the error's evidence has `at_least` and `at_most`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._accounts: dict[str, _Account] = {}
        self.run = ""
        self.epoch = 0
        self.torn = 0
        for line in durable.read_lines(path):
            try:
                value = json.loads(line)
                self._take(value)
            except (ValueError, KeyError, TypeError):
                self.torn += 1  # torn by a power cut: nothing was fired before its line was whole
        for action_id, account in self._accounts.items():
            if account.record.state == "running":
                account.record = _interrupted(action_id, account)

    def claim(self, run: str) -> int:
        """Write down that a run takes control; return its epoch, higher than any before it, restarts included."""
        with self._lock:
            self._write({"event": "claim", "run": run, "epoch": self.epoch + 1})
            return self.epoch

    def find(self, action_id: str) -> Record | None:
        """Return what is known about an action, None when it was never seen."""
        with self._lock:
            account = self._accounts.get(action_id)
            return None if account is None else account.record

    def digest(self, action_id: str) -> str:
        """Return the digest of the command that an id stands for, empty when it was never seen."""
        with self._lock:
            account = self._accounts.get(action_id)
            return "" if account is None else account.digest

    def start(self, action_id: str, command: Command, clock_s: float, *, to: float = 1.0) -> None:
        """Write down that an action is about to fire; the first piece of a pattern goes up to the fraction `to`."""
        self._write(
            {
                "id": action_id, "event": "start", "run": self.run, "digest": digest_of(command), "to": to,
                "command": command_to_plain(command), "clock_s": clock_s,
            }
        )  # fmt: skip

    def progress(self, action_id: str, so_far: Done, to: float) -> None:
        """Write down how far a pattern has come, blanked, and that its next piece goes up to the fraction `to`."""
        self._write(
            {
                "id": action_id, "event": "progress", "fraction": so_far.fraction, "charge_c": so_far.charge_c,
                "to": to,
            }
        )  # fmt: skip

    def end(self, action_id: str, record: Record, clock_s: float) -> None:
        """Write down how an action ended."""
        self._write({"id": action_id, "event": "end", "clock_s": clock_s, **record.to_plain()})

    def charge(self, area: str) -> float:
        """Return the charge (C) that the run in control has given to an area; what nobody can know counts in full."""
        with self._lock:
            return sum(
                account.given_c + (0.0 if account.record.state == "running" else account.piece_c)
                for account in self._accounts.values()
                if account.run == self.run and account.job is not None and account.job.area == area
            )

    # -- private ----------------------------------------------------------------------------------------------------

    def _write(self, value: dict[str, Any]) -> None:
        with self._lock:
            durable.append_line(self._path, json.dumps(value, separators=(",", ":")))
            self._take(value)

    def _take(self, value: dict[str, Any]) -> None:
        """Take a line into memory, just written or read again."""
        event = value["event"]
        if event == "claim":
            self.run, self.epoch = str(value["run"]), max(self.epoch, int(value["epoch"]))
            return
        action_id = str(value["id"])
        if event == "start":
            self._accounts[action_id] = _begun(value)
            return
        account = self._accounts[action_id]
        if event == "progress":
            job, fraction, to = account.job, float(value["fraction"]), float(value.get("to", 1.0))
            account.record, account.to = Record("running", fraction), to
            account.given_c = float(value.get("charge_c", 0.0))
            account.piece_c = 0.0 if job is None else job.dose_c * max(0.0, to - fraction)
            return
        account.record = record_from_plain(value)
        _settle(account)


def _begun(value: dict[str, Any]) -> _Account:
    account = _Account(str(value.get("digest", "")), str(value.get("run", "")), Record("running", 0.0))
    if value["command"]["verb"] == "pattern":
        account.job = job = WritePattern.model_validate(value["command"]).job
        account.to = float(value.get("to", job.to_fraction))
        account.record = Record("running", job.from_fraction)
        account.piece_c = job.dose_c * max(0.0, account.to - job.from_fraction)
    return account


def _settle(account: _Account) -> None:
    """Book what an ended pattern gave."""
    record, job = account.record, account.job
    if job is None:
        return
    done = None if record.result is None else record.result.done
    if done is not None:
        account.given_c, account.piece_c = done.charge_c, 0.0
    elif record.fraction is not None:
        account.given_c = job.dose_c * max(0.0, record.fraction - job.from_fraction)
        account.piece_c = 0.0


def _interrupted(action_id: str, account: _Account) -> Record:
    """Return what can be said of an action in which the server died."""
    if account.job is None:
        msg = f"{action_id} was going on when the server ended"
        return Record("cut", None, error=ConnectionLost(msg, id=action_id))
    at_least, at_most = account.record.fraction or 0.0, account.to
    if at_most - at_least <= 1e-9:
        return replace(account.record, state="cut")
    msg = (
        f"{action_id} was being written when the server ended: something between {100 * at_least:.1f} and "
        f"{100 * at_most:.1f} % of it was given"
    )
    return Record("cut", None, error=ConnectionLost(msg, id=action_id, at_least=at_least, at_most=at_most))
