"""Each interlock refuses its violation by name, before anything reaches the microscope; real work passes."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from math import nan, pi, radians

import pytest

from instrument import guard_rules
from instrument.errors import DeviceFault, Refused
from instrument.guard import Guarded
from instrument.settings import (
    Beam,
    BeamLimit,
    BeamSettings,
    CleaningCrossSection,
    Device,
    DoseLimit,
    EdsScan,
    Envelope,
    GasSetting,
    Lens,
    Line,
    PoseLimit,
    Recovery,
    Rectangle,
    StageLimits,
    StagePosition,
    Tune,
)
from tests.instrument.fake_microscope import FakeMicroscope, job, scan

BOX = (-50e-6, -50e-6, 50e-6, 50e-6)
ENVELOPE = Envelope(
    run="run",
    poses=(
        PoseLimit(name="rest", r=0.0, t=0.0), PoseLimit(name="mill", r=0.0, t=radians(7.0)),
        PoseLimit(name="deposit", r=pi, t=radians(7.0)),
    ),
    stage_box=StageLimits(x=(-1e-3, 1e-3), y=(-1e-3, 1e-3), z=(9e-3, 11e-3), t=(0.0, 0.2)),
    beams=(
        BeamLimit(beam=Beam.ION, voltage_v=30e3, currents_a=(1e-9, 60e-9)),
        BeamLimit(beam=Beam.ION, voltage_v=8e3, currents_a=(1.67e-9,)),
        BeamLimit(beam=Beam.ELECTRON, voltage_v=5e3, currents_a=(1.6e-9,)),
    ),
    gases=("Pt",),
    doses=tuple(DoseLimit(area=area, charge_c=2e-6, box=BOX) for area in ("face", "trench", "film")),
    electron_dose_c_per_m2=1.5 * 1.6e-9 * 100e-6 / (20e-9) ** 2,
)  # fmt: skip

Act = Callable[[Guarded], object]
Arrange = Callable[[FakeMicroscope], object]


def untouched(fake: FakeMicroscope) -> None:
    """Leave the fake as it is."""


def inserted(*devices: Device) -> Arrange:
    return lambda fake: [fake.insert(device) for device in devices]


def immersed(fake: FakeMicroscope) -> None:
    fake.set_beam(Beam.ELECTRON, BeamSettings(lens=Lens.IMMERSION))


def flowing(fake: FakeMicroscope) -> None:
    fake.insert(Device.NEEDLE)
    fake.set_gas("Pt", GasSetting(heater_on=True, valve_open=True))


def having(**values: object) -> Arrange:
    return lambda fake: [setattr(fake, name, value) for name, value in values.items()]


def move(**axes: float) -> Act:
    return lambda guarded: guarded.move_stage(StagePosition(**axes))


def at(x_m: float, y_m: float, size_m: float = 10e-6) -> list[Rectangle]:
    return [Rectangle(x_m=x_m, y_m=y_m, width_m=size_m, height_m=size_m, depth_m=1e-6)]


def write(**changes: object) -> Act:
    return lambda guarded: guarded.pattern(job(**changes))  # type: ignore[arg-type]


def pressure(guarded: Guarded, pascal: float) -> None:
    fake = guarded._microscope
    assert isinstance(fake, FakeMicroscope)
    fake.pressure = pascal


def measured(guarded: Guarded, share: float) -> None:
    """Let currents read so much of the nominal ones."""
    fake = guarded._microscope
    assert isinstance(fake, FakeMicroscope)
    fake.measured = share


def look(guarded: Guarded) -> object:
    return guarded.acquire(scan(Beam.ION))


def after_a_look(act: Act) -> Act:
    return lambda guarded: (look(guarded), act(guarded))


DEPOSIT = {"purpose": "deposit", "area": "film", "gases": {"Pt": 1.0}}
EDS = EdsScan(elements=("Ni",), width_px=16, height_px=16, pixel_m=20e-9)
FACE = {"area": "face"}

REFUSED: list[tuple[str, Arrange, Act]] = [
    # stage
    ("stage-homed", having(homed=False), move(x=1e-4)),
    ("stage-needs-devices-out", inserted(Device.CBS), move(t=radians(7.0))),
    ("stage-needs-devices-out", inserted(Device.CBS), move(r=pi)),
    ("stage-needs-devices-out", inserted(Device.CBS), move(z=10.1e-3)),
    ("stage-needs-devices-out", inserted(Device.EDS), move(x=0.6e-3)),
    ("stage-needs-devices-out", inserted(Device.NEEDLE), move(x=1e-6)),
    ("stage-travel", untouched, move(x=0.1)),
    ("stage-travel", untouched, move(t=radians(70.0))),
    ("stage-box", untouched, move(y=-2e-3)),
    ("stage-box", untouched, move(z=12e-3)),
    ("pose-of-the-run", untouched, move(t=radians(5.0))),
    ("pose-of-the-run", untouched, move(r=pi)),
    ("immersion-off", immersed, move(t=radians(7.0))),
    ("homing-is-for-people", untouched, lambda guarded: guarded.recover(Recovery.HOME_STAGE)),
    # devices, gas
    ("devices-collide", inserted(Device.EDS), lambda guarded: guarded.insert(Device.CBS)),
    ("devices-collide", inserted(Device.CBS), lambda guarded: guarded.insert(Device.EDS)),
    ("immersion-off", immersed, lambda guarded: guarded.insert(Device.CBS)),
    ("valve-before-needle", flowing, lambda guarded: guarded.retract(Device.NEEDLE)),
    ("gas-of-the-run", untouched, lambda guarded: guarded.set_gas("W", GasSetting(heater_on=True))),
    ("gas-of-the-run", inserted(Device.NEEDLE), lambda guarded: guarded.set_gas("W", GasSetting(valve_open=True))),
    ("needle-before-valve", untouched, lambda guarded: guarded.set_gas("Pt", GasSetting(valve_open=True))),
    # beams
    ("beam-of-the-run", untouched, lambda guarded: guarded.set_beam(Beam.ION, BeamSettings(current_a=15e-9))),
    ("beam-of-the-run", untouched, lambda guarded: guarded.set_beam(Beam.ION, BeamSettings(voltage_v=12e3))),
    (
        "beam-of-the-run", untouched,
        lambda guarded: guarded.set_beam(Beam.ION, BeamSettings(voltage_v=8e3, current_a=60e-9)),
    ),
    ("beam-of-the-run", untouched, lambda guarded: guarded.set_beam(Beam.ELECTRON, BeamSettings(voltage_v=30e3))),
    ("no-ions-with-detector-in", inserted(Device.CBS), look),
    ("no-ions-with-detector-in", inserted(Device.EDS), write()),
    (
        "no-ions-with-detector-in", inserted(Device.CBS),
        lambda guarded: guarded.tune(Tune.FOCUS, scan(Beam.ION)),
    ),
    ("immersion-off", immersed, look),
    ("immersion-off", immersed, write()),
    ("no-ion-look-in-gas", flowing, look),
    ("current-as-asked", having(measured=0.7), look),  # a cold source, or another aperture
    ("current-as-asked", having(measured=1.3), write()),
    ("current-as-asked", having(measured=nan), write()),
    ("current-as-asked", having(measured=0.0), lambda guarded: guarded.acquire(scan())),
    ("current-as-asked", having(measured=0.7), lambda guarded: guarded.acquire_eds(EDS)),
    ("current-as-asked", untouched, after_a_look(lambda g: (measured(g, 0.94), look(g)))),
    ("current-as-asked", untouched, after_a_look(lambda g: (measured(g, 1.06), write()(g)))),
    ("current-as-asked", untouched, after_a_look(lambda g: (measured(g, nan), write()(g)))),
    ("current-as-asked", having(measured=1.25), after_a_look(lambda g: (measured(g, 1.18), look(g)))),
    ("current-as-asked", having(measured=1.25), after_a_look(lambda g: (measured(g, 0.0), write(**FACE)(g)))),
    (
        "current-as-asked", untouched,
        lambda g: (g.acquire(scan()), measured(g, 0.9), g.acquire_eds(EDS)),
    ),
    (
        "current-as-asked", having(measured=1.25),  # what another working point gives is no excuse
        lambda g: (
            look(g), g.set_beam(Beam.ION, BeamSettings(current_a=1e-9)), measured(g, 1.0), look(g), measured(g, 1.1),
            look(g),
        ),
    ),
    ("scan-fits-the-field", untouched, lambda guarded: guarded.acquire(scan(pixel_m=200e-6))),
    ("scan-fits-the-field", untouched, lambda guarded: guarded.acquire(scan(Beam.ION, pixel_m=100e-6))),
    ("scan-fits-the-field", untouched, lambda guarded: guarded.acquire_eds(EDS.replace(pixel_m=200e-6))),
    ("scan-fits-the-field", untouched, lambda guarded: guarded.tune(Tune.FOCUS, scan(pixel_m=200e-6))),
    ("electron-dose-as-planned", untouched, lambda guarded: guarded.acquire_eds(EDS.replace(frames=2))),
    ("electron-dose-as-planned", untouched, lambda guarded: guarded.acquire(scan(pixel_m=1e-9))),
    ("electron-dose-as-planned", untouched,
     lambda guarded: guarded.acquire(scan(pixel_m=20e-9, dwell_s=10e-6, line_integrations=4, frame_integrations=4))),
    # patterns
    ("pattern-beam-is-set", untouched, write(current_a=1e-9, dose_c=1e-8)),
    ("pattern-beam-is-set", untouched, write(voltage_v=8e3)),
    ("pattern-not-too-long", untouched, write(seconds=121.0, dose_c=60e-9 * 121.0, area="long")),
    ("pattern-in-field", untouched, write(patterns=at(0.5e-3, 0.0))),
    ("pattern-in-box", untouched, write(patterns=at(46e-6, 0.0))),
    (
        "pattern-in-box", untouched,
        write(patterns=[Line(x0_m=0, y0_m=0, x1_m=0, y1_m=-50e-6, line_width_m=1e-6, depth_m=1e-6)]),
    ),
    (
        "pattern-in-box", untouched,
        write(patterns=[
            CleaningCrossSection(x_m=0, width_m=101e-6, start_y_m=1e-6, end_y_m=0, depth_m=1e-6)
        ]),
    ),
    ("pattern-in-box", untouched, write(patterns=[*at(0.0, 0.0), *at(0.0, 46e-6)])),
    ("area-of-the-run", untouched, write(area="elsewhere")),
    ("dose-within-budget", untouched, write(seconds=34.0)),
    ("deposit-grows", flowing, write(**DEPOSIT)),
    ("deposit-needs-gas", untouched, write(**DEPOSIT, patterns=at(0.0, 0.0, 90e-6))),
    ("deposit-needs-gas", inserted(Device.NEEDLE), write(**DEPOSIT, patterns=at(0.0, 0.0, 90e-6))),
    ("no-milling-in-gas", flowing, write()),
    ("vacuum-recovered", untouched, after_a_look(lambda g: (pressure(g, 2e-4), write(**FACE)(g)))),
    ("vacuum-recovered", untouched, after_a_look(lambda g: (pressure(g, nan), write(**FACE)(g)))),
    ("placed-on-the-mark", untouched, write(**FACE)),
    ("placed-on-the-mark", untouched, after_a_look(lambda g: (move(x=1e-4)(g), write(**FACE)(g)))),
    ("placed-on-the-mark", untouched, after_a_look(lambda g: (move(x=1e-4)(g), move(x=0.0)(g), write(**FACE)(g)))),
    (
        "placed-on-the-mark", untouched,
        after_a_look(lambda g: (g.insert(Device.NEEDLE), g.retract(Device.NEEDLE), write(**FACE)(g))),
    ),
    (
        "placed-on-the-mark", untouched,
        after_a_look(lambda g: (
            g.set_beam(Beam.ION, BeamSettings(current_a=1e-9)), g.set_beam(Beam.ION, BeamSettings(current_a=60e-9)),
            write(**FACE)(g),
        )),
    ),
    ("placed-on-the-mark", untouched, lambda g: (g.acquire(scan()), write(**FACE)(g))),
    ("placed-on-the-mark", untouched, after_a_look(lambda g: (g.make_safe(), write(**FACE)(g)))),
]  # fmt: skip


@pytest.fixture
def fake() -> FakeMicroscope:
    return FakeMicroscope()


@pytest.fixture
def guarded(fake: FakeMicroscope) -> Guarded:
    return Guarded(fake, ENVELOPE)


@pytest.mark.parametrize(("rule", "arrange", "act"), REFUSED, ids=[f"{n}-{r[0]}" for n, r in enumerate(REFUSED)])
def test_a_violation_is_refused_by_name(
    fake: FakeMicroscope, guarded: Guarded, rule: str, arrange: Arrange, act: Act
) -> None:
    if rule == "pattern-not-too-long":
        longer = DoseLimit(area="long", charge_c=1.0, box=BOX)
        guarded.envelope = ENVELOPE.replace(doses=(*ENVELOPE.doses, longer))
    arrange(fake)
    with pytest.raises(Refused) as caught:
        act(guarded)
    refused = caught.value
    assert refused.rule == rule
    assert refused.remedy
    assert refused.evidence["field"]
    assert refused.evidence["limit"]
    assert fake.fired == []
    assert guarded.refusals == 1


def test_every_rule_has_its_violation() -> None:
    """Read from the rules' source, so that a new one can't be forgotten here."""
    named = set()
    for node in ast.walk(ast.parse(inspect.getsource(guard_rules))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("_refused", "_inside"):
            name = node.args[0 if node.func.id == "_refused" else 3]
            if isinstance(name, ast.Constant):
                named.add(name.value)
    assert {"stage-travel", "placed-on-the-mark"} <= named
    assert named <= {rule for rule, _, _ in REFUSED}


REAL_WORK: list[tuple[str, Arrange, Act]] = [
    ("a small move beside CBS", inserted(Device.CBS), move(x=0.2e-3, y=-0.4e-3)),
    ("lowering beside CBS", inserted(Device.CBS), move(z=9.9e-3)),
    ("the same pose again with CBS in", inserted(Device.CBS), move(r=0.0, t=0.0)),
    ("a whole turn is no turn", untouched, move(r=2 * pi)),
    ("a pose of the run", untouched, move(r=pi, t=radians(7.0))),
    ("minus 180 degrees is 180", untouched, move(r=-pi, t=radians(7.0))),
    ("a bit off the pose", untouched, move(t=radians(7.5))),
    ("looking with the ion beam", untouched, look),
    ("looking with the needle in", inserted(Device.NEEDLE), look),
    ("CBS and electrons", inserted(Device.CBS), lambda guarded: guarded.acquire(scan())),
    ("immersion and electrons", immersed, lambda guarded: guarded.acquire(scan())),
    ("a picture while gas flows", flowing, lambda guarded: guarded.acquire(scan())),
    ("an element map", inserted(Device.EDS), lambda guarded: guarded.acquire_eds(EDS)),
    ("a current a bit off", having(measured=1.04), look),
    ("a current whose label is off", having(measured=100.07 / 80), after_a_look(write(**FACE))),
    ("and wanders a bit", having(measured=1.25), after_a_look(lambda g: (measured(g, 1.3), write(**FACE)(g)))),
    ("a source that has warmed up", having(measured=0.9), after_a_look(lambda g: (measured(g, 1.0), look(g)))),
    ("a current near the listed one", untouched, lambda g: g.set_beam(Beam.ION, BeamSettings(current_a=62e-9))),
    ("a shift at any working point", untouched, lambda g: g.set_beam(Beam.ION, BeamSettings(shift_x_m=1e-6))),
    ("shutting a gas that is not of the run", untouched, lambda g: g.set_gas("W", GasSetting(valve_open=False))),
    ("cooling a gas that is not of the run", untouched, lambda g: g.set_gas("W", GasSetting(heater_on=False))),
    ("heating with the needle out", untouched, lambda g: g.set_gas("Pt", GasSetting(heater_on=True))),
    ("opening with the needle in", inserted(Device.NEEDLE), lambda g: g.set_gas("Pt", GasSetting(valve_open=True))),
    ("the needle after the valve", inserted(Device.NEEDLE), lambda g: g.retract(Device.NEEDLE)),
    ("a trench without a look", untouched, write()),
    ("a trench right after gas", having(pressure=1e-3), write()),
    ("a pattern up to the edge of its box", untouched, write(patterns=at(45e-6, -45e-6))),
    (
        "a deposit with the needle in",
        lambda fake: (flowing(fake), fake.set_beam(Beam.ION, BeamSettings(voltage_v=8e3, current_a=1.67e-9))),
        write(**DEPOSIT, patterns=at(0.0, 0.0, 20e-6), voltage_v=8e3, current_a=1.67e-9, dose_c=1e-7),
    ),
    ("a cut after a look", untouched, after_a_look(write(**FACE))),
    ("cut after cut", untouched, after_a_look(lambda g: (write(**FACE)(g), write(**FACE)(g)))),
    ("a shift after the look", untouched,
     after_a_look(lambda g: (g.set_beam(Beam.ION, BeamSettings(shift_y_m=1e-7)), write(**FACE)(g)))),
    ("a picture between look and cut", untouched, after_a_look(lambda g: (g.acquire(scan()), write(**FACE)(g)))),
    ("CBS in and out between look and cut", untouched,
     after_a_look(lambda g: (g.insert(Device.CBS), g.retract(Device.CBS), write(**FACE)(g)))),
    ("the needle told to be out when it is out", untouched,
     after_a_look(lambda g: (g.retract(Device.NEEDLE), write(**FACE)(g)))),
    ("the beam set to what it is", untouched,
     after_a_look(lambda g: (g.set_beam(Beam.ION, BeamSettings(current_a=60e-9)), write(**FACE)(g)))),
    ("all of the budget", untouched, write(seconds=33.0)),
    ("relighting", untouched, lambda g: g.recover(Recovery.RELIGHT_SOURCE)),
]  # fmt: skip


@pytest.mark.parametrize(("arrange", "act"), [one[1:] for one in REAL_WORK], ids=[one[0] for one in REAL_WORK])
def test_real_work_is_allowed(fake: FakeMicroscope, guarded: Guarded, arrange: Arrange, act: Act) -> None:
    arrange(fake)
    act(guarded)
    assert guarded.refusals == 0


def test_a_new_controller_learns_anew_what_a_current_gives(fake: FakeMicroscope, guarded: Guarded) -> None:
    look(guarded)
    fake.measured = 1.2
    with pytest.raises(Refused, match="as at first"):
        look(guarded)
    guarded.envelope = ENVELOPE  # a person has looked at it and lets the run go on
    look(guarded)


def test_encoders_that_jitter_move_nothing(fake: FakeMicroscope, guarded: Guarded) -> None:
    look(guarded)
    fake._stage = fake._stage.replace(x=30e-9, y=-20e-9, r=1e-6)
    write(**FACE)(guarded)
    fake._stage = fake._stage.replace(x=3e-6)  # another hand at the joystick
    with pytest.raises(Refused) as caught:
        write(**FACE)(guarded)
    assert caught.value.rule == "placed-on-the-mark"


def test_charge_adds_up_over_jobs_and_parts(guarded: Guarded) -> None:
    half = job(30.0, to_fraction=0.5)
    guarded.pattern(half)
    guarded.pattern(half.replace(from_fraction=0.5, to_fraction=1.0))
    with pytest.raises(Refused) as caught:
        guarded.pattern(job(4.0))
    assert caught.value.rule == "dose-within-budget"
    guarded.pattern(job(3.0))


def test_charge_of_a_job_that_failed_counts(fake: FakeMicroscope, guarded: Guarded) -> None:
    fake.fail_at = (0.9, DeviceFault("arc"))
    with pytest.raises(DeviceFault):
        guarded.pattern(job(30.0))
    fake.fail_at = None
    with pytest.raises(Refused) as caught:
        guarded.pattern(job(20.0))
    assert caught.value.rule == "dose-within-budget"


def test_without_an_envelope_the_instruments_own_rules_hold(fake: FakeMicroscope) -> None:
    guarded = Guarded(fake)
    guarded.move_stage(StagePosition(t=radians(33.0)))
    guarded.set_beam(Beam.ION, BeamSettings(current_a=15e-9))
    guarded.set_beam(Beam.ION, BeamSettings(current_a=60e-9))
    write(area="anything")(guarded)
    for rule, act in (
        ("stage-travel", move(x=1.0)),
        ("needle-before-valve", lambda g: g.set_gas("Pt", GasSetting(valve_open=True))),
        ("pattern-not-too-long", write(seconds=3600.0, dose_c=60e-9 * 3600)),
        ("placed-on-the-mark", write(**FACE)),
    ):
        with pytest.raises(Refused) as caught:
            act(guarded)  # type: ignore[operator]
        assert caught.value.rule == rule


def test_stop_and_make_safe_always_pass(fake: FakeMicroscope, guarded: Guarded) -> None:
    flowing(fake)
    fake.insert(Device.CBS)
    guarded.stop()
    assert not any(gas.valve_open for gas in guarded.make_safe().gases.values())
    assert fake.safe_calls == 1
