"""Half precision: only where the processor says that it has it, hardly another label, and told in the numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from analysis import network, precision
from analysis.core import SegmentationCore
from tests.analysis.drawn import drawn


@pytest.fixture
def processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What the processor says of itself."""
    told = tmp_path / "cpuinfo"
    monkeypatch.setattr(precision, "_PROCESSOR", told)
    precision.half_precision.cache_clear()
    yield told
    precision.half_precision.cache_clear()


@pytest.mark.parametrize(
    ("flags", "found"),
    [("avx512_bf16", "bfloat16"), ("amx_tile amx_bf16", "bfloat16"), ("avx2 avx512f", "float32"), (None, "float32")],
)
def test_half_precision_is_taken_where_the_processor_has_it(processor: Path, flags: str | None, found: str) -> None:
    if flags is not None:
        processor.write_text(f"model name : any\nflags : fpu {flags} sse\n", "ascii")
    assert precision.precision_on("cpu") == found
    assert precision.precision_on("cuda") == "float32"


def test_precision_is_told_and_changes_hardly_a_label(processor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processor.write_text("flags : amx_bf16\n", "ascii")
    core = SegmentationCore()
    sample = drawn(3)
    half = core.segment(sample.channels, sample.pixel_m)
    assert half.numbers.precision == "bfloat16"
    monkeypatch.setattr(network, "precision_on", lambda device: "float32")
    full = core.segment(sample.channels, sample.pixel_m)
    assert not np.array_equal(half.confidence, full.confidence)
    assert (half.labels == full.labels).mean() > 0.99
    assert abs(half.numbers.novelty - full.numbers.novelty) < 0.05
