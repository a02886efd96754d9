"""One answer in one C call: it takes what the gate lets in, and hands on everything else as it came."""

import contextlib
import os
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from made_parts import KERNELS, MODEL_ID, identity, make_unit
from msgspec import Struct
from msgspec.structs import replace
from scripted_peer import ScriptedChannel

from node.execution import merge_results
from node.execution.direct import DirectAnswers, Outcome, direct_answers
from node.execution.peer import Request
from node.kernels.delegating import DelegatingKernels
from node.kernels.portable import PortableKernels
from node.model.unit import Unit
from protocol.codec import decode_message, encode_message
from protocol.envelope import Frame
from protocol.errors import RemoteProtocolError
from protocol.limits import MAX_COMPUTE_US, MAX_DATA_HEADER_BYTES
from protocol.linear.field import Elements, P
from protocol.linear.messages import ChunkBinding, Linear, LinearResult, Role
from protocol.linear.quick import after_micros, before_digest
from protocol.linear.verification import UnitCheck, passes_gate, result_digest

DIRECT = direct_answers(KERNELS)
needs_direct = pytest.mark.skipif(DIRECT is None, reason="the extension or libzmq's functions are not here")
UNITS = [make_unit(20, 6), make_unit(530, 5), make_unit(7, 300)]
MESSAGE_ID = (1 << 62) - 77
WRONGS = ["right", "element", "canonical", "id", "bound", "shape", "form", "bytes", "frames"]
NO_NUMBERS = ["1801", "190018", "1a0000ffff", "1b00000000ffffffff", "20", "1c", "18", "1a00"]
"""In CBOR: not in the shortest form, below zero, reserved, or cut off."""
LONG_S = 5.0
"""Longer than any answer here takes."""


class Asked(Struct):
    """A peer that owes one answer."""

    unit: Unit
    channel: ScriptedChannel
    request: Request
    check: UnitCheck
    products: Elements

    def wait(self, wakes: int = -1, timeout_s: float = LONG_S) -> Outcome:
        assert DIRECT is not None
        way: Any = self.channel
        return DIRECT.wait(way, self.request, self.check, self.products, wakes, timeout_s)

    def right(self, compute_us: int = 1) -> LinearResult:
        rows = KERNELS.linear_field(self.unit.weights, self.request.inputs)
        return LinearResult(result_digest(self.request.binding, rows), compute_us, rows)


def asked(context: zmq.Context[zmq.Socket[bytes]], unit: Unit, num_rows: int, seed: int = 1) -> Asked:
    rng = np.random.default_rng(seed)
    inputs = rng.integers(0, P, (num_rows, unit.ref.num_inputs), dtype=np.uint32)
    products = rng.integers(0, P, (num_rows, unit.ref.num_outputs), dtype=np.uint32)
    tiles = -(-unit.ref.num_outputs // 512)
    channel = ScriptedChannel(context, identity(1).peer_id)
    channel.notice_losses()  # the connecting of its ends is no news
    binding = ChunkBinding(bytes(16), MESSAGE_ID, MODEL_ID, unit.ref.sha256, Role.SHARE, 0, num_rows, 0, tiles)
    owner: Any = None
    request = Request(MESSAGE_ID, binding, unit.ref, inputs, owner, Linear(binding, rows=inputs), 0.0, 1, 1)
    return Asked(unit, channel, request, UnitCheck.of(unit.weights, KERNELS, os.urandom), products)


def is_let_in(asked: Asked, frames: list[bytes]) -> bool:
    """What the gate of the usual way says of an answer."""
    try:
        received = decode_message(frames, MAX_DATA_HEADER_BYTES)
    except RemoteProtocolError:
        return False
    if received.id != asked.request.id or not isinstance(received.message, LinearResult):
        return False
    request = asked.request
    return passes_gate(request.binding, request.inputs, received.message, asked.check, KERNELS, os.urandom)


@needs_direct
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: f"{unit.ref.num_outputs}x{unit.ref.num_inputs}")
@pytest.mark.parametrize("num_rows", [1, 2, 3])
@pytest.mark.parametrize("compute_us", [0, 23, 24, 255, 256, 65535, 65536, (1 << 32) - 1])
def test_a_right_answer_is_merged(
    context: zmq.Context[zmq.Socket[bytes]], unit: Unit, num_rows: int, compute_us: int
) -> None:
    it = asked(context, unit, num_rows)
    result = it.right(compute_us)
    frames = encode_message(result, MESSAGE_ID)
    it.channel.answer_frames(frames)
    outcome = it.wait()
    assert outcome.sums is not None and outcome.frames is None
    assert np.array_equal(outcome.sums, merge_results(result.rows, it.products, KERNELS))
    assert outcome.compute_us == compute_us and outcome.num_bytes == sum(map(len, frames))
    it.channel.close()


