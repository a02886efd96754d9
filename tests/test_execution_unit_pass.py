"""What is done next for the chunks of one layer; no socket, no clock."""

from __future__ import annotations

import numpy as np
import pytest
from made_parts import make_unit

from node.execution.chunk import Chunk, ChunkEvent, ChunkRecord
from node.execution.pads.none import ZeroTicket
from node.execution.unit_pass import Compute, Merge, Step, UnitPass, Wait

REF = make_unit(4, 3).ref
LATE_AT = 10.0


def records_of(count: int) -> list[ChunkRecord]:
    return [ChunkRecord(Chunk(REF, index, index + 1, 0, 1, 1), lane=0) for index in range(count)]


def passing(records: list[ChunkRecord]) -> UnitPass:
    """All are late at the same time."""
    return UnitPass(records, lambda record, now: LATE_AT - now)


def sent(record: ChunkRecord) -> None:
    record.ticket = ZeroTicket(np.zeros((1, 3), np.uint32), 1, 4)
    record.advance(ChunkEvent.SEND)


def answered(record: ChunkRecord) -> None:
    record.advance(ChunkEvent.RECEIVE)
    record.advance(ChunkEvent.ACCEPT)


def done(record: ChunkRecord, step: Step | None) -> None:
    """Apply what a merge or a computation does to a record."""
    if isinstance(step, Compute):
        record.advance(ChunkEvent.HEDGE if step.late else ChunkEvent.COMPUTE)
    record.advance(ChunkEvent.MERGE)


def test_the_first_is_waited_for() -> None:
    records = records_of(3)
    steps = passing(records)
    for record in records:
        sent(record)
    assert steps.next(4.0) == Wait(records[0], LATE_AT - 4.0)
    assert steps.next(5.0) == Wait(records[0], LATE_AT - 5.0)


def test_chunks_are_settled_in_their_order_whoever_answers_first() -> None:
    records = records_of(2)
    steps = passing(records)
    for record in records:
        sent(record)
    answered(records[1])
    assert steps.next(1.0) == Wait(records[0], LATE_AT - 1.0)
    answered(records[0])
    for record in records:
        step = steps.next(1.0)
        assert step == Merge(record)
        done(record, step)
    assert steps.next(1.0) is None


def test_a_late_chunk_is_computed_here_only_once_what_has_arrived_was_read() -> None:
    records = records_of(1)
    steps = passing(records)
    sent(records[0])
    assert steps.next(LATE_AT + 1) == Wait(records[0], -1.0)
    step = steps.next(LATE_AT + 1)
    assert step == Compute(records[0], late=True)
    done(records[0], step)
    assert steps.next(LATE_AT + 1) is None


def test_each_late_chunk_gets_a_look_of_its_own() -> None:
    records = records_of(2)
    steps = passing(records)
    for record in records:
        sent(record)
    steps.next(LATE_AT)
    done(records[0], steps.next(LATE_AT))
    assert steps.next(LATE_AT) == Wait(records[1], 0.0)
    assert steps.next(LATE_AT) == Compute(records[1], late=True)


@pytest.mark.parametrize("events", [(), (ChunkEvent.SEND, ChunkEvent.LOSE), (ChunkEvent.SEND, ChunkEvent.RECEIVE)])
def test_what_nobody_answers_is_computed_here_at_once(events: tuple[ChunkEvent, ...]) -> None:
    (record,) = records_of(1)
    steps = passing([record])
    record.ticket = ZeroTicket(np.zeros((1, 3), np.uint32), 1, 4)
    for event in events:
        record.advance(event)
    if ChunkEvent.RECEIVE in events:
        record.advance(ChunkEvent.REFUSE)
    assert steps.next(0.0) == Compute(record, late=False)


def test_a_chunk_whose_pads_will_never_come_is_not_waited_for() -> None:
    (record,) = records_of(1)
    steps = passing([record])
    sent(record)
    assert isinstance(record.ticket, ZeroTicket)
    record.ticket.failed = True
    assert steps.next(0.0) == Compute(record, late=False)
