"""A run and its session: requests are heeded whenever they come, the lock is held throughout, disk space is its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instrument.durable import AlreadyLocked, FileLock
from instrument.errors import ConnectionLost, DeviceFault, Stopped
from instrument.frame import Frame, FrameRef, reference
from instrument.hydra import hydra
from instrument.settings import (
    Beam,
    BeamSettings,
    Device,
    GasSetting,
    GasState,
    PatternJob,
    Rectangle,
    State,
)  # fmt: skip
from instrument.wire import Command, Result, SetBeam, WritePattern
from tests.workflows.frames import frame, still
from workflows import heartbeat, session, store
from workflows import run as run_module
from workflows.acts import Held, Interrupted
from workflows.alignment import Aligner
from workflows.handover import changes
from workflows.journal import Journal
from workflows.plan import plan
from workflows.recipe import load
from workflows.run import Run
from workflows.session import Session
from workflows.status import sentences, status_of, unless_answered
from workflows.store import SUPERVISOR, WINDOW, Request, RunFolder
from workflows.taking_back import Left, how_left, take_back
from workflows.terminal import DONE, Wrong

FIRST = Path(__file__).parents[2] / "workflows" / "recipes" / "first-run.yaml"
NOW = Request(what="stop", after="now", by="kintsugi stop")
PATTERN = WritePattern(
    job=PatternJob(
        patterns=(Rectangle(x_m=0, y_m=0, width_m=1e-6, height_m=1e-6, depth_m=1e-6),),
        purpose="mill", area="face", current_a=1e-9, voltage_v=30e3, dose_c=1e-7,
    )
)  # fmt: skip


class Instrument:
    """A server that counts stops; what a pattern does is up to the test."""

    def __init__(self, perform: Callable[[], Result] = Result) -> None:
        self.performed: list[Command] = []
        self.stops = 0
        self.stopped = threading.Event()
        self._perform = perform

    def perform(self, _action_id: str, command: Command) -> Result:
        self.performed.append(command)
        return self._perform()

    def stop(self) -> None:
        self.stops += 1
        if self.stops > 1:  # the first one came to the server before its pattern
            self.stopped.set()

    def make_safe(self) -> State:
        return still()

    def state(self) -> State:
        return still()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path / "RUN")
    made.write_recipe(FIRST.read_text(encoding="utf-8"))
    return made


@pytest.fixture
def journal(folder: RunFolder) -> Iterator[Journal]:
    with Journal.create(folder.journal, run_id="r", url="simulator:1") as made:
        yield made


def a_run(folder: RunFolder, journal: Journal, instrument: Instrument) -> Run:
    unused: Any = None
    return Run(folder, journal, unused, unused, instrument, unused, None, told=lambda _telling, _done: None)


# -- stop now ---------------------------------------------------------------------------------------------------------


def test_a_stop_that_came_just_before_its_pattern_is_asked_again(
    folder: RunFolder, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "_WATCH_S", 0.01)

    def pattern() -> Result:
        folder.ask(NOW)
        assert instrument.stopped.wait(20.0), "the pattern was written whole"
        return Result()

    instrument = Instrument(pattern)
    run = a_run(folder, journal, instrument)
    watch = threading.Thread(target=run._watch)
    watch.start()
    try:
        run_module._Watched(instrument, run._milling, run._checkpoint).perform("r/a#1", PATTERN)
    finally:
        run._ended.set()
        watch.join(20.0)
    assert instrument.stops >= 2


def test_no_pattern_begins_once_a_stop_was_seen(folder: RunFolder, journal: Journal) -> None:
    instrument = Instrument()
    run = a_run(folder, journal, instrument)
    watched = run_module._Watched(instrument, run._milling, run._checkpoint)
    run._stop_now(NOW)
    with pytest.raises(Interrupted, match="before the next pattern, as kintsugi stop asked"):
        watched.perform("r/a#1", PATTERN)
    assert instrument.performed == []
    assert not run._milling.is_set()
    other = SetBeam.model_construct()
    watched.perform("r/b#1", other)
    assert instrument.performed == [other]
    assert instrument.stops == 0  # nothing was in hand


def test_a_pattern_that_a_stop_kept_from_beginning_is_no_failure(folder: RunFolder, journal: Journal) -> None:
    def never_began() -> Result:
        if asks:
            run._stop_now(NOW)
        msg = "stopped before it began"
        raise Stopped(msg)

    asks = False
    run = a_run(folder, journal, Instrument())
    watched = run_module._Watched(Instrument(never_began), run._milling, run._checkpoint)
    with pytest.raises(Stopped):
        watched.perform("r/a#1", PATTERN)
    asks = True
    with pytest.raises(Interrupted):
        watched.perform("r/a#1", PATTERN)


# -- requests and the lock --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("supervised", [False, True])
def test_a_session_holds_the_run_and_forgets_only_what_was_asked_before_it(
    supervised: bool, folder: RunFolder, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(_self: Session, _until: str | None) -> int:
        assert FileLock.is_held(folder.lock)
        assert (folder.asked() is not None) is supervised
        folder.ask(Request(what="stop"))  # too late, while results are made
        return DONE

    monkeypatch.setattr(Session, "_work", work)
    night = FileLock(folder.night)
    if supervised:
        night.acquire()
    folder.ask(Request(what="stop", by="kintsugi stop"))
    try:
        with Session(folder, journal, load(FIRST), model="none") as one:
            assert one.work() == DONE
            assert folder.asked() is None
            with FileLock(folder.lock), pytest.raises(AlreadyLocked):
                one.work()
    finally:
        night.release()


def test_what_was_asked_while_a_session_started_is_honoured(
    folder: RunFolder, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(folder, journal, Instrument())
    monkeypatch.setattr(run, "_steps", lambda: run._boundary("slice") or "done")
    folder.ask(Request(what="pause", by="kintsugi pause"))
    with pytest.raises(Interrupted, match="paused after a slice"):
        run.go()
    assert run.state == "paused"
    assert folder.asked() is None


@pytest.mark.parametrize("kind", ["part of the cap", "trench", "fiducial", "fill"])
@pytest.mark.parametrize("after", ["cut", "slice", "fill"])
def test_a_pause_says_after_what_it_came(kind: str, after: str, folder: RunFolder, journal: Journal) -> None:
    run = a_run(folder, journal, Instrument())
    folder.ask(Request.model_validate({"what": "pause", "after": after, "by": "kintsugi pause"}))
    with pytest.raises(Interrupted, match=f"^paused after a {kind}, as kintsugi pause asked"):
        run._boundary(kind)


def test_a_hold_says_what_becomes_of_it_and_until_when(
    folder: RunFolder, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steps() -> str:
        msg = "block: confirm it (nobody has answered yet)"
        raise Held(msg, question="block")

    journal.set_meta("armed_until", "2026-11-26T08:00:00+01:00")
    run = a_run(folder, journal, Instrument())
    monkeypatch.setattr(run, "_steps", steps)
    with pytest.raises(Held):
        run.go()
    (event,) = [one for one in journal.events(kind="state") if one.data["to"] == "held"]
    assert event.data["until"] == "2026-11-26T08:00:00+01:00"
    assert "beams blanked and gas shut" in event.data["default"]
    status = status_of(folder)
    assert (status["until"], status["default"]) == (event.data["until"], event.data["default"])
    told = [one for one in sentences(status) if "unless a person answers" in one]
    assert len(told) == 1
    assert told[0].endswith("its night ends 2026-11-26 08:00")
    ends = datetime(2026, 11, 26, 6, 30, tzinfo=timezone(timedelta(hours=1)))
    assert unless_answered(status, ends).endswith("its night ends 2026-11-26 06:30")
    journal.note("state", {"to": "running"})
    assert status_of(folder)["default"] is None


def test_what_currents_gave_is_known_to_a_session_alone_and_learnt_anew_by_one_that_a_person_begins(
    folder: RunFolder, journal: Journal
) -> None:
    run = a_run(folder, journal, Instrument())
    journal.note("state", {"to": "running", "alone": False})
    journal.note("usual current", {"measured_a": 1e-9})
    journal.note("state", {"to": "running", "alone": True})
    assert [one["measured_a"] for one in run._usual()] == [1e-9]
    journal.note("state", {"to": "failed"})
    journal.note("state", {"to": "running", "alone": False})
    assert run._usual() == []


def test_a_focus_found_by_hand_is_kept_however_long_the_person_took(
    folder: RunFolder, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = {"pose": "face-on", "stage": still().stage.model_dump(mode="json"), "focus_z_m": 4e-6}
    journal.intend("slice/0001/image", "frame", {}, setup)
    journal.done("slice/0001/image", {}, clock_s=100.0)
    at = still().replace(time_s=100.0 + 3 * run_module.FOCUS_KEPT_S)
    sharp = at.electron.settings.replace(working_distance_m=4.02e-3)
    run = a_run(folder, journal, Instrument())
    monkeypatch.setattr(Instrument, "state", lambda _self: at.replace(electron=at.electron.replace(settings=sharp)))
    journal.note("focused", {"pose": "face-on", "working_distance_m": 4e-3, "plane_m": 3.9e-6})
    journal.note("state", {"to": "running"})
    assert run._focused() == []
    take_back(Left(at, changes), journal, run.instrument, lambda _changes: "adopt")
    kept = run._focused()
    assert [(one["pose"], one["working_distance_m"], one["plane_m"]) for one in kept] == [("face-on", 4.02e-3, 4e-6)]
    journal.note("focus anew", {})  # it was asked for, and the process died before it came to it
    assert run._focused() == []
    take_back(Left(at, changes), journal, run.instrument, lambda _changes: "adopt")
    assert len(run._focused()) == 1
    journal.note("state", {"to": "running"})  # a later session, hours after: nobody has looked since
    assert run._focused() == []


@pytest.mark.parametrize("supervised", [False, True])
def test_a_run_that_failed_leaves_what_was_asked_to_its_night_and_tells_its_watcher(
    supervised: bool, folder: RunFolder, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> str:
        folder.ask(Request(what="stop", after="fill", by="kintsugi stop"))
        msg = "no answer"
        raise ConnectionLost(msg)

    run = a_run(folder, journal, Instrument())
    monkeypatch.setattr(run, "_steps", fails)
    night = FileLock(folder.night)
    if supervised:
        night.acquire()
    try:
        with pytest.raises(ConnectionLost):
            run.go()
    finally:
        night.release()
    assert run.state == "failed"
    assert folder.asked() is not None
    found = heartbeat.pulse(folder.root)
    assert (found.state, found.may_resume) == ("failed", supervised)
    assert (found.alarm(300.0) is None) is supervised


# -- how the instrument is left, and taken back -----------------------------------------------------------------------


def stigmated(x: float, time_s: float = 0.0) -> State:
    """A state in which somebody has set the electron beam's stigmator."""
    seen = still()
    settings = seen.electron.settings.replace(stigmator_x=x, stigmator_y=0.0)
    return seen.replace(electron=seen.electron.replace(settings=settings), time_s=time_s)


