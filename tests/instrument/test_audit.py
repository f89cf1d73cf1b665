"""The audit log has what changes something and what was refused, and no flood fills the disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from instrument import audit
from instrument.audit import Audit
from instrument.errors import ConnectionLost, NotInControl, Refused
from instrument.link import Line
from instrument.remote import RemoteMicroscope, attach
from instrument.settings import Beam, BeamSettings, Device, GasSetting, Recovery, StagePosition
from instrument.wire import Acquire, WritePattern
from tests.instrument.fake_microscope import FakeMicroscope, job, scan
from tests.instrument.serving import serving, until


def lines(folder: Path, what: str) -> list[dict[str, Any]]:
    path = folder / "audit.log"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [one for one in map(json.loads, text.splitlines()) if one["what"] == what]


def test_each_command_that_changes_something_is_written_down(remote: RemoteMicroscope, tmp_path: Path) -> None:
    remote.insert(Device.NEEDLE)
    remote.retract(Device.NEEDLE)
    remote.move_stage(StagePosition(x=1e-3))
    remote.set_beam(Beam.ION, BeamSettings(current_a=60e-9))
    remote.set_gas("Pt", GasSetting(heater_on=True))
    remote.recover(Recovery.PUMP)
    remote.pattern(job())
    remote.clock.wait(1.0)
    remote.state()
    told = [one["command"] for one in lines(tmp_path, "submit")]
    assert [one["verb"] for one in told] == [
        "insert", "retract", "move_stage", "set_beam", "set_gas", "recover", "pattern"
    ]  # fmt: skip
    assert told[2]["to"] == {"x": 1e-3}
    assert told[4]["setting"] == {"heater_on": True}
    assert told[6]["job"]["area"] == "trench"
    assert "patterns" not in told[6]["job"]


def test_each_refusal_is_written_down(remote: RemoteMicroscope, place: Path, fake: FakeMicroscope) -> None:
    fake.homed = False
    with pytest.raises(Refused):
        remote.move_stage(StagePosition(x=1e-3))
    assert [one["rule"] for one in lines(place.parent, "failed")] == ["stage-homed"]
    with attach(place, "run-2") as other, pytest.raises(NotInControl):
        other.claim()
    with pytest.raises(Refused):
        remote._call("submit", remote._epoch, "r/a", {"verb": "explode"})
    observer = Line(remote._where[0], remote._where[1], (place.parent / "token-observe").read_text())
    with pytest.raises(NotInControl):
        observer.call("make_safe")
    observer.close()
    refused = [(one["method"], one["symptom"]) for one in lines(place.parent, "refused")]
    assert refused == [("claim", "not-in-control"), ("submit", "refused"), ("make_safe", "not-in-control")]
    assert "run-1" in lines(place.parent, "refused")[0]["why"]


def test_who_is_not_let_in_is_written_down_but_no_flood(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = json.loads(place.read_text())["port"]
    for _ in range(audit._MOST + 5):
        line = Line("127.0.0.1", port, "wrong")
        with pytest.raises(NotInControl):
            line.call("events", 0)
        line.close()
    until(lambda: len(lines(place.parent, "rejected")) == audit._MOST)
    told = lines(place.parent, "rejected")
    assert {one["why"] for one in told} == {"no valid token"}
    assert all("127.0.0.1" in one["who"] for one in told)
    monkeypatch.setattr(audit, "_PERIOD_S", 0.0)
    line = Line("127.0.0.1", port, "wrong")
    with pytest.raises(NotInControl):
        line.call("events", 0)
    until(lambda: len(lines(place.parent, "rejected")) == audit._MOST + 1)
    assert lines(place.parent, "rejected")[-1]["left_out"] == 5


def test_what_a_stranger_says_is_cut_short(tmp_path: Path) -> None:
    log = Audit(tmp_path / "audit.log")
    log.tell_rarely("refused", why="x" * 1_000_000)
    assert (tmp_path / "audit.log").stat().st_size < 1000
    assert log.since(0)[0]["why"] == "x" * audit._TEXT


def test_a_damaged_ledger_is_written_down_and_fires_nothing_twice(fake: FakeMicroscope, tmp_path: Path) -> None:
    with serving(fake, tmp_path) as place, attach(place, "run-1") as remote:
        remote.claim()
        for name in ("r/a#1", "r/b#1"):
            remote.perform(name, WritePattern(job=job()))
    ledger = tmp_path / "ledger.jsonl"
    whole = ledger.read_text().splitlines()
    ledger.write_text("\n".join(line[:40] if '"id":"r/a#1"' in line else line for line in whole) + "\n")
    fired = len(fake.fired)
    with serving(fake, tmp_path) as place, attach(place, "run-1") as remote:
        remote.claim()
        found = remote.lookup("r/a#1")
        assert found is not None
        assert isinstance(found.error, ConnectionLost)
        assert (found.state, found.fraction) == ("cut", None)
        assert (found.error.evidence["at_least"], found.error.evidence["at_most"]) == (0.0, 1.0)
        with pytest.raises(Refused) as caught:
            remote.perform("r/a#1", WritePattern(job=job()))
        assert caught.value.rule == "never-twice"
        assert remote.lookup("r/b#1") is not None
        assert len(fake.fired) == fired
        remote.perform("r/a#2", Acquire(scan=scan()))  # what has a new id goes on
    (told,) = lines(tmp_path, "ledger damaged")
    assert told["lines"] == [2, 3]
    assert Path(told["copy"]).exists()
    assert (told["lost"], told["blind"]) == (["r/a#1"], False)
