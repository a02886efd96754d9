"""Shares answered in C: the same answers as the usual way gives, and everything else is left to it as it came."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from made_parts import KERNELS, MODEL_ID, make_unit, weights_of
from made_shares import FIRST_ID, HAS_NATIVE, UNITS, frames_of, pair_of, share_of
from msgspec.structs import replace

from node.errors import CorruptModelError
from node.kernels.delegating import DelegatingKernels
from node.kernels.portable import PortableKernels
from node.serving import native_shares as module
from node.serving.native_shares import Visit, native_shares
from node.serving.worker import LinearWorker
from protocol.codec import decode_message
from protocol.limits import MAX_DATA_HEADER_BYTES
from protocol.linear.field import Elements, P, Weights
from protocol.linear.messages import ChunkBinding, Linear, LinearResult
from protocol.linear.quick import quick_share
from protocol.linear.verification import result_digest
from protocol.message import Cancel, ErrorReply, Message, Ping

LONG_S = 5.0
"""Longer than any visit here takes."""
WRONGS = ["kind", "element", "id", "nonce", "head", "bytes", "frames", "route", "message"]
needs_native = pytest.mark.skipif(not HAS_NATIVE, reason="the extension is not here")
pytestmark = pytest.mark.usefixtures("nothing_is_left_behind")


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Visits end soon where nothing comes."""
    monkeypatch.setattr(module, "QUIET_S", 0.002)


def usual(share: Linear) -> LinearResult:
    answer = LinearWorker(KERNELS, weights_of(UNITS)).answer(share)
    assert isinstance(answer, LinearResult)
    return answer


def is_answer(frames: Sequence[bytes], share: Linear) -> bool:
    """Whether frames are the usual answer to a share, but for the time that it took."""
    received = decode_message(frames, MAX_DATA_HEADER_BYTES)
    answer, right = received.message, usual(share)
    assert isinstance(answer, LinearResult)
    same = frames_of(replace(right, compute_us=answer.compute_us), share.binding.nonce)
    return list(frames) == same and answer.digest == result_digest(share.binding, right.rows)


