"""The virtual microscope against what was published, and careful runs against naive ones: the table, check by check."""

from __future__ import annotations

import json

import pytest

from simulator.acceptance import __main__ as command
from simulator.acceptance import running
from simulator.acceptance.finding import Check, Finding, fails_visibly, near

CHECKS = [check for group in running.GROUPS for check in group]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_figure_is_right(check: Check) -> None:
    found = check()
    assert found
    assert [f"{one.name}: {one.simulated:.3g}, not {one.tolerance}" for one in found if not one.passed] == []


def test_a_figure_that_is_off_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def good() -> list[Finding]:
        return [near("grey", "physics.md", 35.0, 36.0, 8.0)]

    def off() -> list[Finding]:
        return [near("noise", "physics.md", 5.0, 50.0, 1.0)]

    def broken() -> list[Finding]:
        msg = "no pore"
        raise ValueError(msg)

    for group, code, words in (
        ((good,), 0, "1 of 1 are right"),
        ((good, off), 1, "1 of 2 are right"),
        ((good, broken), 1, "broken broke: ValueError: no pore"),
    ):
        monkeypatch.setattr(running, "GROUPS", (group,))
        monkeypatch.setattr(command, "NAMES", tuple(one.__name__ for one in group))
        names = tuple(one.__name__ for one in group)
        monkeypatch.setattr(command, "acceptance", lambda _, names=names: running.acceptance(names))
        assert command.main([]) == code
        assert words in capsys.readouterr().out
    assert command.main(["--json"]) == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False


def test_a_naive_run_proves_nothing_where_the_careful_one_is_wrong_too() -> None:
    assert fails_visibly("x", 0.1, 5.0, at_most=0.2, at_least=1.0, unit="um").passed
    assert not fails_visibly("x", 0.3, 5.0, at_most=0.2, at_least=1.0, unit="um").passed
    assert not fails_visibly("x", 0.1, 0.5, at_most=0.2, at_least=1.0, unit="um").passed
    assert not fails_visibly("x", float("nan"), 5.0, at_most=0.2, at_least=1.0, unit="um").passed
