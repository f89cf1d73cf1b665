"""What a stranger can do at the server's port: nothing, and not for long."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from Pyro5 import protocol
from Pyro5.errors import ConnectionClosedError
from Pyro5.svr_threads import NoFreeWorkersError, Pool

from instrument import door, link
from instrument.errors import ConnectionLost, NotInControl
from instrument.link import Line
from instrument.remote import _Aside, attach
from instrument.server import Server
from tests.instrument.fake_microscope import FakeMicroscope
from tests.instrument.serving import serving, until

SERPENT, JSON, MARSHAL, MSGPACK = 1, 2, 3, 4
_HEADER = "!4sHBBHHII16sHH"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with serving(FakeMicroscope(), tmp_path) as found:
        yield found


def port_of(place: Path) -> int:
    return int(json.loads(place.read_text())["port"])


def token_of(place: Path, role: str = "operate") -> str:
    return (place.parent / f"token-{role}").read_text()


def dialled(place: Path) -> socket.socket:
    found = socket.create_connection(("127.0.0.1", port_of(place)))
    found.settimeout(10.0)
    return found


def message(kind: int, serializer: int, payload: bytes) -> bytes:
    return bytes(protocol.SendingMessage(kind, 0, 1, serializer, payload).data)


def hangs_up(connection: socket.socket) -> bytes:
    """Read until the server closes; fails when it doesn't."""
    got = b""
    while True:
        try:
            piece = connection.recv(4096)
        except ConnectionResetError:
            return got
        if not piece:
            return got
        got += piece


@pytest.mark.parametrize("serializer", [0, SERPENT, JSON, MARSHAL, 200])
def test_other_serializers_are_not_even_read(place: Path, serializer: int) -> None:
    hello = {SERPENT: b"{'handshake': {'token': 'x'}, 'object': 'o'}", JSON: b'{"handshake": "x", "object": "o"}'}
    with dialled(place) as connection:
        connection.sendall(message(protocol.MSG_CONNECT, serializer, hello.get(serializer, b"\x00" * 40)))
        answer = hangs_up(connection)
    assert answer[:4] in (b"PYRO", b"")
    assert not answer or answer[6] == protocol.MSG_CONNECTFAIL


def test_a_client_that_changes_its_serializer_is_not_served(place: Path) -> None:
    """Who has a token still can't send what would be decoded by anything but msgpack."""
    line = Line("127.0.0.1", port_of(place), token_of(place))
    line.call("events", 0)
    connection = line._proxy._pyroConnection
    connection.send(message(protocol.MSG_INVOKE, MARSHAL, b"\x00" * 40))
    with pytest.raises(ConnectionClosedError):
        protocol.recv_stub(connection, None)
    line.close()


def test_a_message_that_is_too_large_ends_the_connection(place: Path) -> None:
    whole = message(protocol.MSG_CONNECT, MSGPACK, b"\x00" * 40)
    fields = list(struct.unpack(_HEADER, whole[: struct.calcsize(_HEADER)]))
    fields[6] = link.MOST_BYTES + 1
    with dialled(place) as connection:
        connection.sendall(struct.pack(_HEADER, *fields))
        assert hangs_up(connection)[6:7] in (b"", bytes([protocol.MSG_CONNECTFAIL]))


def test_a_client_does_not_send_what_is_too_large(place: Path) -> None:
    line = Line("127.0.0.1", port_of(place), token_of(place))
    with pytest.raises(ConnectionLost):
        line.call("lookup", "x" * (link.MOST_BYTES + 1))
    assert line.call("lookup", "x") is None
    line.close()


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n" + b"\x00" * 60, b"\xff" * 80, b""])
def test_noise_ends_the_connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, noise: bytes) -> None:
    monkeypatch.setattr(link, "HANDSHAKE_S", 0.3)
    with serving(FakeMicroscope(), tmp_path) as place, dialled(place) as connection:
        connection.sendall(noise)
        hangs_up(connection)


def test_silent_connections_keep_nobody_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(link, "HANDSHAKE_S", 0.5)
    with serving(FakeMicroscope(), tmp_path) as place:
        silent = [dialled(place) for _ in range(45)]
        for connection in silent:
            hangs_up(connection)
            connection.close()
        line = Line("127.0.0.1", port_of(place), token_of(place))
        line.call("events", 0)
        line.close()


def dripping(place: Path) -> socket.socket:
    """A stranger that has begun a message, with all the time in the world for the rest."""
    found = dialled(place)
    found.sendall(message(protocol.MSG_CONNECT, MSGPACK, b"\x00" * 4000)[:100])
    return found


