"""Nobody gets round the guard: violations sent to a real server over the loopback are refused there, by name."""

from __future__ import annotations

import ast
import re
import threading
from collections.abc import Callable, Iterator
from inspect import getsource
from math import pi, radians
from pathlib import Path

import pytest

from instrument import guard_rules
from instrument.errors import Refused
from instrument.geometry import PoseName, pose
from instrument.remote import RemoteMicroscope, attach
from instrument.settings import (
    Beam,
    BeamLimit,
    BeamSettings,
    Device,
    DoseLimit,
    Envelope,
    GasSetting,
    Lens,
    PoseLimit,
    Recovery,
    Rectangle,
    StageLimits,
    StagePosition,
)
from instrument.wire import WritePattern
from tests.contract.stand import PRETILT, Stand, box, scan
from tests.instrument.fake_microscope import FakeMicroscope, job
from tests.instrument.serving import serving, until

#: What an area may get in all, C; what other tests did on this server counts too, so `ditch` is used here alone.
MOST = {"ditch": 2e-7, "film": 1.0, "face": 1.0}
BOX = (-20e-6, -20e-6, 20e-6, 20e-6)
POSES = [pose(name, PRETILT, rocking=radians(3.0)) for name in PoseName]
ENVELOPE = Envelope(
    run="contract", poses=tuple(PoseLimit(name=one.name, r=one.r, t=one.t) for one in POSES),
    stage_box=StageLimits(x=(-1e-3, 1e-3), y=(-1e-3, 1e-3), z=(-1e-3, 1e-3), t=(0.0, 1.0)),
    beams=(
        BeamLimit(beam=Beam.ION, voltage_v=30e3, currents_a=(1e-9, 60e-9)),
        BeamLimit(beam=Beam.ELECTRON, voltage_v=5e3, currents_a=(1.6e-9,)),
    ),
    gases=("Pt",), doses=tuple(DoseLimit(area=area, charge_c=most, box=BOX) for area, most in MOST.items()),
    electron_dose_c_per_m2=1.0,
)  # fmt: skip

Act = Callable[[Stand], object]


def move(**axes: float) -> Act:
    return lambda stand: stand.microscope.move_stage(StagePosition(**axes))


def beam(which: Beam, **settings: float) -> Act:
    return lambda stand: stand.microscope.set_beam(which, BeamSettings.model_validate(settings))


def write(**changes: object) -> Act:
    return lambda stand: stand.microscope.pattern(box(**{"area": "ditch", **changes}))  # type: ignore[arg-type]


def with_in(device: Device, act: Act) -> Act:
    return lambda stand: (stand.microscope.insert(device), act(stand))


def look(stand: Stand) -> object:
    return stand.looked()


def immersed(act: Act) -> Act:
    return lambda stand: (
        stand.microscope.set_beam(Beam.ELECTRON, BeamSettings(lens=Lens.IMMERSION)), act(stand)
    )  # fmt: skip


def flowing(act: Act) -> Act:
    return lambda stand: (stand.gas(), act(stand))


def far(x_m: float) -> list[Rectangle]:
    return [Rectangle(x_m=x_m, y_m=0.0, width_m=1e-6, height_m=1e-6, depth_m=1e-6)]


def cut(stand: Stand) -> object:
    return stand.microscope.pattern(stand.cut(0.0, 0.05e-6, seconds=4.0))


DEPOSIT = {"purpose": "deposit", "area": "film", "gases": {"Pt": 1.0}}
WIDE = [Rectangle(x_m=0.0, y_m=0.0, width_m=1e-5, height_m=1e-5, depth_m=1e-7)]

