"""Server and client over the loopback: once by id, control by lease, frames whole, stop and safety at any time."""

from __future__ import annotations

import json
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instrument.errors import BadData, ConnectionLost, DeviceFault, NoRoom, NotInControl, Refused, Stopped
from instrument.frame import FrameRef, sha256_of
from instrument.link import Line
from instrument.remote import RemoteMicroscope, attach, open_url
from instrument.settings import (
    Beam,
    BeamSettings,
    Device,
    Done,
    EdsScan,
    GasSetting,
    PatternJob,
    Progress,
    Recovery,
    StagePosition,
    Tune,
)
from instrument.wire import Acquire, MoveStage, Result, Wait, WritePattern
from tests.instrument.fake_microscope import FakeMicroscope, job, scan
from tests.instrument.serving import serving, until

pytestmark = pytest.mark.timeout(60)


def pattern(found: PatternJob) -> WritePattern:
    return WritePattern(job=found)


def whole(done: Done | None, seconds: float) -> None:
    """Check that a job of `job(seconds)` was given entirely."""
    assert done is not None
    assert done.fraction == 1.0
    assert not done.stopped
    assert done.elapsed_s == pytest.approx(seconds)
    assert done.charge_c == pytest.approx(60e-9 * seconds)


def in_thread(work: Any, *args: Any) -> tuple[threading.Thread, list[Any]]:
    """Call something elsewhere; the list gets what it returned or raised."""
    got: list[Any] = []

    def call() -> None:
        try:
            got.append(work(*args))
        except (Stopped, NotInControl, DeviceFault, ConnectionLost, Refused) as error:
            got.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    return thread, got


# -- verbs ------------------------------------------------------------------------------------------------------------


def test_every_verb_arrives_and_answers(remote: RemoteMicroscope, fake: FakeMicroscope) -> None:
    assert remote.describe() == fake.describe()
    assert remote.state() == fake.state()
    assert remote.set_beam(Beam.ION, BeamSettings(current_a=15e-9)).current_a == 15e-9
    assert remote.move_stage(StagePosition(x=1e-3)).x == 1e-3
    remote.insert(Device.EDS)
    assert remote.state().devices[Device.EDS]
    assert remote.acquire_eds(EdsScan(elements=("C", "Pt"), width_px=12, height_px=14, pixel_m=1e-7)).pixels.shape == (
        2, 14, 12,
    )  # fmt: skip
    remote.retract(Device.EDS)
    remote.insert(Device.NEEDLE)
    assert remote.set_gas("Pt", GasSetting(heater_on=True, valve_open=True)).valve_open
    assert remote.make_safe().gases["Pt"].valve_open is False
    assert remote.tune(Tune.FOCUS, scan()).working_distance_m == 4e-3
    assert remote.recover(Recovery.PUMP) == fake.state()
    before = remote.clock.now()
    remote.clock.wait(12.5)
    assert remote.clock.now() == pytest.approx(before + 12.5)
    assert remote.seconds_in_calls > 0


def test_a_frame_comes_whole_and_leaves_the_spool(remote: RemoteMicroscope, tmp_path: Path) -> None:
    frame = remote.acquire(scan(size=1200, bits=8))
    assert frame.pixels.nbytes > 1 << 20
    assert frame.pixels.tobytes() == np.random.default_rng(1).integers(0, 255, (1, 1200, 1200)).astype("u1").tobytes()
    assert frame.meta.uid == "fake-1"
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_spooled_frame_lies_whole_until_released(remote: RemoteMicroscope, tmp_path: Path) -> None:
    ref = remote.perform("run-1/slice/1#1", Acquire(scan=scan())).frame
    assert ref is not None
    assert sha256_of(tmp_path / "spool" / ref.name) == ref.sha256
    assert b"".join(remote.chunks(ref)) == (tmp_path / "spool" / ref.name).read_bytes()
    remote.release_frame(ref)
    remote.release_frame(ref)
    with pytest.raises(BadData, match="released"):
        next(remote.chunks(ref))
    assert remote.perform("run-1/slice/1#1", Acquire(scan=scan())).frame == ref


def test_frames_of_similar_ids_are_kept_apart(remote: RemoteMicroscope, tmp_path: Path) -> None:
    refs = [remote.perform(one, Acquire(scan=scan())).frame for one in ("a/b#1", "a-b#1", "a/b-1", "x" * 200)]
    assert len({ref.name for ref in refs if ref is not None}) == 4
    assert len(list((tmp_path / "spool").iterdir())) == 4


