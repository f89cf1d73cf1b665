"""One trial: a run is started, struck, resumed until it ends, and held against the same run left in peace."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instrument.frame import Frame
from simulator.options import parse
from simulator.saving import Store, read
from tests.faults import strike
from workflows.journal import Act, Journal
from workflows.store import RunFolder
from workflows.terminal import DONE, HELD

HERE = Path(__file__).parent
RECIPE = HERE / "tiny.yaml"
#: Longest that a run may take, and that an instrument may take to be safe again when its server died (s).
RUN_S, SAFE_S = 240.0, 60.0
#: Tries to resume: each may find another thing that the strike has left.
RESUMES = 3
#: T of the servers that runs start (s).
DEADMAN_S = 10.0
#: A beam's true current differs from the listed one by a few percent, and so does a charge (physics.md 7).
_WHOLE, _CURRENT_OFF = 1e-6, 0.08
#: Contrast and brightness (0..1) that differ by less are the same: no instrument keeps them so well.
SAME_KNOB = 1e-4


@dataclass(frozen=True)
class Strike:
    """Who dies where: a named point, or `at_s` seconds after the start."""

    victim: str
    point: str = ""
    at_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.victim} {self.point or f'after {self.at_s:.1f} s'}"


@dataclass
class Result:
    """What became of a trial."""

    strike: Strike
    crashed: bool = False
    codes: list[int] = field(default_factory=list)
    output: str = ""
    unsafe_s: float = 0.0
    lost_files: int = 0
    slices_lost: int = 0
    slices_doubled: int = 0
    fired_twice: int = 0
    doses_wrong: list[str] = field(default_factory=list)
    settled: list[dict[str, Any]] = field(default_factory=list)
    retaken: list[str] = field(default_factory=list)
    decided_otherwise: list[str] = field(default_factory=list)
    face_off_m: float = 0.0
    misplaced: list[float] = field(default_factory=list)

    @property
    def ended(self) -> str:
        """Done, held or failed."""
        last = self.codes[-1] if self.codes else -1
        return "done" if last == DONE else "held" if last == HELD else "failed"

    @property
    def inside(self) -> bool:
        """Whether a pattern was in hand of which nobody knew how far it came."""
        return bool(self.settled)


class Ended:
    """A run that has ended, as its folder shows it."""

    def __init__(self, root: Path) -> None:
        self.folder = RunFolder.open(root)
        with Journal(self.folder.journal, read_only=True) as journal:
            self.acts = journal.acts()
            self.settled = [event.data for event in journal.events(kind="counted")]
            self.mended = [str(event.data["symptom"]) for event in journal.events(kind="mended")]
            self.url = str(journal.meta("url"))
        self.slices = self.folder.slice_names()

    @cached_property
    def ledger(self) -> list[dict[str, Any]]:
        """What the server wrote down, line by line."""
        found = []
        for line in (self.folder.instrument / "ledger.jsonl").read_text(errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue  # torn by a power cut
        return found

    @cached_property
    def face(self) -> NDArray[np.float32]:
        """z of the face within the pictures (m)."""
        saved = Store(self.folder.instrument).load(parse(self.url))
        assert saved is not None
        block = saved[1]
        x, y = np.abs(block.x) < 5e-6, (block.y > 1e-6) & (block.y < 6e-6)
        return np.asarray(block.maps.face[np.ix_(y, x)])

    def decided_otherwise(self, other: Ended) -> list[str]:
        """Return the acts that only one of two runs has, and the contrast if all pictures after it have another."""
        own, others = ({act.key: act for act in run.acts} for run in (self, other))
        knobs = zip(_knobs(own["contrast"]), _knobs(others["contrast"]), strict=True)
        contrast = ["contrast"] if any(abs(one - other) > SAME_KNOB for one, other in knobs) else []
        return sorted(own.keys() ^ others.keys()) + contrast

    @property
    def doubled_frames(self) -> int:
        """Return how many slices were taken more than once and kept so by the server."""
        taken = Counter(
            strike.key_of(line["id"])
            for line in self.ledger
            if line["event"] == "end" and line["state"] == "done" and "/image#" in line["id"]
        )
        return sum(count - 1 for count in taken.values())

    @property
    def retaken(self) -> list[str]:
        """Which pictures were begun more than once: their server died with them in hand."""
        begun = Counter(
            strike.key_of(line["id"])
            for line in self.ledger
            if line["event"] == "start" and line["command"]["verb"] in ("acquire", "acquire_eds")
        )
        return [key for key, count in begun.items() if count > 1]

    @property
    def fired_twice(self) -> int:
        """Return how many ids were started twice, or acts of which more than the whole was surely given."""
        starts = Counter(line["id"] for line in self.ledger if line["event"] == "start")
        twice = sum(count - 1 for count in starts.values())
        given: Counter[str] = Counter()
        begun: dict[str, dict[str, Any]] = {}
        for line in self.ledger:
            if line["event"] == "start" and line["command"]["verb"] == "pattern":
                begun[line["id"]] = line["command"]["job"]
            elif line["event"] == "end" and line["id"] in begun and line["fraction"] is not None:
                surely = line["fraction"] - begun[line["id"]]["from_fraction"]
                given[strike.key_of(line["id"])] += surely
        return twice + sum(1 for share in given.values() if share > 1 + 1e-3)

    @property
    def cut_without_picture(self) -> int:
        """How many slices were cut, and their face cut away after that, without a picture."""
        seen = {act.key.split("/")[1] for act in self.acts if act.key.endswith("/image") and act.has_outcome}
        cut = sorted({act.key.split("/")[1] for act in self.acts if "/cut-" in act.key and act.key[6:10].isdigit()})
        return len(set(cut[:-1]) - seen)

    def misplaced(self) -> list[float]:
        """Return by slice how far its plane lies from where it is said to lie, in its stated uncertainties.

        All planes count from the first face, whose own error they share: their median is taken off.
        """
        off, sigma = [], []
        for act in self.acts:
            if act.kind == "measure" and act.key.startswith("slice/") and act.key.endswith("/plane"):
                meta = Frame.load(self.folder.frame_path("slices", f"s{act.key.split('/')[1]}")).meta
                truth = json.loads((self.folder.truth / f"{meta.uid}.json").read_text())
                off.append(float(act.result["z_m"]) - float(truth["z_m"]))
                sigma.append(float(act.result["sigma_m"]))
        shares = np.abs(np.array(off) - np.median(off)) / np.array(sigma)
        return [float(share) for share in shares]


def undisturbed(root: Path) -> float:
    """Make the run that all others are held against; return how long it took (s)."""
    began = time.monotonic()
    code, output = _kintsugi("run", RECIPE, "--model", "none", "--out", root, env=dict(os.environ))
    assert code == DONE, output
    end_server(root)
    return time.monotonic() - began


def points_of(oracle: Ended) -> list[str]:
    """Return every named point of a run: `KEY@WHERE`."""
    found = []
    for act in oracle.acts:
        found += [f"{act.key}@{where}" for where in strike.RUN_POINTS]
        if act.kind in ("mill", "deposit"):
            found += [f"{act.key}@{where}" for where in ("20%", "40%", "80%")]
        if act.kind in ("mill", "deposit", "frame", "eds"):
            found += [f"{act.key}@{where}" for where in strike.SERVER_POINTS]
    return found


def doomed(wanted: Strike, root: Path) -> dict[str, str]:
    """Return the environment of processes that are struck where `wanted` says."""
    plan = strike.Plan(str(root), wanted.victim, wanted.point)
    path = os.pathsep.join((str(HERE / "killer"), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")))
    return {**os.environ, "KINTSUGI_KILL": plan.to_text(), "PYTHONPATH": path}


def tried(wanted: Strike, root: Path, oracle: Ended, draw: random.Random) -> Result:
    """Run, strike, resume, compare."""
    result = Result(wanted)
    env = doomed(wanted, root)
    try:
        result.codes.append(_struck(wanted, root, env))
        result.crashed = strike.struck(root).exists() and result.codes[0] != DONE
        if result.crashed:
            result.unsafe_s = _unsafe(root, wanted)
        if result.crashed and wanted.victim == "power":
            result.lost_files = strike.lose_what_was_not_synced(root, draw)
        again = 0
        while result.codes[-1] not in (DONE, HELD) and again < RESUMES:
            again += 1
            if RunFolder.is_run(root):
                arguments: tuple[object, ...] = ("resume", root)
            else:
                end_server(root)
                root = _emptied(root)
                arguments = ("run", RECIPE, "--out", root)
            code, result.output = _kintsugi(*arguments, "--model", "none", env=dict(os.environ))
            result.codes.append(code)
    finally:
        end_server(root)
    if result.ended == "done":
        compare(result, Ended(root), oracle)
    return result


def end_server(root: Path) -> None:
    """End a run's server, which would linger for ten minutes, and wait for its end."""
    place = root / "instrument" / "server.json"
    try:
        os.kill(int(json.loads(place.read_text())["pid"]), signal.SIGTERM)
    except (OSError, ValueError, KeyError):
        return
    deadline, pause = time.monotonic() + SAFE_S, threading.Event()
    while place.exists() and time.monotonic() < deadline:
        pause.wait(0.02)


