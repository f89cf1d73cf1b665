"""Backends are found by the scheme of a URL; what isn't there is told with what is."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import instrument
from instrument.errors import Refused

HERE = "tests.instrument.test_connect"


def opened(url: str, state: Path | None) -> tuple[str, Path | None]:
    return url, state


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("fake", f"{HERE}:opened", instrument.GROUP),
        EntryPoint("broken", "a_package_that_is_not_there:open", instrument.GROUP),
    ]
    monkeypatch.setattr(instrument, "entry_points", lambda group: points if group == instrument.GROUP else [])


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("url", ["fake", "fake:3", "fake:3?width=1um", "fake?width=1um", "fake://host:1", "FAKE:3"])
def test_the_scheme_names_the_backend(url: str, tmp_path: Path) -> None:
    assert instrument.connect(url, tmp_path) == (url, tmp_path)  # type: ignore[comparison-overlap]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("url", ["", ":", "nowhere://x", "simulator"])
def test_what_is_not_installed_is_refused_with_what_is(url: str) -> None:
    with pytest.raises(Refused, match="broken, fake") as refused:
        instrument.connect(url)
    assert refused.value.rule == "backend-known"


@pytest.mark.usefixtures("installed")
def test_a_backend_whose_package_is_missing_names_it() -> None:
    with pytest.raises(Refused, match="a_package_that_is_not_there"):
        instrument.connect("broken:1")


def test_the_projects_own_backends_are_installed() -> None:
    with pytest.raises(Refused, match=r"installed are .*pyro.*simulator"):
        instrument.connect("nowhere")


def test_an_instrument_is_imported_without_what_it_does_not_need() -> None:
    """It starts alone on a microscope's computer: no torch, no scipy, nobody else of ours."""
    script = (
        "import sys, instrument, instrument.server, instrument.remote, instrument.guard\n"
        "heavy = {'torch', 'scipy', 'skimage', 'zarr', 'simulator', 'workflows', 'analysis'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stderr