@pytest.mark.parametrize("name", ["../ledger.jsonl", "ledger.jsonl", "/etc/passwd", "..", "", "a.ome.tif\n"])
def test_no_other_file_leaves_or_is_deleted(remote: RemoteMicroscope, tmp_path: Path, name: str) -> None:
    ref = FrameRef(
        name=name, sha256="", size_bytes=1, channels=("A",), shape=(1, 1, 1), uid="u", started_s=0, seconds=0
    )
    with pytest.raises(BadData):
        next(remote.chunks(ref))
    with pytest.raises(BadData):
        remote.release_frame(ref)
    assert (tmp_path / "ledger.jsonl").exists()


# -- once by id -------------------------------------------------------------------------------------------------------


def test_an_id_asked_for_again_is_found_and_never_fires_twice(remote: RemoteMicroscope, fake: FakeMicroscope) -> None:
    first = remote.perform("r/a#1", pattern(job()))
    whole(first.done, 10.0)
    assert remote.perform("r/a#1", pattern(job())) == first
    assert len(fake.fired) == 1


def test_an_id_that_runs_is_joined(remote: RemoteMicroscope, place: Path, fake: FakeMicroscope) -> None:
    fake.hold()
    thread, got = in_thread(remote.perform, "r/a#1", pattern(job()))
    assert fake.begun.wait(5.0)
    with attach(place, "run-1") as again:
        again.claim()
        record = again.lookup("r/a#1")
        assert record is not None
        assert record.state == "running"
        joined, also = in_thread(again.perform, "r/a#1", pattern(job()))
        fake.gate.set()
        joined.join(5.0)
        thread.join(5.0)
    assert len(fake.fired) == 1
    whole(also[0].done, 10.0)
    assert got[0] == also[0] or isinstance(got[0], NotInControl)


def test_an_id_stands_for_one_command(remote: RemoteMicroscope, fake: FakeMicroscope) -> None:
    remote.perform("r/a#1", pattern(job()))
    with pytest.raises(Refused, match="another command") as refused:
        remote.perform("r/a#1", pattern(job(seconds=11.0)))
    assert refused.value.rule == "one-id-one-command"
    remote.perform("r/m", MoveStage(to=StagePosition(x=1e-3)))
    with pytest.raises(Refused, match="another command"):
        remote.perform("r/m", MoveStage(to=StagePosition(x=2e-3)))
    assert len(fake.fired) == 1


def test_what_was_never_seen_is_unknown(remote: RemoteMicroscope) -> None:
    assert remote.lookup("r/never") is None


def test_an_error_is_found_again_too(remote: RemoteMicroscope, fake: FakeMicroscope) -> None:
    fake.fail_next = DeviceFault("the source is off", beam="ion", values=(1, 2))
    for _ in range(2):
        with pytest.raises(DeviceFault, match="source is off") as fault:
            remote.perform("r/f#1", Acquire(scan=scan()))
        assert fault.value.evidence["values"] == [1, 2]
    assert fake.frames == 0


# -- patterns ---------------------------------------------------------------------------------------------------------


