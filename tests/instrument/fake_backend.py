"""The fake microscope as an installed backend, `fake:`, for servers in processes of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from instrument.settings import State
from tests.instrument.fake_microscope import FakeMicroscope

ROOT = Path(__file__).parents[2]


class MarkedFake(FakeMicroscope):
    """Leaves a file `safe-PID` in its folder when a process makes it safe."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def make_safe(self) -> State:
        (self._folder / f"safe-{os.getpid()}").touch()
        return super().make_safe()


def open_fake(url: str, state: Path | None = None) -> MarkedFake:
    """Open the fake; with `fake:held` its patterns never end by themselves."""
    assert state is not None
    fake = MarkedFake(state)
    if url == "fake:held":
        fake.gate.clear()
    return fake


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes started from now on find the backend `fake`."""
    info = folder / "kintsugi_fake-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kintsugi-fake\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[kintsugi.instruments]\nfake = tests.instrument.fake_backend:open_fake\n")
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")
