"""A run whose slices are labelled by a workstation that reaches it by the network alone: real processes, one killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.test_first_run import SLICES, SMALL, end_server, wait_for
from workflows.store import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@contextmanager
def started(*arguments: object, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "workflows.cli", *map(str, arguments)]
    with log.open("ab") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_run_is_labelled_over_the_wire_though_the_workstation_dies_once(tmp_path: Path) -> None:
    out, log = tmp_path / "RUN", tmp_path / "log.txt"
    folder = RunFolder(out)
    with started("run", SMALL, "--out", out, "--model", "elsewhere", log=log) as run:
        wait_for(folder.journal.exists)
        with started("share", out, log=log):
            place = out / "share" / "share.json"
            wait_for(place.exists)
            where = json.loads(place.read_text())
            url = f"pyro://{where['host']}:{where['port']}?token_file={where['token_file']}"
            with started("follow", url, "--poll", 0.1, log=log):
                wait_for(lambda: folder.numbers("s0002") is not None or run.poll() is not None)
            with started("follow", url, "--poll", 0.1, log=log):
                wait_for(lambda: run.poll() is not None)
    end_server(folder.server)
    assert run.returncode == 0, log.read_text()
    summary = folder.read_summary()
    assert summary["slices_labelled"] == SLICES
    assert all(row["unfilled_share"] is not None for row in summary["slices"])
    # a second pass is made of slices that had no neighbour on one side when they were labelled live
    assert any(folder.final_numbers(f"s{k:04d}") is not None for k in range(1, SLICES + 1))
