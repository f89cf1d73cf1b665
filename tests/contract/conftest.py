"""The microscopes that keep the contract: the simulator in this process, behind a server, and through AutoScript."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import simulator
from instrument import remote, server
from instrument.durable import FileLock
from instrument.frame import Frame
from instrument.microscope import Microscope
from instrument.settings import Beam, BeamSettings, Device
from tests.contract.emulation import emulated
from tests.contract.stand import SMALL, Stand, scan

#: Forty instrument seconds a second: what runs while others act must take time on the wall.
PACED = SMALL + "&pace=40"
ENDS_WITHIN_S = 30.0


@contextmanager
def served(url: str, state: Path) -> Iterator[remote.RemoteMicroscope]:
    """A microscope behind a real server process, in control; the server is ended afterwards, and must end well."""
    place = server.start(url, state)
    watchdog = server._STARTED[-1]
    pid = json.loads(place.read_text(encoding="utf-8"))["pid"]
    try:
        with remote.attach(place, "contract") as microscope:
            microscope.claim(None)
            yield microscope
    finally:
        os.kill(pid, signal.SIGTERM)
        assert watchdog.wait(ENDS_WITHIN_S) == 0
        assert not FileLock.is_held(state / "server.lock")
        assert not place.exists()


def first_light(microscope: Microscope) -> list[Frame]:
    """The same few things on a fresh machine, whichever way they are asked for; the frames must be the same."""
    stand = Stand(microscope)
    stand.neutral()
    frames = [stand.looked()]
    microscope.set_beam(Beam.ION, BeamSettings(current_a=60e-9))
    stand.looked()
    microscope.pattern(stand.cut(-0.5e-6, 0.4e-6))
    stand.go("face-on")
    microscope.insert(Device.CBS)
    frames.append(microscope.acquire(scan(Beam.ELECTRON, "CBS", "TLD")))
    microscope.retract(Device.CBS)
    return frames


@pytest.fixture(scope="session")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Microscope, list[Frame]]]:
    microscope = simulator.open(SMALL, tmp_path_factory.mktemp("in-process"))
    yield microscope, first_light(microscope)
    microscope.close()


@pytest.fixture(scope="session")
def over_the_wire(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[remote.RemoteMicroscope, list[Frame]]]:
    with served(SMALL, tmp_path_factory.mktemp("wire")) as microscope:
        yield microscope, first_light(microscope)


@pytest.fixture(scope="session")
def over_autoscript(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Microscope, list[Frame]]]:
    with emulated(SMALL, tmp_path_factory.mktemp("autoscript")) as microscope:
        yield microscope, first_light(microscope)


@pytest.fixture(params=["in_process", "over_the_wire", "over_autoscript"])
def stand(request: pytest.FixtureRequest) -> Iterator[Stand]:
    """Every microscope in turn, neutral; made safe and neutral again afterwards."""
    microscope: Microscope = request.getfixturevalue(request.param)[0]
    stand = Stand(microscope)
    stand.neutral()
    yield stand
    stand.calm()


@pytest.fixture(scope="session")
def paced_in_process() -> Iterator[Microscope]:
    microscope = simulator.open(PACED)
    yield microscope
    microscope.close()


@pytest.fixture(scope="session")
def paced_over_the_wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Microscope]:
    with served(PACED, tmp_path_factory.mktemp("paced")) as microscope:
        yield microscope


@pytest.fixture(scope="session")
def paced_over_autoscript() -> Iterator[Microscope]:
    with emulated(PACED) as microscope:
        yield microscope


@pytest.fixture(params=["paced_in_process", "paced_over_the_wire", "paced_over_autoscript"])
def paced(request: pytest.FixtureRequest) -> Microscope:
    """Every microscope in turn, its time following the wall's."""
    microscope: Microscope = request.getfixturevalue(request.param)
    return microscope
