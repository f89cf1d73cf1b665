"""How warm an emulated gas reads: lukewarm soon, as open clients wait for, and ready no sooner than it is."""

from __future__ import annotations

from typing import Any

import pytest

from instrument.autoscript.gases import HOT_K, STEADY_K, STEADY_S
from instrument.process import HEAT_S
from tests.contract.emulation import client

#: fibsem takes a gas to be warm from here (K), and waits 15 s for it.
WARM_K = 300.0


def needle(scope: Any, kind: str) -> Any:
    return scope.gas.get_gis_port("Pt dep") if kind == "hydra-gis" else scope.gas.get_multichem()


@pytest.mark.parametrize("kind", ["hydra", "hydra-gis"])
def test_a_heater_is_lukewarm_soon_and_steady_when_its_gas_is_ready(kind: str) -> None:
    named = ("Pt",) if kind == "hydra" else ()
    with client(kind) as scope:
        gas, clock = needle(scope, kind), scope.virtual_clock
        cold = gas.get_temperature(*named)
        assert cold < WARM_K
        gas.turn_heater_on(*named)
        start, read = clock.now(), [cold]
        clock.wait(10.0)
        assert WARM_K <= gas.get_temperature(*named) < HOT_K
        while clock.now() - start < 0.9 * HEAT_S:
            clock.wait(STEADY_S)
            read.append(gas.get_temperature(*named))
            assert read[-1] < HOT_K or read[-1] - read[-2] > STEADY_K
        assert not scope._console.state().gases["Pt"].ready
        clock.wait(HEAT_S)
        assert scope._console.state().gases["Pt"].ready
        gas.turn_heater_off()
        assert gas.get_temperature(*named) == cold
