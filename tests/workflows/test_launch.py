"""Where a run's instrument is held: a virtual one by its run, a real one by one server for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from instrument.errors import Refused
from instrument.server import start
from tests.end_to_end.test_first_run import end_server
from workflows.launch import server_for, state_folder
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
    shared_before = state_folder(one, "autoscript://hydra-pc")
    monkeypatch.setenv("KINTSUGI_INSTRUMENTS", str(tmp_path / "of another user"))
    assert state_folder(one, "autoscript://hydra-pc") != shared_before
    assert state_folder(one, "autoscript://hydra-pc", str(shared_before)) == shared_before  # its ledger is there
    (two.instrument / "ledger.jsonl").touch()
    assert state_folder(two, "autoscript://hydra-pc") == two.instrument  # begun before they shared one
    assert state_folder(one, "simulator:3?width=20um") == one.instrument
    assert state_folder(two, "simulator:3?width=20um") == two.instrument


def test_a_real_instrument_has_one_folder_however_its_url_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINTSUGI_INSTRUMENTS", str(tmp_path / "instruments"))
    folder = RunFolder.create(tmp_path / "RUN")
    hosts = ("localhost", "LocalHost:7520", "127.0.0.1", "[::1]:7520", "localhost?elements=D:/maps", "")
    assert {state_folder(folder, f"autoscript://{host}").name for host in hosts} == {"autoscript-localhost-7520"}
    assert state_folder(folder, "autoscript://localhost:7521").name == "autoscript-localhost-7521"
    old = tmp_path / "instruments" / "autoscript-127.0.0.1"  # of an earlier version: its ledger is there
    old.mkdir(parents=True)
    assert state_folder(folder, "autoscript://127.0.0.1") == old
    with pytest.raises(Refused, match="write it so"):
        state_folder(folder, "autoscript://localhost:port")


@pytest.mark.slow
def test_a_server_that_was_started_otherwise_is_not_joined(tmp_path: Path) -> None:
    url = "simulator:3?width=8um&height=6um&depth=3um&coating=5um&voxel=100nm&layer=100nm"
    place = start(url, tmp_path)
    try:
        assert server_for(tmp_path, url) == place
        with pytest.raises(Refused, match="holds the instrument as"):
            server_for(tmp_path, url + "&drift=0")
    finally:
        end_server(place)
