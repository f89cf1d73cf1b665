"""What a voxel of the specimen can be, and the classes that the simulator's truth speaks of."""

from __future__ import annotations

PORE = 0
NMC = 1
CBD = 2
AL = 3
PT = 4  # platinum-carbon that fills a pore
CAP = 5  # protective layer
RESIDUE = 6  # redeposited material
SLIVER = 7  # iron-rich inclusion in the aluminium foil
GRAPHITE = 8  # anode active material, or solid carbon
COPPER = 9  # anode collector
CRACK_RESIDUE = 10  # fluorine-rich residue of binder and salt in hair cracks
VACUUM = 255  # outside the specimen

TRUTH_OUTSIDE = 0
TRUTH_PT_PORE = 1
TRUTH_OPEN_PORE = 2
TRUTH_CBD = 3
TRUTH_ACTIVE = 4
TRUTH_COLLECTOR = 5
TRUTH_FILM = 6
