"""Exchanges of few rows: while an answer is waited for, the next request is prepared; the call that merges the answer
sends it. Nothing of an answer changes by that, whatever peers do in between, and no pad is used twice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from made_parts import KERNELS
from msgspec.structs import replace
from scripted_peer import FAULTS, LIES, SCRIPTS, Script, ScriptedPeer, honest, liar
from scripted_session import IMPATIENT, Swarm
from test_model_fused import models

from node.errors import CorruptModelError
from node.execution.chunk import ChunkRecord, ChunkState
from node.execution.config import ExecutionConfig
from node.execution.direct import AheadOutcome, DirectAnswers, direct_answers
from node.execution.hybrid import HybridExecutor
from node.execution.interrupt import PassCancelledError
from node.execution.peer import SessionPeer
from node.kernels.interface import NotFiniteError
from node.model.config import LAYER_KINDS, UnitKind
from node.model.decoder import Decoder, PartError
from node.model.linear import LocalLinear
from node.model.unit import Unit
from node.planning.placement import Placement
from node.store.stored import StoredModel
from protocol.linear.field import P
from protocol.linear.messages import Linear, Role
from protocol.linear.shares import pad_rows
from protocol.message import Cancel

__all__ = ["models"]
pytestmark = pytest.mark.skipif(direct_answers(KERNELS) is None, reason="the extension or libzmq is not here")

IDS = [5, 9, 2, 61, 7, 7]
FFN: Sequence[UnitKind] = ("gate_up", "down")
SURE = ExecutionConfig(hedge_floor_s=10.0, credit_s=10.0)
"""Nobody is late here, however slow the machine."""
MOST_PADS = 32
"""Rows that are drawn from one seed here, at most."""


class Outcomes(list[AheadOutcome | None]):
    """What came of each wait in C in which an answer was merged."""

    @property
    def sent(self) -> int:
        return sum(one is not None and one.is_sent for one in self)


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> Outcomes:
    found, wait = Outcomes(), DirectAnswers.wait

    @functools.wraps(wait)
    def watched(self: DirectAnswers, *args: Any) -> Any:
        outcome = wait(self, *args)
        if outcome.sums is not None:
            found.append(outcome.ahead)
        return outcome

    monkeypatch.setattr(DirectAnswers, "wait", watched)
    return found


@contextmanager
def session(
    model: StoredModel,
    mode: str,
    scripts: Sequence[Script],
    config: ExecutionConfig = SURE,
    kinds: Sequence[UnitKind] = LAYER_KINDS,
) -> Iterator[tuple[Swarm, Decoder]]:
    """A session of one lane for each script, which its share peer plays; its guards are honest."""
    units = [model.unit(layer, kind) for layer in range(model.config.num_layers) for kind in LAYER_KINDS]
    with Swarm(units, mode, config) as swarm:
        for script in scripts:
            swarm.add_lane(*([honest, script] if mode == "split" else [script]))
        executor = HybridExecutor(KERNELS, swarm.manager, swarm.interrupt, Placement(frozenset(kinds)))
        yield swarm, Decoder.of_units(model, KERNELS, executor)


def logits(decoder: Decoder, ids: Sequence[int] = IDS) -> list[bytes]:
    """Of single tokens, one after the other."""
    cache = decoder.new_cache()
    return [decoder.forward([token_id], cache).tobytes() for token_id in ids]


def local(model: StoredModel) -> Decoder:
    return Decoder.of_units(model, KERNELS, LocalLinear(KERNELS))


def uses_of_pads(swarm: Swarm) -> dict[tuple[bytes, int], set[bytes]]:
    """By seed and row: the shares that this pad has hidden, found by what is left when it is taken away."""
    uses: dict[tuple[bytes, int], set[bytes]] = {}
    drawn: dict[tuple[bytes, int], np.ndarray] = {}
    shares = {
        row.tobytes(): row
        for peer in swarm.peers
        for request in peer.linears
        if request.rows is not None
        for row in request.rows
    }
    for share in shares.values():
        found = 0
        for seed in swarm.seeds.made:
            if (pads := drawn.get((seed, len(share)))) is None:
                pads = drawn[seed, len(share)] = pad_rows(seed, 0, MOST_PADS, len(share))
            rows = (pads.astype(np.int64) + share) % P
            rows[rows > P // 2] -= P
            for (row,) in np.argwhere((np.abs(rows) <= 2047).all(axis=1)):
                uses.setdefault((seed, int(row)), set()).add(share.tobytes())
                found += 1
        assert found == 1, "each share is a row minus one pad"
    return uses


def assert_no_pad_twice(swarm: Swarm) -> None:
    uses = uses_of_pads(swarm)
    assert uses and all(len(shares) == 1 for shares in uses.values())


def assert_all_done(swarm: Swarm, computed_here: int = 0) -> None:
    """Every chunk that was touched is merged, and everything adds up.

    Args:
        computed_here: so many units were not lent.
    """
    counts = swarm.manager.counts
    assert all(life[-1] is ChunkState.MERGED for life in swarm.lives.values())
    assert counts.merged == counts.verified + counts.local == len(swarm.lives) + computed_here
    for peer in swarm.peers:
        channel: Any = peer.channel
        assert channel.bytes_up == sum(len(frame) for frames in channel.sent for frame in frames)


@pytest.mark.parametrize("kinds", [LAYER_KINDS, FFN, ("o",), ("qkv", "down")], ids="+".join)
@pytest.mark.parametrize("mode", ["split", "strict"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "olmo2"])
def test_what_follows_an_answer_is_sent_by_the_call_that_merges_it(
    models: dict[str, StoredModel], outcomes: Outcomes, name: str, mode: str, kinds: Sequence[UnitKind]
) -> None:
    model = models[name]
    with session(model, mode, [honest], kinds=kinds) as (swarm, decoder):
        assert logits(decoder) == logits(local(model))
        exchanges = len(kinds) * model.config.num_layers
        usual_way = mode == "split"  # the first exchange waits for pads, too
        assert len(outcomes) == exchanges * len(IDS) - usual_way, "they are settled in C"
        assert outcomes.sent == (exchanges - 1) * len(IDS) - usual_way, "and all but the first of a token sent there"
        assert swarm.manager.counts.sent == swarm.manager.counts.verified == exchanges * len(IDS)
        assert_all_done(swarm, (len(LAYER_KINDS) - len(kinds)) * model.config.num_layers * len(IDS))
        assert_no_pad_twice(swarm)
        usual = [ChunkState.PLANNED, ChunkState.SENT, ChunkState.RECEIVED, ChunkState.VERIFIED, ChunkState.MERGED]
        assert all(life == usual for life in swarm.lives.values())


@pytest.mark.parametrize("mode", ["split", "strict"])
@pytest.mark.parametrize("name", [*FAULTS, *(f"later lie: {lie}" for lie in LIES)])
def test_whatever_a_peer_does_between_two_requests_the_answer_stays(
    models: dict[str, StoredModel], mode: str, name: str
) -> None:
    model = models["llama"]
    with session(model, mode, [SCRIPTS[name]], IMPATIENT) as (swarm, decoder):
        assert logits(decoder) == logits(local(model))
        assert_all_done(swarm)
        assert_no_pad_twice(swarm)


@pytest.mark.parametrize("number", range(2, 10))
@pytest.mark.parametrize("mode", ["split", "strict"])
def test_pads_that_were_taken_before_a_connection_broke_are_never_used(
    models: dict[str, StoredModel], mode: str, number: int
) -> None:
    """A copy of this device, made as it ran, could go on with the connection, and would have the same pads."""

    def breaks_once(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
        if peer.requests == number:
            peer.channel.lose()
            peer.channel.restore()
        else:
            honest(peer, message_id, request)

    model, drawn = models["llama"], list[bytes]()
    with session(model, mode, [breaks_once], IMPATIENT) as (swarm, decoder):
        roster, sharing = swarm.manager.roster, swarm.peers[-1]
        lost = roster.lost

        def notes_seeds(peer: SessionPeer) -> None:
            lost(peer)
            drawn.extend(swarm.seeds.made)

        roster.lost = notes_seeds  # type: ignore[method-assign]
        assert logits(decoder) == logits(local(model))
        later = {row.tobytes() for one in sharing.linears[number:] if one.rows is not None for row in one.rows}
        uses = uses_of_pads(swarm)
        assert drawn and later and all(len(shares) == 1 for shares in uses.values())
        assert not [seed for (seed, _row), shares in uses.items() if shares & later and seed in drawn]


@pytest.mark.parametrize("number", range(1, 9))
def test_what_follows_is_cancelled_with_its_pass(
    models: dict[str, StoredModel], outcomes: Outcomes, number: int
) -> None:
    model = models["llama"]

    def interrupts(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
        honest(peer, message_id, request)
        if peer.requests == number:
            swarm.interrupt.request()

    with session(model, "strict", [interrupts]) as (swarm, decoder):
        cache = decoder.new_cache()
        with pytest.raises(PassCancelledError):
            decoder.forward([IDS[0]], cache)
        (peer,) = swarm.peers
        ends = [life[-1] for life in swarm.lives.values()]
        assert set(ends) <= {ChunkState.MERGED, ChunkState.CANCELLED} and ends.count(ChunkState.CANCELLED) <= 2
        cancelled = {one.message.request_id for one in peer.heard if isinstance(one.message, Cancel)}
        assert cancelled == {one.id for one in peer.session.in_flight.values()}, "what is owed is not wanted any more"
        swarm.interrupt.clear()
        assert decoder.forward([IDS[0]], cache).tobytes() == logits(local(model), IDS[:1])[0]
        assert_no_pad_twice(swarm)


class Changed:
    """A model some of whose units are others."""

    def __init__(self, model: StoredModel, change: Callable[[Unit], Unit]) -> None:
        self._model, self._change = model, change

    def unit(self, layer: int, kind: Any) -> Unit:
        return self._change(self._model.unit(layer, kind))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def without_numbers(unit: Unit) -> Unit:
    """The same; `o` of the first layer makes numbers that are none."""
    return replace(unit, scales=np.full_like(unit.scales, np.nan)) if unit.ref.name == "0.o" else unit


def test_a_row_that_is_not_finite_ends_the_pass_as_ever(models: dict[str, StoredModel]) -> None:
    """It turns up between two requests."""
    model: Any = Changed(models["llama"], without_numbers)
    with session(model, "strict", [honest]) as (swarm, decoder):
        with pytest.raises(PartError) as caught:
            decoder.forward([1], decoder.new_cache())
        assert isinstance(caught.value.__cause__, NotFiniteError) and caught.value.__cause__.row == 0
        (peer,) = swarm.peers
        assert len(peer.linears) == 2 and not peer.session.in_flight, "nothing was sent that is not finite"
        assert [life[-1] for life in swarm.lives.values()][-1] is ChunkState.CANCELLED, "but it was prepared"
        assert_no_pad_twice(swarm)


@pytest.mark.parametrize("number", [2, 3, 7])
def test_a_request_that_libzmq_does_not_take_is_computed_here(
    models: dict[str, StoredModel], outcomes: Outcomes, number: int
) -> None:
    model = models["llama"]

    def hangs_up(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
        honest(peer, message_id, request)
        if peer.requests == number:
            peer.channel.stop_taking()

    with session(model, "strict", [hangs_up]) as (swarm, decoder):
        assert logits(decoder) == logits(local(model))
        assert len(outcomes) == number and outcomes.sent == number - 1
        assert outcomes[-1] is not None and outcomes[-1].is_shared and not outcomes[-1].is_sent
        assert swarm.manager.counts.verified == number
        assert_all_done(swarm)
        assert_no_pad_twice(swarm)


@pytest.mark.parametrize("number", [2, 3, 7])
def test_where_the_weights_are_not_here_another_lane_gets_it_with_fresh_pads(
    models: dict[str, StoredModel], outcomes: Outcomes, number: int
) -> None:
    model = models["llama"]

    def hangs_up(peer: ScriptedPeer, message_id: int, request: Linear) -> None:
        honest(peer, message_id, request)
        if peer is first and peer.requests == number:
            peer.channel.stop_taking()

    with session(model, "split", [hangs_up, honest]) as (swarm, decoder):
        thin: Any = Changed(model, lambda unit: unit if unit.ref.layer is None else replace(unit, held=None))
        _guard, first, _other_guard, second = swarm.peers
        second.session.leaving = True  # rows of this pass rely on the first
        checks = swarm.manager.gate.checks
        checks._kept = {unit.ref: checks.of(unit) for unit in swarm.units}.get
        executor = HybridExecutor(KERNELS, swarm.manager, swarm.interrupt, Placement(frozenset(LAYER_KINDS)))
        swarm.manager.look_around = lambda: setattr(second.session, "leaving", False)
        decoder = Decoder.of_units(thin, KERNELS, executor)
        assert logits(decoder) == logits(local(model))
        assert len(first.linears) == number and second.linears
        assert any(one is not None and one.is_shared and not one.is_sent for one in outcomes)
        assert swarm.manager.counts.local == 0
        assert_no_pad_twice(swarm)


def test_the_next_unit_may_be_one_of_another_peer(models: dict[str, StoredModel], outcomes: Outcomes) -> None:
    model = models["llama"]
    with session(model, "strict", []) as (swarm, decoder):
        for kinds in (("qkv", "gate_up"), ("o", "down")):
            peer = swarm.add_peer(Role.SHARE, honest)
            covered = frozenset(unit.ref.sha256 for unit in swarm.units if unit.ref.kind in kinds)
            swarm.manager.add_lane(peer.session, swarm.own_pads, covered)
        assert logits(decoder) == logits(local(model))
        exchanges = len(LAYER_KINDS) * model.config.num_layers
        assert len(outcomes) == exchanges * len(IDS) and outcomes.sent == (exchanges - 1) * len(IDS)
        assert [len(peer.linears) for peer in swarm.peers] == [exchanges * len(IDS) // 2] * 2
        assert_all_done(swarm)
        assert_no_pad_twice(swarm)


@pytest.mark.parametrize("honest_before", [0, 3])
def test_weights_here_that_turn_out_to_be_damaged_are_said_to_be(
    models: dict[str, StoredModel], honest_before: int
) -> None:
    def damaged(unit: Unit) -> None:
        raise CorruptModelError(f"{unit.ref.name} is damaged")

    with session(models["llama"], "strict", [liar(LIES["one more"], honest_before)]) as (swarm, decoder):
        swarm.manager.gate.recheck = damaged
        with pytest.raises(CorruptModelError, match="is damaged"):
            logits(decoder)


def test_what_was_prepared_with_pads_that_were_refused_is_not_sent(models: dict[str, StoredModel]) -> None:
    with session(models["llama"], "split", [honest]) as (swarm, _decoder):
        manager, unit = swarm.manager, swarm.units[0]
        manager.begin_step(1, swarm.units)
        (record,) = manager.plan(unit).records
        prepared = manager.exchanges.prepare(record, unit)
        assert prepared is not None and manager.exchanges.is_good(prepared)
        prepared.ticket.batches[0][0].failed = True
        assert not manager.exchanges.is_good(prepared)


def test_a_peer_is_not_charged_for_the_layers_of_this_device(
    models: dict[str, StoredModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long they take, its answer was there before."""
    model, long_s = models["llama"], 1000.0
    wait, heard = DirectAnswers.wait, list[tuple[float, float]]()

    def slow_layers(self: DirectAnswers, *args: Any) -> Any:
        outcome = wait(self, *args)
        return outcome if outcome.ahead is None else replace(outcome, ahead=replace(outcome.ahead, layers_s=long_s))

    monkeypatch.setattr(DirectAnswers, "wait", slow_layers)
    with session(model, "strict", [honest]) as (swarm, decoder):
        (peer,) = swarm.peers
        cache, started = decoder.new_cache(), swarm.manager.now()

        def notes(record: ChunkRecord) -> None:
            if record.state is ChunkState.SENT:
                heard.append((record.sent_at, peer.session.heard_at))

        swarm.manager._on_change = notes
        decoder.forward([IDS[0]], cache)
        ended = swarm.manager.now()
        assert len(heard) == len(LAYER_KINDS) * model.config.num_layers
        for sent_at, heard_at in heard[1:]:
            assert started <= heard_at <= ended and sent_at - heard_at >= long_s