def damaged(it: Asked, draw: st.DataObject) -> list[bytes]:
    """Frames of an answer in which something may be wrong."""
    result = it.right(draw.draw(st.sampled_from([1, 77, 300, 1 << 20, 1 << 33, MAX_COMPUTE_US])))
    message_id = MESSAGE_ID
    match draw.draw(st.sampled_from(WRONGS)):
        case "element":
            rows = result.rows.copy()
            rows.flat[draw.draw(st.integers(0, rows.size - 1))] ^= 1
            result = replace(result, rows=rows, digest=result_digest(it.request.binding, rows))
        case "canonical":
            rows = result.rows.copy()
            rows[rows < 2**31 - P % 2**31] += np.uint32(P)
            result = replace(result, rows=rows, digest=result_digest(it.request.binding, rows))
        case "id":
            message_id = draw.draw(st.sampled_from([0, 1, MESSAGE_ID + 1, 1 << 32]))
        case "bound":
            other = replace(it.request.binding, nonce=MESSAGE_ID + 1)
            result = replace(result, digest=result_digest(other, result.rows))
        case "shape":
            result = replace(result, rows=result.rows.reshape(-1, 1))
        case "form":
            before, after = before_digest(message_id), after_micros(*result.rows.shape)
            longer = draw.draw(st.sampled_from(NO_NUMBERS))
            header = before + result.digest + b"\x01" + bytes.fromhex(longer) + after
            return [header, result.rows.tobytes()]
        case "bytes":
            frames = [bytearray(frame) for frame in encode_message(result, message_id)]
            for _ in range(draw.draw(st.integers(1, 2))):
                frame = frames[draw.draw(st.integers(0, 1))]
                frame[draw.draw(st.integers(0, len(frame) - 1))] = draw.draw(st.integers(0, 255))
            return [bytes(frame) for frame in frames]
        case "frames":
            header, rows_frame = (bytes(frame) for frame in encode_message(result, message_id))
            cut = draw.draw(st.integers(0, len(header)))
            forms = [[header], [header, rows_frame, b""], [header, rows_frame, rows_frame, b"x"], [b"", rows_frame]]
            forms += [[header[:cut], rows_frame], [header + b"\0", rows_frame], [header, rows_frame[:-4]]]
            return draw.draw(st.sampled_from([*forms, [header, rows_frame + bytes(4)], [header, b""]]))
    return [bytes(frame) for frame in encode_message(result, message_id)]


@needs_direct
@given(st.data())
@settings(deadline=None, max_examples=400)
def test_it_takes_only_what_the_gate_lets_in_and_hands_on_the_rest(
    context: zmq.Context[zmq.Socket[bytes]], draw: st.DataObject
) -> None:
    it = asked(context, draw.draw(st.sampled_from(UNITS)), draw.draw(st.integers(1, 3)))
    with contextlib.closing(it.channel):
        frames = damaged(it, draw)
        it.channel.answer_frames(frames)
        outcome = it.wait()
        if outcome.sums is None:
            assert [bytes(frame) for frame in outcome.frames or ()] == frames, "whole, as it came"
            is_larger = b"\x01\x1b" in frames[0][-40:]  # microseconds beyond 32 bits are left to the usual way
            assert is_larger or not is_let_in(it, frames)
        else:
            assert is_let_in(it, frames) and outcome.frames is None
            received = decode_message(frames, MAX_DATA_HEADER_BYTES).message
            assert isinstance(received, LinearResult)
            assert np.array_equal(outcome.sums, merge_results(received.rows, it.products, KERNELS))
        assert not it.channel.socket.poll(0), "nothing is left on the socket"