class InHand(Instrument):
    """An instrument that stands as it was left or set."""

    def __init__(self, now: State) -> None:
        super().__init__()
        self.now = now

    def state(self) -> State:
        return self.now

    def set_beam(self, beam: Beam, settings: BeamSettings) -> None:
        beams = {str(beam): self.now.beam(beam).replace(settings=settings)}
        self.now = self.now.replace(**beams)


def picture(folder: RunFolder, journal: Journal, k: int, state: State) -> None:
    """A picture of the face, taken in this state."""
    made = frame(np.zeros((1, 16, 16), np.uint8), uid=f"u{k}")
    made = Frame(made.pixels, made.meta.replace(state=state))
    path = folder.frame_path("slices", f"s{k:04d}")
    made.save(path)
    taken = reference(made, path).replace(name=folder.relative(path))
    setup = {"pose": "face-on", "stage": state.stage.model_dump(mode="json"), "focus_z_m": 0.0}
    journal.intend(f"slice/{k:04d}/image", "frame", {}, setup)
    journal.done(f"slice/{k:04d}/image", taken.model_dump(mode="json"), clock_s=state.time_s)


def picture_of(folder: RunFolder, ref: FrameRef) -> Frame:
    """Load a picture of the run."""
    return Frame.load(folder.root / ref.name)


