"""The run's side of the segmentation core: a process that is told each slice's name and answers with numbers.

It never blocks the microscope: handing over a slice returns at once, whatever the core is doing, and a core that dies,
hangs or never starts costs labels, not slices. It has no state to lose: it is started again with what it owes.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

log = logging.getLogger(__name__)

#: Instead of a model's folder: our own; no segmentation; `kintsugi follow` on another machine labels.
PACKAGE, NO_MODEL, ELSEWHERE = "package", "none", "elsewhere"
FIRST_ESTIMATE_S = 20.0
READY_S = 120.0
PATIENCE_S = 60.0
_SMOOTHING = 0.3


@dataclass(frozen=True)
class Reply:
    """What the core said about a slice: where the labels lie and its numbers, or the error. `seconds` is wall time."""

    name: str
    labels: str | None
    numbers: dict[str, Any] | None
    error: str | None
    seconds: float


@dataclass(frozen=True)
class _Order:
    name: str
    path: Path
    fillable_m: float
    before: Path | None = None
    after: Path | None = None
    final: bool = False
    deaths: int = 0

    def line(self) -> str:
        asked: dict[str, Any] = {"name": self.name, "path": str(self.path), "fillable_m": self.fillable_m}
        asked |= {key: str(path) for key, path in (("before", self.before), ("after", self.after)) if path is not None}
        return json.dumps(asked | ({"final": True} if self.final else {})) + "\n"

    @property
    def key(self) -> str:
        """What tells orders apart: a slice is labelled live, and once more at the end."""
        return f"{self.name}, final" if self.final else self.name


def core_command(model: str, labels: Path) -> list[str]:
    """Return the command line of the segmentation core's process: our own, or one that has it done elsewhere."""
    if model == ELSEWHERE:
        return [sys.executable, "-m", "analysis.elsewhere", "--out-labels", str(labels)]
    return [sys.executable, "-m", "analysis.follow", "--model", model, "--out-labels", str(labels)]


