"""Every pad row is handed out once, whatever is asked for in whatever order."""

import logging
import os
import threading
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_parts import KERNELS, MODEL_ID, make_rows, make_unit
from scripted_peer import honest
from scripted_session import Swarm, WatchedSeeds
from waiting import until

from node.execution.pads.batch import PadBatch, PadTicket
from node.execution.pads.guard import GuardPads
from node.execution.pads.own import OwnPads
from node.execution.pads.pool import BATCH_ROWS, MAX_POOLS, PadPool, PadPools
from node.execution.peer import SessionPeer
from node.model.unit import Unit
from node.planning.cut import DECODE_BATCH_ROWS
from protocol.errors import LocalProtocolError
from protocol.limits import row_bucket
from protocol.linear.field import P
from protocol.linear.shares import PadSeeds, pad_rows

relaxed = settings(deadline=None, max_examples=60)
UNITS = [make_unit(20, 6), make_unit(12, 5, layer=1, kind="qkv")]

takes = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, 1), st.sampled_from([1, 1, 1, 2, 7, 8, 9, 33])),
        st.tuples(st.just("prepare"), st.just(0), st.just(0)),
        st.tuples(st.just("fail"), st.just(0), st.integers(0, 5)),
    ),
    max_size=40,
)


def new_seeds() -> WatchedSeeds:
    return WatchedSeeds(b"M" * 32, MODEL_ID)


class Guard:
    """As much of a session's peer as a pad source looks at."""

    usable = takes_rows = True
    in_flight: ClassVar[dict[int, object]] = {}


def sources(seeds: WatchedSeeds) -> tuple[GuardPads, OwnPads, list[tuple[Unit, PadBatch]]]:
    asked: list[tuple[Unit, PadBatch]] = []

    def send(guard: SessionPeer, unit: Unit, batch: PadBatch) -> bool:
        asked.append((unit, batch))
        return len(asked) % 5 != 0

    return GuardPads(Guard(), seeds, send), OwnPads(KERNELS, seeds), asked  # type: ignore[arg-type]


@given(takes, takes, st.lists(st.integers(0, 1), min_size=80, max_size=80))
@relaxed
def test_every_pad_row_is_handed_out_once(
    guard_steps: list[tuple[str, int, int]], own_steps: list[tuple[str, int, int]], order: list[int]
) -> None:
    seeds = new_seeds()
    guarded, own, asked = sources(seeds)
    steps = {0: iter(guard_steps), 1: iter(own_steps)}
    used: list[bytes] = []
    for turn in order:
        step = next(steps[turn], None)
        if step is None:
            continue
        what, unit_index, amount = step
        source, unit = (guarded, own)[turn], UNITS[unit_index]
        if what == "prepare":
            source.prepare(UNITS)
        elif what == "fail" and asked:
            asked[amount % len(asked)][1].failed = True
        elif what == "take":
            ticket = source.take(unit, amount, row_bucket(amount))
            assert ticket.pads.shape == (row_bucket(amount), unit.ref.num_inputs)
            assert ticket.num_rows == amount
            assert (ticket.pads < P).all()
            used += [unit.ref.sha256 + row.tobytes() for row in ticket.pads]
    assert len(set(used)) == len(used)
    assert len(set(seeds.made)) == len(seeds.made)
    assert len({batch.seed for _unit, batch in asked}) == len(asked)


def test_a_long_decode_uses_each_row_once() -> None:
    guarded, own, _asked = sources(new_seeds())
    for source in (guarded, own):
        pads = [source.take(UNITS[0], 1, row_bucket(1)).pads.tobytes() for _ in range(100)]
        assert len(set(pads)) == len(pads)