def paused_and_gone_on_with(folder: RunFolder, journal: Journal, choice: str, after_s: float = 200.0) -> InHand:
    """Paused with stigmator 0.1, set to 0.3 by a person, gone on with as they chose; then the line is lost."""
    journal.note("state", {"to": "running"})
    picture(folder, journal, 1, stigmated(0.1, 100.0))
    journal.note("left", stigmated(0.1, 110.0).model_dump(mode="json"))
    journal.note("state", {"to": "paused"})
    instrument = InHand(stigmated(0.3, after_s))
    left = how_left(journal, partial(picture_of, folder))
    assert left is not None
    journal.note("state", {"to": "running"})
    take_back(left, journal, instrument, lambda _changes: choice)  # type: ignore[arg-type,return-value]
    journal.note("state", {"to": "failed"})  # nothing could be asked of the instrument: nobody knows how it was left
    return instrument


@pytest.mark.parametrize("after_s", [200.0, 5.0])  # the instrument's clock goes on, or has started again
@pytest.mark.parametrize("pictures", [1, 2])
def test_what_was_adopted_stands_after_a_crash_that_could_not_say_how_it_left(
    pictures: int, after_s: float, folder: RunFolder, journal: Journal
) -> None:
    instrument = paused_and_gone_on_with(folder, journal, "adopt", after_s)
    if pictures == 2:
        picture(folder, journal, 2, stigmated(0.3, after_s + 100.0))
    instrument.now = stigmated(0.3, after_s + 200.0)
    left = how_left(journal, partial(picture_of, folder))
    assert left is not None
    take_back(left, journal, instrument, lambda _changes: "restore")  # type: ignore[arg-type]
    assert instrument.now.electron.settings.stigmator_x == 0.3
    assert [event.data["choice"] for event in journal.events(kind="taken back")] == ["adopt"]


