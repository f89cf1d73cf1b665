"""Element maps that a person takes: asked for at the map's pose, collected after a yes, refused for a night."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from instrument.autoscript import opening
from instrument.autoscript.byhand import PersonMapper
from instrument.autoscript.microscope import AutoscriptMicroscope
from instrument.errors import BadData, InstrumentError, NotReached
from instrument.frame import Frame, FrameRef, reference
from instrument.hydra import hydra
from instrument.ledger import Record
from instrument.settings import Device, EdsScan
from instrument.wire import AcquireEds, Command, Result
from tests.contract.emulation import BARE, emulated
from tests.instrument.values import state
from workflows import preflight
from workflows.acts import Acts, Held
from workflows.cli import run_command
from workflows.ensure import Ensurer
from workflows.handle import Handle
from workflows.journal import Journal
from workflows.layout import Layout
from workflows.recipe import load
from workflows.recipe_rules import unattended_problems
from workflows.recipe_steps import ElementMap
from workflows.store import RunFolder

RECIPES = Path(__file__).parents[2] / "workflows" / "recipes"
RECIPE = load(RECIPES / "first-run.yaml")
WANTED = ElementMap(elements=("Ni", "Pt"), area=(8e-6, 6e-6), pixel=500e-9, frames=2)
BY_HAND = hydra().replace(maps_by="person")


class Server:
    """The instrument as acts need it: what fails is known by its id."""

    def __init__(self, microscope: AutoscriptMicroscope, spool: Path) -> None:
        self.microscope, self.spool = microscope, spool
        self.failed: set[str] = set()
        spool.mkdir()

    def perform(self, action_id: str, command: Command) -> Result:
        assert isinstance(command, AcquireEds)
        try:
            made = self.microscope.acquire_eds(command.scan)
        except InstrumentError:
            self.failed.add(action_id)
            raise
        path = self.spool / f"{made.meta.uid}.ome.tif"
        made.save(path)
        return Result(frame=reference(made, path))

    def lookup(self, action_id: str) -> Record | None:
        return Record("failed", None, None) if action_id in self.failed else None

    def chunks(self, ref: FrameRef) -> Iterator[bytes]:
        yield (self.spool / ref.name).read_bytes()

    def release_frame(self, ref: FrameRef) -> None:
        (self.spool / ref.name).unlink()


class Session:
    """One process after the other on a run that takes a map by hand; its instrument's server may be another one too."""

    def __init__(self, root: Path) -> None:
        self.root, self.exports = root, root / "exports"
        self.exports.mkdir()
        self.folder = RunFolder.create(root / "RUN")
        Journal.create(self.folder.journal, run_id="r").close()
        self.answer: str | None = None
        self.devices: dict[Device, bool] = {}
        self._number = 0

    def go(self) -> FrameRef:
        """Take the map, and then bring the detector out as what follows does."""
        self._number += 1
        url = f"autoscript://localhost?elements={self.exports}"
        with closing(opening.open_url(url, self.root)) as scope, Journal(self.folder.journal) as journal:
            ensurer = Ensurer(scope)
            server = Server(scope, self.root / f"spool-{self._number}")
            layout = Layout.at(RECIPE, None)
            acts = Acts(journal, self.folder, server, ensure=ensurer.ensure, checkpoint=lambda _key: None)
            aligner = SimpleNamespace(ensure=ensurer.ensure, layout=layout)
            handle = Handle(
                RECIPE, layout, scope.describe(), acts, aligner, None, load=None, boundary=lambda _: None,
                told=lambda *_: None, answer=lambda _: self.answer, free_bytes=None, asked=None,
            )  # fmt: skip
            assert RECIPE.slicing is not None
            try:
                ref = handle.element_map("slice/0001/eds", "s0001", WANTED, RECIPE.slicing.image, 1e-6)
                scope.retract(Device.EDS)
            finally:
                self.devices, self.left = scope.state().devices, scope.state()
            return ref

    def export(self, value: int, shape: tuple[int, int] = (12, 16)) -> None:
        for number, element in enumerate(WANTED.elements):
            tifffile.imwrite(self.exports / f"map_{element}.tif", np.full(shape, value + number, np.uint16))


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setattr("instrument.autoscript.elements._STILL_S", 0.0)
    monkeypatch.setattr("instrument.autoscript.byhand.SHARED_S", 0.5)
    with emulated(BARE, place=("localhost", 7520)):
        yield Session(tmp_path)