@contextmanager
def drips(connections: list[socket.socket]) -> Iterator[None]:
    """Send a byte on each connection ten times a second, as long as the block runs and they stand."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.1):
            for connection in connections:
                with suppress(OSError):
                    connection.send(b"\x00")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10.0)
        for connection in connections:
            connection.close()


def test_strangers_that_drip_keep_nobody_out(place: Path) -> None:
    """Nor do they get the ten seconds of a stranger each: of many the oldest are hung up on."""
    with drips([dripping(place) for _ in range(100)]):
        line = Line("127.0.0.1", port_of(place), token_of(place))
        line.call("stop")
        line.call("make_safe")
        line.close()


def test_a_handshake_has_one_deadline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """However little time there is between two of its bytes."""
    monkeypatch.setattr(link, "HANDSHAKE_S", 1.0)
    with serving(FakeMicroscope(), tmp_path) as place:
        connection = dripping(place)
        with drips([connection]):
            hangs_up(connection)


def test_no_client_holds_up_the_server_s_own_looking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    looks: list[int] = []
    usual = Server.look

    def look(self: Server) -> None:
        looks.append(1)
        usual(self)

    monkeypatch.setattr(Server, "look", look)
    with serving(FakeMicroscope(), tmp_path) as place, drips([dripping(place) for _ in range(100)]):
        seen = len(looks)
        until(lambda: len(looks) >= seen + 4)


def test_idle_observers_keep_no_operator_out(place: Path) -> None:
    lines = [Line("127.0.0.1", port_of(place), token_of(place, "observe")) for _ in range(door.MOST[door.OBSERVE] + 20)]
    got: list[str] = []
    for line in lines:
        try:
            line.call("events", 0)
        except ConnectionLost as error:
            got.append(error.message)
    assert len(got) == 20
    assert all("full" in one for one in got)
    operator = Line("127.0.0.1", port_of(place), token_of(place))
    operator.call("make_safe")
    lines[0].close()
    until(lambda: called(lines[-1]))  # who goes makes room
    for line in [*lines, operator]:
        line.close()


def called(line: Line) -> bool:
    try:
        line.call("events", 0)
    except ConnectionLost:
        return False
    return True


def test_a_server_that_is_full_says_so(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """It is not the token that is wrong."""
    monkeypatch.setitem(door.MOST, door.OPERATE, 1)
    first = Line("127.0.0.1", port_of(place), token_of(place))
    first.call("events", 0)
    second = Line("127.0.0.1", port_of(place), token_of(place))
    with pytest.raises(ConnectionLost, match="full"):
        second.call("make_safe")
    first.close()
    second.close()


def no_worker(*_: object) -> None:
    """What a pool does whose workers are all busy."""
    raise NoFreeWorkersError


def test_who_finds_no_worker_is_hung_up_on(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    line = Line("127.0.0.1", port_of(place), token_of(place))
    line.call("events", 0)
    monkeypatch.setattr(Pool, "process", no_worker)
    with dialled(place) as connection:
        assert hangs_up(connection) == b""
    assert line.call("lookup", "x") is None
    audit = place.parent / "audit.log"
    until(lambda: audit.exists() and "no worker is free" in audit.read_text())
    line.close()


def test_a_run_in_control_can_stop_while_nobody_gets_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its connections for that are open before; a broken one is opened anew with the heartbeats."""
    fake = FakeMicroscope()
    with serving(fake, tmp_path, lease_s=1.0) as place, attach(place, "run-1") as remote:
        remote.claim()
        asides = (remote._stop, remote._make_safe)
        broken = [connection_of(aside) for aside in asides]
        for connection in broken:
            connection.sock.shutdown(socket.SHUT_RDWR)
        until(lambda: all(connection_of(aside) not in (None, *broken) for aside in asides))
        monkeypatch.setattr(Pool, "process", no_worker)
        with pytest.raises(ConnectionLost):
            Line("127.0.0.1", port_of(place), token_of(place)).call("stop")
        remote.stop()
        assert fake._stopped.is_set()
        remote.make_safe()
        assert fake.safe_calls == 1


def connection_of(aside: _Aside) -> Any:
    """Return the connection that is kept open for a method, None where there is none."""
    line = aside._line
    return None if line is None else line._proxy._pyroConnection


def test_whatever_a_stranger_sends_the_server_answers_others(place: Path) -> None:
    @given(piece=st.binary(max_size=200), begun=st.booleans())
    @settings(max_examples=40, deadline=None)
    def sent(piece: bytes, begun: bool) -> None:
        with dialled(place) as connection:
            with suppress(OSError):  # it has hung up already
                connection.sendall(message(protocol.MSG_CONNECT, MSGPACK, piece) if begun else piece)
                connection.shutdown(socket.SHUT_WR)
            assert hangs_up(connection)[6:7] in (b"", bytes([protocol.MSG_CONNECTFAIL]))
        line = Line("127.0.0.1", port_of(place), token_of(place))
        assert line.call("lookup", "x") is None
        line.close()

    sent()


def test_who_has_shown_a_token_may_be_silent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(link, "HANDSHAKE_S", 0.2)
    with serving(FakeMicroscope(), tmp_path) as place:
        line = Line("127.0.0.1", port_of(place), token_of(place))
        line.call("events", 0)
        threading.Event().wait(0.6)  # three times what a stranger has
        assert line.call("lookup", "x") is None
        line.close()


@pytest.mark.parametrize("token", ["", "x", "é", "0" * 64, "operate"])
def test_no_token_is_no_entry(place: Path, token: str) -> None:
    line = Line("127.0.0.1", port_of(place), token)
    with pytest.raises(NotInControl, match="token"):
        line.call("events", 0)
    line.close()


def test_it_listens_on_the_loopback_alone(place: Path) -> None:
    assert json.loads(place.read_text())["host"] == "127.0.0.1"
    outside = socket.gethostbyname(socket.gethostname())
    if not outside.startswith("127."):
        with socket.socket() as connection:
            assert connection.connect_ex((outside, port_of(place))) != 0