@pytest.mark.parametrize("choice", ["adopt", "restore"])
def test_what_was_changed_after_a_crash_is_restored_to_what_was_chosen_last(
    choice: str, folder: RunFolder, journal: Journal
) -> None:
    instrument = paused_and_gone_on_with(folder, journal, choice)
    instrument.now = stigmated(0.7, 400.0)
    left = how_left(journal, partial(picture_of, folder))
    assert left is not None
    take_back(left, journal, instrument, lambda _changes: "restore")  # type: ignore[arg-type]
    stands = {"adopt": 0.3, "restore": 0.1}[choice]
    assert instrument.now.electron.settings.stigmator_x == stands
    told = journal.events(kind="taken back")[-1].data
    assert told == {"choice": "restore", "changes": [f"electron beam, stigmator x: {stands} -> 0.7"]}


class Chamber(Instrument):
    """An instrument with its detector in and its gas warm; what is asked of it is kept."""

    def __init__(self, *, stuck: bool) -> None:
        super().__init__()
        self.did: list[str] = []
        self._stuck = stuck

    def make_safe(self) -> State:
        self.did.append("safe")
        return self.state()

    def state(self) -> State:
        warm = GasState(heater_on=True, ready=True, duty=1.0, valve_open=False)
        return still().replace(devices={Device.CBS: True}, gases={"Pt": warm})

    def retract(self, device: Device) -> None:
        if self._stuck:
            msg = "the detector does not move"
            raise DeviceFault(msg)
        self.did.append(f"{device} out")

    def set_gas(self, gas: str, setting: GasSetting) -> None:
        self.did.append(f"{gas} {'warm' if setting.heater_on else 'cold'}")

    def set_beam(self, _beam: Beam, settings: BeamSettings) -> None:
        self.did.append(f"source {'on' if settings.source_on else 'off'}")