@needs_direct
def test_nothing_comes(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    it = asked(context, UNITS[0], 1)
    started = time.monotonic()
    outcome = it.wait(timeout_s=0.05)
    assert outcome.sums is None and outcome.frames is None
    assert 0.05 <= time.monotonic() - started < LONG_S and outcome.waited_s >= 0.05
    it.channel.close()


@needs_direct
@pytest.mark.parametrize("what", ["the session is interrupted", "the connection changes"])
def test_something_else_ends_the_wait(context: zmq.Context[zmq.Socket[bytes]], what: str) -> None:
    it = asked(context, UNITS[0], 1)
    bell = os.eventfd(0, os.EFD_CLOEXEC)
    ring = it.channel.lose if what == "the connection changes" else lambda: os.eventfd_write(bell, 1)
    timer = threading.Timer(0.05, ring)
    timer.start()
    started = time.monotonic()
    outcome = it.wait(bell)
    assert outcome.sums is None and outcome.frames is None and time.monotonic() - started < LONG_S
    timer.join()
    os.close(bell)
    it.channel.close()


@needs_direct
def test_an_answer_that_comes_later_ends_the_wait(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    it = asked(context, UNITS[1], 1)
    frames: list[Frame] = [bytes(frame) for frame in encode_message(it.right(), MESSAGE_ID)]
    timer = threading.Timer(0.05, it.channel.answer_frames, (frames,))
    timer.start()
    outcome = it.wait()
    timer.join()
    assert outcome.sums is not None and 0.02 < outcome.waited_s < LONG_S
    it.channel.close()


@needs_direct
def test_products_may_lie_anywhere(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    it = asked(context, UNITS[0], 2)
    frame = b"x" + it.products.tobytes()
    odd = np.frombuffer(frame, dtype=np.uint8)[1:].view(np.uint32).reshape(it.products.shape)
    assert not odd.flags.aligned
    with contextlib.closing(it.channel):
        it.channel.answer_frames(encode_message(it.right(), MESSAGE_ID))
        sums = replace(it, products=odd).wait().sums
        assert sums is not None and np.array_equal(sums, merge_results(it.right().rows, it.products, KERNELS))


@needs_direct
def test_a_connection_that_was_made_again_is_waited_on(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    it, other = asked(context, UNITS[0], 1), asked(context, UNITS[0], 1)
    with contextlib.closing(it.channel), contextlib.closing(other.channel):
        it.channel.answer_frames(encode_message(it.right(), MESSAGE_ID))
        assert it.wait().sums is not None
        before, it.channel.near = it.channel.near, other.channel.near
        it.channel.generation += 1
        other.channel.answer_frames(encode_message(it.right(), MESSAGE_ID))
        assert it.wait().sums is not None
        it.channel.near = before


@needs_direct
def test_an_answer_is_checked_against_the_check_of_its_time(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """A check may be renewed; another one is for other weights."""
    it = asked(context, UNITS[0], 1)
    renewed = UnitCheck.of(it.unit.weights, KERNELS, os.urandom)
    wrong = UnitCheck.of(np.ascontiguousarray(it.unit.weights[::-1]), KERNELS, os.urandom)
    with contextlib.closing(it.channel):
        for check, is_right in ((it.check, True), (wrong, False), (renewed, True), (it.check, True)):
            it.channel.answer_frames(encode_message(it.right(), MESSAGE_ID))
            assert (replace(it, check=check).wait().sums is not None) is is_right


@needs_direct
def test_shapes_that_do_not_fit_are_left_to_the_usual_way(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    it = asked(context, UNITS[0], 2)
    with contextlib.closing(it.channel):
        it.channel.answer_frames(encode_message(it.right(), MESSAGE_ID))
        for products in (it.products[:, :-1].copy(), it.products[:1]):
            outcome = replace(it, products=products).wait()
            assert outcome.sums is None and outcome.frames is None
        assert it.wait().sums is not None, "the answer still waits"


@needs_direct
@pytest.mark.parametrize("num_rows", [1, 3])
def test_without_libcrypto_libsodium_hashes(
    context: zmq.Context[zmq.Socket[bytes]], num_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.native.library._libcrypto_sha256", lambda: 0)
    monkeypatch.setattr(sys.modules[__name__], "DIRECT", direct_answers(KERNELS))
    it = asked(context, UNITS[1], num_rows)
    with contextlib.closing(it.channel):
        it.channel.answer_frames(encode_message(it.right(), MESSAGE_ID))
        assert it.wait().sums is not None
        it.channel.answer_frames(encode_message(replace(it.right(), digest=bytes(32)), MESSAGE_ID))
        assert it.wait().sums is None


def test_where_a_function_is_replaced_or_missing_the_usual_way_is_taken() -> None:
    assert direct_answers(PortableKernels()) is None
    assert direct_answers(DelegatingKernels(KERNELS)) is None, "its methods may be a mutant's"


@needs_direct
def test_two_sessions_wait_apart() -> None:
    again = direct_answers(KERNELS)
    assert isinstance(again, DirectAnswers) and again is not DIRECT