VIOLATIONS: list[tuple[str, Act]] = [
    ("stage-needs-devices-out", with_in(Device.CBS, move(t=radians(45)))),
    ("stage-needs-devices-out", with_in(Device.NEEDLE, move(x=1e-5))),
    ("stage-travel", move(x=0.06)),
    ("stage-box", move(x=5e-3)),
    ("pose-of-the-run", move(t=radians(20))),
    ("pose-of-the-run", move(r=pi / 2)),
    ("immersion-off", immersed(move(t=radians(45)))),
    ("homing-is-for-people", lambda stand: stand.microscope.recover(Recovery.HOME_STAGE)),
    ("devices-collide", with_in(Device.CBS, lambda stand: stand.microscope.insert(Device.EDS))),
    ("gas-of-the-run", lambda stand: stand.microscope.set_gas("W", GasSetting(heater_on=True))),
    ("needle-before-valve", lambda stand: stand.microscope.set_gas("Pt", GasSetting(valve_open=True))),
    ("valve-before-needle", flowing(lambda stand: stand.microscope.retract(Device.NEEDLE))),
    ("beam-of-the-run", beam(Beam.ION, current_a=15e-9)),
    ("beam-of-the-run", beam(Beam.ELECTRON, voltage_v=30e3)),
    ("no-ions-with-detector-in", with_in(Device.CBS, look)),
    ("no-ions-with-detector-in", with_in(Device.EDS, write())),
    ("immersion-off", immersed(look)),
    ("no-ion-look-in-gas", flowing(look)),
    ("scan-fits-the-field", lambda stand: stand.microscope.acquire(scan(pixel_m=100e-6))),
    ("electron-dose-as-planned", lambda stand: stand.microscope.acquire(scan(pixel_m=20e-9, frame_integrations=255))),
    ("pattern-beam-is-set", write(current_a=60e-9, seconds=1.0)),
    ("pattern-in-field", write(patterns=far(0.6e-3))),
    ("pattern-in-box", write(patterns=far(25e-6))),
    ("area-of-the-run", write(area="elsewhere")),
    ("dose-within-budget", write(seconds=201.0)),
    ("deposit-grows", flowing(write(**DEPOSIT, patterns=far(0.0), current_a=1e-9))),
    ("deposit-needs-gas", write(**DEPOSIT, patterns=WIDE)),
    ("no-milling-in-gas", flowing(write())),
    ("vacuum-recovered", flowing(lambda stand: (stand.microscope.make_safe(), look(stand), cut(stand)))),
    ("placed-on-the-mark", cut),
    ("placed-on-the-mark", lambda stand: (look(stand), move(x=1e-6)(stand), cut(stand))),
]  # fmt: skip

#: What no verb brings about is shown on a microscope that a test can break; see the tests at the end.
BROKEN = {"stage-homed", "current-as-asked", "pattern-not-too-long"}
#: Words in the rules that look like the name of one and are values.
VALUES = {"field-free", "home-stage"}


@pytest.fixture
def stand(over_the_wire: tuple[RemoteMicroscope, object]) -> Iterator[Stand]:
    """The served microscope, in the control of a run with an envelope."""
    microscope = over_the_wire[0]
    stand = Stand(microscope)
    microscope.claim(None)
    stand.neutral()
    microscope.claim(ENVELOPE)
    yield stand
    microscope.claim(None)
    stand.calm()


@pytest.mark.parametrize(("rule", "act"), VIOLATIONS, ids=[f"{n}-{one[0]}" for n, one in enumerate(VIOLATIONS)])
def test_a_violation_is_refused_at_the_other_end(stand: Stand, rule: str, act: Act) -> None:
    with pytest.raises(Refused) as caught:
        act(stand)
    assert caught.value.rule == rule
    assert caught.value.remedy
    assert caught.value.evidence["limit"]
    assert not stand.microscope.state().patterning


