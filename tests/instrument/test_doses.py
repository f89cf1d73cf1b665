"""The account of doses over the wire: jobs are refused whole; no restart, fault or new controller forgets a coulomb."""

from __future__ import annotations

from collections.abc import Iterator
from math import radians
from pathlib import Path

import pytest

from instrument.errors import DeviceFault, Refused
from instrument.remote import RemoteMicroscope, attach
from instrument.settings import Beam, BeamLimit, DoseLimit, Envelope, PoseLimit, StageLimits
from tests.instrument.fake_microscope import FakeMicroscope, job
from tests.instrument.serving import serving

pytestmark = pytest.mark.timeout(60)
#: So long may the ion beam write on an area at 60 nA (s).
SECONDS = 330.0


def envelope(run: str = "run-1", max_pattern_s: float = 120.0) -> Envelope:
    box = (-1e-3, 1e-3)
    return Envelope(
        run=run,
        poses=(PoseLimit(name="rest", r=0.0, t=0.0),),
        stage_box=StageLimits(x=box, y=box, z=(9e-3, 11e-3), t=(0.0, radians(60))),
        beams=(BeamLimit(beam=Beam.ION, voltage_v=30e3, currents_a=(60e-9,)),),
        gases=(),
        doses=tuple(
            DoseLimit(area=area, charge_c=60e-9 * SECONDS, box=(-1e-4, -1e-4, 1e-4, 1e-4)) for area in ("trench", "cap")
        ),
        max_pattern_s=max_pattern_s,
    )


@pytest.fixture
def fake() -> FakeMicroscope:
    return FakeMicroscope()


@pytest.fixture
def remote(fake: FakeMicroscope, tmp_path: Path) -> Iterator[RemoteMicroscope]:
    with serving(fake, tmp_path) as place, attach(place, "run-1") as found:
        found.claim(envelope())
        yield found


def refused(remote: RemoteMicroscope, seconds: float, area: str = "trench") -> bool:
    """Tell whether a job of so many seconds is beyond the budget; it is written where it isn't."""
    try:
        remote.pattern(job(seconds=seconds, area=area))
    except Refused as error:
        return error.rule == "dose-within-budget"
    return False


def test_a_job_is_refused_whole_before_its_first_piece(remote: RemoteMicroscope, fake: FakeMicroscope) -> None:
    assert refused(remote, SECONDS + 1)
    assert fake.fired == []
    assert not refused(remote, SECONDS - 1)
    assert len(fake.fired) == 3


def test_areas_have_accounts_of_their_own(remote: RemoteMicroscope) -> None:
    assert not refused(remote, 200.0)
    assert refused(remote, 200.0)
    assert not refused(remote, 200.0, "cap")
    assert not refused(remote, 120.0)


def test_pieces_are_as_long_as_the_run_says(remote: RemoteMicroscope, fake: FakeMicroscope) -> None:
    remote.claim(envelope(max_pattern_s=30.0))
    remote.pattern(job(seconds=100.0))
    assert len(fake.fired) == 4


def test_the_account_outlives_server_and_controller(fake: FakeMicroscope, tmp_path: Path) -> None:
    for _ in range(3):
        with serving(fake, tmp_path) as place, attach(place, "run-1") as remote:
            remote.claim(envelope())
            assert not refused(remote, 100.0)
            remote.claim(envelope())
            assert refused(remote, 300.0)
    with serving(fake, tmp_path) as place:
        with attach(place, "run-1") as remote:
            remote.claim(envelope())
            assert refused(remote, 100.0)
        with attach(place, "run-2") as other:
            other.claim(envelope("run-2"))
            assert not refused(other, 300.0)


def test_what_nobody_knows_counts_in_full(remote: RemoteMicroscope, fake: FakeMicroscope) -> None:
    fake.fail_at = (0.0, DeviceFault("the connection broke"))
    for _ in range(3):
        with pytest.raises(DeviceFault):
            remote.pattern(job(seconds=100.0))
    fake.fail_at = None
    assert refused(remote, 100.0)


def test_what_is_known_of_a_fault_counts_alone(remote: RemoteMicroscope, fake: FakeMicroscope) -> None:
    fake.fail_at = (0.5, DeviceFault("the source went out", fraction=0.25))
    for _ in range(3):
        with pytest.raises(DeviceFault):
            remote.pattern(job(seconds=100.0))
    fake.fail_at = None
    assert not refused(remote, 250.0)
    assert refused(remote, 10.0)


def test_what_was_refused_counts_nothing(remote: RemoteMicroscope, fake: FakeMicroscope) -> None:
    fake.fail_next = Refused("the instrument's own rule", rule="own")
    with pytest.raises(Refused, match="own rule"):
        remote.pattern(job(seconds=300.0))
    assert not refused(remote, 300.0)