def test_a_long_job_is_given_in_pieces_that_add_up(
    remote: RemoteMicroscope, fake: FakeMicroscope, tmp_path: Path
) -> None:
    done = remote.pattern(job(seconds=300.0))
    whole(done, 300.0)
    assert [round(end, 6) for _, _, end in fake.fired] == [0.333333, 0.666667, 1.0]
    events = [json.loads(line)["event"] for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert events == ["claim", "start", "progress", "progress", "end"]


def test_progress_is_told_and_a_watcher_may_stop(remote: RemoteMicroscope, fake: FakeMicroscope) -> None:
    fake.hold()
    told: list[Progress] = []

    def watch(progress: Progress) -> None:
        told.append(progress)
        msg = "enough"
        raise Stopped(msg)

    with pytest.raises(Stopped, match="enough"):
        remote.pattern(job(from_fraction=0.5), watch)
    assert told[0].fraction == 0.5
    assert told[0].remaining_s == pytest.approx(5.0)
    assert not remote.state().patterning
    assert fake.charge("trench", job()) < 6e-7


def test_a_stop_ends_the_pattern_in_hand(remote: RemoteMicroscope, fake: FakeMicroscope) -> None:
    fake.hold()
    thread, got = in_thread(remote.perform, "r/a#1", pattern(job(seconds=300.0)))
    assert fake.begun.wait(5.0)
    remote.stop()
    thread.join(5.0)
    assert isinstance(got[0], Result)
    done = got[0].done
    assert done is not None
    assert done.stopped
    assert len(fake.fired) == 1
    record = remote.lookup("r/a#1")
    assert record is not None
    assert record.state == "cut"
    assert record.fraction == done.fraction < 1.0
    assert remote.pattern(job(from_fraction=done.fraction)).fraction == 1.0


def test_a_stop_before_a_pattern_has_begun_is_heeded(
    remote: RemoteMicroscope, fake: FakeMicroscope, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The instrument forgets a stop that comes before its pattern; the server doesn't."""
    begins = fake.pattern

    def late(*args: Any) -> Done:
        remote.stop()
        return begins(*args)

    monkeypatch.setattr(fake, "pattern", late)
    done = remote.pattern(job(seconds=300.0))
    assert done.stopped
    assert done.fraction == pytest.approx(1 / 12)  # a quarter of the first of three pieces
    assert done.charge_c == pytest.approx(fake.charge("trench", job(seconds=300.0)))


def test_a_stopped_scan_is_cut_and_may_be_taken_again(remote: RemoteMicroscope, fake: FakeMicroscope) -> None:
    fake.hold()
    thread, got = in_thread(remote.perform, "r/f#1", Acquire(scan=scan()))
    assert fake.begun.wait(5.0)
    remote.stop()
    thread.join(5.0)
    assert isinstance(got[0], Stopped)
    record = remote.lookup("r/f#1")
    assert record is not None
    assert record.state == "cut"
    assert remote.acquire(scan()).meta.uid == "fake-1"


def test_what_waits_behind_a_stop_is_not_begun(remote: RemoteMicroscope, place: Path, fake: FakeMicroscope) -> None:
    fake.hold()
    first, _ = in_thread(remote.perform, "r/a#1", pattern(job()))
    assert fake.begun.wait(5.0)
    with attach(place, "run-1") as other:
        other.claim()
        second, got = in_thread(other.perform, "r/b#1", pattern(job(area="face-2")))
        until(lambda: other.lookup("r/b#1") is not None)
        other.stop()
        first.join(5.0)
        second.join(5.0)
    assert isinstance(got[0], Stopped)
    assert [area for area, _, _ in fake.fired] == ["trench"]


def test_a_wait_ends_with_a_stop(
    remote: RemoteMicroscope, fake: FakeMicroscope, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = fake.clock.wait

    def wait(seconds: float) -> None:
        waits(seconds)
        remote.stop()

    monkeypatch.setattr(fake.clock, "wait", wait)
    with pytest.raises(Stopped):
        remote.clock.wait(3600.0)
    assert fake.clock.seconds < 100.0


def test_a_fault_in_a_later_piece_says_what_is_known(remote: RemoteMicroscope, fake: FakeMicroscope) -> None:
    fake.fail_at = (0.5, DeviceFault("the source went out"))
    with pytest.raises(DeviceFault) as fault:
        remote.perform("r/a#1", pattern(job(seconds=300.0)))
    assert fault.value.evidence["at_least"] == pytest.approx(1 / 3)
    record = remote.lookup("r/a#1")
    assert record is not None
    assert (record.state, record.fraction) == ("failed", None)
    fake.fail_at = (0.5, DeviceFault("the source went out", fraction=0.45))
    with pytest.raises(DeviceFault):
        remote.perform("r/b#1", pattern(job(seconds=300.0)))
    record = remote.lookup("r/b#1")
    assert record is not None
    assert record.fraction == 0.45
    assert record.result is not None
    assert record.result.done is not None
    assert record.result.done.charge_c == pytest.approx(0.45 * 300 * 60e-9)


def test_a_refusal_in_a_later_piece_never_looks_like_nothing_given(
    remote: RemoteMicroscope, fake: FakeMicroscope
) -> None:
    """Who is told `refused` asks again for the whole: that must not double the dose."""
    fake.fail_at = (0.5, Refused("the stage moved", rule="elsewhere"))
    result = remote.perform("r/a#1", pattern(job(seconds=300.0)))
    assert result.done is not None
    assert result.done.stopped
    assert result.done.fraction == pytest.approx(1 / 3)
    record = remote.lookup("r/a#1")
    assert record is not None
    assert record.error is None


# -- control ----------------------------------------------------------------------------------------------------------


def test_one_controller_at_a_time_and_its_own_run_takes_over(remote: RemoteMicroscope, place: Path) -> None:
    with attach(place, "run-2") as other, pytest.raises(NotInControl, match="run-1 controls"):
        other.claim()
    with attach(place, "run-1") as again:
        again.claim()
        again.move_stage(StagePosition(x=1e-3))
        with pytest.raises(NotInControl):
            remote.move_stage(StagePosition(x=2e-3))
    assert remote.state().stage.x == 1e-3


def test_nothing_without_control(place: Path, fake: FakeMicroscope) -> None:
    with attach(place, "run-1") as other:
        assert other.state() == fake.state()
        with pytest.raises(NotInControl):
            other.acquire(scan())
        assert fake.frames == 0
        other.make_safe()
        assert fake.safe_calls == 1


def test_a_lease_that_lapses_makes_safe_within_t(fake: FakeMicroscope, tmp_path: Path) -> None:
    with serving(fake, tmp_path, lease_s=0.5) as place, attach(place, "run-1") as remote:
        remote.claim()
        until(lambda: fake.clock.live(), 1.0)
        fake.hold()
        thread, got = in_thread(remote.perform, "r/a#1", pattern(job(seconds=300.0)))
        assert fake.begun.wait(5.0)
        remote._ended.set()  # the run is dead: no heartbeat comes any more
        until(lambda: fake.safe_calls == 1, 5.0)
        thread.join(5.0)
        assert isinstance(got[0], Result)
        assert got[0].done is not None
        assert got[0].done.stopped
        assert not fake.clock.live()
        with pytest.raises(NotInControl, match="lapsed"):
            remote.move_stage(StagePosition(x=1e-3))
        assert [event["what"] for event in remote.events()][-2:] == ["lapsed", "refused"]
        with attach(place, "run-2") as other:
            other.claim()
            other.move_stage(StagePosition(x=1e-3))
    assert fake.safe_calls == 1  # run-2 gave it back


def test_heartbeats_keep_a_lease_through_a_long_call(fake: FakeMicroscope, tmp_path: Path) -> None:
    with serving(fake, tmp_path, lease_s=0.6) as place, attach(place, "run-1") as remote:
        remote.claim()
        fake.hold()
        thread, got = in_thread(remote.acquire, scan())
        assert not threading.Event().wait(1.5)
        fake.gate.set()
        thread.join(5.0)
        assert got[0].meta.uid == "fake-1"
        assert fake.safe_calls == 0


def test_control_taken_again_after_a_lapse_has_a_heartbeat(fake: FakeMicroscope, tmp_path: Path) -> None:
    with serving(fake, tmp_path, lease_s=0.5) as place, attach(place, "run-1") as remote:
        remote.claim()
        with attach(place, "run-1") as other:
            other.claim()
        until(lambda: remote._lost is not None, 5.0)
        remote.claim()
        assert not threading.Event().wait(1.0)
        remote.move_stage(StagePosition(x=1e-3))


def test_release_leaves_no_gas_on(remote: RemoteMicroscope, fake: FakeMicroscope) -> None:
    remote.release()
    assert fake.safe_calls == 0
    remote.claim()
    remote.insert(Device.NEEDLE)
    remote.set_gas("Pt", GasSetting(valve_open=True))
    remote.release()
    assert fake.safe_calls == 1
    assert not fake.state().gases["Pt"].valve_open


def test_a_server_ends_by_itself_when_nobody_comes_back(fake: FakeMicroscope, tmp_path: Path) -> None:
    with serving(fake, tmp_path, linger_s=0.3) as place:
        with attach(place, "run-1") as remote:
            remote.claim()
            remote.set_gas("Pt", GasSetting(heater_on=True))
        until(lambda: fake.closed)
        assert not fake.state().gases["Pt"].heater_on  # nobody came back: it isn't kept hot for a weekend
        assert not place.exists()
        with pytest.raises(ConnectionLost):
            attach(place)


# -- the server's own troubles ----------------------------------------------------------------------------------------


def test_a_defect_makes_safe_and_ends_the_server(fake: FakeMicroscope, tmp_path: Path) -> None:
    """No command may hang because the thread that does them is gone."""
    from instrument import server

    ended: list[BaseException] = []
    thread = threading.Thread(target=lambda: ended.append(_raised(server.serve, fake, tmp_path)))
    thread.start()
    place = tmp_path / "server.json"
    until(place.exists)
    with attach(place, "run-1") as remote:
        remote.claim()
        fake.fail_next = AttributeError("a typing error")
        with pytest.raises(DeviceFault, match="defect: AttributeError"):
            remote.acquire(scan())
        assert fake.safe_calls >= 1
    thread.join(10.0)
    assert not thread.is_alive()
    assert "ended by a defect" in str(ended[0])
    assert fake.closed


def _raised(work: Any, *args: Any) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is, the caller looks at it
        work(*args)
    return caught.value


def test_nothing_fires_that_cannot_be_written_down(
    remote: RemoteMicroscope, fake: FakeMicroscope, monkeypatch: pytest.MonkeyPatch
) -> None:
    from instrument import durable

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "append_line", full)
    with pytest.raises(NoRoom, match="No space left"):
        remote.perform("r/a#1", pattern(job()))
    assert fake.fired == []


def test_a_disk_that_fills_up_during_a_frame_is_told(
    remote: RemoteMicroscope, fake: FakeMicroscope, monkeypatch: pytest.MonkeyPatch
) -> None:
    from instrument import durable

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(durable, "commit", full)
        with pytest.raises(NoRoom, match="No space left"):
            remote.acquire(scan())
    assert remote.acquire(scan()).meta.uid == "fake-2"


# -- access -----------------------------------------------------------------------------------------------------------


def test_who_may_observe_may_not_operate(place: Path, fake: FakeMicroscope) -> None:
    where = json.loads(place.read_text())
    token = (place.parent / where["tokens"]["observe"]).read_text()
    line = Line(where["host"], where["port"], token)
    assert line.call("snapshot")["state"]["time_s"] == fake.clock.now()
    for method, args in (
        ("claim", ("run-1", None)), ("submit", (1, "a", {})), ("stop", ()), ("make_safe", ()), ("renew", (1,)),
        ("release", (1,)), ("release_frame", (1, "a")),
    ):  # fmt: skip
        with pytest.raises(NotInControl, match="look, not operate"):
            line.call(method, *args)
    line.close()
    assert fake.safe_calls == 0


def test_no_token_no_entry(place: Path) -> None:
    where = json.loads(place.read_text())
    for token in ("", "wrong"):
        line = Line(where["host"], where["port"], token)
        with pytest.raises(NotInControl, match="token"):
            line.call("snapshot")
        line.close()


def test_only_the_methods_of_the_contract_are_published(place: Path) -> None:
    where = json.loads(place.read_text())
    line = Line(where["host"], where["port"], (place.parent / where["tokens"]["operate"]).read_text())
    line.call("snapshot")
    assert set(line._proxy._pyroMethods) == {
        "claim", "renew", "release", "describe", "snapshot", "events", "submit", "wait", "lookup", "patterns",
        "chunk", "release_frame", "stop", "make_safe",
    }  # fmt: skip
    line.close()


@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("submit", (1, "a", {"verb": "fly"})),
        ("submit", (1, "a", {"verb": "wait", "seconds": -1})),
        ("submit", (1, "", {"verb": "wait", "seconds": 1})),
        ("submit", (1, "a" * 201, {"verb": "wait", "seconds": 1})),
        ("submit", (1, "a", {"verb": "wait", "seconds": 1, "more": 2})),
        ("claim", ("run-1", {"run": "run-1"})),
        ("snapshot", (1, 2)),
    ],
)
def test_malformed_requests_are_refused(remote: RemoteMicroscope, method: str, args: tuple[Any, ...]) -> None:
    with pytest.raises(Refused, match="malformed") as refused:
        remote._call(method, *args)
    assert refused.value.rule == "well-formed"
    remote.move_stage(StagePosition(x=1e-3))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_tokens_are_for_one_user_alone(place: Path) -> None:
    for role in ("operate", "observe"):
        assert stat.S_IMODE((place.parent / f"token-{role}").stat().st_mode) == 0o600


