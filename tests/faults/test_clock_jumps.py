"""The computer's clock is set while a run goes on, back and far ahead: nothing depends on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import strike
from tests.faults.trial import RECIPE, Ended, Result, Strike, compare, doomed, end_server, undisturbed
from tests.instrument.serving import until
from workflows.terminal import DONE

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
pytestmark = [
    pytest.mark.skipif(LIBRARY is None, reason="libfaketime, which sets a process's clock, is not installed"),
    pytest.mark.timeout(400),
]


@pytest.mark.slow
def test_a_run_whose_clock_is_set_back_and_ahead_is_the_one_whose_clock_was_right(tmp_path: Path) -> None:
    undisturbed(tmp_path / "oracle")
    root, clock = tmp_path / "RUN", tmp_path / "clock"
    set_clock = {
        "LD_PRELOAD": str(LIBRARY), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1",
    }  # fmt: skip
    clock.write_text("+0", encoding="ascii")
    where = Strike("run", "slice/0004/cut-1@done")
    command = [sys.executable, "-m", "workflows.cli"]
    begin = [*command, "run", str(RECIPE), "--model", "none", "--out", str(root)]
    try:
        with subprocess.Popen(begin, env={**doomed(where, root), **set_clock}) as run:
            until((root / "slices" / "s0001.ome.tif").exists, 120.0)
            clock.write_text("-3h", encoding="ascii")
            until((root / "slices" / "s0002.ome.tif").exists, 120.0)
            clock.write_text("+20d", encoding="ascii")
            run.wait(240.0)
        assert strike.struck(root).exists()
        clock.write_text("-40d", encoding="ascii")
        ended = subprocess.run(
            [*command, "resume", str(root), "--model", "none"], capture_output=True, text=True, timeout=240,
            check=False, env={**os.environ, **set_clock},
        )  # fmt: skip
        assert ended.returncode == DONE, ended.stdout + ended.stderr
    finally:
        end_server(root)
    result, oracle = Result(where), Ended(tmp_path / "oracle")
    compare(result, Ended(root), oracle)
    assert (result.slices_lost, result.slices_doubled, result.fired_twice, result.settled) == (0, 0, 0, [])
    assert not result.doses_wrong
    assert result.face_off_m < 1e-9
    walls = [act.wall for act in Ended(root).acts if hasattr(act, "wall")]
    assert walls is not None