def test_the_run_itself_gets_through(stand: Stand) -> None:
    """The envelope is no wall: a small round of what a night does."""
    scope = stand.microscope
    stand.go("face-on")
    scope.insert(Device.CBS)
    at = scope.state().stage
    scope.move_stage(StagePosition(x=(at.x or 0.0) + 5e-6))
    scope.acquire(scan(Beam.ELECTRON, "CBS", "TLD"))
    scope.retract(Device.CBS)
    stand.go("rock-plus")
    scope.set_beam(Beam.ION, BeamSettings(current_a=60e-9))
    look(stand)
    assert scope.pattern(stand.cut(0.0, 0.02e-6, seconds=1.0)).fraction == 1.0
    stand.go("deposit")
    scope.set_beam(Beam.ION, BeamSettings(current_a=1e-9))
    stand.gas()
    film = Rectangle(x_m=0.0, y_m=0.0, width_m=12e-6, height_m=12e-6, depth_m=50e-9)
    assert scope.pattern(box(20.0, patterns=[film], **DEPOSIT)).fraction == 1.0


def test_what_was_given_counts_even_when_control_is_taken_anew(stand: Stand) -> None:
    """Over the whole night, whoever asks: the account is the ledger's, not the connection's."""
    microscope = stand.microscope
    assert isinstance(microscope, RemoteMicroscope)
    fresh = DoseLimit(area="hole", charge_c=2e-7, box=BOX)
    envelope = ENVELOPE.replace(doses=(*ENVELOPE.doses, fresh))
    microscope.claim(envelope)
    microscope.pattern(box(150.0, area="hole"))
    microscope.claim(envelope)
    with pytest.raises(Refused) as caught:
        microscope.pattern(box(60.0, area="hole"))
    assert caught.value.rule == "dose-within-budget"


@pytest.fixture
def fake() -> FakeMicroscope:
    return FakeMicroscope()


@pytest.fixture
def broken(fake: FakeMicroscope, tmp_path: Path) -> Iterator[RemoteMicroscope]:
    """A fake microscope over the loopback, in control."""
    with serving(fake, tmp_path) as place, attach(place, "run-1") as remote:
        remote.claim()
        yield remote


def test_every_rule_is_violated_here() -> None:
    words = {
        node.value for node in ast.walk(ast.parse(getsource(guard_rules)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        and re.fullmatch(r"[a-z]+(-[a-z]+)+", node.value)
    }  # fmt: skip
    assert words - VALUES == {rule for rule, _ in VIOLATIONS} | BROKEN


def test_a_stage_without_its_reference_does_not_move(broken: RemoteMicroscope, fake: FakeMicroscope) -> None:
    fake.homed = False
    before = fake.state().stage
    with pytest.raises(Refused) as caught:
        broken.move_stage(StagePosition(x=1e-5))
    assert caught.value.rule == "stage-homed"
    assert fake.state().stage == before


def test_a_beam_that_measures_wrong_writes_nothing(broken: RemoteMicroscope, fake: FakeMicroscope) -> None:
    fake.measured = 0.0
    with pytest.raises(Refused) as caught:
        broken.pattern(job())
    assert caught.value.rule == "current-as-asked"
    assert fake.fired == []


def test_a_piece_longer_than_the_run_may_write_now_is_not_written(
    broken: RemoteMicroscope, fake: FakeMicroscope
) -> None:
    """It was cut for an envelope that was taken back meanwhile."""
    fake.hold()
    thread = threading.Thread(target=broken.perform, args=("r/a#1", WritePattern(job=job(seconds=300.0))))
    thread.start()
    assert fake.begun.wait(20.0)
    broken.claim(WIDE_ENVELOPE)
    fake.gate.set()
    thread.join(20.0)
    until(lambda: any(event.get("rule") == "pattern-not-too-long" for event in broken.events()))
    record = broken.lookup("r/a#1")
    assert record is not None
    assert record.fraction == pytest.approx(1 / 3)
    assert len(fake.fired) == 1


WIDE_ENVELOPE = ENVELOPE.replace(
    beams=(BeamLimit(beam=Beam.ION, voltage_v=30e3, currents_a=(60e-9,)),), max_pattern_s=10.0,
    doses=(DoseLimit(area="trench", charge_c=1.0, box=BOX),),
)  # fmt: skip
