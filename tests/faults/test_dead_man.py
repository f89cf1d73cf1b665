"""A lost heartbeat, a killed server, a call that hangs: the beam is blanked by somebody, soon."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.faults.dead_man import LOSSES, trials

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="POSIX signals")

LEASE_S = 1.0
#: Beyond T: what a loaded machine may take to notice, to answer, and to open a virtual specimen again.
ROOM_S = 8.0


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_it_is_blanked(loss: str, tmp_path: Path) -> None:
    (took,) = trials(1, LEASE_S, loss, tmp_path)
    assert took < LEASE_S + ROOM_S
