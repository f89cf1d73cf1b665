"""One controller for each real instrument: who comes second is told who is there, whatever it calls the instrument."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

import instrument
from instrument import server, watchdog
from instrument.durable import FileLock
from instrument.errors import ConnectionLost, Refused
from instrument.holding import held, home
from instrument.microscope import Microscope


@pytest.fixture(autouse=True)
def instruments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KINTSUGI_INSTRUMENTS", str(tmp_path / "instruments"))
    return tmp_path / "instruments"


@pytest.mark.parametrize(
    "url", ["autoscript://127.0.0.1", "autoscript:localhost", "autoscript://[::1]:7520?elements=D:"]
)
def test_whoever_comes_second_is_told_who_holds_it(url: str) -> None:
    with held("autoscript://localhost", "kintsugi site"):
        who = f"kintsugi site .pid {os.getpid()} on .*, since .* end that first"
        with pytest.raises(Refused, match=who) as refused, held(url, "kintsugi rehearse"):
            pytest.fail("two controllers")
        assert refused.value.rule == "one-controller"
        with held("autoscript://localhost:7521", "kintsugi rehearse"):
            pass
    with held(url, "kintsugi rehearse"):
        pass


def test_it_is_waited_for_as_long_as_asked(instruments: Path) -> None:
    lock = FileLock(instruments / "autoscript-hydra-7520.lock")
    instruments.mkdir()
    lock.acquire()
    threading.Timer(0.3, lock.release).start()
    with held("autoscript://hydra", "an instrument server", seconds=20.0):
        assert not lock.held


@pytest.mark.parametrize("url", ["simulator:3", "pyro://127.0.0.1:4000?token_file=F"])
def test_an_instrument_of_each_connection_s_own_is_not_held(url: str) -> None:
    with held(url, "one"), held(url, "another"):
        assert not home().exists()


def test_a_server_takes_it_before_it_connects_whatever_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    while_connecting: list[bool] = []

    def connect(_url: str, _state: Path) -> Microscope:
        while_connecting.append(FileLock.is_held(home() / "autoscript-localhost-7520.lock"))
        msg = "nothing answers there"
        raise ConnectionLost(msg)

    def serve() -> str:
        assert server.main(["autoscript://127.0.0.1", "--state", str(tmp_path / "state"), "--watched"]) == 2
        return str(json.loads((tmp_path / "state" / "server-error.json").read_text())["message"])

    monkeypatch.setattr(instrument, "connect", connect)
    monkeypatch.setattr(watchdog, "beat", lambda _stopping: None)
    monkeypatch.setattr(server, "READ_S", 0.0)
    with held("autoscript://localhost", "kintsugi site"):
        assert "in use by kintsugi site" in serve()
    assert while_connecting == []
    assert serve() == "nothing answers there"
    assert while_connecting == [True]
    assert not FileLock.is_held(home() / "autoscript-localhost-7520.lock")