@pytest.mark.parametrize(
    ("by", "stuck", "expected"),
    [
        (WINDOW, False, ["safe", "CBS out", "Pt cold", "source off", "safe"]),
        (SUPERVISOR, False, ["safe"]),
        (WINDOW, True, ["safe", "safe"]),
        ("kintsugi stop", False, ["safe"]),
    ],
)
def test_a_run_that_its_night_ends_leaves_the_instrument_as_its_recipe_would(
    by: str, stuck: bool, expected: list[str], folder: RunFolder, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    instrument = Chamber(stuck=stuck)
    run = a_run(folder, journal, instrument)
    run.recipe = load(FIRST.read_text(encoding="utf-8").replace("source: leave-on", "source: off"))
    states: list[str] = []

    def steps() -> str:
        run._aligner = Aligner(instrument, hydra(), journal.note)  # type: ignore[arg-type]
        run._boundary("slice")
        return "done"

    def safe(_left: object) -> None:
        states.append(run.state)
        instrument.make_safe()

    monkeypatch.setattr(run, "_steps", steps)
    monkeypatch.setattr(run, "_safe", safe)
    folder.ask(Request(what="stop", by=by))
    with pytest.raises(Interrupted, match="stopped after a slice"):
        run.go()
    assert instrument.did == expected
    assert states == ["running"]
    assert run.state == "stopped"


@pytest.mark.parametrize("by", [WINDOW, "kintsugi pause"])
def test_what_somebody_turned_before_a_run_ends_is_for_its_resume_to_ask_about(
    by: str, folder: RunFolder, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    instrument = Chamber(stuck=False)
    run, before = a_run(folder, journal, instrument), instrument.state()
    run.recipe = load(FIRST)

    def steps() -> str:
        run._aligner = Aligner(instrument, hydra(), journal.note)  # type: ignore[arg-type]
        run._aligner.state()
        turned = before.electron.replace(settings=before.electron.settings.replace(stigmator_x=0.7))
        monkeypatch.setattr(instrument, "state", lambda: before.replace(electron=turned))
        run._boundary("slice")
        return "done"

    monkeypatch.setattr(run, "_steps", steps)
    folder.ask(Request(what="pause", by=by))
    with pytest.raises(Interrupted):
        run.go()
    assert journal.events(kind="left")[-1].data == before.model_dump(mode="json")
    assert ("Pt cold" in instrument.did) == (by == WINDOW)  # nobody comes before morning


@pytest.mark.parametrize(
    ("by", "kind", "stops"),
    [
        (WINDOW, "cut", False),
        (WINDOW, "slice", True),
        (WINDOW, "fill", True),
        (WINDOW, "last slice", False),  # the run ends by itself now, in the time that was kept for it
        ("kintsugi stop", "last slice", True),
        (WINDOW, "before a fill", True),  # it would last for an hour and more
        ("kintsugi stop", "before a fill", False),
    ],
)
def test_a_window_that_ends_with_the_last_slice_cuts_nothing_short(
    by: str, kind: str, *, stops: bool, folder: RunFolder, journal: Journal
) -> None:
    run = a_run(folder, journal, Instrument())
    folder.ask(Request(what="stop", after="slice", by=by))
    if stops:
        with pytest.raises(Interrupted, match=r"stopped (after|before) "):
            run._boundary(kind)
    else:
        run._boundary(kind)


@pytest.mark.parametrize(
    ("by", "fails", "names"),
    [(WINDOW, False, ["window-2"]), (WINDOW, True, ["window-2"]), ("kintsugi stop", False, [])],
)
def test_last_pictures_are_taken_when_the_window_ends_by_every_session_its_own(
    by: str, names: list[str], *, fails: bool, folder: RunFolder, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.note("state", {"to": "running"})
    journal.note("state", {"to": "stopped"})
    run, taken = a_run(folder, journal, Instrument()), []
    run.recipe = load(FIRST)

    def pictures(_handle: object, name: str) -> None:
        taken.append(name)
        if fails:
            msg = "no picture came"
            raise DeviceFault(msg)

    def each(_handle: object) -> str:
        run._boundary("slice")
        return "done"

    monkeypatch.setattr(run_module.finish, "pictures", pictures)
    monkeypatch.setattr(run, "_handle", object)
    monkeypatch.setattr(run, "_each", each)
    folder.ask(Request(what="stop", by=by))
    with pytest.raises(Interrupted, match="stopped after a slice"):
        run.go()
    assert taken == names
    assert run.state == "stopped"


def test_who_can_not_wait_for_a_windows_last_pictures_is_heeded(
    folder: RunFolder, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(folder, journal, instrument := Chamber(stuck=False))
    run.recipe = load(FIRST)

    def pictures(_handle: object, _name: str) -> None:
        folder.ask(NOW)
        until, pause = time.monotonic() + 10.0, threading.Event()
        while time.monotonic() < until and run._asked != folder.asked():
            pause.wait(0.01)
        run._checkpoint("the last picture")

    def each(_handle: object) -> str:
        run._boundary("slice")
        return "done"

    monkeypatch.setattr(run_module, "_WATCH_S", 0.01)
    monkeypatch.setattr(run_module.finish, "pictures", pictures)
    monkeypatch.setattr(run, "_handle", object)
    monkeypatch.setattr(run, "_each", each)
    folder.ask(Request(what="stop", by=WINDOW))
    with pytest.raises(Interrupted, match="stopped before the last picture"):
        run.go()
    assert (run.state, instrument.did) == ("stopped", ["safe"])
    assert folder.asked() is None


# -- disk space -------------------------------------------------------------------------------------------------------


class Remote:
    """A server that describes its instrument and lets nobody claim it."""

    def describe(self) -> Any:
        return hydra().replace(virtual=True)

    def claim(self, _envelope: object) -> None:
        msg = "here the test ends"
        raise DeviceFault(msg)

    def close(self) -> None:
        return


@pytest.mark.parametrize(("written", "fits"), [(0.5, True), (0.0, False)])
def test_a_run_goes_on_beside_what_it_has_written_itself(
    written: float, fits: bool, folder: RunFolder, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It began with 1.4 times its data free; half of it is here now. Where others fill the disk it is refused."""
    recipe = load(FIRST)
    needed = plan(recipe, Remote().describe(), options=False).bytes
    with folder.frame_path("slices", "s0001").open("wb") as file:
        file.truncate(round(written * needed))  # sparse
    monkeypatch.setattr(store, "free_bytes", lambda _place: round(0.9 * needed))
    monkeypatch.setattr(session, "remote_for", lambda *_: Remote())
    with Session(folder, journal, recipe, model="none") as one:
        if fits:
            with pytest.raises(DeviceFault, match="here the test ends"):
                one.work()
        else:
            with pytest.raises(Wrong, match="disk"):
                one.work()
