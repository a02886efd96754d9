"""A chunk whose weights are not here: through another lane, by borrowed weights, or not at all; the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from made_parts import KERNELS, make_rows, make_unit
from msgspec.structs import replace
from scripted_peer import FAULTS, SCRIPTS
from scripted_session import Swarm

from node.errors import UnitUnavailableError
from node.execution.chunk import ChunkState
from node.execution.config import ExecutionConfig
from node.execution.distributed import execute_distributed
from node.execution.interrupt import PassCancelledError
from node.model.unit import Unit, UnitRef
from protocol.linear.field import Weights

HELD = [make_unit(48, 40), make_unit(24, 64, layer=1)]
THIN = [replace(unit, held=None) for unit in HELD]
SHORT = ExecutionConfig(progress_limit_s=1.0, hedge_floor_s=0.02, hedge_unmeasured_s=0.03)


class Lender:
    """Has the weights after it was asked so many times; None: never."""

    trouble: str | None = None

    def __init__(self, after: int | None = 1) -> None:
        self.asked: list[UnitRef] = []
        self._after = after

    def ask(self, ref: UnitRef) -> None:
        self.asked.append(ref)

    def weights(self, ref: UnitRef) -> Weights | None:
        if self._after is None or self.asked.count(ref) < self._after:
            return None
        return next(unit.weights for unit in HELD if unit.ref == ref)


def swarm_of(*lanes: tuple[str, str], lender: Lender | None = None) -> Swarm:
    swarm = Swarm(HELD, "split", SHORT)
    for lane in lanes:
        swarm.add_lane(*(SCRIPTS[name] for name in lane))
    if lender is not None:
        swarm.manager.lender = lender
    checks = swarm.manager.gate.checks
    checks._kept = {unit.ref: checks.of(unit) for unit in HELD}.get  # as a thin model keeps them
    return swarm


def step(swarm: Swarm, num_rows: int, units: list[Unit] = THIN) -> None:
    """One pass; results compared with those of the weights that it does not have."""
    swarm.manager.hear()
    swarm.manager.begin_step(num_rows, units)
    for unit, whole in zip(units, HELD, strict=True):
        rows = make_rows(num_rows, unit.ref.num_inputs)
        sums = execute_distributed(swarm.manager, unit, rows)
        np.testing.assert_array_equal(sums, KERNELS.linear_a12(whole.weights, rows))


@pytest.mark.parametrize("num_rows", [1, 5, 40])
def test_honest_peers_need_no_weights_here(num_rows: int) -> None:
    with swarm_of(("honest", "honest"), lender=Lender()) as swarm:
        step(swarm, num_rows)
        assert swarm.manager.counts.local == 0
        assert swarm.manager.lender.asked == []  # type: ignore[attr-defined]


LIES = [name for name in SCRIPTS if name.startswith("lie: ")][:3]


@pytest.mark.parametrize("bad", [*FAULTS, *LIES])
@pytest.mark.parametrize("side", [0, 1])
def test_another_lane_does_what_one_could_not(bad: str, side: int) -> None:
    lane = ("honest", bad) if side else (bad, "honest")
    with swarm_of(lane, ("honest", "honest")) as swarm:
        for _ in range(3):
            step(swarm, 1)
        assert swarm.manager.counts.local == 0, "this device could not have"
        pads = [pad for pad in swarm.kernels.pads if any(np.frombuffer(pad, np.uint32))]
        assert len(set(pads)) == len(pads), "a row that was sent again had fresh pads"


@pytest.mark.parametrize("bad", ["silent", "exhausted", "not found", "lost", *LIES])
def test_borrowed_weights_do_what_nobody_could(bad: str) -> None:
    lender = Lender(after=3)
    with swarm_of(("honest", bad), lender=lender) as swarm:
        step(swarm, 4)
        assert swarm.manager.counts.local == swarm.manager.counts.merged > 0
        assert {ref for ref in lender.asked} == {unit.ref for unit in THIN}


def test_without_a_lane_everything_is_borrowed() -> None:
    lender = Lender()
    with swarm_of(lender=lender) as swarm:
        step(swarm, 9)
        assert set(swarm.ended) == {ChunkState.LOCAL}


def test_nobody_and_nothing_ends_honestly() -> None:
    lender = Lender(after=None)
    lender.trouble = "nobody who is there has its weights"
    said: list[str] = []
    with swarm_of(("honest", "silent"), lender=lender) as swarm:
        swarm.manager.on_trouble = said.append
        with pytest.raises(UnitUnavailableError, match=r"layer 0 \(o\).* within 1 s \(nobody who is there"):
            step(swarm, 1)
        assert all(life[-1] is ChunkState.CANCELLED for life in swarm.lives.values()), "nothing is left behind"
    assert said and all("layer 0 (o)" in sentence and "nobody who is there" in sentence for sentence in said)


def test_who_joins_while_a_pass_stands_still_is_used() -> None:
    with swarm_of(lender=Lender(after=None)) as swarm:
        joined = False

        def join() -> None:
            nonlocal joined
            if not joined:
                joined = True
                swarm.add_lane(SCRIPTS["honest"], SCRIPTS["honest"])

        swarm.manager.look_around = join
        step(swarm, 1)
        assert joined and swarm.manager.counts.local == 0


def test_a_cancelled_pass_does_not_wait() -> None:
    with swarm_of(("honest", "silent"), lender=Lender(after=None)) as swarm:
        swarm.manager.look_around = swarm.interrupt.request
        with pytest.raises(PassCancelledError):
            step(swarm, 1)


def test_a_stand_in_gets_rows_only_where_nobody_else_does() -> None:
    with swarm_of(("honest", "honest")) as swarm:
        _pad, share = swarm.add_lane(SCRIPTS["honest"], SCRIPTS["honest"])
        swarm.manager.lanes[1].stands_in = True
        step(swarm, 8)
        assert not share.linears
        swarm.manager.lanes[0].share_peer.leaving = True
        step(swarm, 8)
        assert share.linears and swarm.manager.counts.local == 0