@needs_native
@pytest.mark.usefixtures("brief")
def test_it_answers_as_the_usual_way_does(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    shares = [share_of(unit, rows, number=rows) for unit in UNITS for rows in (1, 2, 3, 8)]
    shares += [share_of(UNITS[1], 2, tiles, 40 + tiles[1]) for tiles in ((0, 1), (1, 3), (2, 3))]
    with pair_of(context) as pair:
        pair.learn(*shares)
        for number, share in enumerate([*shares, *reversed(shares)], 1):
            pair.ask(share)
            visit = pair.serve()
            assert share.rows is not None
            assert (visit.num_answered, visit.num_rows, visit.model_id) == (1, len(share.rows), MODEL_ID)
            assert visit.message is None and visit.unsent is None and not visit.is_news
            (answer,) = pair.answers()
            assert is_answer(answer, share)
            assert visit.num_received == sum(map(len, frames_of(share))) and visit.num_sent == sum(map(len, answer))
            assert pair.shares._worker.answered == number


@needs_native
def test_one_visit_answers_share_after_share(
    context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is asked for when the answer before it has come."""
    monkeypatch.setattr(module, "QUIET_S", 0.05)
    monkeypatch.setattr(module, "VISIT_S", LONG_S)
    with pair_of(context) as pair:
        pair.learn(share_of(UNITS[0]))
        numbers, wanted = itertools.count(), threading.Event()

        def ask_on() -> None:
            while not wanted.is_set():
                share = share_of(UNITS[0], number=next(numbers))
                pair.ask(share)
                assert is_answer(pair.peer.recv_multipart(), share)

        with ThreadPoolExecutor(1) as threads:
            asking = threads.submit(ask_on)
            answered = 0
            while answered < 2 and not asking.done():
                answered = pair.serve().num_answered  # fewer where this thread is slower than the one that asks
            wanted.set()
            while not asking.done():
                pair.serve()
            asking.result()


@needs_native
@pytest.mark.usefixtures("brief")
def test_who_does_not_wait_for_answers_is_left_to_the_usual_way(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """What such a peer cancels is not computed: so everything that has come must be read first."""
    with pair_of(context) as pair:
        pair.learn(share_of(UNITS[0]))
        pair.ask(*(share_of(UNITS[0], number=number) for number in range(3)))
        visit = pair.serve()
        assert visit.num_answered == 1 and visit.is_news and len(pair.answers()) == 1


def damaged(draw: st.DataObject) -> tuple[list[bytes], bool]:
    """Frames of a share that may be wrong, and whether they come over the connection that is served."""
    share = share_of(UNITS[0], 2)
    assert share.rows is not None
    frames, is_own = frames_of(share), True
    match draw.draw(st.sampled_from(WRONGS)):
        case "kind":
            other = draw.draw(st.sampled_from([UNITS[3], UNITS[0]]))
            frames = frames_of(share_of(other, draw.draw(st.sampled_from([1, 2, 3]))))
        case "element":
            rows: Elements = share.rows.copy()
            rows.flat[draw.draw(st.integers(0, rows.size - 1))] = draw.draw(st.integers(P, (1 << 32) - 1))
            frames = frames_of(Linear(share.binding, rows=rows))
        case "id":
            frames = frames_of(share, draw.draw(st.sampled_from([0, 1, (1 << 32) - 1, 1 << 32, (1 << 63) - 1])))
        case "nonce":
            nonce = draw.draw(st.sampled_from([0, 1, (1 << 32) - 1, 1 << 32]))
            frames = frames_of(Linear(replace_binding(share, nonce), rows=share.rows), FIRST_ID)
        case "head":  # of the nonce: another kind of value, of as many bytes
            at = frames[0].index((FIRST_ID).to_bytes(8, "big"), 40) - 1
            assert frames[0][at] == 0x1B
            frames[0] = frames[0][:at] + draw.draw(st.sampled_from([b"\x3b", b"\xfb", b"\x1a"])) + frames[0][at + 1 :]
        case "bytes":
            arrays = [bytearray(frame) for frame in frames]
            for _ in range(draw.draw(st.integers(1, 3))):
                array = arrays[draw.draw(st.integers(0, 1))]
                array[draw.draw(st.integers(0, len(array) - 1))] = draw.draw(st.integers(0, 255))
            frames = [bytes(array) for array in arrays]
        case "frames":
            header, payload = frames
            cut = draw.draw(st.integers(0, len(header)))
            forms = [[header], [b""], [header, payload, b""], [header, payload, payload, b"x"], [b"", payload]]
            forms += [[header[:cut], payload], [header + b"\0", payload], [header, payload[:-4]]]
            frames = draw.draw(st.sampled_from([*forms, [header, payload + bytes(4)], [header, b""]]))
        case "route":
            is_own = False
        case "message":
            other_message: Message = draw.draw(st.sampled_from([Ping(), Cancel(FIRST_ID), ErrorReply(100, "x")]))
            frames = frames_of(other_message, FIRST_ID)
    return frames, is_own


def replace_binding(share: Linear, nonce: int) -> ChunkBinding:
    of = share.binding
    bounds = of.row_start, of.row_end, of.tile_start, of.tile_end
    return ChunkBinding(of.session, nonce, of.model_id, of.unit, of.role, *bounds)


@needs_native
@given(st.data())
@settings(deadline=None, max_examples=400)
def test_what_it_was_not_told_of_is_left_as_it_came(
    context: zmq.Context[zmq.Socket[bytes]], draw: st.DataObject
) -> None:
    frames, is_own = damaged(draw)
    with pair_of(context) as pair:
        pair.learn(share_of(UNITS[0], 2), share_of(UNITS[1], 1))
        pair.ask(share_of(UNITS[1], number=3))
        pair.peer.send_multipart(frames)
        route = pair.route if is_own else b"other"
        visit = pair.shares.serve(pair.router, route, ())
        if not is_own:
            assert visit.num_answered == 0 and visit.message is not None
            assert [bytes(frame) for frame in visit.message] == [pair.route, *frames_of(share_of(UNITS[1], number=3))]
            return
        assert visit.num_answered == 1 and visit.is_news, "more has come already"
        (first,) = pair.answers()
        assert is_answer(first, share_of(UNITS[1], number=3))
        visit = pair.serve()
        others = pair.answers()
        if visit.num_answered == 0:
            assert visit.message is not None and not others
            assert [bytes(frame) for frame in visit.message] == [pair.route, *frames], "whole, as it came"
            assert not pair.router.poll(0), "nothing is left on the socket"
        else:
            quick = quick_share(frames, MAX_DATA_HEADER_BYTES)
            assert quick is not None and visit.message is None
            received = decode_message(frames, MAX_DATA_HEADER_BYTES)
            assert isinstance(received.message, Linear)
            answer = decode_message(others[0], MAX_DATA_HEADER_BYTES)
            right = usual(received.message)
            assert answer.id == received.id and isinstance(answer.message, LinearResult)
            assert answer.message.digest == right.digest and np.array_equal(answer.message.rows, right.rows)


@needs_native
def test_it_ends_when_it_is_quiet(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    with pair_of(context) as pair:
        pair.learn(share_of(UNITS[0]))
        started = time.monotonic()
        assert pair.serve().num_answered == 0
        assert module.QUIET_S <= time.monotonic() - started < LONG_S


@needs_native
def test_a_descriptor_ends_a_visit(context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET_S", LONG_S)
    monkeypatch.setattr(module, "VISIT_S", LONG_S)
    bell = os.eventfd(0, os.EFD_CLOEXEC)
    with pair_of(context) as pair:
        pair.learn(share_of(UNITS[0]))
        timer = threading.Timer(0.02, os.eventfd_write, (bell, 1))
        started = time.monotonic()
        timer.start()
        assert pair.serve(bell).num_answered == 0
        timer.join()
        assert time.monotonic() - started < LONG_S
        pair.ask(share_of(UNITS[0]))
        visit = pair.serve(bell)
        assert visit.num_answered == 1 and visit.is_news, "a message that is there comes first, and no other"
    os.close(bell)


@needs_native
def test_however_much_is_asked_a_visit_ends(
    context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VISIT_S", 0.0)
    with pair_of(context) as pair:
        pair.learn(share_of(UNITS[0]))
        pair.ask(*(share_of(UNITS[0], number=number) for number in range(3)))
        assert [pair.serve().num_answered for _ in range(3)] == [1, 1, 1]


@needs_native
@pytest.mark.usefixtures("brief")
def test_an_answer_that_is_not_taken_is_left_whole(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    with pair_of(context, most=1) as pair:
        shares = [share_of(UNITS[0], number=number) for number in range(6)]
        pair.learn(shares[0])
        for number, share in enumerate(shares):  # noqa: B007
            pair.ask(share)
            asked_at = time.monotonic()
            visit = pair.serve()
            assert asked_at <= visit.last_at <= time.monotonic()
            assert visit.num_answered == 1
            if visit.unsent is not None:
                break
        assert visit.unsent is not None
        assert is_answer([bytes(frame) for frame in visit.unsent], share)
        assert visit.num_sent == sum(map(len, visit.unsent)), "it is counted, as where it waits the usual way"
        assert len(pair.answers()) == number, "those before it were sent"


@needs_native
@pytest.mark.usefixtures("brief")
def test_what_is_not_held_any_more_is_not_served(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    with pair_of(context) as pair:
        pair.learn(share_of(UNITS[0]), share_of(UNITS[1]))
        del pair.held[MODEL_ID, UNITS[1].ref.sha256]
        pair.ask(share_of(UNITS[0]))
        assert pair.serve() == Visit(), "nothing was read: the usual way does"
        pair.learn(share_of(UNITS[0]))
        assert pair.serve().num_answered == 1
        pair.held[MODEL_ID, UNITS[0].ref.sha256] = UNITS[0].weights.copy()
        pair.ask(share_of(UNITS[0]))
        assert pair.serve() == Visit(), "these are other weights"


@needs_native
@pytest.mark.usefixtures("brief")
def test_of_a_unit_that_was_loaded_anew_nothing_is_known_any_more(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """What C was told of it points to memory that may be another's by now."""
    with pair_of(context) as pair:
        pair.learn(share_of(UNITS[0], 1))
        pair.held[MODEL_ID, UNITS[0].ref.sha256] = UNITS[0].weights.copy()
        pair.learn(share_of(UNITS[0], 2))
        pair.ask(share_of(UNITS[0], 1))
        visit = pair.serve()
        assert visit.num_answered == 0 and visit.message is not None
        pair.ask(share_of(UNITS[0], 2))
        assert pair.serve().num_answered == 1


@needs_native
def test_between_visits_it_keeps_no_weights_in_memory(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    unit = make_unit(9, 4)
    with pair_of(context) as pair:
        pair.held[MODEL_ID, unit.ref.sha256] = unit.weights.copy()
        pair.learn(share_of(unit))
        (known,) = pair.shares._units.values()
        assert known() is pair.held[MODEL_ID, unit.ref.sha256]
        del pair.held[MODEL_ID, unit.ref.sha256]
        assert known() is None


@needs_native
@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("failure", [CorruptModelError("damaged"), OSError("no descriptor")])
def test_weights_that_cannot_be_read_fail_no_visit(
    context: zmq.Context[zmq.Socket[bytes]], failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another unit than the one that is asked for, say: who asks for it is told so."""
    with pair_of(context) as pair:
        worker = pair.shares._worker
        pair.learn(share_of(UNITS[0]), share_of(UNITS[1]))

        def fails(model_id: bytes, unit: bytes) -> Weights | None:
            if unit == UNITS[1].ref.sha256:
                raise failure
            return pair.held.get((model_id, unit))

        monkeypatch.setattr(worker, "weights_of", fails)
        pair.ask(share_of(UNITS[0]))
        assert pair.serve() == Visit()
        pair.learn(share_of(UNITS[1]), share_of(UNITS[0]))
        assert pair.serve().num_answered == 1


@needs_native
@pytest.mark.usefixtures("brief")
def test_more_kinds_than_there_is_room_for_are_learnt_anew(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    with pair_of(context) as pair:
        for rows in range(1, 401):
            pair.learn(share_of(UNITS[0], rows), share_of(UNITS[2], rows), share_of(UNITS[3], min(rows, 27)))
        assert 0 < len(pair.shares._kinds) <= 1024
        pair.learn(share_of(UNITS[0], 3))
        pair.ask(share_of(UNITS[0], 3))
        assert pair.serve().num_answered == 1


@needs_native
def test_large_answers_go_the_usual_way_which_counts_what_is_unread(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    with pair_of(context) as pair:
        pair.learn(share_of(UNITS[1], 32))  # 140 kB
        assert not pair.shares._kinds and not pair.shares.is_asked


def test_where_the_kernels_have_no_functions_or_others_it_is_not_used() -> None:
    assert native_shares(LinearWorker(PortableKernels(), weights_of([]))) is None
    assert native_shares(LinearWorker(DelegatingKernels(KERNELS), weights_of([]))) is None
    resident = DelegatingKernels(KERNELS)
    resident.functions, resident.keeps_weights = KERNELS.functions, True
    assert native_shares(LinearWorker(resident, weights_of([]))) is None
