"""`kintsugi autoscript`: what is wrong with its options is told before the script runs; its package is found."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from simulator.autoscript import client_path
from simulator.autoscript.client import VERSION
from simulator.autoscript.profiles import PROFILES

ROOT = Path(__file__).parents[3]


def ran(*words: str, by: str = "simulator.autoscript", **environment: str) -> subprocess.CompletedProcess[str]:
    everything = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment}
    command = [sys.executable, "-m", by, *words]
    return subprocess.run(command, env=everything, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "script.py"
    path.write_text("print('ran')\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("profile", "hidra", "no AutoScript profile 'hidra'; use one of hydra"),
        ("simulator", "simulator:3?coting=4um", "option 'coting'"),
        ("simulator", "simulator:x", "seed 'x'"),
        ("simulator", "simulator:3?preset=from-volume&file=gone.npy&file_voxel=50nm", "gone.npy"),
    ],
)
def test_a_wrong_option_is_told_before_the_script_runs(script: str, option: str, value: str, said: str) -> None:
    variable = f"KINTSUGI_AUTOSCRIPT_{option.upper()}"
    for name, done in (
        (f"--{option} {value}: ", ran(f"--{option}", value, script)),
        (f"{variable}={value}: ", ran(script, **{variable: value})),
    ):
        assert done.returncode == 2
        assert name in done.stderr
        assert said in done.stderr
        assert "VIRTUAL" not in done.stderr
        assert "Traceback" not in done.stderr
        assert not done.stdout


def test_an_option_goes_before_the_environment(script: str) -> None:
    done = ran("--profile", "offline", script, KINTSUGI_AUTOSCRIPT_PROFILE="hidra")
    assert (done.returncode, done.stdout) == (0, "ran\n")


def test_help_names_all_options_and_profiles() -> None:
    for by, words in (("simulator.autoscript", ("--help",)), ("workflows.cli", ("autoscript", "--help"))):
        done = ran(*words, by=by)
        assert done.returncode == 0, done.stderr
        for name in ("--path", "--profile", "--simulator", "--state", "SCRIPT.py", *PROFILES):
            assert name in done.stdout, (by, name)


def test_the_client_is_found_as_an_installed_package() -> None:
    found = list(Distribution.discover(name="autoscript-sdb-microscope-client", path=[str(client_path())]))
    assert [one.version for one in found] == [f"{VERSION}+virtual"]
    assert found[0].metadata["Summary"].startswith("VIRTUAL")
