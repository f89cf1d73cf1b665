"""The server when something else fails beside it: disks, stops, clients that leave in the middle."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from instrument import durable, link, server, tending
from instrument.errors import DeviceFault, NoRoom, NotInControl, Refused, Unsafe
from instrument.link import Line
from instrument.remote import RemoteMicroscope, attach
from instrument.server import Server, serve
from instrument.settings import Device, GasSetting, State
from instrument.tokens import token
from instrument.wire import Acquire, WritePattern
from tests.instrument.fake_microscope import FakeMicroscope, job, scan
from tests.instrument.serving import serving, until


@pytest.fixture
def place(fake: FakeMicroscope, tmp_path: Path) -> Iterator[Path]:
    with serving(fake, tmp_path, lease_s=0.5) as found:
        yield found


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on nothing can be appended to any file."""

    def refuse(path: Path, line: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(durable, "append_line", refuse)


def submit(remote: RemoteMicroscope, action_id: str, command: Acquire | WritePattern) -> None:
    """Ask for something without waiting for it."""
    remote._call("submit", remote._epoch, action_id, command.model_dump(mode="json"))


@pytest.mark.parametrize("verb", ["stop", "make_safe"])
def test_a_full_disk_keeps_nobody_from_stopping(
    remote: RemoteMicroscope, fake: FakeMicroscope, request: pytest.FixtureRequest, verb: str
) -> None:
    fake.hold()
    submit(remote, "trench", WritePattern(job=job(100.0)))
    assert fake.begun.wait(5.0)
    request.getfixturevalue("full_disk")
    getattr(remote, verb)()
    until(lambda: not fake.state().patterning)
    with pytest.raises(NoRoom, match="No space"):
        remote.pattern(job(1.0))
    assert len(fake.fired) == 1


def test_a_full_disk_keeps_no_lease_from_lapsing(
    remote: RemoteMicroscope, fake: FakeMicroscope, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("full_disk")
    remote._ended.set()
    until(lambda: fake.safe_calls > 0, 3.0)


@pytest.fixture
def no_stop(fake: FakeMicroscope, monkeypatch: pytest.MonkeyPatch) -> None:
    """A microscope whose stop fails."""

    def broken() -> None:
        msg = "the vendor's stop does not answer"
        raise DeviceFault(msg)

    monkeypatch.setattr(fake, "stop", broken)


@pytest.mark.usefixtures("no_stop")
def test_it_is_made_safe_even_where_the_stop_fails(remote: RemoteMicroscope, fake: FakeMicroscope) -> None:
    remote._ended.set()
    until(lambda: fake.safe_calls > 0, 3.0)
    assert "vendor's stop" in str(remote.events())


@contextmanager
def ending(fake: FakeMicroscope, state: Path) -> Iterator[Path]:
    """A server that ends by itself as unsafe while the block runs: what makes the watchdog above it act."""
    ended: list[BaseException] = []

    def work() -> None:
        try:
            serve(fake, state, lease_s=0.5, linger_s=0.0)
        except Unsafe as error:
            ended.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    until((state / "server.json").exists)
    yield state / "server.json"
    thread.join(10.0)
    assert not thread.is_alive()
    assert "without its instrument safe" in str(ended)
    assert not (state / "server.json").exists()
    assert fake.closed


def stuck() -> None:
    msg = "the valve is stuck"
    raise Unsafe(msg)


def test_that_it_could_not_be_made_safe_is_told(
    remote: RemoteMicroscope, fake: FakeMicroscope, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked is there to try again: a needle may move the second time."""
    monkeypatch.setattr(fake, "make_safe", stuck)
    with pytest.raises(Unsafe, match="stuck"):
        remote.make_safe()
    monkeypatch.undo()
    assert remote.make_safe().safe


def test_a_server_that_can_not_make_safe_by_itself_ends(
    fake: FakeMicroscope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease has lapsed, and nobody is there to be told: the watchdog's own connection is what is left."""
    with ending(fake, tmp_path) as place, attach(place, "run-1") as remote:
        remote.claim()
        monkeypatch.setattr(fake, "make_safe", stuck)
        remote._ended.set()
        until(lambda: '"what":"unsafe"' in (tmp_path / "audit.log").read_text(encoding="utf-8"))


def test_a_server_that_can_not_leave_it_safe_at_its_end_says_so(
    fake: FakeMicroscope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "make_safe", stuck)
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(Unsafe, match="without its instrument safe"):
        serve(fake, tmp_path, stopping=stopping)


@pytest.mark.usefixtures("no_stop")
def test_asked_to_make_safe_it_does_even_where_the_stop_fails(remote: RemoteMicroscope, fake: FakeMicroscope) -> None:
    remote.make_safe()
    assert fake.safe_calls > 0


def test_a_server_whose_backend_has_lost_the_instrument_makes_safe_and_ends(
    fake: FakeMicroscope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is resumed starts a fresh one, with a fresh connection, rather than joining this one."""
    serves: list[bool] = []
    really = fake.make_safe

    def make_safe() -> State:
        serves.append((tmp_path / "server.json").exists())
        return really()

    monkeypatch.setattr(fake, "make_safe", make_safe)
    with ending(fake, tmp_path) as place, attach(place, "run-1") as remote:
        remote.claim()
        fake.gone = True
    assert serves == [True, False]  # at once, while it still answers, and once more at its end
    assert '"what":"broken"' in (tmp_path / "audit.log").read_text(encoding="utf-8")


def complains() -> DeviceFault:
    msg = "the needle is stuck"
    return DeviceFault(msg)


@pytest.mark.parametrize("ends", ["lapses", "releases"])
def test_what_complains_is_made_safe_again_and_its_server_stays(
    place: Path, fake: FakeMicroscope, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """A needle usually moves the second time."""
    monkeypatch.setattr(server, "AGAIN_S", 0.0)
    fake.insert(Device.NEEDLE)
    fake.set_gas("Pt", GasSetting(heater_on=True, valve_open=True))
    fake.safe_fails = [complains(), complains()]
    with attach(place, "run-1") as remote:
        remote.claim()
        if ends == "lapses":
            remote._ended.set()
            until(lambda: fake.safe_calls > 0, 3.0)
    until(lambda: fake.safe_calls == 3)
    assert fake.state().safe
    with attach(place, "run-2") as after:
        after.claim()
        after.acquire(scan())


def test_what_complained_is_left_to_who_controls_it_now(
    fake: FakeMicroscope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "AGAIN_S", -1.0)
    monkeypatch.setattr(link, "may_operate", lambda: True)
    held = Server(fake, tmp_path)
    fake.safe_fails = [complains()]
    held._lapsed("run-1")
    epoch = held.claim("run-2", None)["epoch"]
    held.look()
    held.release(epoch)
    held.look()
    held.close()
    assert fake.safe_calls == 1  # as it lapsed
    assert not held.broken.is_set()


@pytest.fixture
def held(fake: FakeMicroscope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server without a wire; who has it closes it. The needle is in, a gas hot."""
    monkeypatch.setattr(link, "may_operate", lambda: True)
    fake.insert(Device.NEEDLE)
    fake.set_gas("Pt", GasSetting(heater_on=True))
    return Server(fake, tmp_path)


@pytest.mark.parametrize("by_hand", [False, True])
def test_what_a_run_gave_back_is_let_go_of_under_the_hands_of_a_person(
    held: Server, fake: FakeMicroscope, by_hand: bool
) -> None:
    held.release(held.claim("run-1", None)["epoch"])
    if by_hand:
        fake.hold()
        pattern = threading.Thread(target=fake.pattern, args=(job(),))
        pattern.start()
        assert fake.begun.wait(5.0)
    held.close(cool=True)
    assert fake.safe_calls == 0
    assert fake.closed
    assert fake.state().devices[Device.NEEDLE]
    assert fake.state().gases["Pt"].heater_on == by_hand  # not under a pattern
    if by_hand:
        fake.gate.set()
        pattern.join(5.0)
        assert fake.fired == [("trench", 0.0, 1.0)]


def test_what_a_run_gave_back_and_still_complains_is_made_safe_at_the_end(held: Server, fake: FakeMicroscope) -> None:
    fake.set_gas("Pt", GasSetting(valve_open=True))
    fake.safe_fails = [complains()]
    held.release(held.claim("run-1", None)["epoch"])
    held.close()
    assert fake.safe_calls == 2
    assert not fake.state().devices[Device.NEEDLE]


def test_what_complained_when_its_run_made_it_safe_is_tried_again_though_the_run_gave_it_back(
    held: Server, fake: FakeMicroscope, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = held.claim("run-1", None)["epoch"]
    fake.safe_fails = [complains()]
    with pytest.raises(DeviceFault):
        held.make_safe()
    held.release(epoch)
    assert fake.state().devices[Device.NEEDLE]
    monkeypatch.setattr(server.time, "monotonic", lambda: float("inf"))
    held.look()
    monkeypatch.undo()
    held.close()
    assert not fake.state().devices[Device.NEEDLE]


def test_a_server_is_not_over_while_somebody_patterns_at_the_screen(
    held: Server, fake: FakeMicroscope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "AGAIN_S", 0.0)
    held.release(held.claim("run-1", None)["epoch"])
    assert not held.worked_by_hand()
    fake.hold()
    pattern = threading.Thread(target=fake.pattern, args=(job(),))
    pattern.start()
    assert fake.begun.wait(5.0)
    assert held.worked_by_hand()
    fake.gate.set()
    pattern.join(5.0)
    assert not held.worked_by_hand()
    held.close()


def test_what_a_run_lost_is_made_safe_at_the_end(held: Server, fake: FakeMicroscope) -> None:
    held._lease.seconds = 0.0
    held.claim("run-1", None)
    until(lambda: fake.safe_calls == 1)
    fake.insert(Device.NEEDLE)
    held.close(cool=True)
    assert fake.safe_calls == 2
    assert not fake.state().devices[Device.NEEDLE]
    assert not fake.state().gases["Pt"].heater_on


def test_gas_is_looked_after_in_the_server_s_own_loop_whatever_it_lingers(
    place: Path, fake: FakeMicroscope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tending, "OPEN_S", 0.0)
    monkeypatch.setattr(tending, "HOT_S", 0.0)
    with attach(place, "run-1") as remote:  # its heartbeat lives, and nothing more comes
        remote.claim()
        remote.insert(Device.NEEDLE)
        remote.set_gas("Pt", GasSetting(heater_on=True, valve_open=True))
        until(lambda: not fake.state().gases["Pt"].valve_open)
    assert fake.state().gases["Pt"].heater_on
    audit = (place.parent / "audit.log").read_text(encoding="utf-8")
    assert '"what":"shut"' in audit
    assert '"lapsed"' not in audit
    until(lambda: not fake.state().gases["Pt"].heater_on)
    assert fake.state().devices[Device.NEEDLE]


def test_heaters_are_switched_off_at_the_end_whatever_else_complains(fake: FakeMicroscope, tmp_path: Path) -> None:
    for gas in ("Pt", "C", "W"):
        fake.set_gas(gas, GasSetting(heater_on=True))
    fake.safe_fails, fake.fail_next = [complains()], complains()  # the needle; the first heater
    Server(fake, tmp_path).close(cool=True)
    assert [one.heater_on for one in fake.state().gases.values()].count(True) == 1


@pytest.mark.parametrize("busy", [False, True])
def test_what_has_just_not_answered_is_not_asked_again_at_the_end_unless_something_is_in_hand(
    fake: FakeMicroscope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    held = Server(fake, tmp_path)
    fake.safe_fails = [Unsafe("it does not answer")]
    held._lapsed("run-1")
    assert held.broken.is_set()
    monkeypatch.setattr(type(held._actions), "busy", busy)
    held.close(cool=True)
    assert fake.safe_calls == (2 if busy else 1)
    assert fake.closed


def test_who_leaves_takes_what_waits_along(place: Path, fake: FakeMicroscope) -> None:
    """A picture is in hand, a pattern waits behind it: with nobody in control it must never begin."""
    fake.hold()
    with attach(place, "run-1") as leaving:
        leaving.claim()
        submit(leaving, "look", Acquire(scan=scan()))
        submit(leaving, "trench", WritePattern(job=job(10.0)))
        assert fake.begun.wait(5.0)
    with attach(place, "run-2") as after:
        after.claim()
        until(lambda: (found := after.lookup("trench")) is not None and found.state != "running")
        found = after.lookup("trench")
        assert found is not None
        assert found.state == "cut"
    assert fake.fired == []
    assert fake.safe_calls > 0


def test_a_late_answer_to_an_old_heartbeat_is_no_loss(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run claims anew while a renewal of its former epoch is under way: it must not think that it lost control."""
    answered = threading.Event()
    call = Line.call

    def late(line: Line, method: str, *args: object) -> object:
        if method != "renew" or answered.is_set():
            return call(line, method, *args)
        remote.claim()
        try:
            return call(line, method, *args)
        finally:
            answered.set()

    monkeypatch.setattr(Line, "call", late)
    with attach(place, "run-1") as remote:
        remote.claim()
        assert answered.wait(5.0)
        threading.Event().wait(1.0)  # twice T: it beats on
        assert remote._lost is None
        remote.acquire(scan())


@pytest.mark.parametrize("run", ["", 5, None, ["run"]])
def test_a_run_has_a_name(remote: RemoteMicroscope, run: object) -> None:
    with pytest.raises((Refused, NotInControl)):
        remote._call("claim", run, None)


@pytest.mark.parametrize("torn", [b"", b"0123456789abcdef", b"\xff\xfe"])
def test_a_token_that_a_power_cut_has_torn_is_made_again(tmp_path: Path, torn: bytes) -> None:
    """An empty token would let everybody in."""
    (tmp_path / "token-operate").write_bytes(torn)
    made = token(tmp_path, "operate")
    assert len(made) == 64
    assert (tmp_path / "token-operate").stat().st_mode & 0o077 == 0
    assert token(tmp_path, "operate") == made
