"""Between kill and resume somebody moves every axis, current and device: the run comes back to its own place."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from instrument import server
from instrument.remote import attach
from instrument.settings import Beam, BeamSettings, Device, StagePosition
from tests.faults import strike
from tests.faults.trial import RECIPE, Ended, Result, Strike, compare, doomed, end_server, undisturbed
from workflows.journal import Journal
from workflows.store import RunFolder

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="/proc and POSIX signals"), pytest.mark.timeout(400)]


def stranger(root: Path) -> None:
    """Take the instrument over its own server, move all there is, and leave it so."""
    with Journal(RunFolder.open(root).journal, read_only=True) as journal:
        url = str(journal.meta("url"))
    place = server.start(url, root / "instrument")
    with attach(place, "a stranger") as remote:
        remote.claim()
        for device, inserted in remote.state().devices.items():
            if inserted:
                remote.retract(device)
        at = remote.state().stage
        assert at.x is not None
        assert at.t is not None
        remote.move_stage(StagePosition(x=at.x + 140e-6, y=60e-6, z=-25e-6, r=0.4, t=at.t + 0.1))
        remote.set_beam(Beam.ION, BeamSettings(current_a=60e-9, shift_x_m=4e-6, shift_y_m=-3e-6))
        remote.set_beam(
            Beam.ELECTRON,
            BeamSettings(voltage_v=10e3, current_a=6.4e-9, working_distance_m=4.3e-3, stigmator_x=0.2, shift_x_m=5e-6),
        )
        remote.set_beam(Beam.ELECTRON, BeamSettings(scan_rotation_rad=0.3))
        remote.insert(Device.NEEDLE)


@pytest.mark.slow
def test_the_face_is_the_oracles_all_the_same(tmp_path: Path) -> None:
    undisturbed(tmp_path / "oracle")
    oracle = Ended(tmp_path / "oracle")
    root = tmp_path / "RUN"
    # after the refill: whether its clean takes one look more may hang on a picture's last digits
    where = Strike("power", "slice/0004/cut-1@done")
    env = doomed(where, root)
    command = [sys.executable, "-m", "workflows.cli"]
    try:
        subprocess.run([*command, "run", str(RECIPE), "--model", "none", "--out", str(root)], env=env, timeout=240)
        assert strike.struck(root).exists()
        strike.lose_what_was_not_synced(root, random.Random(1))
        stranger(root)
        ended = subprocess.run(
            [*command, "resume", str(root), "--model", "none"], capture_output=True, text=True, timeout=240, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
    finally:
        end_server(root)
    result = Result(where)
    compare(result, Ended(root), oracle)
    assert (result.slices_lost, result.slices_doubled, result.fired_twice, result.doses_wrong) == (0, 0, 0, [])
    assert result.face_off_m < 25e-9
    assert max(result.misplaced) < 3.0
