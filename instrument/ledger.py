"""The server's durable memory of what was fired: start before a beam, progress after each piece, the outcome after.

One JSON object a line, each on the disk before the next thing happens. A second request with the same id never fires
again: it finds its action here.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from instrument import durable
from instrument.errors import InstrumentError, from_plain
from instrument.wire import Result

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


class Ledger:
    """The actions of one server's state folder; any thread may call.

    An action that a server's death left without an end is `cut`: its fraction is unknown, for the piece in hand may
    have gone on without us; what was durable before is in `at_least`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}
        self.at_least: dict[str, float] = {}
        self.torn = 0
        if path.exists():
            self._read()

    def find(self, action_id: str) -> Record | None:
        """Return what is known about an action, None when it was never seen."""
        with self._lock:
            return self._records.get(action_id)

    def start(self, action_id: str, command: dict[str, Any], clock_s: float) -> None:
        """Write down that an action is about to fire."""
        self._write({"id": action_id, "event": "start", "command": command, "clock_s": clock_s})
        self._keep(action_id, Record("running", 0.0))

    def progress(self, action_id: str, fraction: float) -> None:
        """Write down that a pattern has come to `fraction` (0..1), blanked."""
        self._write({"id": action_id, "event": "progress", "fraction": fraction})
        self._keep(action_id, Record("running", fraction))

    def end(self, action_id: str, record: Record, clock_s: float) -> None:
        """Write down how an action ended."""
        self._write({"id": action_id, "event": "end", "clock_s": clock_s, **record.to_plain()})
        self._keep(action_id, record)

    def _keep(self, action_id: str, record: Record) -> None:
        with self._lock:
            self._records[action_id] = record

    def _write(self, value: dict[str, Any]) -> None:
        with self._lock:
            durable.append_line(self._path, json.dumps(value, separators=(",", ":")))

    def _read(self) -> None:
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                value = json.loads(line)
                action_id, event = str(value["id"]), value["event"]
            except (ValueError, KeyError, TypeError):
                self.torn += 1  # torn by a power cut: nothing was fired before its line was whole
                continue
            if event == "start":
                self._records[action_id] = Record("running", 0.0)
            elif event == "progress":
                self._records[action_id] = Record("running", float(value["fraction"]))
            else:
                self._records[action_id] = record_from_plain(value)
        for action_id, record in self._records.items():
            if record.state == "running":
                self.at_least[action_id] = record.fraction or 0.0
                self._records[action_id] = replace(record, state="cut", fraction=None)
