"""A chunk's life as a table, and the cut of rows over lanes and chunks."""

from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_parts import make_unit

from node.execution import split_prompt_for_remote
from node.execution.chunk import TRANSITIONS, Chunk, ChunkEvent, ChunkRecord, ChunkState
from node.execution.lanes import pair_guards
from node.planning.cut import SMALL_PASS_ROWS, cut_rows
from protocol.limits import MAX_CHUNK_ROWS, ROW_BUCKETS, row_bucket

relaxed = settings(deadline=None)
S, E = ChunkState, ChunkEvent

# What is legal, written down a second time.
LEGAL = {
    (S.PLANNED, E.SEND): S.SENT,
    (S.PLANNED, E.COMPUTE): S.LOCAL,
    (S.SENT, E.RECEIVE): S.RECEIVED,
    (S.SENT, E.LOSE): S.LOST,
    (S.SENT, E.HEDGE): S.HEDGED,
    (S.SENT, E.COMPUTE): S.LOCAL,
    (S.RECEIVED, E.ACCEPT): S.VERIFIED,
    (S.RECEIVED, E.REFUSE): S.REJECTED,
    (S.VERIFIED, E.MERGE): S.MERGED,
    (S.VERIFIED, E.HEDGE): S.HEDGED,
    (S.VERIFIED, E.COMPUTE): S.LOCAL,
    (S.REJECTED, E.SEND): S.SENT,
    (S.REJECTED, E.COMPUTE): S.LOCAL,
    (S.LOST, E.SEND): S.SENT,
    (S.LOST, E.HEDGE): S.HEDGED,
    (S.LOST, E.COMPUTE): S.LOCAL,
    **{(state, E.CANCEL): S.CANCELLED for state in (S.PLANNED, S.SENT, S.VERIFIED, S.REJECTED, S.LOST)},
    (S.HEDGED, E.MERGE): S.MERGED,
    (S.LOCAL, E.MERGE): S.MERGED,
}


@pytest.mark.parametrize(("state", "event"), list(product(ChunkState, ChunkEvent)))
def test_every_state_and_event(state: ChunkState, event: ChunkEvent) -> None:
    record = ChunkRecord(Chunk(make_unit(2, 2).ref, 0, 1, 0, 1), 0, state)
    following = LEGAL.get((state, event))
    assert TRANSITIONS[state].get(event) is following
    if following is None:
        with pytest.raises(AssertionError):
            record.advance(event)
        assert record.state is state
    else:
        record.advance(event)
        assert record.state is following


def test_only_numbers_that_were_checked_or_made_here_are_merged() -> None:
    before = {state for state, events in TRANSITIONS.items() if E.MERGE in events}
    assert before == {S.VERIFIED, S.LOCAL, S.HEDGED}
    assert {(state, event) for state, event in LEGAL if LEGAL[state, event] is S.VERIFIED} == {(S.RECEIVED, E.ACCEPT)}


def test_every_chunk_can_end() -> None:
    for state in ChunkState:
        reached, todo = {state}, [state]
        while todo:
            for following in TRANSITIONS[todo.pop()].values():
                if following not in reached:
                    reached.add(following)
                    todo.append(following)
        assert S.MERGED in reached or state is S.CANCELLED


# --- lanes

speeds = st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e6)), max_size=6)


@given(st.integers(0, 600), speeds)
@relaxed
def test_rows_are_covered_once_and_in_order(num_rows: int, lane_speeds: list[float]) -> None:
    spans = split_prompt_for_remote(num_rows, lane_speeds)
    if num_rows == 0 or not any(lane_speeds):
        assert spans == []
        return
    assert spans[0].start == 0
    assert spans[-1].end == num_rows
    assert all(before.end == after.start for before, after in pairwise(spans))
    assert all(span.start < span.end for span in spans)
    lanes = [span.lane for span in spans]
    assert lanes == sorted(set(lanes))
    assert all(lane_speeds[lane] > 0 for lane in lanes)


@given(st.integers(1, SMALL_PASS_ROWS), st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6))
@relaxed
def test_few_rows_go_to_the_fastest_lane_together(num_rows: int, lane_speeds: list[float]) -> None:
    (span,) = split_prompt_for_remote(num_rows, lane_speeds)
    assert (span.start, span.end) == (0, num_rows)
    assert lane_speeds[span.lane] == max(lane_speeds)


@given(st.integers(SMALL_PASS_ROWS + 1, 512), st.lists(st.floats(0.1, 10), min_size=1, max_size=5))
@relaxed
def test_rows_are_shared_out_by_speed(num_rows: int, lane_speeds: list[float]) -> None:
    counts = dict.fromkeys(range(len(lane_speeds)), 0)
    for span in split_prompt_for_remote(num_rows, lane_speeds):
        counts[span.lane] = span.end - span.start
    for lane, speed in enumerate(lane_speeds):
        assert abs(counts[lane] - num_rows * speed / sum(lane_speeds)) <= 1.001


# --- chunks


@given(st.integers(0, 500), st.integers(1, 1200), st.sampled_from(ROW_BUCKETS))
@relaxed
def test_chunks_cover_their_rows(start: int, count: int, max_rows: int) -> None:
    cuts = cut_rows(start, start + count, max_rows)
    assert cuts[0][0] == start
    assert cuts[-1][1] == start + count
    assert all(before[1] == after[0] for before, after in pairwise(cuts))
    for first, last in cuts:
        bucket = row_bucket(last - first)
        assert bucket <= max_rows <= MAX_CHUNK_ROWS
        assert bucket - (last - first) < bucket / 2


@given(st.integers(1, 512))
@relaxed
def test_whole_prompts_take_few_chunks(count: int) -> None:
    assert len(cut_rows(0, count, MAX_CHUNK_ROWS)) <= 14
    assert len(cut_rows(0, 512, MAX_CHUNK_ROWS)) == 1


@given(st.integers(1, 100), st.sampled_from([2, 5, 7, 33, 511]))
@relaxed
def test_no_chunk_has_more_rows_than_were_allowed(count: int, max_rows: int) -> None:
    assert all(last - first <= max_rows for first, last in cut_rows(0, count, max_rows))


# --- guards


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 8))
@relaxed
def test_nobody_guards_twice_and_nobody_moves_up(there: list[bool], max_lanes: int) -> None:
    """A missing peer's partner stays out: nobody is ever paired with a peer that the user did not name beside it."""
    places = [index if is_there else None for index, is_there in enumerate(there)]
    lanes = pair_guards(places, max_lanes)
    whole = [start for start in range(0, len(there) - 1, 2) if there[start] and there[start + 1]]
    assert lanes == [(start, start + 1) for start in whole][:max_lanes]
