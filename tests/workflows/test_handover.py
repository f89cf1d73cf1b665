"""What a person changes while a run is away is shown, and adopted or restored."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from instrument.settings import Beam, BeamSettings, Device, Setup, StagePosition, State
from tests.workflows.folders import fresh_folder
from tests.workflows.frames import still
from workflows.cli import run_command
from workflows.handover import a_hand, changes, focus_by_hand, ion_focus_by_hand, restore
from workflows.happenings import happenings
from workflows.journal import Journal
from workflows.store import RunFolder

SETTINGS = BeamSettings(
    voltage_v=5e3, current_a=1.6e-9, working_distance_m=4e-3, stigmator_x=0.1, stigmator_y=0.0
)  # fmt: skip
LEFT = still().replace(
    electron=still().electron.replace(settings=SETTINGS), devices={Device.CBS: False, Device.NEEDLE: False}
)


def test_nothing_changed_is_nothing_told() -> None:
    assert changes(LEFT, LEFT) == []
    wobble = LEFT.replace(stage=LEFT.stage.replace(x=20e-9), devices={Device.CBS: False, Device.NEEDLE: True})
    assert changes(LEFT, wobble) == []


def test_every_hand_is_seen() -> None:
    electron = LEFT.electron.replace(
        settings=LEFT.electron.settings.replace(stigmator_x=0.3, working_distance_m=4.02e-3, current_a=6.4e-9),
        source_on=False,
    )
    now = LEFT.replace(
        electron=electron, stage=LEFT.stage.replace(x=5e-6, t=0.1), devices={Device.CBS: True, Device.NEEDLE: False}
    )
    told = [str(one) for one in changes(LEFT, now)]
    assert told == [
        "stage x: 0 um -> 5 um", "stage t: 0 deg -> 5.72958 deg", "electron beam, current: 1.6 nA -> 6.4 nA",
        "electron beam, working distance: 4 mm -> 4.02 mm", "electron beam, stigmator x: 0.1 -> 0.3",
        "electron source: on -> off", "CBS: out -> in",
    ]  # fmt: skip


def test_an_ion_focus_that_a_person_has_set_is_known_with_its_current() -> None:
    assert ion_focus_by_hand(LEFT, LEFT) is None
    set_by_eye = BeamSettings(voltage_v=30e3, current_a=1e-9, working_distance_m=16.53e-3)
    now = LEFT.replace(ion=LEFT.ion.replace(settings=set_by_eye.replace(shift_x_m=1e-6)))
    assert ion_focus_by_hand(LEFT, now) == set_by_eye


def test_an_electron_focus_that_a_person_has_set_on_the_face_is_kept_with_its_plane() -> None:
    looking = Setup(pose="face-on", stage=StagePosition(x=0.0, y=0.0, z=0.0, r=math.pi, t=0.1), focus_z_m=4e-6)
    before = LEFT.replace(stage=LEFT.stage.replace(r=-math.pi, t=0.1))  # the same rotation
    sharp = before.electron.settings.replace(working_distance_m=4.02e-3)
    now = before.replace(electron=before.electron.replace(settings=sharp))
    found = focus_by_hand(before, now, looking)
    assert found is not None
    assert (found["pose"], found["working_distance_m"], found["plane_m"]) == ("face-on", 4.02e-3, 4e-6)
    assert (found["voltage_v"], found["current_a"]) == (sharp.voltage_v, sharp.current_a)
    assert focus_by_hand(before, before, looking) is None
    tilted = now.replace(stage=now.stage.replace(t=0.6))
    assert focus_by_hand(before, tilted, looking) is None  # sharp in another pose


class Scope:
    def __init__(self, now: State) -> None:
        self.now = now
        self.set: list[tuple[Beam, BeamSettings]] = []

    def state(self) -> State:
        return self.now

    def set_beam(self, beam: Beam, settings: BeamSettings) -> BeamSettings:
        self.set.append((beam, settings))
        return settings


def test_what_was_set_by_eye_is_set_back_and_the_rest_left_to_the_acts() -> None:
    electron = LEFT.electron.replace(settings=LEFT.electron.settings.replace(stigmator_x=0.3, current_a=6.4e-9))
    scope = Scope(LEFT.replace(electron=electron))
    restore(scope, LEFT)  # type: ignore[arg-type]
    assert scope.set == [(Beam.ELECTRON, BeamSettings(stigmator_x=0.1))]
    scope = Scope(LEFT)
    restore(scope, LEFT)  # type: ignore[arg-type]
    assert scope.set == []


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = fresh_folder(tmp_path)
    made.frame_path("slices", "s0001").write_bytes(b"")
    return made


def test_a_slice_is_marked(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["mark", str(folder.root), "1", "bad", "--why", "charging"]) == 0
    assert run_command(["mark", str(folder.root), "7", "bad"]) == 2
    assert "no slice 7" in capsys.readouterr().err
    assert run_command(["mark", str(folder.root), "1", "ugly"]) == 2
    with Journal(folder.journal, read_only=True) as journal:
        (event,) = journal.events(kind="mark")
        assert event.data == {"slice": 1, "as": "bad", "why": "charging"}


def test_what_happened_is_told_in_sentences(folder: RunFolder) -> None:
    with Journal(folder.journal) as journal:
        journal.note("look", {"worn_m": 1e-9})
        journal.note("note", "the door was open")
        journal.note("night", {"verdict": "resume", "why": "it failed (exit code 4)", "code": 4, "restarts": 0})
        journal.note("night", {"verdict": "done", "why": "", "code": 0, "restarts": 1})
        journal.note("mended", {"key": "slice/0002/cut-1", "symptom": "source-off", "done": "relit", "why": "off"})
        journal.note("mended", {"key": "a", "symptom": "source-off", "done": "", "failed": "no vacuum"})
        journal.note("counted", {"key": "b", "at_least": 0.1, "at_most": 0.9, "fraction": 0.5, "by": "the ruler"})
        journal.note("taken back", {"choice": "adopt", "changes": ["stigmator x: 0 -> 1"]})
        told = [one[6:] for one in happenings(journal)]
    assert told == [
        "the door was open",
        "resume: it failed (exit code 4)",
        "slice/0002/cut-1: off; relit",
        "a: source-off could not be mended: no vacuum",
        "b: between 10 and 90 % was given when it ended; counted as 50 % (the ruler)",
        "changed by hand meanwhile, adopted: stigmator x: 0 -> 1",
    ]


def test_blurred_slices_are_told_whether_they_have_labels_or_not(folder: RunFolder) -> None:
    with Journal(folder.journal) as journal:
        for k, blurred in enumerate((False, True, False, True), 1):
            journal.intend(f"slice/{k:04d}/detail", "measure", {"frame": f"{k}"})
            journal.done(f"slice/{k:04d}/detail", {"detail": 0.9, "blurred": blurred})
            if k == 2:
                assert happenings(journal) == ["slice 2 is blurred; before the next the beam was focused anew"]
        assert happenings(journal) == ["slices 2, 4 are blurred; before the next the beam was focused anew"]


def test_an_old_picture_tells_of_a_hand_but_not_of_the_run_itself() -> None:
    def with_electron(**changed: float) -> State:
        return LEFT.replace(electron=LEFT.electron.replace(settings=LEFT.electron.settings.replace(**changed)))

    assert a_hand(LEFT, with_electron(shift_x_m=0.4e-6, working_distance_m=4.1e-3)) == []
    assert [one.name for one in a_hand(LEFT, with_electron(shift_x_m=5e-6))] == ["electron beam, shift x"]
    assert [one.name for one in a_hand(LEFT, with_electron(stigmator_y=0.1))] == ["electron beam, stigmator y"]
