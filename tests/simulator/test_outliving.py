"""A pattern goes on when the process that wrote it has died, and the saved state is settled when it is opened again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import simulator
from instrument.settings import Beam, PatternJob, Progress
from simulator.microscope import SimulatedMicroscope
from simulator.saving import newest, read
from tests.simulator.bench import SMALL, Bench

#: Opens the machine, writes a pattern and is killed, with no time to tidy up, at the first sign of progress.
KILLED = """
import os, signal, sys
from pathlib import Path
import simulator
from instrument.settings import PatternJob

def watch(progress):
    os.kill(os.getpid(), signal.SIGKILL)

machine = simulator.open(sys.argv[1], Path(sys.argv[2]))
machine.clock.live = lambda: False
machine.pattern(PatternJob.model_validate_json(sys.argv[3]), watch)
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture
def killed(tmp_path: Path) -> tuple[Path, PatternJob, float]:
    """The state of a machine whose process was killed in a cut of two minutes; the job; where the face stood."""
    bench = Bench(state=tmp_path / "state")
    bench.go("mill")
    bench.ion(4e-9)
    bench.cut(-0.3e-6, 0.9e-6, 2.0)
    job = bench.cut_job(0.9e-6, 1.4e-6)
    job = job.replace(dose_c=120.0 * job.current_a)
    face = bench.face_z()
    bench.microscope.close()
    arguments = [sys.executable, "-c", KILLED, SMALL, str(tmp_path / "state"), job.model_dump_json()]
    ended = subprocess.run(arguments, timeout=60, check=False, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    assert ended.returncode == -signal.SIGKILL
    return tmp_path / "state", job, face


def condition(state: Path) -> dict[str, Any]:
    """What was saved of the machine's condition."""
    saved = read(state)
    assert saved is not None
    return dict(saved["condition"])


def long_ago(state: Path, away_s: float) -> None:
    """Let what is saved be so much older."""
    place, saved = newest(state), read(state)
    assert place is not None
    assert saved is not None
    saved["condition"]["wall_s"] -= away_s
    place.write_text(json.dumps(saved))


def opened(state: Path, away_s: float) -> SimulatedMicroscope:
    """The machine as somebody finds it who comes so long after the end of the process."""
    saved = condition(state)
    assert saved["running"] is not None
    assert saved["blanked"] is False
    long_ago(state, away_s)
    return simulator.open(SMALL, state)


def face_of(machine: SimulatedMicroscope) -> float:
    return float(np.median(machine.block.maps.face))


@pytest.mark.slow
@pytest.mark.parametrize(("away_s", "least", "most"), [(40.0, 0.25, 0.5), (3600.0, 0.99, 1.01)])
def test_a_cut_goes_on_until_its_end_or_until_the_machine_is_opened(
    killed: tuple[Path, PatternJob, float], away_s: float, least: float, most: float, tmp_path: Path
) -> None:
    state, job, before = killed
    whole = Bench()
    whole.go("mill")
    whole.ion(4e-9)
    whole.cut(-0.3e-6, 0.9e-6, 2.0)
    start = whole.face_z()
    whole.microscope.pattern(job)
    expected = whole.face_z() - start
    machine = opened(state, away_s)
    assert least < (face_of(machine) - before) / expected < most
    assert machine.state().patterning is False
    assert machine.state().ion.blanked is True
    machine.close()


def test_time_went_on_and_what_was_settled_once_is_not_settled_again(
    killed: tuple[Path, PatternJob, float],
) -> None:
    state, _, _ = killed
    before = condition(state)["time_s"]
    machine = opened(state, 30.0)
    assert machine.clock.now() >= before + 30.0
    face = face_of(machine)
    machine.close()
    again = simulator.open(SMALL, state)
    assert face_of(again) == face
    again.close()


def test_nothing_goes_on_where_nothing_ran(tmp_path: Path) -> None:
    bench = Bench(state=tmp_path)
    bench.go("mill")
    bench.ion(4e-9)
    seen: list[Progress] = []
    bench.microscope.pattern(bench.cut_job(-0.3e-6, 0.9e-6), seen.append)
    face = bench.face_z()
    bench.microscope.close()
    assert condition(tmp_path)["running"] is None
    long_ago(tmp_path, 500.0)
    again = simulator.open(SMALL, tmp_path)
    assert face_of(again) == face
    assert again.state().beam(Beam.ION).blanked
    again.close()
