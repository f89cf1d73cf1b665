"""Where a run's instrument is held: a virtual one by its run, a real one by one server for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflows.launch import state_folder
from workflows.store import RunFolder


def test_two_runs_of_a_real_instrument_share_its_server_and_virtual_ones_have_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINTSUGI_INSTRUMENTS", str(tmp_path / "instruments"))
    one, two = (RunFolder.create(tmp_path / name) for name in ("ONE", "TWO"))
    shared = state_folder(one, "autoscript://Hydra-PC:7520?elements=D:/maps")
    assert shared == state_folder(two, "autoscript://hydra-pc:7520")
    assert shared.parent == tmp_path / "instruments"
    assert shared.name == "autoscript-hydra-pc-7520"
    assert shared != state_folder(one, "autoscript://other-pc:7520")
    assert state_folder(one, "autoscript:hydra-pc") == state_folder(two, "autoscript://hydra-pc")
    assert state_folder(one, "simulator:3?width=20um") == one.instrument
    assert state_folder(two, "simulator:3?width=20um") == two.instrument
