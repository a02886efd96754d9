"""Messages that wait unopened: in order for each peer, in turn between peers, within bounds."""

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from made_parts import identity

from node.serving import inbox
from node.serving.inbox import Inbox, Unopened

PEERS = [identity(index).peer_id for index in range(4)]


def message(peer: int, number: int, route: bytes = b"r", size: int = 10) -> Unopened:
    frames = [zmq.Frame(number.to_bytes(4, "big")), zmq.Frame(bytes(size))]
    return Unopened(PEERS[peer], None, route, frames, 4 + size)


def number_of(unopened: Unopened | None) -> int | None:
    return None if unopened is None else int.from_bytes(bytes(unopened.frames[0].buffer), "big")


def next_of(box: Inbox) -> Unopened | None:
    """The next message of the connection that has waited longest."""
    path = next(box.paths, None)
    return None if path is None else box.take(path)


def test_connections_are_opened_in_turn_and_each_in_its_order() -> None:
    box = Inbox()
    for number in (1, 2, 3):
        assert box.push(message(0, number))
    assert box.push(message(1, 10))
    assert len(box) == 4
    assert [number_of(next_of(box)) for _ in range(5)] == [1, 10, 2, 3, None]
    assert len(box) == 0


def test_one_connection_that_cannot_be_answered_holds_up_no_other_of_its_peer() -> None:
    box = Inbox()
    for number, route in enumerate((b"a", b"a", b"b")):
        box.push(message(0, number, route))
    box.push(message(1, 3))
    assert list(box.paths) == [(PEERS[0], b"a"), (PEERS[0], b"b"), (PEERS[1], b"r")]
    assert number_of(box.take((PEERS[0], b"b"))) == 2
    assert box.count_of(PEERS[0]) == 2 and PEERS[1] in box and PEERS[2] not in box


def test_a_connection_leaves_room_for_others_of_its_peer_and_a_peer_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inbox, "MAX_BYTES_A_ROUTE", 100)
    monkeypatch.setattr(inbox, "MAX_BYTES_A_PEER", 150)
    monkeypatch.setattr(inbox, "MAX_BYTES", 200)
    box = Inbox()
    assert box.push(message(0, 1, b"a", 90))
    assert not box.push(message(0, 2, b"a", 90))
    assert box.push(message(0, 3, b"b", 40))
    assert not box.push(message(0, 4, b"c", 40))
    assert box.push(message(1, 5, size=40))
    assert not box.push(message(2, 6, size=40))
    box.forget(PEERS[0])
    assert box.push(message(2, 7, size=40))
    assert len(box) == 2


def test_what_is_cancelled_while_it_waits_is_known_when_it_is_opened() -> None:
    box = Inbox()
    box.cancel(PEERS[0], 1)
    assert not box.was_cancelled(PEERS[0], 1), "nothing of that peer waits"
    box.push(message(0, 1))
    box.push(message(0, 2))
    box.cancel(PEERS[0], 2)
    for number, cancelled in ((1, False), (2, True)):
        assert number_of(next_of(box)) == number
        assert box.was_cancelled(PEERS[0], number) is cancelled
        box.settle(PEERS[0])
    assert not box._cancelled
    box.push(message(0, 3))
    for number in range(2 * inbox.MAX_CANCELLED):
        box.cancel(PEERS[0], number)
    assert len(box._cancelled[PEERS[0]]) == inbox.MAX_CANCELLED
    box.forget(PEERS[0])
    assert not box._cancelled


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([b"a", b"b"]), st.integers(0, 40)), max_size=60))
def test_whatever_came_and_went_the_bounds_are_those_of_an_empty_box(steps: list[tuple[int, bytes, int]]) -> None:
    box, held = Inbox(), 0
    for number, (peer, route, size) in enumerate(steps):
        if size % 4 == 3:
            held -= next_of(box) is not None
        elif size % 11 == 10:
            held -= box.count_of(PEERS[peer])
            box.forget(PEERS[peer])
        else:
            held += box.push(message(peer, number, route, size))
        assert len(box) == held
    while next_of(box) is not None:
        pass
    assert len(box) == 0 and box._num_bytes == 0
    assert not box._bytes_of and not box._count_of and not box._waiting
