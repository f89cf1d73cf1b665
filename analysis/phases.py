"""The phases of an electrode, and the finer classes that the network tells apart.

Users see five phases. The network tells seven classes, as the paper's authors did by hand (Cooper et al. 2022, section
"Segmentation": platinum at the pore's edge and at depth are two classes that merge to pore afterwards), and one more:
the platinum film that still covers the face after a fill.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Phase(IntEnum):
    """What a labelled pixel is, as written into labels/s0001.tif."""

    OUTSIDE = 0
    PORE = 1
    CBD = 2
    ACTIVE = 3
    COLLECTOR = 4


class Fine(IntEnum):
    """What the network tells apart; also the codes of the truth that it is trained on."""

    OUTSIDE = 0  # cap, trench, beyond the block
    PT_PORE = 1  # pore filled with platinum at the face
    OPEN_PORE = 2  # pore not filled at the face: its back wall, or nothing, is seen
    CBD = 3
    ACTIVE = 4
    COLLECTOR = 5
    FILM = 6  # platinum that still covers the face


IGNORE = 255  # in training truth: no class is known here

MERGE: tuple[Phase, ...] = (
    Phase.OUTSIDE,
    Phase.PORE,
    Phase.PORE,
    Phase.CBD,
    Phase.ACTIVE,
    Phase.COLLECTOR,
    Phase.OUTSIDE,
)

MEMBERS: dict[Phase, tuple[Fine, ...]] = {
    phase: tuple(fine for fine, into in zip(Fine, MERGE, strict=True) if into is phase) for phase in Phase
}
"""The fine classes of each phase."""

NAMES: dict[Phase, str] = {
    Phase.OUTSIDE: "outside",
    Phase.PORE: "pore",
    Phase.CBD: "cbd",
    Phase.ACTIVE: "active",
    Phase.COLLECTOR: "collector",
}

COLOURS: dict[Phase, tuple[int, int, int]] = {
    Phase.OUTSIDE: (60, 60, 60),
    Phase.PORE: (255, 200, 40),
    Phase.CBD: (200, 40, 120),
    Phase.ACTIVE: (60, 140, 220),
    Phase.COLLECTOR: (80, 190, 130),
}


def merged_shares(shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities of the phases, (5, ...), of those of the fine classes, (7, ...)."""
    return np.stack([shares[list(MEMBERS[phase])].sum(axis=0) for phase in Phase])


def merged(fine: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the phases of fine classes, uint8 of the same shape; IGNORE stays.

    ValueError names a code that is no class.
    """
    table = np.full(256, IGNORE, np.uint8)
    table[: len(MERGE)] = MERGE
    labels: NDArray[np.uint8] = table[fine]
    unknown = (labels == IGNORE) & (fine != IGNORE)
    if unknown.any():
        msg = f"{int(fine[unknown][0])} is no fine class; they are {[int(c) for c in Fine]}"
        raise ValueError(msg)
    return labels
