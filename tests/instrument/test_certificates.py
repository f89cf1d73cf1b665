"""Two-way TLS, with real processes: who is signed gets in, everybody else stays out, and nobody blocks the door."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from instrument.certificates import make, role_of
from instrument.errors import Refused

pytest.importorskip("cryptography")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

SMALL = "simulator:3?width=8um&height=8um&depth=3um&coating=5um&voxel=100nm&layer=100nm"
#: A client: its URL in the first argument; prints what it may do.
CLIENT = """
import sys
from instrument.errors import InstrumentError
from instrument.remote import at_url
try:
    remote = at_url(sys.argv[1])
    remote.state()
    print("looks")
    remote.claim()
    print("operates")
    remote.close()
except InstrumentError as error:
    print(type(error).__name__, error.message)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tls") / "certificates"
    make(place, ("127.0.0.1", "localhost"))
    return place


@pytest.fixture(scope="module")
def port(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    state = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "instrument.server", SMALL, "--state", str(state), "--certificates", str(folder)]
    place = state / "server.json"
    with subprocess.Popen([*command, "--host", "127.0.0.1"], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not place.exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        where = json.loads(place.read_text())
        for role in ("operate", "observe"):
            (folder.parent / f"token-{role}").write_text((state / where["tokens"][role]).read_text())
        yield int(where["port"])
        os.kill(int(where["pid"]), signal.SIGTERM)
        process.wait(30)


def client(port: int, token: Path, certificates: Path | None) -> list[str]:
    url = f"pyro://127.0.0.1:{port}?token_file={token}" + (f"&certificates={certificates}" if certificates else "")
    ended = subprocess.run([sys.executable, "-c", CLIENT, url], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split("\n")[:-1]


def only(folder: Path, role: str, place: Path) -> Path:
    """A client's own folder: the authority and one role's certificate."""
    place.mkdir()
    for name in ("ca.pem", f"{role}.pem", f"{role}-key.pem"):
        (place / name).write_bytes((folder / name).read_bytes())
    return place


def test_who_is_signed_gets_in_with_the_token_of_its_role(folder: Path, port: int, tmp_path: Path) -> None:
    operate, observe = (only(folder, role, tmp_path / role) for role in ("operate", "observe"))
    tokens = {role: folder.parent / f"token-{role}" for role in ("operate", "observe")}
    assert client(port, tokens["operate"], operate) == ["looks", "operates"]
    looks, refused = client(port, tokens["observe"], observe)
    assert looks == "looks"
    assert refused.startswith("NotInControl")
    (refused,) = client(port, tokens["operate"], observe)  # a stolen token is no certificate
    assert refused.startswith("NotInControl")


def test_nobody_else_gets_in(folder: Path, port: int, tmp_path: Path) -> None:
    token = folder.parent / "token-operate"
    (plain,) = client(port, token, None)
    assert plain.startswith("ConnectionLost")
    make(tmp_path / "others", ("127.0.0.1",))
    (strange,) = client(port, token, tmp_path / "others")
    assert strange.startswith("ConnectionLost")


def test_a_silent_connection_keeps_nobody_out(folder: Path, port: int, tmp_path: Path) -> None:
    mine = only(folder, "operate", tmp_path / "operate")
    with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
        assert client(port, folder.parent / "token-operate", mine)[0] == "looks"


def test_elsewhere_only_with_certificates(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "instrument.server", SMALL, "--state", str(tmp_path), "--host", "0.0.0.0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "certificates" in ended.stderr


def test_keys_are_for_one_user_and_never_made_over(folder: Path, tmp_path: Path) -> None:
    for key in folder.glob("*-key.pem"):
        assert key.stat().st_mode & 0o077 == 0
    with pytest.raises(Refused, match="already"):
        make(folder, ("localhost",))
    with pytest.raises(Refused, match="--for"):
        make(tmp_path / "new", ())
    assert role_of(None) == role_of({"subject": ((("commonName", "root"),),)}) == ""
