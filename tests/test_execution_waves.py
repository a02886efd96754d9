"""Prompts in waves, through scripted peers: exact, bounded in what they show, and fair to a peer with a queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_parts import KERNELS, make_rows, make_unit
from msgspec.structs import replace
from scripted_peer import FAULTS, SCRIPTS
from scripted_session import IMPATIENT, PATIENT, Swarm
from test_model_checkpoints import write_checkpoint

from node.execution.distributed import LayerUnderWay
from node.execution.hybrid import HybridExecutor
from node.execution.interrupt import PassCancelledError
from node.execution.patience import LocalSpeed, Patience
from node.measures.peers import Exchange
from node.measures.series import MIN_SAMPLES
from node.model.config import LAYER_KINDS
from node.model.decoder import Decoder
from node.model.linear import LocalLinear
from node.model.waves import MOST_WAVES
from node.planning.cut import LEAST_WAVE_ROWS, cut_rows, cut_waves, split_wave
from node.planning.placement import ALL_LENT, LAYERS_LENT
from node.store.library import Library
from protocol.limits import CHUNK_LIMITS, ROW_BUCKETS, row_bucket
from protocol.linear.messages import Linear, LinearResult

UNITS = [make_unit(48, 40), make_unit(24, 64, layer=1)]
LONG = 2 * LEAST_WAVE_ROWS


def lanes(mode: str, count: int = 1, script: str = "honest") -> Swarm:
    swarm = Swarm(UNITS, mode, IMPATIENT if script in FAULTS else PATIENT)
    for _ in range(count):
        swarm.add_lane(*[SCRIPTS[script]] * (2 if mode == "split" else 1))
    return swarm


def step(swarm: Swarm, num_rows: int) -> int:
    """One pass, wave behind wave as the decoder sends them; the number of waves."""
    executor = HybridExecutor(KERNELS, swarm.manager, swarm.interrupt, ALL_LENT)
    waves = executor.begin_step(num_rows, UNITS, MOST_WAVES)
    for unit in UNITS:
        rows = make_rows(num_rows, unit.ref.num_inputs)
        under_way = [executor.begin(unit, rows[wave.start : wave.stop], index) for index, wave in enumerate(waves)]
        sums = np.concatenate([each.settle() for each in under_way])
        np.testing.assert_array_equal(sums, KERNELS.linear_a12(unit.weights, rows))
    return len(waves)


@given(st.integers(1, 512), st.integers(1, 8))
def test_waves_cover_a_pass_and_depend_on_its_bucket_alone(num_rows: int, most: int) -> None:
    waves = cut_waves(num_rows, most)
    assert waves[0].start == 0 and waves[-1].end == num_rows
    assert all(before.end == after.start for before, after in pairwise(waves))
    assert [wave.num_sent for wave in waves] == [wave.num_sent for wave in cut_waves(row_bucket(num_rows), most)]
    assert sum(wave.num_sent for wave in waves) == row_bucket(num_rows) and len(waves) <= most
    assert all(wave.num_rows <= wave.num_sent for wave in waves)
    assert len(waves) == 1 or all(wave.num_rows and wave.num_sent >= LEAST_WAVE_ROWS for wave in waves)


@pytest.mark.parametrize("lane_speeds", [[1.0], [1.0, 3.0], [5.0, 2.0, 1.0]])
@pytest.mark.parametrize("max_rows", CHUNK_LIMITS)
def test_a_pass_in_waves_shows_its_bucket_and_no_more(lane_speeds: Sequence[float], max_rows: int) -> None:
    def pattern(num_rows: int) -> tuple[Any, ...]:
        waves = cut_waves(num_rows, MOST_WAVES)
        spans = [(index, span) for index, wave in enumerate(waves) for span in split_wave(wave, lane_speeds)]
        return tuple((index, cut.lane, cut.num_sent) for index, span in spans for cut in cut_rows(span, max_rows))

    seen = {num_rows: pattern(num_rows) for num_rows in range(1, 513)}
    assert len(set(seen.values())) == len(ROW_BUCKETS)
    assert all(seen[num_rows] == seen[row_bucket(num_rows)] for num_rows in seen)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("mode", ["split", "strict"])
def test_waves_are_exact_and_all_computed_by_peers(mode: str, count: int) -> None:
    with lanes(mode, count) as swarm:
        assert step(swarm, LONG) == 2
        assert step(swarm, LONG + 1) == MOST_WAVES
        assert step(swarm, LONG // 2) == 1
        assert swarm.manager.counts.local == 0
        assert len(set(swarm.kernels.pads)) == len(swarm.kernels.pads), "every pad is used once"


@pytest.mark.parametrize("name", sorted(FAULTS))
@pytest.mark.parametrize("mode", ["split", "strict"])
def test_waves_are_exact_whatever_a_peer_does(mode: str, name: str) -> None:
    with lanes(mode, 1, name) as swarm:
        step(swarm, LONG)
        step(swarm, LONG)
        counts = swarm.manager.counts
        assert counts.merged == counts.verified + counts.local


def test_a_row_of_any_wave_stays_in_its_lane() -> None:
    with lanes("split", 2) as swarm:
        step(swarm, 512)
        for record in swarm.records.values():
            assert record.peer_id in {lane.share_peer.peer_id for lane in swarm.manager.lanes}
        by_rows: dict[tuple[int, int], set[Any]] = {}
        for record in swarm.records.values():
            by_rows.setdefault((record.chunk.row_start, record.chunk.row_end), set()).add(record.peer_id)
        assert len(by_rows) >= 2 * MOST_WAVES and all(len(peers) == 1 for peers in by_rows.values())


def test_what_is_under_way_is_cancelled_with_its_pass() -> None:
    with lanes("strict", 1, "silent") as swarm:
        executor = HybridExecutor(KERNELS, swarm.manager, swarm.interrupt, ALL_LENT)
        waves = executor.begin_step(LONG, UNITS, MOST_WAVES)
        rows = make_rows(LONG, UNITS[0].ref.num_inputs)
        first = executor.begin(UNITS[0], rows[: waves[0].stop], 0)
        swarm.interrupt.request()
        with pytest.raises(PassCancelledError):
            executor.begin(UNITS[0], rows[waves[1].start :], 1)
        with pytest.raises(PassCancelledError):
            first.settle()
        assert all(request.abandoned for peer in swarm.peers for request in peer.session.in_flight.values())
        assert len(swarm.records) == 1


def test_a_share_is_on_its_way_before_the_products_of_its_pads_are_made() -> None:
    with lanes("strict", 2) as swarm:
        sent_before: list[int] = []

        class Watching:
            def linear_field(self, weights: np.ndarray, pads: np.ndarray) -> np.ndarray:
                sent_before.append(sum(isinstance(one.message, Linear) for peer in swarm.peers for one in peer.heard))
                return KERNELS.linear_field(weights, pads)

        swarm.own_pads._kernels = Watching()  # type: ignore[assignment]
        rows = make_rows(LONG // 2, UNITS[0].ref.num_inputs)
        swarm.manager.begin_step(len(rows), UNITS)
        sums = LayerUnderWay(swarm.manager, UNITS[0], rows).settle()
        np.testing.assert_array_equal(sums, KERNELS.linear_a12(UNITS[0].weights, rows))
        assert sent_before and min(sent_before) == 2, "both lanes have their shares"


@pytest.mark.parametrize("is_measured", [False, True])
def test_a_peer_has_time_for_what_it_was_asked_before(is_measured: bool) -> None:
    with lanes("split", 1, "silent") as swarm:
        manager, (lane,), ref = swarm.manager, swarm.manager.lanes, UNITS[0].ref
        patience = manager.patience = Patience(PATIENT, b"model", LocalSpeed(3e5))
        waves, rows = manager.begin_step(512, UNITS, MOST_WAVES), make_rows(512, ref.num_inputs)
        for peer in swarm.peers * (MIN_SAMPLES if is_measured else 0):  # with one request at a time
            peer.session.measures.answered(b"model", Exchange(128, 1000, 1000, 0.1, 0.1))
        allowed_s = patience.allowed_s(lane.share_peer, ref, 128)
        assert allowed_s > PATIENT.hedge_unmeasured_s
        for place, wave in enumerate(waves):
            under_way = LayerUnderWay(manager, UNITS[0], rows[wave.start : wave.end], wave=place)
            (record,) = under_way._chunks.records
            if is_measured and not place:
                continue
            turn_s = place * allowed_s  # by then it should have answered what it was asked before
            assert patience.left_s(record, lane, record.sent_at + 0.99 * turn_s) == pytest.approx(
                min(turn_s * 0.01 + allowed_s, allowed_s + PATIENT.credit_s), rel=0.02
            )
            assert patience.left_s(record, lane, record.sent_at + turn_s + 1.01 * allowed_s) < 0


@pytest.mark.parametrize("mode", ["split", "strict", "trusted"])
def test_a_long_pass_gives_the_same_bits_in_every_mode(mode: str, tmp_path: Path) -> None:
    model = Library(tmp_path / "models").resolve(
        write_checkpoint(tmp_path / "long", {"max_position_embeddings": 512})
    )
    units = [model.unit(layer, kind) for layer in range(model.config.num_layers) for kind in LAYER_KINDS]
    alone = Decoder.of_units(model, KERNELS, LocalLinear(KERNELS))
    ids = [5 + number % 60 for number in range(LONG + 1)]
    with Swarm(units, mode) as swarm:
        swarm.add_lane(*[SCRIPTS["honest"]] * (2 if mode == "split" else 1))
        executor = HybridExecutor(KERNELS, swarm.manager, swarm.interrupt, LAYERS_LENT)
        decoder = Decoder.of_units(model, KERNELS, executor)
        for count in (LONG // 2 + 1, LONG + 1):
            expected = alone.forward(ids[:count], alone.new_cache(), all_logits=True)
            assert decoder.forward(ids[:count], decoder.new_cache(), True).tobytes() == expected.tobytes()
        assert swarm.manager.counts.local == 0


def test_only_answers_that_were_read_as_they_came_tell_how_long_the_way_is() -> None:
    with lanes("strict") as swarm:
        (peer,) = swarm.peers
        session, seen = peer.session, list[Exchange]()
        swarm.manager.begin_step(LONG, UNITS, MOST_WAVES)
        rows = make_rows(LONG, UNITS[0].ref.num_inputs)
        for index in range(2):
            LayerUnderWay(swarm.manager, UNITS[0], rows[:LEAST_WAVE_ROWS], wave=index)
        session.measures = type("Noting", (), {"answered": lambda self, model_id, one: seen.append(one)})()
        first, second = session.in_flight.values()
        result = LinearResult(bytes(32), 1000, np.zeros((LEAST_WAVE_ROWS, 48), np.uint32))
        del session.in_flight[first.id]
        session.answered(first, result.compute_us, first.sent_at + 3.0, was_waited_for=True)
        del session.in_flight[second.id]
        session.answered(second, result.compute_us, first.sent_at + 5.0, was_waited_for=True)
        assert [one.is_exact for one in seen] == [True, True]
        assert seen[0].ahead_s == 0.0 and seen[1].latency_s - seen[1].ahead_s == pytest.approx(2.0)
        session.in_flight[second.id] = second
        session.answered(first, result.compute_us, first.sent_at + 7.0, was_waited_for=False)
        session.in_flight.clear()
        session.answered(second, result.compute_us, first.sent_at + 8.0, was_waited_for=True)
        assert [one.is_exact for one in seen[2:]] == [False, False], "nor what came after one that was not"


def test_of_many_answers_of_few_rows_a_part_is_measured_of_every_unit_of_a_layer_alike() -> None:
    def is_measured(number: int, num_rows: int = 1) -> bool:
        return session.is_measured(SimpleNamespace(id=number, binding=SimpleNamespace(num_rows=num_rows)))  # type: ignore[arg-type]

    with lanes("strict") as swarm:
        session = swarm.peers[0].session
        assert all(map(is_measured, range(400))), "the first ones, all"
        session.chunks = 1000
        assert Counter(number % len(LAYER_KINDS) for number in range(400) if is_measured(number)) == dict.fromkeys(
            range(len(LAYER_KINDS)), 20
        )
        assert all(is_measured(number, 8) for number in range(400))


def test_what_is_not_a_sample_is_measured_on_neither_way() -> None:
    with lanes("strict") as swarm:
        (peer,) = swarm.peers
        session, seen = peer.session, list[Exchange]()
        swarm.manager.begin_step(1, UNITS[:1])
        session.chunks = 1000
        LayerUnderWay(swarm.manager, UNITS[0], make_rows(1, UNITS[0].ref.num_inputs))
        session.measures = type("Noting", (), {"answered": lambda self, model_id, one: seen.append(one)})()
        (request,) = session.in_flight.values()
        for number in range(10):
            session.answered(replace(request, id=number), 1000, request.sent_at + 3.0)
        session.in_flight.clear()
        assert len(seen) == 2
