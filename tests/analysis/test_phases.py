"""Fine classes and the phases they merge to."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.phases import COLOURS, IGNORE, MERGE, NAMES, Fine, Phase, merged


def test_every_fine_class_merges_as_the_run_folder_says() -> None:
    assert [int(phase) for phase in MERGE] == [0, 1, 1, 2, 3, 4, 0]
    assert merged(np.arange(7, dtype=np.uint8)).tolist() == [0, 1, 1, 2, 3, 4, 0]


def test_what_is_not_known_stays_unknown() -> None:
    assert merged(np.array([[IGNORE, Fine.CBD]], np.uint8)).tolist() == [[IGNORE, Phase.CBD]]


def test_a_code_that_is_no_class_is_named() -> None:
    with pytest.raises(ValueError, match="9 is no fine class"):
        merged(np.array([[1, 9]], np.uint8))


def test_every_phase_has_a_name_and_a_colour_of_its_own() -> None:
    assert set(NAMES) == set(COLOURS) == set(Phase)
    assert len(set(COLOURS.values())) == len(set(NAMES.values())) == len(Phase)
