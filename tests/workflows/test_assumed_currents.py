"""Lists of currents that nobody has read from the instrument: what they forbid, what a run keeps, what doctor tells."""

from pathlib import Path

import pytest

from instrument.errors import Refused
from instrument.hydra import hydra
from instrument.settings import Beam, BeamSettings
from tests.instrument.values import state
from workflows.cli import run_command
from workflows.journal import Journal
from workflows.limits import instrument_problems
from workflows.recipe import load
from workflows.rehearsal import Rehearsal
from workflows.session import with_its_lists

RECIPE = Path(__file__).parents[2] / "workflows" / "recipes" / "first-run.yaml"
HYDRA = hydra()
ASSUMED = HYDRA.replace(assumed_currents=("Xenon@30000",))


@pytest.mark.parametrize(("current", "wrong"), [("90 nA", False), ("3000 nA", True)])
def test_any_current_between_the_ends_of_an_assumed_list_may_be_there(current, wrong):
    recipe = load(RECIPE.read_text(encoding="utf-8").replace("currents: [60 nA,", f"currents: [{current}, 60 nA,"))
    assert [one.field for one in instrument_problems(recipe, HYDRA)] == ["block.trench.currents"]
    assert bool(instrument_problems(recipe, ASSUMED)) is wrong


def test_a_rehearsal_sets_a_current_that_may_be_there():
    asked = BeamSettings(voltage_v=30e3, current_a=5e-9)
    with pytest.raises(Refused, match="5 nA"):
        Rehearsal(HYDRA).set_beam(Beam.ION, asked)
    assert Rehearsal(ASSUMED).set_beam(Beam.ION, asked).current_a == 5e-9


def test_a_run_keeps_the_lists_that_it_began_with(tmp_path):
    known = HYDRA.replace(ion_currents_a={**HYDRA.ion_currents_a, "Xenon@30000": (1e-9,)})
    with Journal.create(tmp_path / "journal.sqlite", run_id="r1", instrument={}) as journal:
        assert with_its_lists(journal, ASSUMED) == ASSUMED
        assert with_its_lists(journal, known) == ASSUMED


def test_doctor_tells_which_lists_are_assumed_and_what_has_no_application_file(monkeypatch, capsys):
    real = ASSUMED.replace(virtual=False)
    seen = (real, state(), {"application_files": ["Si", "Si-ccs", "Pt dep", "Pt dep surface"]})
    monkeypatch.setattr("instrument.autoscript.opening.examine", lambda _url: seen)
    assert run_command(["doctor", "autoscript://localhost", "--recipe", str(RECIPE)]) == 2
    told = capsys.readouterr()
    lines = {line.split(" V: ")[0].strip(): line for line in told.out.splitlines() if " V: " in line}
    assert lines["Xenon@30000"].endswith("(assumed)")
    assert not lines["Xenon@12000"].endswith("(assumed)")
    assert "protect.application" in told.err
