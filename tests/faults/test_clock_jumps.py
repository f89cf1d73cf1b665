"""The computer's clock is set while a run goes on, back and far ahead: nothing depends on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from instrument.durable import atomic_write_bytes
from tests.faults.trial import RECIPE, Ended, Result, Strike, compare, end_server, undisturbed
from tests.instrument.serving import until
from workflows.store import Request, RunFolder
from workflows.terminal import DONE, STOPPED

HERE = Path(__file__).parent
HOUR, DAY = 3600.0, 86400.0
pytestmark = pytest.mark.timeout(400)


@pytest.mark.slow
def test_a_run_whose_clock_is_set_back_and_ahead_is_the_one_whose_clock_was_right(tmp_path: Path) -> None:
    undisturbed(tmp_path / "oracle")
    root, clock = tmp_path / "RUN", tmp_path / "clock"

    def set_clock(seconds: float) -> None:
        atomic_write_bytes(clock, f"{seconds}".encode())

    path = os.pathsep.join((str(HERE / "clock"), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")))
    env = {**os.environ, "KINTSUGI_CLOCK": str(clock), "PYTHONPATH": path}
    command, silent = [sys.executable, "-m", "workflows.cli"], {"stdout": subprocess.DEVNULL}
    set_clock(0.0)
    try:
        begin = [*command, "run", str(RECIPE), "--model", "none", "--out", str(root)]
        with subprocess.Popen(begin, env=env, **silent) as run:
            until((root / "slices" / "s0001.ome.tif").exists, 120.0)
            set_clock(-3 * HOUR)
            until((root / "slices" / "s0002.ome.tif").exists, 120.0)
            set_clock(20 * DAY)
            RunFolder.open(root).ask(Request(what="stop", by="a person"))
            assert run.wait(240.0) == STOPPED
        set_clock(-40 * DAY)
        ended = subprocess.run([*command, "resume", str(root)], timeout=240, check=False, env=env, **silent)
        assert ended.returncode == DONE
    finally:
        end_server(root)
    run_, result = Ended(root), Result(Strike("clock"))
    walls = [act.intended_wall for act in run_.acts]
    assert max(walls) > walls[-1]  # it really was set back
    compare(result, run_, Ended(tmp_path / "oracle"))
    assert (result.slices_lost, result.slices_doubled, result.fired_twice, result.settled) == (0, 0, 0, [])
    assert not result.doses_wrong
    assert result.face_off_m < 1e-9
