"""One call for a linear layer: through the lanes where the placement lends its kind, else here."""

from __future__ import annotations

import numpy as np
import pytest
from made_parts import KERNELS, make_rows, make_unit
from scripted_peer import honest
from scripted_session import Swarm

from node.execution.hybrid import HybridExecutor
from node.planning.placement import ALL_HERE, LAYERS_LENT, Placement

UNITS = [make_unit(20, 6, kind="qkv"), make_unit(30, 5, kind="down")]


@pytest.mark.parametrize("placement", [ALL_HERE, LAYERS_LENT, Placement(frozenset({"down"}))])
def test_peers_get_the_units_that_are_lent(placement: Placement) -> None:
    with Swarm(UNITS) as swarm:
        swarm.add_lane(honest, honest)
        executor = HybridExecutor(KERNELS, swarm.manager, placement=placement)
        for num_rows in (1, 3):
            executor.begin_step(num_rows, UNITS)
            for unit in UNITS:
                rows = make_rows(num_rows, unit.ref.num_inputs)
                assert np.array_equal(executor.linear(unit, rows), KERNELS.linear_a12(unit.weights, rows))
        asked = {request.binding.unit for peer in swarm.peers for request in peer.linears}
        lent = [unit for unit in UNITS if placement.is_lent(unit.ref)]
        assert asked == {unit.ref.sha256 for unit in lent}
        counts = executor.counts
        assert (counts.verified, counts.local) == (2 * len(lent), 2 * (2 - len(lent)))
        assert counts.merged == counts.verified + counts.local


def test_a_placement_that_changes_holds_from_the_next_pass_on() -> None:
    """As when peers join in the middle of an answer: whoever looks around before a pass may change it."""
    with Swarm(UNITS) as swarm:
        executor = HybridExecutor(KERNELS, swarm.manager)

        def look_around() -> None:
            swarm.add_lane(honest, honest)
            executor.placement = LAYERS_LENT

        executor.before_step = look_around
        executor.begin_step(1, UNITS)
        executor.before_step = lambda: None
        executor.linear(UNITS[0], make_rows(1, 6))
        assert (executor.counts.verified, executor.counts.local) == (1, 0)


def test_a_placement_names_each_kind_of_unit() -> None:
    assert LAYERS_LENT.as_json() == {"qkv": "lent", "o": "lent", "gate_up": "lent", "down": "lent", "head": "here"}
    assert set(ALL_HERE.as_json().values()) == {"here"}
