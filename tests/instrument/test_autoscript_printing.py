"""What the vendor's client prints never comes between what a command answers on standard output."""

from __future__ import annotations

import io
import sys
import threading

import pytest

from instrument.autoscript.printing import on_stderr
from tests.contract.emulation import BARE, emulated


def test_connecting_and_disconnecting_print_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with emulated(BARE, place=("printing", 7520)):
        pass
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("Client connected to [printing:7520]") == 3
    assert told.err.count("Client disconnected") == 3


def test_other_threads_go_on_printing_and_two_that_overlap_leave_it_as_it_was(
    capsys: pytest.CaptureFixture[str],
) -> None:
    real, (first, second) = sys.stdout, (threading.Event(), threading.Event())
    inside = threading.Barrier(3)

    def connects(name: str, go_on: threading.Event) -> None:
        with on_stderr():
            inside.wait(10.0)
            assert go_on.wait(10.0)
            print(name)  # noqa: T201 - as the client does

    threads = [threading.Thread(target=connects, args=given) for given in (("first", first), ("second", second))]
    for one in threads:
        one.start()
    inside.wait(10.0)
    print("the answer")  # noqa: T201
    for one, go_on in zip(threads, (first, second), strict=True):
        go_on.set()
        one.join(10.0)
    assert sys.stdout is real
    told = capsys.readouterr()
    assert told.out == "the answer\n"
    assert told.err == "first\nsecond\n"


def test_who_else_has_replaced_standard_output_meanwhile_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    other = io.StringIO()
    with on_stderr():
        monkeypatch.setattr(sys, "stdout", other)
    assert sys.stdout is other


def test_without_a_console_it_connects_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under pythonw, or as a service."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with emulated(BARE) as scope:
        assert scope.state().safe
    assert sys.stdout is None
