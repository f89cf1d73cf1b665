"""The emulated client's tree against the trees that were recorded from a real instrument."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.contract.emulation import client

RECORDS = Path(__file__).parents[4] / "shared" / "data" / "autoscript-state"
pytestmark = pytest.mark.skipif(not RECORDS.is_dir(), reason="the recorded state trees are not beside the project")

#: Constants of every instrument of the kind: limits and lists that don't hang on column, source or what is mounted.
CONSTANT = (
    "scanning.dwell_time.limits", "scanning.rotation.limits", "stigmator.limits", "working_distance.limits",
    "lens_alignment.limits", "angular_correction.angle.limits", "specimen_pretilt.limits", "crossover_zoom",
    "stage_bias", "detector.brightness.limits", "detector.contrast.limits", "imaging.lut", "source_tilt.limits",
    "beam_current.limits", "high_voltage.limits", "time_to_heat", "is_controllable", "beam_mode", "compustage",
    "autoloader", "cap_probe", "loadlock", "temperature_stage", "protective_shutter", "real_time_monitor.mode",
    "patterning.mode", "patterning.state", "scanning_filter", "chamber_pressure.limits", "scanning.mode",
    "scanning.spot", "chamber_state", "sputter_coater", "is_multichem_pid_enabled",
)  # fmt: skip


def recorded() -> dict[str, Any]:
    """Every recorded path and one value that was read there; lists for available values."""
    found: dict[str, Any] = {}
    for file in sorted(RECORDS.glob("*.yml")):
        path = None
        for line in file.read_text(encoding="utf-8").splitlines():
            if entry := re.match(r"\s*(scope\.[\w.]+): ?(.*)$", line):
                path = entry[1]
                found.setdefault(path, entry[2] if entry[2] else [])
            elif (item := re.match(r"\s*- (.+)$", line)) and path is not None and isinstance(found[path], list):
                found[path] += [item[1]] if item[1] not in found[path] else []
    return found


def read(scope: Any, path: str) -> Any:
    """Read a recorded path; the recorder's `quadN.active_device` is what view N shows."""
    if quad := re.match(r"scope\.imaging\.quad(\d)\.active_device", path):
        view = scope.imaging.get_active_view()
        scope.imaging.set_active_view(int(quad[1]))
        try:
            return scope.imaging.get_active_device()
        finally:
            scope.imaging.set_active_view(view)
    value = scope
    for name in path.split(".")[1:]:
        value = getattr(value, name)
    return value


def kind(text: Any) -> str:
    if isinstance(text, list) or text == "[]":
        return "list"
    if text in ("true", "false"):
        return "bool"
    if re.fullmatch(r"-?[\d.]+(e[+-]?\d+)?", text):
        return "number"
    return "device" if text.startswith("Device.") else "text"


def kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, int | float) else "list" if isinstance(value, list) else "text"


PATHS = recorded() if RECORDS.is_dir() else {}


def test_there_are_records() -> None:
    assert len(PATHS) > 200


@pytest.mark.parametrize("path", sorted(PATHS))
def test_a_recorded_path_is_there_with_its_type(path: str) -> None:
    with client() as scope:
        value = read(scope, path)
    wanted = kind(PATHS[path])
    assert kind_of(value) == ("number" if wanted == "device" else wanted), f"{path} reads {value!r}"


@pytest.mark.parametrize("path", [one for one in sorted(PATHS) if any(part in one for part in CONSTANT)])
def test_a_constant_has_the_recorded_value(path: str) -> None:
    with client() as scope:
        value = read(scope, path)
    text = PATHS[path]
    if kind(text) == "number":
        assert value == pytest.approx(float(text), rel=1e-9, abs=1e-15)
    elif kind(text) == "bool":
        assert value is (text == "true")
    elif kind(text) == "list":
        assert [str(one) for one in value] == [str(one) for one in text or []]
    else:
        assert value == text
