"""A data plane whose peer asks alone: C answers it, and everything else goes on as ever."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from live_nodes import WAIT_S, LiveNode, RawClient
from made_parts import KERNELS, MODEL_ID, identity, make_unit, weights_of
from made_shares import FIRST_ID, HAS_NATIVE, frames_of, share_of
from served_units import UNITS as SERVED
from served_units import introduced, is_served
from waiting import until

from node.model.unit import Unit
from node.serving import native_shares as module
from node.serving.lending import LendingRules
from node.serving.native_shares import NativeShares, Visit
from node.serving.worker import LinearWorker
from node.transport.callers import FRAME_OVERHEAD_BYTES
from protocol.linear.field import P
from protocol.linear.messages import Linear, LinearResult
from protocol.message import ErrorCode, ErrorReply, Message

pytestmark = [
    pytest.mark.usefixtures("nothing_is_left_behind", "patient_links"),
    pytest.mark.skipif(not HAS_NATIVE, reason="the extension is not here"),
]
OTHER = make_unit(7, 300)
NEVER_S = 600.0


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> list[Visit]:
    """Every visit of the test."""
    seen = list[Visit]()
    serve = NativeShares.serve

    def spied(shares: NativeShares, *arguments: object) -> Visit:
        visit = serve(shares, *arguments)  # type: ignore[arg-type]
        seen.append(visit)
        return visit

    monkeypatch.setattr(NativeShares, "serve", spied)
    return seen


def exchange(client: RawClient, share: Linear) -> Message:
    client.send(share, share.binding.nonce)
    received = client.receive()
    assert received is not None and received.id == share.binding.nonce
    return received.message


def until_attended(client: RawClient, visits: list[Visit]) -> int:
    """Ask until C answers; how many shares were answered."""
    deadline, number = time.monotonic() + WAIT_S, 0
    while not any(visit.num_answered for visit in visits):
        assert time.monotonic() < deadline, visits
        share = share_of(SERVED[0], number=number)
        assert share.rows is not None
        answer = exchange(client, share)
        assert isinstance(answer, LinearResult)
        assert np.array_equal(answer.rows, KERNELS.linear_field(SERVED[0].weights, share.rows))
        number += 1
    return number


def test_a_peer_that_asks_alone_is_served_in_c_and_accounted_for(visits: list[Visit]) -> None:
    with LiveNode(1, SERVED) as node, introduced(node) as client:
        read_bytes = list[int]()
        node.data._routes._num_read = lambda caller, num_bytes: read_bytes.append(num_bytes)
        count, lending = until_attended(client, visits), node.data._lending
        until(lambda: lending.borrowers()[0].requests >= count, "the last one is counted after its answer has left")
        (borrower,) = lending.borrowers()
        assert (borrower.requests, borrower.rows, node.data._computing._worker.answered) == (count, count, count)
        share, answer = (
            sum(map(len, frames)) for frames in (frames_of(share_of(SERVED[0])), usual_frames(SERVED[0]))
        )
        payload = len(frames_of(share_of(SERVED[0]))[1])
        assert count * (payload + answer) <= borrower.num_bytes + 2 * count <= count * (share + answer) + 4 * count
        assert sum(read_bytes) == count * (share + 2 * FRAME_OVERHEAD_BYTES), "or the connection would be ended"
        is_served(client)  # a seed ends the visit, and goes the usual way


def usual_frames(unit: Unit) -> list[bytes]:
    answer = LinearWorker(KERNELS, weights_of(SERVED)).answer(share_of(unit))
    return frames_of(answer, FIRST_ID)


def refused(client: RawClient, share: Linear) -> ErrorReply:
    answer = exchange(client, share)
    assert isinstance(answer, ErrorReply), answer
    return answer


@pytest.mark.parametrize("what", ["element", "unit", "tiles", "seed"])
def test_what_ends_a_visit_is_answered_the_usual_way(visits: list[Visit], what: str) -> None:
    with LiveNode(1, SERVED) as node, introduced(node) as client:
        until_attended(client, visits)
        share = share_of(SERVED[0], number=1 << 20)
        assert share.rows is not None
        match what:
            case "element":
                share.rows[0, 0] = P
                assert refused(client, share).code == ErrorCode.INVALID
            case "unit":
                assert refused(client, share_of(OTHER, number=1 << 20)).code == ErrorCode.NOT_FOUND
            case "tiles":
                assert refused(client, share_of(SERVED[0], tiles=(7, 9), number=1 << 20)).code == ErrorCode.INVALID
            case "seed":
                is_served(client)
        assert isinstance(exchange(client, share_of(SERVED[0], number=2 << 20)), LinearResult)


def test_others_are_heard_while_one_is_attended_to(visits: list[Visit], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose first message C reads is told apart by what libzmq knows of its sender."""
    monkeypatch.setattr(module, "QUIET_S", NEVER_S)
    monkeypatch.setattr(module, "VISIT_S", NEVER_S)
    with (
        LiveNode(1, SERVED) as node,
        introduced(node) as client,
        introduced(node, 8) as other,
        RawClient(node.data_endpoint, node.peer_id, identity(9)) as stranger,
    ):

        def is_heard_in_a_visit(speak: Callable[[], None]) -> bool:
            """Unless the thread is slower than this one, and has not begun to wait again."""
            conduct, peer_id = node.data._conduct, client.identity.peer_id
            until(lambda: not conduct.is_shared(peer_id, time.monotonic()), "nobody else has asked lately")
            ask_thrice(client)
            before = len(visits)
            speak()
            return any(visit.message is not None for visit in visits[before:])

        def member_speaks() -> None:
            assert isinstance(exchange(other, share_of(SERVED[0], number=9)), LinearResult)

        def stranger_speaks() -> None:
            stranger.send(share_of(SERVED[0], number=9), 9)
            assert stranger.error().code == ErrorCode.NO_SESSION

        for speak in (member_speaks, stranger_speaks):
            assert any(is_heard_in_a_visit(speak) for _ in range(10))
        is_served(client)


