"""A chunk's life as a table, and the cut of rows over lanes and chunks."""

from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_parts import make_unit

from node.execution import split_prompt_for_remote
from node.execution.chunk import TRANSITIONS, Chunk, ChunkEvent, ChunkRecord, ChunkState
from node.execution.lane import pair_guards
from node.planning.cut import DECODE_BATCH_ROWS, cut_rows
from protocol.limits import CHUNK_LIMITS, MAX_CHUNK_ROWS, ROW_BUCKETS, row_bucket

relaxed = settings(deadline=None)
S, E = ChunkState, ChunkEvent

# What is legal, written down a second time.
LEGAL = {
    (S.PLANNED, E.SEND): S.SENT,
    (S.PLANNED, E.COMPUTE): S.LOCAL,
    (S.SENT, E.RECEIVE): S.RECEIVED,
    (S.SENT, E.LOSE): S.LOST,
    (S.VERIFIED, E.LOSE): S.LOST,
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
    record = ChunkRecord(Chunk(make_unit(2, 2).ref, 0, 1, 0, 1, 1), 0, state)
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


@given(st.integers(0, 512), speeds)
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


@given(st.integers(1, DECODE_BATCH_ROWS), st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6))
@relaxed
def test_few_rows_go_to_the_fastest_lane_together(num_rows: int, lane_speeds: list[float]) -> None:
    (span,) = split_prompt_for_remote(num_rows, lane_speeds)
    assert (span.start, span.end) == (0, num_rows)
    assert lane_speeds[span.lane] == max(lane_speeds)


@given(st.integers(DECODE_BATCH_ROWS + 1, 512), st.lists(st.floats(0.1, 10), min_size=1, max_size=5))
@relaxed
def test_rows_are_shared_out_by_speed(num_rows: int, lane_speeds: list[float]) -> None:
    sent = dict.fromkeys(range(len(lane_speeds)), 0)
    bucket = row_bucket(num_rows)
    for span in split_prompt_for_remote(num_rows, lane_speeds):
        sent[span.lane] = span.num_sent
        assert abs((span.end - span.start) - num_rows * span.num_sent / bucket) < 1
    assert sum(sent.values()) == bucket
    for lane, speed in enumerate(lane_speeds):
        assert abs(sent[lane] - bucket * speed / sum(lane_speeds)) <= max(8, bucket / 8) * 1.001


# --- chunks

lanes_of_one_pass = st.lists(st.floats(0.1, 10), min_size=1, max_size=4)


def pattern(num_rows: int, lane_speeds: list[float], max_rows: int) -> tuple[tuple[int, int], ...]:
    """What peers see of a pass of so many rows: the rows of each message, by lane."""
    spans = split_prompt_for_remote(num_rows, lane_speeds)
    return tuple((cut.lane, cut.num_sent) for span in spans for cut in cut_rows(span, max_rows))


@given(st.integers(1, 512), lanes_of_one_pass, st.sampled_from(CHUNK_LIMITS))
@relaxed
def test_chunks_cover_the_rows_and_hold_them(num_rows: int, lane_speeds: list[float], max_rows: int) -> None:
    cuts = [cut for span in split_prompt_for_remote(num_rows, lane_speeds) for cut in cut_rows(span, max_rows)]
    assert cuts[0].start == 0 and cuts[-1].end == num_rows
    assert all(before.end == after.start for before, after in pairwise(cuts))
    for cut in cuts:
        assert cut.num_sent in ROW_BUCKETS and cut.end - cut.start <= cut.num_sent <= max_rows


@pytest.mark.parametrize("lane_speeds", [[1.0], [1.0, 1.0], [1.0, 3.0], [5.0, 2.0, 1.0], [0.3, 0.1, 7.0, 2.0]])
@pytest.mark.parametrize("max_rows", CHUNK_LIMITS)
def test_a_pass_shows_its_bucket_and_no_more(lane_speeds: list[float], max_rows: int) -> None:
    """SPEC.md section 7: as many classes as buckets over 1 to 512 rows."""
    seen = {num_rows: pattern(num_rows, lane_speeds, max_rows) for num_rows in range(1, 513)}
    assert len(set(seen.values())) == len(ROW_BUCKETS) == 8
    assert all(seen[num_rows] == seen[row_bucket(num_rows)] for num_rows in seen)


@pytest.mark.parametrize("num_rows", range(2, 9))
def test_two_to_eight_rows_are_one_chunk(num_rows: int) -> None:
    (span,) = split_prompt_for_remote(num_rows, [1.0, 2.0])
    assert [cut.num_sent for cut in cut_rows(span, MAX_CHUNK_ROWS)] == [8]


@given(lanes_of_one_pass)
@relaxed
def test_whole_prompts_take_few_chunks(lane_speeds: list[float]) -> None:
    for span in split_prompt_for_remote(512, lane_speeds):
        assert len(cut_rows(span, MAX_CHUNK_ROWS)) <= 3


# --- guards


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 8))
@relaxed
def test_nobody_guards_twice_and_nobody_moves_up(there: list[bool], max_lanes: int) -> None:
    """A missing peer's partner stays out: nobody is ever paired with a peer that the user did not name beside it."""
    places = [index if is_there else None for index, is_there in enumerate(there)]
    lanes = pair_guards(places, max_lanes)
    whole = [start for start in range(0, len(there) - 1, 2) if there[start] and there[start + 1]]
    assert lanes == [(start, start + 1) for start in whole][:max_lanes]
