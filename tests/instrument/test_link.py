"""What a stranger can do at the server's port: nothing, and not for long."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from Pyro5 import protocol
from Pyro5.errors import ConnectionClosedError

from instrument import link
from instrument.errors import ConnectionLost, NotInControl
from instrument.link import Line
from tests.instrument.fake_microscope import FakeMicroscope
from tests.instrument.serving import serving

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