class Follower:
    """Feeds slices to the core's process, one at a time, and keeps what it answers.

    Parameters
    ----------
    command : the process to start; it speaks one JSON object a line (see analysis.follow)
    log_file : where its standard error goes, appended
    restarts : how often in a row it is started again without an answer in between before it is given up
    hang_s : how long a single slice may take before the process counts as hung and is ended
    far : the work is done on another machine, which may be away for hours: that is no reason to give up, nor for a
        decision to wait longer than a minute
    """

    def __init__(
        self, command: Sequence[str], *, log_file: Path, restarts: int = 3, hang_s: float = 300.0, far: bool = False
    ) -> None:
        self._command = list(command)
        self._log_file = log_file
        self._restarts = sys.maxsize if far else restarts
        self._hang_s = math.inf if far else hang_s
        self._far = far
        self._changed = threading.Condition()
        self._waiting: deque[_Order] = deque()
        self._current: _Order | None = None
        self._sent_at = 0.0
        self._replies: dict[str, Reply] = {}
        self._known: set[str] = set()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._ready = False
        self._closing = False
        self._given_up = ""
        self._failures = 0
        self._estimate: float | None = None
        self.model_id: str | None = None
        self.starts = 0

    # -- what the run calls ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process; returns at once, the core loads its network meanwhile."""
        with self._changed:
            if self._reader is not None:
                msg = "the follower was started already"
                raise RuntimeError(msg)
            self._reader = threading.Thread(target=self._serve, name="follower", daemon=True)
            self._reader.start()

    def submit(
        self,
        name: str,
        path: Path,
        fillable_m: float,
        *,
        before: Path | None = None,
        after: Path | None = None,
        final: bool = False,
    ) -> None:
        """Hand over a slice: its name, its file, and the width (m) below which a pore counts as fillable.

        `before` and `after` are the files of slices beside it that may help; `final` asks for labels of the second
        pass. Returns at once. A slice that was handed over or answered before is not taken twice, but for its final
        labels.
        """
        order = _Order(name, path, fillable_m, before, after, final)
        with self._changed:
            if order.key in self._known:
                return
            self._known.add(order.key)
            self._waiting.append(order)
            self._send_next()
            self._end_hung()

    def reply(self, name: str) -> Reply | None:
        """Return the answer about a slice, None while there is none."""
        with self._changed:
            return self._replies.get(name)

    @property
    def replies(self) -> dict[str, Reply]:
        """All answers so far, by name."""
        with self._changed:
            return dict(self._replies)

    @property
    def trouble(self) -> str:
        """Why there will be no more labels, empty while all is well."""
        with self._changed:
            return self._given_up

    @property
    def seconds_per_slice(self) -> float:
        """The estimate of the wall time that one slice takes, seconds."""
        with self._changed:
            return FIRST_ESTIMATE_S if self._estimate is None else self._estimate

    def patience_s(self) -> float:
        """How long a decision waits for its evidence, seconds: three times the core's own estimate, or a minute."""
        with self._changed:
            owed = len(self._waiting) + (self._current is not None)
        if self._far:
            return PATIENCE_S
        return max(PATIENCE_S, 3.0 * self.seconds_per_slice * max(1, owed))

    def wait(self, names: Iterable[str], timeout_s: float) -> list[str]:
        """Wait until all `names` are answered, at most `timeout_s`; return those that are not."""
        wanted = list(names)
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while missing := [name for name in wanted if name not in self._replies]:
                left = deadline - time.monotonic()
                if left <= 0 or self._given_up or self._closing:
                    return missing
                self._changed.wait(min(left, 1.0))
                self._end_hung()
        return []

    def close(self, timeout_s: float = 60.0) -> list[str]:
        """Let the core finish what it was given, at most `timeout_s`, and end it; return the names without answer."""
        with self._changed:
            owed = [order.key for order in self._waiting] + ([self._current.key] if self._current else [])
        missing = self.wait(owed, timeout_s) if self._reader is not None else owed
        with self._changed:
            self._closing = True
            process = self._process
            self._changed.notify_all()
        if process is not None:
            if missing:
                process.kill()
            else:
                _close(process.stdin)
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10.0)
        if self._reader is not None:
            self._reader.join(10.0)
        return missing

    # -- the thread that owns the process ------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            process = self._launch()
            if process is not None:
                self._read(process)
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    _close(pipe)
            with self._changed:
                self._process = None
                self._ready = False
                if self._closing:
                    return
                self._after_death(process)
                if self._given_up:
                    log.error("segmentation core: %s", self._given_up)
                    self._changed.notify_all()
                    return
                self._changed.wait(min(2.0, 0.1 * 2 ** min(self._failures, 5)))

    def _launch(self) -> subprocess.Popen[str] | None:
        root = str(Path(__file__).resolve().parent.parent)
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"}
        options: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        try:
            with self._log_file.open("ab") as errors:
                process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    encoding="utf-8",
                    env=environment,
                    **options,
                )
        except OSError:
            log.exception("the segmentation core can't be started")
            return None
        with self._changed:
            self.starts += 1
            self._process = process
            self._sent_at = time.monotonic()
            if self._closing:
                process.kill()
        return process

    def _read(self, process: subprocess.Popen[str]) -> None:
        if process.stdout is None:
            return
        for line in process.stdout:
            try:
                message = json.loads(line)
            except ValueError:
                log.warning("the segmentation core said something that is no JSON: %.200s", line.rstrip())
                continue
            with self._changed:
                self._take(message)
                self._changed.notify_all()

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("ready"):
            self._ready = True
            self.model_id = str(message.get("model_id", ""))
            self._send_next()
            return
        current = self._current
        if current is None or message.get("name") != current.name:
            log.warning("the segmentation core answered about %r, which it was not asked", message.get("name"))
            return
        seconds = time.monotonic() - self._sent_at
        self._estimate = seconds if self._estimate is None else self._estimate + _SMOOTHING * (seconds - self._estimate)
        self._failures = 0
        self._answer(current, message.get("labels"), message.get("numbers"), message.get("error"), seconds)
        self._send_next()

    def _answer(self, order: _Order, labels: Any, numbers: Any, error: Any, seconds: float) -> None:
        self._current = None
        self._replies[order.key] = Reply(order.name, labels, numbers, error, seconds)
        if error:
            log.warning("no labels for %s: %s", order.name, error)

    def _send_next(self) -> None:
        process = self._process
        if (
            not self._ready
            or self._current is not None
            or not self._waiting
            or process is None
            or process.stdin is None
        ):
            return
        self._current = self._waiting.popleft()
        self._sent_at = time.monotonic()
        try:
            process.stdin.write(self._current.line())  # one short line at a time never fills the pipe
            process.stdin.flush()
        except (OSError, ValueError):
            log.warning("the segmentation core does not listen")  # its death is seen by the reader

    def _after_death(self, process: subprocess.Popen[str] | None) -> None:
        self._failures += 1
        how = "can't be started" if process is None else f"ended with code {process.returncode}"
        log.warning("the segmentation core %s; start %d", how, self.starts)
        if self._current is not None:
            order, self._current = self._current, None
            if order.deaths and not self._far:
                self._answer(order, None, None, f"the segmentation core {how} twice on this slice", 0.0)
            else:
                self._waiting.appendleft(replace(order, deaths=1))
        if self._failures > self._restarts:
            self._given_up = f"it {how}, {self._failures} times in a row; see {self._log_file.name}"

    def _end_hung(self) -> None:
        limit = self._hang_s if self._ready else max(READY_S, self._hang_s)
        working = self._current is not None or not self._ready
        if self._process is not None and working and time.monotonic() - self._sent_at > limit:
            log.warning("the segmentation core has said nothing for %.0f s and is ended", limit)
            self._sent_at = time.monotonic()
            self._process.kill()


def _close(pipe: IO[str] | None) -> None:
    if pipe is None:
        return
    try:
        pipe.close()
    except OSError:
        log.debug("the pipe to the segmentation core was broken already")
