"""A disk that fills up under a run: it ends safe and says why, and goes on where it was once there is room."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.trial import RECIPE, Ended, Result, Strike, compare, end_server, undisturbed
from tests.instrument.serving import until
from workflows.store import RunFolder
from workflows.terminal import DONE, HELD

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs"), pytest.mark.timeout(600)]
#: Room for the run and for the reserve that it asks for before every slice.
SIZE = "400m"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Write until nothing goes any more; return the file that holds the room."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
    return ballast


@pytest.mark.slow
@pytest.mark.parametrize("at", ["pairs/infiltrate-before.ome.tif", "slices/s0001.ome.tif", "slices/s0003.ome.tif"])
def test_a_run_that_finds_no_room_ends_safe_and_goes_on_once_there_is_some(at: str, disk: Path, tmp_path: Path) -> None:
    undisturbed(tmp_path / "oracle")
    root = disk / "RUN"
    command = [sys.executable, "-m", "workflows.cli"]
    begin = [*command, "run", str(RECIPE), "--model", "none", "--out", str(root)]
    try:
        with subprocess.Popen(begin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
            until((root / at).exists, 120.0)
            ballast = fill(disk)
            out, err = run.communicate(timeout=240)
        told = out + err
        assert run.returncode == HELD, told
        assert "make room" in told
        early = subprocess.run(
            [*command, "resume", str(root), "--model", "none"], capture_output=True, text=True, timeout=240, check=False
        )
        assert early.returncode != DONE, early.stdout
        ballast.unlink()
        assert not list(root.glob("journal.sqlite.damaged*"))  # a full disk is no fault of the journal's
        ended = subprocess.run(
            [*command, "resume", str(root), "--model", "none"], capture_output=True, text=True, timeout=240, check=False
        )
        assert ended.returncode == DONE, ended.stdout + ended.stderr
    finally:
        end_server(root)
    result = Result(Strike("disk", at))
    compare(result, Ended(root), Ended(tmp_path / "oracle"))
    assert (result.slices_lost, result.slices_doubled, result.fired_twice) == (0, 0, 0)
    assert not result.doses_wrong
    assert RunFolder.open(root).slice_names()
