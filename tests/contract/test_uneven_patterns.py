"""Stairs and bitmaps are milled to their own depth at each place, whichever way they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import simulator
from instrument.microscope import Microscope
from instrument.process import mill_dose
from instrument.settings import Beam, BeamSettings, Bitmap, Pattern, PatternJob, RegularCrossSection, volume
from tests.contract.conftest import served
from tests.contract.emulation import emulated
from tests.contract.stand import SMALL, Stand

#: Where the pattern is aimed at on the top (m), x and z: a beam of this current lands 2 um before it. Its depth.
X, Z, DEPTH, CURRENT_A = (-2e-6, 2e-6), (3.3e-6, 5.3e-6), 1e-6, 0.3e-9
PLACES = 12

Kind = Callable[[str, Path], AbstractContextManager[Microscope]]


def in_process(url: str, state: Path) -> AbstractContextManager[Microscope]:
    return closing(simulator.open(url, state))


@pytest.fixture(params=[in_process, served, emulated], ids=["in_process", "over_the_wire", "over_autoscript"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


def box(stand: Stand) -> dict[str, float]:
    """The pattern's place in the ion beam's field."""
    (u0, v0), (u1, v1) = (stand.view().field((x, 0.0, z)) for x, z in zip(X, Z, strict=True))
    sides = {"width_m": abs(u1 - u0), "height_m": abs(v1 - v0), "depth_m": DEPTH}
    return {"x_m": (u0 + u1) / 2, "y_m": (v0 + v1) / 2, **sides}


def deeper_z_is_down(stand: Stand) -> bool:
    return stand.view().field((0.0, 0.0, Z[1]))[1] > stand.view().field((0.0, 0.0, Z[0]))[1]


def milled(kind: Kind, state: Path, drawn: Callable[[Stand], Pattern]) -> NDArray[np.float64]:
    """Mill a pattern; return how deep its box is afterwards (m), at twelve places each along z and x."""
    with kind(SMALL, state) as microscope:
        stand = Stand(microscope)
        stand.neutral()
        microscope.set_beam(Beam.ION, BeamSettings(current_a=CURRENT_A))
        stand.looked()
        pattern = drawn(stand)
        dose = mill_dose(volume(pattern), "electrode", 30e3)
        job = PatternJob(
            patterns=(pattern,), purpose="mill", area="trench", current_a=CURRENT_A, voltage_v=30e3, dose_c=dose
        )
        assert microscope.pattern(job).fraction == 1.0
    with closing(simulator.open(SMALL, state)) as after, closing(simulator.open(SMALL)) as before:
        depth = after.block.top.height - before.block.top.height
    rows, columns = (np.flatnonzero((depth > 0).any(axis=axis)) for axis in (1, 0))
    found = depth[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return found[np.ix_(*(((np.arange(PLACES) + 0.5) / PLACES * size).astype(int) for size in found.shape))]


@pytest.mark.parametrize("inwards", [True, False])
def test_a_stair_is_deep_at_its_face_and_half_as_deep_in_the_middle(kind: Kind, tmp_path: Path, inwards: bool) -> None:
    def drawn(stand: Stand) -> RegularCrossSection:
        return RegularCrossSection(**box(stand), deep="bottom" if deeper_z_is_down(stand) is inwards else "top")

    along = milled(kind, tmp_path, drawn)[:, 2:-2].mean(axis=1)
    to_the_face = along if inwards else along[::-1]
    assert (np.diff(to_the_face) > 0).all()
    assert to_the_face[-1] == pytest.approx(DEPTH, rel=0.5)
    assert to_the_face[5:7].mean() / to_the_face[-1] == pytest.approx(0.5, abs=0.06)
    assert to_the_face[0] < 0.15 * to_the_face[-1]


def test_a_bitmap_mills_by_its_shares_and_nothing_where_they_are_0(kind: Kind, tmp_path: Path) -> None:
    flips: list[bool] = []

    def drawn(stand: Stand) -> Bitmap:
        flips.append(deeper_z_is_down(stand))
        return Bitmap(**box(stand), shares=((1.0, 0.0, 1.0), (0.0, 0.0, 0.0), (0.5, 0.0, 0.5)))

    found = milled(kind, tmp_path, drawn)
    found = found if flips[0] else found[::-1]
    assert found[1:3, 1:3].mean() == pytest.approx(DEPTH, rel=0.5)
    assert found[-3:-1, 1:3].mean() / found[1:3, 1:3].mean() == pytest.approx(0.5, abs=0.05)
    assert not found[:, 5:7].any()
    assert not found[5:7].any()
