"""Ends the processes of a run with SIGKILL: at a named point, from inside the process that comes there, or anywhen.

A point is an act's key and where in its life:

    intended   its intent is durable, nothing was asked for        started   durable in the ledger, no beam yet
    40%        so much of the pattern was given                    ended     the beam is off, the ledger doesn't know
    closed     the ledger knows, the run doesn't                   undone    the run knows, the journal doesn't
    done       its outcome is durable
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RUN_POINTS, SERVER_POINTS = ("intended", "undone", "done"), ("started", "ended", "closed")
#: Who dies: the run, the server's process with the connection, or all of them and what was not yet on the disk.
VICTIMS = ("run", "server", "power")
#: Of the virtual specimen, which stands for the real one and loses nothing when the power fails.
_SPECIMEN = ("state-", "map-", "change-")


@dataclass(frozen=True)
class Plan:
    """Which run folder, whom, and where: `KEY@POINT`, empty for none (the blow comes from outside)."""

    root: str
    victim: str
    point: str = ""

    def to_text(self) -> str:
        """Return the plan as JSON, for the environment."""
        return json.dumps(asdict(self))


def struck(root: Path) -> Path:
    """Return the file that is there once a run has been struck."""
    return root.with_name(root.name + ".struck")


def synced(root: Path) -> Path:
    """Return the file that tells what was made durable of a run."""
    return root.with_name(root.name + ".synced")


def strike(root: Path, victim: str) -> bool:
    """Kill at once, this process last if it is among them; False where there was nothing to kill."""
    doomed = {
        "run": lambda: _processes("workflows.cli", root),
        "server": lambda: [pid for pid in _processes("instrument.server", root) if _is_child(pid)],
        "power": lambda: _processes("workflows.cli", root) + _processes("instrument.server", root),
    }[victim]()
    if not doomed:
        return False
    struck(root).write_text(victim)
    for pid in sorted(doomed, key=lambda pid: pid == os.getpid()):
        _kill(pid)
    return True


def lose_what_was_not_synced(root: Path, draw: random.Random) -> int:
    """Cut files down to what was durable, with a torn rest here and there; returns how many files lost something.

    SQLite syncs by itself what it commits: its log gets a torn frame at the end instead.
    """
    durable: dict[int, int] = {}
    if synced(root).exists():
        for line in synced(root).read_text().splitlines():
            inode, size = line.split()
            durable[int(inode)] = int(size)
    lost = 0
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root).as_posix()
        if not path.is_file() or inside.startswith("instrument/truth/") or path.name.startswith(_SPECIMEN):
            continue
        if path.name.startswith("journal.sqlite"):
            if path.name.endswith("-wal"):
                with path.open("ab") as file:
                    file.write(draw.randbytes(draw.randrange(1, 4000)))
            continue
        status = path.stat()
        kept = durable.get(status.st_ino, 0)
        if status.st_size > kept:
            os.truncate(path, draw.randint(kept, status.st_size))
            lost += 1
    return lost


def arm(text: str) -> None:
    """In a process of the run: watch for the point, and write down what is made durable."""
    plan = Plan(**json.loads(text))
    root = Path(plan.root)
    _note_syncs(synced(root))
    key, _, where = plan.point.rpartition("@")
    if not key or struck(root).exists():
        return

    def here(found: str, place: str) -> None:
        if found == key and place == where and not struck(root).exists():
            strike(root, plan.victim)

    _watch_journal(here)
    _watch_ledger(here)
    if where.endswith("%"):
        _watch_progress(key, float(where[:-1]) / 100, lambda: here(key, where))


# -- private ----------------------------------------------------------------------------------------------------------

Here = Callable[[str, str], None]


def _watch_journal(here: Here) -> None:
    from workflows.journal import Journal

    intend, done = Journal.intend, Journal.done

    def intended(self: Any, key: str, *args: Any, **more: Any) -> Any:
        act = intend(self, key, *args, **more)
        here(key, "intended")
        return act

    def did(self: Any, key: str, *args: Any, **more: Any) -> Any:
        here(key, "undone")
        act = done(self, key, *args, **more)
        here(key, "done")
        return act

    Journal.intend, Journal.done = intended, did  # type: ignore[method-assign]


def _watch_ledger(here: Here) -> None:
    from instrument.ledger import Ledger

    start, end = Ledger.start, Ledger.end

    def started(self: Any, action_id: str, *args: Any, **more: Any) -> None:
        start(self, action_id, *args, **more)
        here(key_of(action_id), "started")

    def ended(self: Any, action_id: str, *args: Any, **more: Any) -> None:
        here(key_of(action_id), "ended")
        end(self, action_id, *args, **more)
        here(key_of(action_id), "closed")

    Ledger.start, Ledger.end = started, ended  # type: ignore[method-assign]


def _watch_progress(key: str, least: float, now: Callable[[], None]) -> None:
    from instrument.actions import Actions

    watch = Actions._watch

    def watched(self: Any, item: Any, progress: Any) -> None:
        watch(self, item, progress)
        if key_of(item.action_id) == key and progress.fraction >= least:
            now()

    Actions._watch = watched  # type: ignore[method-assign]


def _note_syncs(log: Path) -> None:
    sync = os.fsync
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def noted(descriptor: int) -> None:
        sync(descriptor)
        status = os.fstat(descriptor)
        os.write(file, f"{status.st_ino} {status.st_size}\n".encode())

    os.fsync = noted


def key_of(action_id: str) -> str:
    """Return the act's key in an action id such as RUN/slice/0001/cut-1#2."""
    return action_id.partition("/")[2].partition("#")[0]


def _processes(module: str, root: Path) -> list[int]:
    """Return the processes that run a module on this run's folder (Linux), parents first."""
    found = []
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        try:
            words = (place / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue  # it has ended meanwhile
        if module in words and (str(root) in words or str(root / "instrument") in words):
            found.append(int(place.name))
    return sorted(found)


def _is_child(pid: int) -> bool:
    """Tell whether a server's process is the one with the connection, not its watchdog."""
    try:
        return b"--watched" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