def test_a_url_opens_the_same_instrument(place: Path, fake: FakeMicroscope, tmp_path: Path) -> None:
    where = json.loads(place.read_text())
    with open_url(f"pyro://127.0.0.1:{where['port']}?token_file={tmp_path / 'token-operate'}") as remote:
        assert remote.move_stage(StagePosition(x=1e-3)).x == 1e-3
    for url, field in (
        ("pyro://127.0.0.1", "instrument"),
        (f"pyro://127.0.0.1:{where['port']}", "instrument"),
        (f"pyro://127.0.0.1:{where['port']}?token_file={tmp_path / 'none'}", "token_file"),
    ):
        with pytest.raises(Refused) as refused:
            open_url(url)
        assert refused.value.evidence["field"] == field
    assert fake.state().stage.x == 1e-3


def test_a_long_wait_costs_one_call_at_a_time(remote: RemoteMicroscope) -> None:
    assert remote.perform("r/w", Wait(seconds=3600.0)) == Result()
    assert remote.clock.now() >= 3600.0


def test_an_unreachable_server_is_lost(tmp_path: Path) -> None:
    place = tmp_path / "server.json"
    with pytest.raises(ConnectionLost, match="no instrument server"):
        attach(place)
    (tmp_path / "token-operate").write_text("t")
    place.write_text(json.dumps({"host": "127.0.0.1", "port": 1, "tokens": {"operate": "token-operate"}}))
    with attach(place) as remote, pytest.raises(ConnectionLost, match="does not answer"):
        remote.state()