@given(st.lists(st.sampled_from([1, 1, 3, 8, 9, 40]), min_size=1, max_size=12), st.integers(0, 50))
@relaxed
def test_own_products_are_those_of_the_pads(counts: list[int], pool: int) -> None:
    _guarded, own, _asked = sources(new_seeds())
    own.fill(UNITS, pool)
    for count in counts:
        for unit in UNITS:
            ticket = own.take(unit, count, row_bucket(count))
            assert not ticket.failed
            ticket.complete()
            products = ticket.products()
            assert products is not None
            assert np.array_equal(products, KERNELS.linear_field(unit.weights, ticket.pads[:count].copy()))


def test_a_pool_is_filled_as_asked_and_then_used() -> None:
    _guarded, own, _asked = sources(new_seeds())
    own.fill(UNITS, 600)
    assert own.rows_made == 600 * len(UNITS)
    own.fill(UNITS, 600)
    assert own.rows_made == 600 * len(UNITS)
    for _ in range(600):
        own.take(UNITS[0], 1, row_bucket(1)).complete()
    assert own.rows_made == 600 * len(UNITS)
    own.take(UNITS[0], 1, row_bucket(1)).complete()
    assert own.rows_made > 600 * len(UNITS)


@given(st.integers(1, 40))
@relaxed
def test_guards_are_asked_for_a_row_before_it_is_needed(num_steps: int) -> None:
    guarded, _own, asked = sources(new_seeds())
    for _ in range(num_steps):
        guarded.prepare(UNITS)
        for unit in UNITS:
            under_way = [batch for _unit, batch in asked]
            ticket = guarded.take(unit, 1, row_bucket(1))
            assert ticket.batch_rows == DECODE_BATCH_ROWS
            assert any(ticket.batches[0][0] is batch for batch in under_way), "asked for only when it was needed"


def test_the_seed_that_a_guard_gets_makes_the_pads() -> None:
    guarded, _own, asked = sources(new_seeds())
    ticket = guarded.take(UNITS[0], 9, row_bucket(9))
    ((unit, batch),) = asked
    assert np.array_equal(ticket.pads, pad_rows(batch.seed, 0, row_bucket(9), unit.ref.num_inputs))
    assert ticket.products() is None
    batch.products = KERNELS.linear_field(unit.weights, batch.pads)
    products = ticket.products()
    assert products is not None
    assert products.shape == (9, unit.ref.num_outputs)


def test_a_failed_batch_gives_no_more_rows() -> None:
    guarded, _own, asked = sources(new_seeds())
    first = guarded.take(UNITS[0], 1, row_bucket(1))
    asked[0][1].failed = True
    assert first.failed
    second = guarded.take(UNITS[0], 1, row_bucket(1))
    assert not second.failed
    assert len(asked) == 2


def test_nothing_secret_is_printed() -> None:
    seeds = new_seeds()
    guarded, own, asked = sources(seeds)
    ticket = guarded.take(UNITS[0], 1, row_bucket(1))
    mine = own.take(UNITS[0], 3, row_bucket(3))
    batch = asked[0][1]
    batch.products = KERNELS.linear_field(UNITS[0].weights, batch.pads)
    for thing in (seeds, batch, ticket, mine, guarded, own):
        text = f"{thing!r} {thing}"
        for secret in (seeds.master, *seeds.made):
            assert secret.hex() not in text
            assert repr(secret) not in text
        for numbers in (ticket.pads, mine.pads, batch.products):
            assert str(int(numbers.flat[0])) not in text
    assert isinstance(ticket, PadTicket)


