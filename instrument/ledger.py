"""The server's durable memory of what was fired: start before a beam, progress after each piece, the outcome after.

One JSON object a line, each on the disk before the next thing happens. A second request with the same id never fires
again: it finds its action here.

A power cut leaves the last line incomplete, and nothing was fired before its line was whole. A damaged line before it
was acknowledged: each line has a checksum, and each start names those before it, so that the ids which were lost are
known. What nobody can know any more was `cut`, by an unknown fraction, and is never fired under that id.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
import zlib
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from instrument import durable
from instrument.errors import ConnectionLost, InstrumentError, Refused, from_plain
from instrument.settings import Done, PatternJob
from instrument.wire import Command, Result, WritePattern, command_to_plain

log = logging.getLogger(__name__)

RecordState = Literal["running", "done", "cut", "failed"]
#: A start names so many before it: a bad sector of 4 KiB holds fewer.
_NAMED = 16
_SEALED = re.compile(r'(.*),"crc":"([0-9a-f]{8})"}', re.DOTALL)


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

    `given_c` is what surely was given; `piece_c` the charge of the piece in hand, which goes up to `to`. `startless`:
    the line of its start was lost, and what it was is not known.
    """

    digest: str
    run: str
    record: Record
    job: PatternJob | None = None
    given_c: float = 0.0
    piece_c: float = 0.0
    to: float = 1.0
    startless: bool = False


_STARTLESS = _Account("", "", Record("running"), startless=True)