def test_a_person_is_asked_at_the_map_and_what_they_export_is_collected(session: Session) -> None:
    session.export(70)  # of another day
    with pytest.raises(Held, match="nobody has answered") as held:
        session.go()
    for told in ("16 x 12 pixels of 500 nm", "2 frames", "Ni, Pt", "Insert the X-ray detector", "retract the X-ray"):
        assert told in held.value.message
    assert session.devices[Device.EDS]  # for all that anybody knows
    assert session.left.electron.settings.hfw_m == pytest.approx(8e-6)
    assert session.left.electron.settings.voltage_v == WANTED.voltage
    assert session.left.safe
    at_the_map = session.left.stage
    with pytest.raises(Held):  # gone on with, but not answered
        session.go()
    assert session.devices[Device.EDS]
    assert session.left.stage == at_the_map
    session.export(7)
    session.answer = "yes"
    taken = Frame.load(session.folder.root / session.go().name)
    assert taken.meta.channels == ("Ni", "Pt")
    assert [int(one.max()) for one in taken.pixels] == [7, 8]
    assert not session.devices[Device.EDS]
    assert session.left.stage == at_the_map


def test_a_yes_without_an_export_or_with_a_wrong_one_is_told_and_can_be_mended(session: Session) -> None:
    session.export(70)
    with pytest.raises(Held):
        session.go()
    session.answer = "yes"
    with pytest.raises(NotReached, match="then resume"):
        session.go()
    session.export(7, (6, 8))
    with pytest.raises(BadData, match="as asked"):
        session.go()
    session.export(9)
    assert Frame.load(session.folder.root / session.go().name).pixels[0].max() == 9


def test_a_no_collects_nothing(session: Session) -> None:
    with pytest.raises(Held):
        session.go()
    session.export(7)
    session.answer = "no"
    with pytest.raises(Held, match="the answer was no"):
        session.go()
    assert session.devices[Device.EDS]


def test_what_the_folder_held_is_known_to_the_next_server_and_nobody_else_takes_the_microscope_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instrument.autoscript.elements._STILL_S", 0.0)
    scan = EdsScan(elements=("Ni",), width_px=16, height_px=12, pixel_m=1e-7, dwell_s=1e-5, frames=1)
    first = PersonMapper(tmp_path, tmp_path)
    assert not first.is_in()
    first.retract()
    first.insert()
    tifffile.imwrite(tmp_path / "map_Ni.tif", np.full((12, 16), 7, np.uint16))
    second = PersonMapper(tmp_path, tmp_path)
    assert second.is_in()
    second.insert()  # handed over already: what has come since is no older for it
    with pytest.raises(NotReached, match="answer and resume the run that asked"):
        second.retract()
    assert second.is_in()
    assert second.map(scan).max() == 7
    second.retract()
    assert not PersonMapper(tmp_path, tmp_path).is_in()


# -- never unattended -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "confirm", "maps_by", "virtual", "refused"),
    [
        ("", "", "person", False, True),
        ("person", "", None, False, True),
        ("", ", eds", None, False, True),
        ("", ", eds", "command", False, False),
        ("", ", eds", None, True, False),
        ("laser-api", "", None, False, False),
        ("laser-api", "", "laser-api", False, False),
    ],
)
def test_a_night_takes_no_maps_by_hand(
    start: str, confirm: str, maps_by: str | None, virtual: bool, refused: bool, tmp_path: Path
) -> None:
    text = (RECIPES / "overnight.yaml").read_text(encoding="utf-8").replace("autoscript://", "pyro://")
    text = text.replace("start: laser-api", f"start: {start}" if start else "")
    text = text.replace("[site, block]", f"[site, block{confirm}]")
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    found = unattended_problems(load(tmp_path / "recipe.yaml"), hydra().replace(maps_by=maps_by, virtual=virtual))
    assert [problem.field for problem in found] == ["slice.eds.start"] * refused


@pytest.mark.parametrize("command", [["night"], ["schedule", "add", "--queue", "nights.sqlite"]])
def test_commands_for_nights_refuse_maps_by_hand(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    seen = BY_HAND.replace(virtual=True), state(), {}
    monkeypatch.setattr(preflight, "examined", lambda *_: seen)
    assert run_command([*command, str(RECIPES / "first-run.yaml"), "--out", str(tmp_path / "RUN")]) == 2
    told = capsys.readouterr().err
    assert "a person takes its element maps, and nobody is there at night" in told
    assert "elements_start=laser-api" in told