@pytest.mark.parametrize("mode", ["split", "strict"])
def test_nothing_secret_is_logged_or_kept(mode: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Swarm(UNITS, mode) as swarm:
        swarm.add_lane(*([honest] if mode == "strict" else [honest, honest]))
        swarm.step(9)
        swarm.step(1)
        for record in swarm.records.values():
            assert all(each is None for each in (record.share, record.ticket, record.result))
        text = caplog.text + repr(swarm.records) + repr([peer.session.in_flight for peer in swarm.peers])
        for seed in swarm.seeds.made:
            assert seed.hex() not in text
            assert repr(seed) not in text


def test_a_pool_gives_every_row_once_and_the_products_of_its_pads() -> None:
    pool = PadPool(MODEL_ID, UNITS, limit_bytes=1 << 20)
    assert pool.rows == 0 and pool.take(UNITS[0].ref) is None
    while pool.rows < 5 * BATCH_ROWS:
        assert pool.make(KERNELS)
    own = OwnPads(KERNELS, new_seeds(), pool)
    used: list[bytes] = []
    for _ in range(5 * BATCH_ROWS + 3):
        for unit in UNITS:
            ticket = own.take(unit, 1, row_bucket(1))
            ticket.complete()
            assert np.array_equal(ticket.products(), KERNELS.linear_field(unit.weights, ticket.pads[:1].copy()))
            used.append(unit.ref.sha256 + ticket.pads[0].tobytes())
    assert len(set(used)) == len(used)
    assert pool.rows == 0 and own.rows_made == 32 * len(UNITS), "only what the pool did not have"


def test_a_pool_is_bounded_and_fills_all_units_alike() -> None:
    row_bytes = sum(4 * unit.ref.num_outputs for unit in UNITS)
    pool = PadPool(MODEL_ID, UNITS, limit_bytes=3 * BATCH_ROWS * row_bytes + 1)
    assert sum(iter(lambda: pool.make(KERNELS), False)) == 3 * len(UNITS)
    assert pool.rows == 3 * BATCH_ROWS
    assert pool.take(UNITS[0].ref) is not None and pool.rows == 2 * BATCH_ROWS
    assert pool.make(KERNELS) and not pool.make(KERNELS) and pool.rows == 3 * BATCH_ROWS
    assert not PadPool(MODEL_ID, [], 1 << 20).make(KERNELS)


def test_two_pools_and_two_sessions_never_share_a_pad() -> None:
    pools = [PadPool(MODEL_ID, UNITS, 1 << 16) for _ in range(2)]
    for pool in pools:
        while pool.make(KERNELS):
            pass
    taken = [batch for pool in pools for _ in range(4) if (batch := pool.take(UNITS[0].ref))]
    taken += [batch for batch in [pools[0].take(UNITS[0].ref)] if batch]
    assert len(taken) == 9 and len({batch.seed for batch in taken}) == 9


def test_a_fork_gets_no_pads_of_its_parent() -> None:
    pool, seeds = PadPool(MODEL_ID, UNITS, 1 << 16), new_seeds()
    while pool.make(KERNELS):
        pass
    parent = os.getpid() + 1  # as in a process that another one forked
    pool._process = seeds.process = parent
    assert pool.take(UNITS[0].ref) is None
    with pytest.raises(LocalProtocolError, match="forked"):
        seeds.next(0, "o", "own")


def test_copies_of_one_device_draw_different_pads() -> None:
    """A virtual machine that is copied as it runs goes on twice with the same memory."""
    pools = [PadPool(MODEL_ID, UNITS, 1 << 16), PadPool(MODEL_ID, UNITS, 1 << 16)]
    pools[1]._seeds = PadSeeds(pools[0]._seeds.master, MODEL_ID)
    for pool in pools:
        while pool.make(KERNELS):
            pass
    ready = [pool.take(UNITS[0].ref) for pool in pools]
    assert len({batch.seed for batch in ready if batch is not None}) == 2


@pytest.mark.parametrize("mode", ["split", "strict", "strict, paired"])
@pytest.mark.parametrize("breaks", [0, 1])
def test_pads_made_ahead_end_with_a_connection(mode: str, breaks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most one of two copies of a device goes on with a connection, and the others have the same pads."""
    with Swarm(UNITS, mode.partition(",")[0]) as swarm:
        if mode == "strict, paired":
            swarm.add_maker(honest)
        swarm.add_lane(*[honest] * (2 if mode == "split" else 1))
        if mode == "strict":
            swarm.add_lane(honest)
        swarm.step(1)
        ahead = [
            pad_rows(seed, 0, DECODE_BATCH_ROWS, unit.ref.num_inputs) for seed in swarm.seeds.made for unit in UNITS
        ]
        old = {pad.tobytes() for pads in ahead for pad in pads}
        master = swarm.seeds.master
        swarm.peers[breaks].channel.lose()
        swarm.peers[breaks].channel.restore()
        swarm.manager.attend(1.0)
        assert swarm.seeds.master != master, "the other copy has this one"
        swarm.kernels.pads.clear()
        swarm.step(1, seed=5)
        assert len(swarm.kernels.pads) == len(UNITS) and not old.intersection(swarm.kernels.pads)


def test_a_share_is_not_sent_again_over_a_connection_that_is_newer_than_its_pads() -> None:
    with Swarm(UNITS, "strict") as swarm:
        for _ in range(3):
            swarm.add_lane(honest)
        swarm.manager.begin_step(1, UNITS)
        roster, unit = swarm.manager.roster, UNITS[0]
        (record,) = swarm.manager.plan(unit).records
        assert record.lane is not None
        own = roster.lanes[record.lane]
        assert swarm.manager.move_to(own, record, unit, make_rows(1, unit.ref.num_inputs), None)
        others = [lane for lane in roster.lanes if lane is not own]
        assert roster.for_retry(own, record, False) == others
        roster.lost(others[0].share_peer)
        assert roster.for_retry(own, record, False) == others[1:], "though the connection stands again"
        assert swarm.manager.move_to(own, record, unit, make_rows(1, unit.ref.num_inputs), None)
        assert roster.for_retry(own, record, False) == others, "these pads are new"


def test_pads_that_are_being_made_are_forgotten_too() -> None:
    pool = PadPool(MODEL_ID, UNITS, 1 << 16)

    class Clearing:
        def linear_field(self, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
            pool.clear()
            return KERNELS.linear_field(weights, rows)

    assert pool.make(Clearing())  # type: ignore[arg-type]
    assert all(pool.take(unit.ref) is None for unit in UNITS)


def test_pads_are_made_while_nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.execution.pads.pool.QUIET_S", 0.02)
    pools = PadPools(lambda: KERNELS, lambda: MAX_POOLS << 16)
    busy, looks = threading.Event(), threading.Semaphore(0)
    busy.set()
    pools.is_busy = lambda: looks.release() or busy.is_set()  # type: ignore[func-returns-value]
    pool = pools.keep(MODEL_ID, lambda: UNITS)
    assert pools.keep(MODEL_ID, lambda: UNITS) is pool
    for _ in range(5):
        assert looks.acquire(timeout=20)
    assert pools.rows(MODEL_ID) == 0, "an answer is computed"
    busy.clear()
    until(lambda: pools.rows(MODEL_ID) >= BATCH_ROWS, "no pads were made")
    for number in range(MAX_POOLS):
        pools.keep(bytes([number]) * 32, lambda: UNITS)
    assert pools.rows(MODEL_ID) == 0 and len(pools.ready) == MAX_POOLS, "the oldest pool is gone"
    pools.stop()
    assert pools._thread is not None and not pools._thread.is_alive()


def test_no_pads_are_kept_or_made_by_a_node_without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.execution.pads.pool.QUIET_S", 0.02)
    linked, looks = threading.Event(), threading.Semaphore(0)
    pools = PadPools(lambda: KERNELS, lambda: MAX_POOLS << 16)
    pools.has_peers = lambda: looks.release() or linked.is_set()  # type: ignore[func-returns-value]
    pools.keep(MODEL_ID, lambda: UNITS)
    for _ in range(5):
        assert looks.acquire(timeout=20)
    assert pools.rows(MODEL_ID) == 0
    linked.set()
    until(lambda: pools.rows(MODEL_ID) >= BATCH_ROWS, "no pads were made")
    pools.stop()
    pools.clear()
    assert pools.rows(MODEL_ID) == 0