def compare(result: Result, run: Ended, oracle: Ended) -> None:
    """Fill in how an ended run differs from the undisturbed one."""
    result.settled, result.retaken = run.settled, run.retaken
    result.slices_lost = len(set(oracle.slices) - set(run.slices))
    result.slices_doubled = len(set(run.slices) - set(oracle.slices)) + run.doubled_frames
    result.fired_twice = run.fired_twice
    doubtful = {one["key"] for one in run.settled}
    for act in run.acts:
        if act.kind in ("mill", "deposit") and act.key not in doubtful:
            share = act.result["charge_c"] / act.args["dose_c"]
            if abs(share - 1) > _CURRENT_OFF or act.result["fraction"] < 1 - _WHOLE:
                result.doses_wrong.append(act.key)
    result.decided_otherwise = run.decided_otherwise(oracle)
    result.face_off_m = float(np.abs(run.face - oracle.face).max())
    result.misplaced = run.misplaced()


# -- private ----------------------------------------------------------------------------------------------------------


def _knobs(contrast: Act) -> list[float]:
    """Return contrast and brightness of every detector (0..1), as they were found."""
    return [float(one[name]) for one in contrast.result for name in ("contrast", "brightness")]


def _kintsugi(*arguments: object, env: dict[str, str]) -> tuple[int, str]:
    command = [sys.executable, "-m", "workflows.cli", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False, env=env)
    return ended.returncode, ended.stdout + ended.stderr