class Ledger:
    """The actions of one server's state folder; any thread may call.

    An action that a server's death left without an end is `cut`. How much of a pattern was given is known then only
    where nothing was in hand; else the fraction is None and the error's evidence has `at_least` and `at_most`.

    Attributes
    ----------
    damaged, copy : numbers of the damaged lines, and the copy of the file that was kept beside it
    lost : ids whose start is gone, with its line damaged or missing, as later starts say
    blind : an id that no line names may have been in a damaged one, whichever it is
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._accounts: dict[str, _Account] = {}
        self._starts = 0
        self._recent: deque[str] = deque(maxlen=_NAMED)
        self.lost: set[str] = set()
        self.run = ""
        self.epoch = 0
        self.damaged: list[int] = []
        self.copy: Path | None = None
        self.blind = False
        _end_whole(path)
        self._read()
        for action_id, account in self._accounts.items():
            if account.record.state == "running":
                account.record = _interrupted(action_id, account)

    def claim(self, run: str) -> int:
        """Write down that a run takes control; return its epoch, higher than any before it, restarts included."""
        with self._lock:
            self._write({"event": "claim", "run": run, "epoch": self.epoch + 1})
            return self.epoch

    def find(self, action_id: str) -> Record | None:
        """Return what is known about an action, None when it was never seen; cut when it may have been and was lost."""
        with self._lock:
            account = self._accounts.get(action_id)
            if account is not None:
                return account.record
            return _lost(action_id) if self._may_be_lost(action_id) else None

    def known(self, action_id: str) -> Record | None:
        """Return what a line of the ledger says about an action, None where none does."""
        with self._lock:
            account = self._accounts.get(action_id)
            return None if account is None else account.record

    def check_new(self, action_id: str) -> None:
        """Refuse to fire under an id whose start may be a line that was lost."""
        with self._lock:
            lost = action_id not in self._accounts and self._may_be_lost(action_id)
        if lost:
            remedy = f"stop the server, look what {self.copy or self._path} says, and delete the damaged lines"
            if not self.blind:
                remedy = "use a new id, once it is known how much was given"
            msg = f"action {action_id} may have been fired: {self._path} is damaged and can't tell; {remedy}"
            raise Refused(
                msg, rule="never-twice", field="id", value=action_id, limit="an id that was surely never fired",
                remedy=remedy,
            )  # fmt: skip

    def patterns(self, run: str) -> list[str]:
        """Return the ids of all patterns of a run that were begun, in order."""
        with self._lock:
            return [
                action_id
                for action_id, account in self._accounts.items()
                if account.run == run and account.job is not None
            ]

    def digest(self, action_id: str) -> str:
        """Return the digest of the command that an id stands for, empty when it was never seen."""
        with self._lock:
            account = self._accounts.get(action_id)
            return "" if account is None else account.digest

    def start(self, action_id: str, command: Command, clock_s: float, *, to: float = 1.0) -> None:
        """Write down that an action is about to fire; the first piece of a pattern goes up to the fraction `to`."""
        with self._lock:
            self._write(
                {
                    "id": action_id, "event": "start", "run": self.run, "digest": digest_of(command), "to": to,
                    "command": command_to_plain(command), "clock_s": clock_s, "number": self._starts + 1,
                    "before": list(self._recent),
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

    def _may_be_lost(self, action_id: str) -> bool:
        return self.blind or action_id in self.lost

    def _write(self, value: dict[str, Any]) -> None:
        with self._lock:
            durable.append_line(self._path, _sealed(value))
            self._take(value)

    def _read(self) -> None:
        """Take all lines; of those that are damaged keep a copy, and find out what they may have been."""
        bad: list[str] = []
        unsure = False
        for number, line in enumerate(durable.read_lines(self._path), start=1):
            try:
                value = _opened(line)
                self._take(value)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                log.critical("line %d of %s is damaged: %s", number, self._path, error)
                self.damaged.append(number)
                bad.append(line)
                unsure = True
                self._widen()
            else:
                unsure = unsure and "number" not in value  # a numbered start says what was started before it
        self.blind = self.blind or unsure
        if bad:
            self.epoch += len(bad)  # each may have been a claim
            self.copy = _kept_beside(self._path, bad)

    def _widen(self) -> None:
        """Loosen the bounds of whatever was going on: a line that was lost may have been its progress."""
        for account in self._accounts.values():
            job = account.job
            if account.record.state == "running" and job is not None:
                account.to = job.to_fraction
                account.piece_c = job.dose_c * max(0.0, job.to_fraction - (account.record.fraction or 0.0))

    def _take(self, value: dict[str, Any]) -> None:
        """Take a line into memory, just written or read again."""
        event = value["event"]
        if event == "claim":
            self.run, self.epoch = str(value["run"]), max(self.epoch, int(value["epoch"]))
            return
        action_id = str(value["id"])
        if event == "start":
            begun = _begun(value)
            self._count(action_id, value)
            self._accounts[action_id] = begun
            return
        account = self._accounts.get(action_id)
        if account is None:  # its start was lost
            account = self._accounts[action_id] = _Account("", self.run, Record("running", 0.0), startless=True)
        if event == "progress":
            job, fraction, to = account.job, float(value["fraction"]), float(value.get("to", 1.0))
            account.record, account.to = Record("running", fraction), to
            account.given_c = float(value.get("charge_c", 0.0))
            account.piece_c = 0.0 if job is None else job.dose_c * max(0.0, to - fraction)
            return
        account.record = record_from_plain(value)
        _settle(account)

    def _count(self, action_id: str, start: dict[str, Any]) -> None:
        """Count a start, and find by its number and by what it names which ones before it were lost."""
        number, before = int(start.get("number", self._starts + 1)), {str(one) for one in start.get("before", ())}
        lost = {one for one in before - self.lost if self._accounts.get(one, _STARTLESS).startless}
        self.lost |= lost
        self.blind = self.blind or len(lost) < number - self._starts - 1
        self._starts = number
        self._recent.append(action_id)


def _sealed(value: dict[str, Any]) -> str:
    """Return a line with its checksum."""
    text = json.dumps(value, separators=(",", ":"))
    return f'{text[:-1]},"crc":"{zlib.crc32(text.encode("utf-8")):08x}"}}'


def _opened(line: str) -> dict[str, Any]:
    """Return what a line says; ValueError when its checksum is wrong. Lines of older ledgers have none."""
    sealed = _SEALED.fullmatch(line)
    if sealed is not None:
        line = sealed[1] + "}"
        if zlib.crc32(line.encode("utf-8")) != int(sealed[2], 16):
            msg = "its checksum is wrong"
            raise ValueError(msg)
    value = json.loads(line)
    if not isinstance(value, dict):
        msg = "it is no object"
        raise TypeError(msg)
    return value


def _end_whole(path: Path) -> None:
    """Cut off a last line that is incomplete, so that later it isn't taken for a damaged one."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        text = file.read()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            log.warning("the last line of %s was torn by a power cut, before anything was fired by it", path)
            file.truncate(whole)
            durable.fsync_file(file)


def _kept_beside(path: Path, bad: list[str]) -> Path:
    """Keep the damaged file as it is, once for the same damage; return the copy."""
    mark = hashlib.sha256("\n".join(bad).encode("utf-8", errors="replace")).hexdigest()[:8]
    copy = path.with_name(f"{path.stem}.damaged-{mark}{path.suffix}")
    if not copy.exists():
        with durable.if_room(f"a copy of {path}"):
            durable.atomic_write_bytes(copy, path.read_bytes())
    return copy


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


def _lost(action_id: str) -> Record:
    """Return what can be said of an action whose start may have been lost: nothing but that it may have been fired."""
    msg = f"the ledger is damaged: nobody knows whether {action_id} was fired, or how much of it"
    return Record("cut", None, error=ConnectionLost(msg, id=action_id, at_least=0.0, at_most=1.0))


def _interrupted(action_id: str, account: _Account) -> Record:
    """Return what can be said of an action in which the server died."""
    if account.startless:
        account.to = 1.0
    elif account.job is None:
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