def ask_thrice(client: RawClient) -> None:
    """The first is answered the usual way and learnt, the second, too, and attended to, the third in C."""
    for number in range(3):
        assert isinstance(exchange(client, share_of(SERVED[0], number=number)), LinearResult)


def test_a_pause_ends_it(visits: list[Visit]) -> None:
    with LiveNode(1, SERVED) as node, introduced(node) as client:
        until_attended(client, visits)
        node.data._lending.set_rules(LendingRules(paused=True))
        deadline = time.monotonic() + WAIT_S
        number = 1 << 20
        while not isinstance(answer := exchange(client, share_of(SERVED[0], number=number)), ErrorReply):
            number += 1
            assert time.monotonic() < deadline, "a visit has an end"
        assert answer.code == ErrorCode.UNAVAILABLE
        for later in range(number + 1, number + 6):
            assert refused(client, share_of(SERVED[0], number=later)).code == ErrorCode.UNAVAILABLE
        node.data._lending.set_rules(LendingRules())
        is_served(client)


def test_a_node_that_leaves_does_not_wait_for_a_visit(visits: list[Visit], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET_S", NEVER_S)
    monkeypatch.setattr(module, "VISIT_S", NEVER_S)
    with LiveNode(1, SERVED) as node, introduced(node) as client:
        ask_thrice(client)
        assert not visits, "the first has not ended"
    assert [visit.num_answered for visit in visits] == [1]


def test_visits_that_answer_nothing_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that asks less often than a visit waits, say."""
    seen, outcomes = list[int](), [Visit(), Visit(is_news=True)]
    with LiveNode(1, SERVED) as node, introduced(node) as client:
        worker = node.data._computing._worker

        def serve(*_arguments: object) -> Visit:
            seen.append(worker.answered)
            return outcomes[0] if len(outcomes) == 1 else outcomes.pop()

        monkeypatch.setattr(NativeShares, "serve", serve)
        for number in range(40):
            assert isinstance(exchange(client, share_of(SERVED[0], number=number)), LinearResult)
    assert seen == [2, 3, 5, 9, 17, 33], "news are no fault of the peer's"


def test_an_answer_that_c_cannot_send_is_sent_later(monkeypatch: pytest.MonkeyPatch) -> None:
    share = share_of(SERVED[0])
    answer = usual_frames(SERVED[0])
    visit = Visit(MODEL_ID, 1, 1, 100, 100, unsent=answer, last_at=time.monotonic())
    monkeypatch.setattr(NativeShares, "serve", lambda *_arguments: visit)
    with LiveNode(1, SERVED) as node, introduced(node) as client:
        for number in range(2):  # the second is attended to
            assert isinstance(exchange(client, share_of(SERVED[0], number=number)), LinearResult)
        received = client.receive()
        assert received is not None and received.id == share.binding.nonce
        assert isinstance(received.message, LinearResult)