def _struck(wanted: Strike, root: Path, env: dict[str, str]) -> int:
    """Start the run and wait for its end, striking it from outside where no point is named."""
    command = [sys.executable, "-m", "workflows.cli", "run", str(RECIPE), "--model", "none", "--out", str(root)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env) as process:
        if not wanted.point:
            try:
                process.wait(wanted.at_s)
            except subprocess.TimeoutExpired:
                if not strike.strike(root, wanted.victim):
                    process.kill()  # before there was a lock or a server
                    strike.struck(root).write_text(wanted.victim)
        try:
            return process.wait(RUN_S)
        finally:
            process.kill()


def _unsafe(root: Path, wanted: Strike) -> float:
    """Return how much longer than T a beam stayed on after the strike (s); nobody is there to ask after a power cut."""
    if wanted.victim == "power":
        return 0.0
    began, pause = time.monotonic(), threading.Event()
    while time.monotonic() - began < SAFE_S:
        try:
            saved = read(root / "instrument")
        except ValueError:
            saved = None
        if saved is None:
            return 0.0  # there is no instrument yet
        condition = saved["condition"]
        if condition["blanked"] and not condition["patterning"]:
            break
        pause.wait(0.02)
    return max(0.0, time.monotonic() - began - DEADMAN_S)


def _emptied(root: Path) -> Path:
    """Return the folder, for a run that died before it was one: as a person would, they take a new folder."""
    return root if not root.exists() or not any(root.iterdir()) else root.with_name(root.name + "-again")
